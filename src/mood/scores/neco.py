"""Neural collapse in the principal space of ID images.

Ammar, Belkhir, Popescu, Manzanera, Franchi: NECO: NEural Collapse Based Out-of-distribution Detection, ICLR 2024.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from mood.core.features import Features
from mood.scores import _gaussian
from mood.scores._gaussian import Gaussian
from mood.scores._registry import between, fitted, share_of
from mood.scores._round import Round
from mood.scores._rows import of_width, row_by_row


@dataclass(frozen=True, slots=True, eq=False)
class NECO:
    """−‖P s‖₂ / ‖s‖₂ · max z with s = (h − mean) / deviation; of either sign.

    Attributes:
        mean: (D,) float64.
        deviation: (D,) float64, ÷ N; 1 where a dimension is constant.
        principal: (D, q) float64, orthonormal: the leading eigenvectors of the covariance of s.
        times_logit: the ratio is multiplied by max z.
    """

    mean: Tensor
    deviation: Tensor
    principal: Tensor
    times_logit: bool

    def __call__(self, features: Features) -> Tensor:
        """(N,) float64, higher = more OOD.

        Raises:
            InputError: no logits, or embeddings of another width than in the fit.
        """
        embedding = of_width(features.embedding, len(self.mean), "embedding")
        return row_by_row(self._collapse, embedding, features.need("logits"), width=len(self.mean))

    def _collapse(self, rows: Tensor, logits: Tensor) -> Tensor:
        standard = (rows - self.mean) / self.deviation
        inside = torch.linalg.vector_norm(standard @ self.principal, dim=1)
        ratio: Tensor = inside / torch.linalg.vector_norm(standard, dim=1).clamp_min(1e-12)
        return -ratio * logits.amax(1) if self.times_logit else -ratio


@fitted("neco", NECO, needs=("embedding", "logits"), source="Ammar et al., ICLR 2024 (NECO)")
def neco(
    *, dim: int | None = None, variance: float = 0.9, times_logit: bool = True
) -> tuple[Round[Any, Any, Any], ...]:
    """Minus the share of the standardised embedding's length inside the principal space, times the largest logit.

    For 1000 classes × 1M images: one D × D matrix, 5 MB at 768 values.

    Args:
        dim: of the principal space, 1 ≤ dim ≤ D; None: the fewest that hold `variance`. The authors tune it.
        variance: share of the variance of the standardised fit rows that the space holds, in (0, 1).
        times_logit: the ratio times the largest logit, as for the paper's transformers; it leaves it out for ResNets.

    Raises:
        InputError: an option out of range, no logits, or rows that are all the same.
    """
    share = share_of("variance", variance)
    if dim is not None:
        # How wide the rows are is not known yet.
        between("dim", dim, 1, 2**31)

    def build(gaussian: Gaussian) -> NECO:
        moments = gaussian.moments
        moments.check_spread()
        covariance = moments.scatter / moments.total
        spread = covariance.diagonal().clamp_min(0).sqrt()
        # Of a constant column there is only rounding left.
        deviation = torch.where(spread > 1e-12 * spread.max(), spread, torch.ones_like(spread))
        values, vectors = torch.linalg.eigh(covariance / deviation / deviation[:, None])
        width = len(values) if dim is None else between("dim", dim, 1, len(values))
        if dim is None:
            held = values.flip(0).clamp_min(0).cumsum(0)
            width = int((held < share * held[-1]).sum()) + 1
        return NECO(moments.means[0].clone(), deviation, vectors[:, -width:].contiguous(), times_logit)

    first, *rest = _gaussian.rounds(build, classes=False, normalise=False, shrinkage="none")

    def collect(features: Features, before: Any) -> Any:
        features.need("logits")
        return first.collect(features, before)

    return (Round(collect, first.merge, first.finish), *rest)
