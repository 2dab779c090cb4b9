"""Mahalanobis distance with a covariance for each class: quadratic discriminant analysis without its log-determinant.

Hastie, Tibshirani, Friedman: The Elements of Statistical Learning, 2009, section 4.3, for the discriminant; as an OOD
score it is what Lee et al. (NeurIPS 2018) replace by one covariance for all classes.
"""

from dataclasses import dataclass
from typing import Any

from torch import Tensor

from mood.core.errors import InputError
from mood.core.features import Features
from mood.scores._gaussian import check_shrinkage
from mood.scores._labels import class_labels
from mood.scores._per_class import ClassMoments, nearest_distance
from mood.scores._registry import fitted
from mood.scores._round import Round
from mood.scores._rows import of_width, row_by_row


@dataclass(frozen=True, slots=True, eq=False)
class MahalanobisPerClass:
    """min_c (h − μ_c)ᵀ Σ_c⁺ (h − μ_c), Σ_c divided by N_c; ≥ 0.

    Attributes:
        means: (C, D) float64; only classes that occur.
        whiteners: (C, D, D) float64, whitener · whitenerᵀ = Σ_c⁺.
    """

    means: Tensor
    whiteners: Tensor

    def __call__(self, features: Features) -> Tensor:
        """(N,) float64, higher = more OOD.

        Raises:
            InputError: embeddings of another width than in the fit.
        """
        embedding = of_width(features.embedding, self.means.shape[1], "embedding")
        return row_by_row(
            lambda rows: nearest_distance(rows, self.means, self.whiteners), embedding, width=self.means.shape[1]
        )


def _collect(features: Features, _: None) -> ClassMoments:
    return ClassMoments.of(features.embedding, class_labels(features))


@fitted(
    "mahalanobis_per_class",
    MahalanobisPerClass,
    needs=("embedding", "labels"),
    source="Hastie et al., 2009, section 4.3, without the log-determinant",
)
def mahalanobis_per_class(*, shrinkage: str | float = "auto") -> tuple[Round[Any, Any, Any], ...]:
    """Squared Mahalanobis distance of the embedding from the nearest class, each with a covariance of its own.

    For 1000 classes × 1M images of 768 values: 4.7 GB of covariances, three times that for moments of the fit, and
    1000 products of 768 × 768 for each image that is scored.

    Args:
        shrinkage: of each covariance (÷ N_c), by its own amount: "none" (pseudo-inverse), "oas", "auto" ("oas"
            under ten rows for a dimension, else "none"), or a number in [0, 1].
            Without it a class with fewer images than dimensions is blind in most directions.

    Raises:
        InputError: another shrinkage, no labels, or a class whose images are all the same.
    """
    check_shrinkage(shrinkage, ("auto", "none", "oas"))

    def finish(waiting: ClassMoments, _: None) -> MahalanobisPerClass:
        moments = waiting.folded()
        if not len(moments.labels):
            raise InputError("there are no rows to fit on; at least two of each class were expected")
        return MahalanobisPerClass(moments.means, moments.whiteners(shrinkage, "class"))

    return (Round(_collect, ClassMoments.merge, finish),)
