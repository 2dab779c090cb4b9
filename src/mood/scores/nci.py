"""Neural collapse: Liu, Qin: Detecting Out-of-Distribution through the Lens of Neural Collapse, CVPR 2025."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from mood.core.errors import InputError
from mood.core.features import Features, Head
from mood.scores._head import wide
from mood.scores._registry import fitted
from mood.scores._round import Round
from mood.scores._rows import of_width, row_by_row
from mood.scores._sums import mean_round


@dataclass(frozen=True, slots=True, eq=False)
class NCI:
    """−(w_ŷ·(h − μ) / ‖h − μ‖₂ + a·‖h‖₁); of either sign.

    Attributes:
        mean: (D,) float64, μ.
        weight: (K, D) float64.
        norm_weight: a.
    """

    mean: Tensor
    weight: Tensor
    norm_weight: float

    def __call__(self, features: Features) -> Tensor:
        """(N,) float64, higher = more OOD.

        Raises:
            InputError: no logits, or embeddings or logits of another width than in the fit.
        """
        embedding = of_width(features.embedding, len(self.mean), "embedding")
        logits = of_width(features.need("logits"), len(self.weight), "logits")
        return row_by_row(self._proximity, embedding, logits)

    def _proximity(self, rows: Tensor, logits: Tensor) -> Tensor:
        centred = rows - self.mean
        along = (centred * self.weight[logits.argmax(1)]).sum(1)
        lengths: Tensor = torch.linalg.vector_norm(centred, dim=1).clamp_min(1e-12)
        size: Tensor = torch.linalg.vector_norm(rows, 1, dim=1)
        return -(along / lengths + self.norm_weight * size)


@fitted("nci", NCI, needs=("embedding", "logits", "head"), source="Liu & Qin, CVPR 2025 (NCI)")
def nci(head: Head, *, norm_weight: float = 1e-4) -> tuple[Round[Any, Any, Any], ...]:
    """Minus the projection of the class weight on the centred embedding's direction, minus a share of the L1 norm.

    Distances from the mean count from 1e-12 on. For 1000 classes × 1M images: one sum, and the head, 6 MB at 768
    values.

    Args:
        head: the linear head of the network, (K, D).
        norm_weight: a ≥ 0 of the L1 norm.

    Raises:
        InputError: a negative norm_weight, no rows, or a head of another width.
    """
    if not 0 <= norm_weight < float("inf"):
        raise InputError(f"norm_weight is {norm_weight!r}; a number from 0 on was expected")
    weight, _ = wide(head)
    return (mean_round(lambda mean: NCI(mean, weight, norm_weight), width=weight.shape[1], classes=len(weight)),)
