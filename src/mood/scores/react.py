"""Rectified activations.

Sun, Guo, Li: ReAct: Out-of-distribution Detection With Rectified Activations, NeurIPS 2021.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from mood.core.features import Features, Head
from mood.scores._head import quantile, shaped_energy, wide
from mood.scores._registry import fitted, share_of
from mood.scores._round import Round
from mood.scores._rows import of_width
from mood.scores._sampling import Bank, bank_round


@dataclass(frozen=True, slots=True, eq=False)
class ReAct:
    """−logsumexp(W·min(h, c) + b); of either sign.

    Attributes:
        clip: () float64, c.
        weight: (K, D) float64, W.
        bias: (K,) float64, b.
    """

    clip: Tensor
    weight: Tensor
    bias: Tensor

    def __call__(self, features: Features) -> Tensor:
        """(N,) float64, higher = more OOD.

        Raises:
            InputError: embeddings of another width than in the fit.
        """
        return shaped_energy(features, self.weight, self.bias, lambda rows: rows.clamp(max=self.clip))


@fitted("react", ReAct, needs=("embedding", "head"), source="Sun et al., NeurIPS 2021 (ReAct)")
def react(
    head: Head, *, percentile: float = 0.9, bank: int = 50_000, seed: int = 0
) -> tuple[Round[Any, Any, Any], ...]:
    """Energy of the head on an embedding that is cut off at one value, the same for all dimensions.

    For 1000 classes × 1M images of 768 float32 values: the bank, 154 MB, three times that while it fills; the head, 6
    MB, afterwards.

    Args:
        head: the linear head of the network, (K, D).
        percentile: the cut c is this quantile of all ID activations, in (0, 1): 0.9 in the paper, 0.99 in the code of
            ViM.
        bank: it is taken over at most this many ID rows, those with the smallest hash of (seed, id).
        seed: of that hash.

    Raises:
        InputError: an option out of range, no rows, or a head of another width.
    """
    share, (weight, bias) = share_of("percentile", percentile), wide(head)

    def build(kept: Bank) -> ReAct:
        (rows,) = kept.columns
        return ReAct(torch.tensor(quantile(rows, share), dtype=torch.float64), weight, bias)

    def columns(features: Features) -> tuple[Tensor, ...]:
        return (of_width(features.embedding, weight.shape[1], "embedding"),)

    return (bank_round(build, size=bank, seed=seed, columns=columns),)
