"""Distance to the decision boundaries: Liu, Qin: Fast Decision Boundary based Out-of-Distribution Detector, ICML 2024.

The official code adds the distances up where the paper takes their mean: a factor K − 1 and no other order.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from mood.core.errors import InputError
from mood.core.features import Features, Head
from mood.scores._head import wide
from mood.scores._one_class import check_several
from mood.scores._registry import fitted
from mood.scores._round import Round
from mood.scores._rows import of_width, row_by_row
from mood.scores._sums import mean_round


@dataclass(frozen=True, slots=True, eq=False)
class FDBD:
    """−mean over c ≠ ŷ of |z_ŷ − z_c| / ‖w_ŷ − w_c‖₂, divided by ‖h − μ‖₂; ≤ 0.

    Attributes:
        mean: (D,) float64, μ.
        inverse: (K, K) float64, 1 / ‖w_i − w_j‖₂, 0 on the diagonal.
    """

    mean: Tensor
    inverse: Tensor

    def __call__(self, features: Features) -> Tensor:
        """(N,) float64, higher = more OOD.

        Raises:
            InputError: no logits, or embeddings or logits of another width than in the fit.
        """
        embedding = of_width(features.embedding, len(self.mean), "embedding")
        logits = of_width(features.need("logits"), len(self.inverse), "logits")
        return row_by_row(self._margin, embedding, logits)

    def _margin(self, rows: Tensor, logits: Tensor) -> Tensor:
        largest, said = logits.max(1, keepdim=True)
        margins = ((largest - logits) * self.inverse[said[:, 0]]).sum(1) / (len(self.inverse) - 1)
        # An image on the mean itself is as far from every boundary as can be.
        lengths: Tensor = torch.linalg.vector_norm(rows - self.mean, dim=1).clamp_min(1e-12)
        return -margins / lengths


@fitted("fdbd", FDBD, needs=("embedding", "logits", "head"), source="Liu & Qin, ICML 2024 (fDBD)")
def fdbd(head: Head) -> tuple[Round[Any, Any, Any], ...]:
    """Minus the mean distance of the embedding from the decision boundaries, over its distance from the mean embedding.

    Distances from the mean count from 1e-12 on. For 1000 classes × 1M images: one K × K matrix, 8 MB, and one sum.

    Args:
        head: the linear head of the network, (K, D).

    Raises:
        InputError: fewer than two classes, two classes with the same weights, no rows, or a head of another width.
    """
    weight, _ = wide(head)
    check_several(len(weight))
    # Not by inner products: what is left of two similar classes would be rounding.
    distances = torch.cdist(weight, weight, compute_mode="donot_use_mm_for_euclid_dist").fill_diagonal_(torch.inf)
    if not (distances > 0).all():
        one, other = (distances == 0).nonzero()[0].tolist()
        raise InputError(f"classes {one} and {other} of the head have the same weights, and so no decision boundary")
    return (mean_round(lambda mean: FDBD(mean, 1 / distances), width=weight.shape[1], classes=len(weight)),)
