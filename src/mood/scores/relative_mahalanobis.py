"""Mahalanobis distance to the nearest class, minus the distance to all ID images together.

Ren, Fort, Liu, Roy, Padhy, Lakshminarayanan: A Simple Fix to Mahalanobis Distance for Improving Near-OOD Detection,
2021, equations 3 and 4. On L2-normalised embeddings: Müller, Hein: Mahalanobis++, ICML 2025.
"""

from dataclasses import dataclass
from typing import Any

from torch import Tensor

from mood.core.errors import InputError
from mood.core.features import Features
from mood.scores import _gaussian
from mood.scores._gaussian import Gaussian, embedded, nearest
from mood.scores._registry import fitted
from mood.scores._round import Round
from mood.scores._rows import of_width, row_by_row


@dataclass(frozen=True, slots=True, eq=False)
class RelativeMahalanobis:
    """min_c d_c − d_0: d_c with the covariance within classes, d_0 with the mean and covariance of all rows, both ÷ N.

    Of either sign.

    Attributes:
        mean: (D,) float64, the mean of all fit rows.
        whitener: (D, R) float64, of the covariance within classes.
        background: (D, R₀) float64, the whitener of the covariance of all rows.
        means: (C, R) float64, the class means about the mean, whitened; only classes that occur.
        normalise: h is divided by its length first.
    """

    mean: Tensor
    whitener: Tensor
    background: Tensor
    means: Tensor
    normalise: bool

    def __call__(self, features: Features) -> Tensor:
        """(N,) float64, higher = more OOD.

        Raises:
            InputError: embeddings of another width than in the fit.
        """
        embedding = of_width(features.embedding, len(self.mean), "embedding")
        return row_by_row(self._distance, embedding, width=max(*self.whitener.shape, len(self.means)))

    def _distance(self, rows: Tensor) -> Tensor:
        centred = embedded(rows, self.normalise) - self.mean
        whitened = _gaussian.whitened(centred, self.whitener)  # (n, R)
        whitened -= self.means[nearest(whitened, self.means)]
        return whitened.square_().sum(1) - (centred @ self.background).square_().sum(1)


def _rounds(normalise: bool, shrinkage: str | float) -> tuple[Round[Any, Any, Any], ...]:
    def build(gaussian: Gaussian) -> RelativeMahalanobis:
        labels = gaussian.moments.labels
        if len(labels) < 2:
            raise InputError(
                f"all fit rows have label {int(labels[0])}, so that the distance from the nearest class is the one "
                "from all rows, and their difference is zero for every image; take mahalanobis or mood, or fit on two "
                "classes or more"
            )
        whitener = gaussian.whitener(shrinkage)
        mean = gaussian.moments.pooled().means[0]
        means = (gaussian.moments.means - mean) @ whitener
        return RelativeMahalanobis(mean, whitener, gaussian.whitener(shrinkage, pooled=True), means, normalise)

    return _gaussian.rounds(build, classes=True, normalise=normalise, shrinkage=shrinkage)


@fitted(
    "relative_mahalanobis",
    RelativeMahalanobis,
    needs=("embedding", "labels"),
    source="Ren et al., 2021, equations 3 and 4",
)
def relative_mahalanobis(*, shrinkage: str | float = "auto") -> tuple[Round[Any, Any, Any], ...]:
    """Mahalanobis distance from the nearest class mean, minus the one from all ID images as one Gaussian.

    For 1000 classes × 1M images of 768 values: two D × D matrices and a mean for each class, 16 MB.

    Args:
        shrinkage: of both covariances (÷ N), each by its own amount: "none" (pseudo-inverse), "ledoit-wolf", "oas",
            "auto" ("oas" under ten rows for a dimension, else "none"), or a number in [0, 1].

    Raises:
        InputError: shrinkage out of range, no labels or rows, one label alone, or rows without spread.
    """
    return _rounds(False, shrinkage)


@fitted(
    "relative_mahalanobis++",
    RelativeMahalanobis,
    needs=("embedding", "labels"),
    source="Müller & Hein, ICML 2025 (Mahalanobis++), after Ren et al., 2021",
)
def relative_mahalanobis_plus_plus(*, shrinkage: str | float = "auto") -> tuple[Round[Any, Any, Any], ...]:
    """The relative Mahalanobis distance of the L2-normalised embedding.

    For 1000 classes × 1M images of 768 values: two D × D matrices and a mean for each class, 16 MB.

    Args:
        shrinkage: of both covariances (÷ N), each by its own amount: "none" (pseudo-inverse), "ledoit-wolf", "oas",
            "auto" ("oas" under ten rows for a dimension, else "none"), or a number in [0, 1].

    Raises:
        InputError: shrinkage out of range, no labels or rows, one label alone, or rows without spread.
    """
    return _rounds(True, shrinkage)
