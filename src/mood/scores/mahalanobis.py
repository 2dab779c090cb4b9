"""Mahalanobis distance to the nearest class.

Lee, Lee, Lee, Shin: A Simple Unified Framework for Detecting Out-of-Distribution Samples and Adversarial Attacks,
NeurIPS 2018, equations 1 and 2, on the last embedding. On L2-normalised embeddings it is Mahalanobis++: Müller, Hein:
Mahalanobis++: Improving OOD Detection via Feature Normalization, ICML 2025.
"""

from dataclasses import dataclass
from typing import Any

from torch import Tensor

from mood.core.features import Features
from mood.scores import _gaussian
from mood.scores._gaussian import Gaussian, embedded, nearest
from mood.scores._registry import fitted
from mood.scores._round import Round
from mood.scores._rows import of_width, row_by_row


@dataclass(frozen=True, slots=True, eq=False)
class Mahalanobis:
    """min_c (h − μ_c)ᵀ Σ⁺ (h − μ_c), Σ the covariance within classes, divided by N; ≥ 0.

    Attributes:
        origin: (D,) float64, the mean of all fit rows; any point would do, this one costs no digits.
        whitener: (D, R) float64, whitener · whitenerᵀ = Σ⁺.
        means: (C, R) float64, the class means about the origin, whitened; only classes that occur.
        normalise: h is divided by its length first.
    """

    origin: Tensor
    whitener: Tensor
    means: Tensor
    normalise: bool

    def __call__(self, features: Features) -> Tensor:
        """(N,) float64, higher = more OOD.

        Raises:
            InputError: embeddings of another width than in the fit.
        """
        embedding = of_width(features.embedding, len(self.origin), "embedding")
        return row_by_row(self._distance, embedding, width=max(*self.whitener.shape, len(self.means)))

    def _distance(self, rows: Tensor) -> Tensor:
        whitened = _gaussian.whitened(embedded(rows, self.normalise) - self.origin, self.whitener)  # (n, R)
        whitened -= self.means[nearest(whitened, self.means)]
        return whitened.square_().sum(1)


def _rounds(normalise: bool, shrinkage: str | float) -> tuple[Round[Any, Any, Any], ...]:
    def build(gaussian: Gaussian) -> Mahalanobis:
        whitener = gaussian.whitener(shrinkage)
        origin = gaussian.moments.pooled().means[0]
        return Mahalanobis(origin, whitener, (gaussian.moments.means - origin) @ whitener, normalise)

    return _gaussian.rounds(build, classes=True, normalise=normalise, shrinkage=shrinkage)


@fitted("mahalanobis", Mahalanobis, needs=("embedding", "labels"), source="Lee et al., NeurIPS 2018, equations 1 and 2")
def mahalanobis(*, shrinkage: str | float = "auto") -> tuple[Round[Any, Any, Any], ...]:
    """Squared Mahalanobis distance of the embedding from the nearest class mean, one covariance for all classes.

    For 1000 classes × 1M images of 768 values: a D × D matrix and a mean for each class, 11 MB.

    Args:
        shrinkage: of the covariance (÷ N): "none" (pseudo-inverse), "ledoit-wolf", "oas", "auto" ("oas" under ten
            rows for a dimension, else "none"), or a number in [0, 1].
    """
    return _rounds(False, shrinkage)


@fitted("mahalanobis++", Mahalanobis, needs=("embedding", "labels"), source="Müller & Hein, ICML 2025 (Mahalanobis++)")
def mahalanobis_plus_plus(*, shrinkage: str | float = "auto") -> tuple[Round[Any, Any, Any], ...]:
    """The Mahalanobis distance of the L2-normalised embedding from the nearest class mean.

    For 1000 classes × 1M images of 768 values: a D × D matrix and a mean for each class, 11 MB.

    Args:
        shrinkage: of the covariance (÷ N): "none" (pseudo-inverse), "ledoit-wolf", "oas", "auto" ("oas" under ten
            rows for a dimension, else "none"), or a number in [0, 1].
    """
    return _rounds(True, shrinkage)
