"""Activation shaping at scoring time, on the pooled embedding.

Djurisic, Bozanic, Ashok, Liu: Extremely Simple Activation Shaping for Out-of-Distribution Detection, ICLR 2023,
algorithms 1 to 3. The paper shapes maps of activations after a ReLU. Here it is the embedding that the head sees, whose
values have both signs in a transformer: the sum before may be negative, and the scores are poor there.
"""

from dataclasses import dataclass
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from mood.core.features import Features, Head
from mood.scores._head import head_round, shaped_energy, wide
from mood.scores._registry import fitted, share_of
from mood.scores._round import Round

Variant = Literal["s", "b", "p", "scale"]
LARGEST_EXPONENT = 600.0
"""exp of it is 4e260: logits stay finite in float64."""


@dataclass(frozen=True, slots=True, eq=False)
class Shaped:
    """−logsumexp(W·shaped(h) + b); of either sign.

    s₁ is the sum of h, s₂ that of its k = D − round(D · percentile), at least 1, largest entries.

    Attributes:
        weight: (K, D) float64, W.
        bias: (K,) float64, b.
        variant: "p": the k largest, the others 0. "s": those times exp(s₁/s₂). "b": s₁/k in place of each of them.
            "scale": all of h times exp(s₁/s₂).
        keep: k.
    """

    weight: Tensor
    bias: Tensor
    variant: str
    keep: int

    def __call__(self, features: Features) -> Tensor:
        """(N,) float64, higher = more OOD.

        Raises:
            InputError: embeddings of another width than the head's.
        """
        return shaped_energy(features, self.weight, self.bias, self._shaped)

    def _shaped(self, rows: Tensor) -> Tensor:
        largest = rows.topk(self.keep, dim=1)
        total = rows.sum(1, keepdim=True)
        if self.variant == "b":
            kept = (total / self.keep).expand(-1, self.keep)
            return torch.zeros_like(rows).scatter(1, largest.indices, kept)
        pruned = torch.zeros_like(rows).scatter(1, largest.indices, largest.values)
        if self.variant == "p":
            return pruned
        ratio = total / largest.values.sum(1, keepdim=True)
        # 0/0 is a row of zeros, which no factor changes.
        factor = ratio.nan_to_num(0.0).clamp(max=LARGEST_EXPONENT).exp()
        return (rows if self.variant == "scale" else pruned) * factor


def shaping(head: Head, variant: Variant, percentile: float) -> tuple[Round[Any, Any, Any], ...]:
    """The one round of a score that shapes the embedding."""
    assert variant in get_args(Variant)
    weight, bias = wide(head)
    width = weight.shape[1]
    keep = max(1, width - round(width * share_of("percentile", percentile)))
    return (head_round(lambda: Shaped(weight, bias, variant, keep), width=width),)


@fitted("ash_s", Shaped, needs=("embedding", "head"), source="Djurisic et al., ICLR 2023 (ASH), algorithm 3")
def ash_s(head: Head, *, percentile: float = 0.9) -> tuple[Round[Any, Any, Any], ...]:
    """Energy of the head on the largest activations, times the exponential of the sum before over the sum after.

    Exponents count up to 600. Learns nothing from ID images.

    For 1000 classes × 1M images of 768 values: the head, 6 MB; the fit images are counted alone.

    Args:
        head: the linear head of the network, (K, D).
        percentile: share of the activations that become 0, in (0, 1): 0.9 is the paper's choice for ImageNet, 0.95 for
            CIFAR.

    Raises:
        InputError: percentile out of range, no rows, or a head of another width.
    """
    return shaping(head, "s", percentile)


@fitted("ash_b", Shaped, needs=("embedding", "head"), source="Djurisic et al., ICLR 2023 (ASH), algorithm 2")
def ash_b(head: Head, *, percentile: float = 0.65) -> tuple[Round[Any, Any, Any], ...]:
    """Energy of the head on equal activations in the places of the largest ones, with the sum of all.

    Learns nothing from ID images.

    For 1000 classes × 1M images of 768 values: the head, 6 MB; the fit images are counted alone.

    Args:
        head: the linear head of the network, (K, D).
        percentile: share of the activations that become 0, in (0, 1): 0.65 is the paper's choice for ImageNet.

    Raises:
        InputError: percentile out of range, no rows, or a head of another width.
    """
    return shaping(head, "b", percentile)


@fitted("ash_p", Shaped, needs=("embedding", "head"), source="Djurisic et al., ICLR 2023 (ASH), algorithm 1")
def ash_p(head: Head, *, percentile: float = 0.6) -> tuple[Round[Any, Any, Any], ...]:
    """Energy of the head on the largest activations as they are, the others 0.

    Learns nothing from ID images.

    For 1000 classes × 1M images of 768 values: the head, 6 MB; the fit images are counted alone.

    Args:
        head: the linear head of the network, (K, D).
        percentile: share of the activations that become 0, in (0, 1).

    Raises:
        InputError: percentile out of range, no rows, or a head of another width.
    """
    return shaping(head, "p", percentile)
