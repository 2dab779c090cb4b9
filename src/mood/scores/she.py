"""Simplified Hopfield energy.

Zhang, Fu, Chen, Du, Li, Wang, Liu, Han, Zhang: Out-of-Distribution Detection based on In-Distribution Data Patterns
Memorization with Modern Hopfield Energy, ICLR 2023.
"""

from dataclasses import dataclass
from typing import Any

from torch import Tensor

from mood.core.errors import InputError
from mood.core.features import Features
from mood.scores._labels import head_labels
from mood.scores._registry import fitted
from mood.scores._round import Round
from mood.scores._rows import of_width, row_by_row
from mood.scores._sums import ClassSums, class_sums


@dataclass(frozen=True, slots=True, eq=False)
class SHE:
    """−⟨h, S_ŷ⟩, ŷ the predicted one among the classes that have a pattern; of either sign.

    Attributes:
        classes: (C',) int64, ascending: those with an ID image that the network classifies rightly.
        patterns: (C', D) float64, S_c, the mean of these images.
        width: K, how many logits there are.
    """

    classes: Tensor
    patterns: Tensor
    width: int

    def __call__(self, features: Features) -> Tensor:
        """(N,) float64, higher = more OOD.

        Raises:
            InputError: no logits, or embeddings or logits of another width than in the fit.
        """
        embedding = of_width(features.embedding, self.patterns.shape[1], "embedding")
        logits = of_width(features.need("logits"), self.width, "logits")

        def energy(rows: Tensor, logits: Tensor) -> Tensor:
            said = logits[:, self.classes].argmax(1)
            return -(rows * self.patterns[said]).sum(1)

        return row_by_row(energy, embedding, logits)


def right_rows(features: Features) -> Features:
    """The rows whose label has the largest logit."""
    labels, logits = head_labels(features), features.need("logits")
    return features[logits.argmax(1) == labels]


def _collect(features: Features, _: None) -> ClassSums:
    right = right_rows(features)
    assert right.labels is not None
    return class_sums(right.embedding, right.labels, features.need("logits").shape[1])


def _finish(sums: ClassSums, _: None) -> SHE:
    if not len(sums.present):
        raise InputError("none of the fit rows is classified rightly, so there is no pattern to compare with")
    return SHE(sums.present, sums.means, len(sums.counts))


@fitted("she", SHE, needs=("embedding", "logits", "labels"), source="Zhang et al., ICLR 2023 (SHE)")
def she() -> tuple[Round[Any, Any, Any], ...]:
    """Minus the inner product with the mean embedding of the ID images that are rightly put into the predicted class.

    A class without such an image has no pattern and is left out of the prediction. For 1000 classes × 1M images of 768
    values: the patterns, 6 MB.

    Raises:
        InputError: no logits or labels, a label without a logit, or not one row that is classified rightly.
    """
    return (Round(_collect, ClassSums.merge, _finish),)
