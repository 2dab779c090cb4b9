"""Sparsified head: Sun, Li: DICE: Leveraging Sparsification for Out-of-Distribution Detection, ECCV 2022."""

from dataclasses import dataclass
from typing import Any

from torch import Tensor

from mood.core.features import Features, Head
from mood.scores._head import quantile, shaped_energy, wide
from mood.scores._registry import fitted, share_of
from mood.scores._round import Round
from mood.scores._sums import mean_round


@dataclass(frozen=True, slots=True, eq=False)
class DICE:
    """−logsumexp((M ⊙ W)·h + b); of either sign.

    Attributes:
        weight: (K, D) float64, M ⊙ W: the entries with a small contribution are 0.
        bias: (K,) float64, b.
    """

    weight: Tensor
    bias: Tensor

    def __call__(self, features: Features) -> Tensor:
        """(N,) float64, higher = more OOD.

        Raises:
            InputError: embeddings of another width than in the fit.
        """
        return shaped_energy(features, self.weight, self.bias)


@fitted("dice", DICE, needs=("embedding", "head"), source="Sun & Li, ECCV 2022 (DICE)")
def dice(head: Head, *, sparsity: float = 0.9) -> tuple[Round[Any, Any, Any], ...]:
    """Energy of a head that keeps only the weights that contribute most to the logits of ID images.

    The contribution of a weight is itself times the mean ID activation, with its sign, ranked over the whole matrix.
    For 1000 classes × 1M images: one sum while fitting, and the head, 6 MB at 768 values.

    Args:
        head: the linear head of the network, (K, D).
        sparsity: share of the weights that become 0, in (0, 1): 0.9 is the paper's choice for CIFAR, 0.7 for ImageNet.

    Raises:
        InputError: sparsity out of range, no rows, or a head of another width.
    """
    share, (weight, bias) = share_of("sparsity", sparsity), wide(head)

    def build(mean: Tensor) -> DICE:
        contribution = mean * weight  # (K, D)
        return DICE(weight * (contribution > quantile(contribution, share)), bias)

    return (mean_round(build, width=weight.shape[1]),)
