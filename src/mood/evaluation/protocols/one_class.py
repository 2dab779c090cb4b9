"""One-class: each class in turn is the known world, and every other class of the same set is unknown."""

from dataclasses import dataclass

import numpy as np

from mood.core.errors import InputError
from mood.evaluation.metrics import auroc


@dataclass(frozen=True, slots=True, eq=False)
class OneClass:
    """AUROC of every known class.

    Attributes:
        pairs: (C, C), row = the known class, column = the unknown one; NaN on the diagonal.
        pooled: (C,) against the images of all other classes together. With equally many images of each class it is
            the mean of the row; else the larger classes weigh more.
    """

    pairs: np.ndarray
    pooled: np.ndarray

    @property
    def per_class(self) -> np.ndarray:
        """(C,) unweighted mean over the other classes: the figure of the official code."""
        return np.asarray(np.nanmean(self.pairs, axis=1))

    @property
    def mean(self) -> float:
        """Mean over the known classes: the figure of the paper's tables."""
        return float(self.per_class.mean())


def one_class(scores: np.ndarray, labels: np.ndarray) -> OneClass:
    """One detector for each class, all of them on the same test images.

    Args:
        scores: (C, N), row c = the scores under the detector of class c, higher = more OOD.
        labels: (N,) class indices in 0..C-1; every class occurs.

    Raises:
        InputError: fewer than two classes, a class without images, another shape, or NaN.
    """
    scores, labels = np.asarray(scores, np.float64), np.asarray(labels)
    if scores.ndim != 2 or labels.shape != scores.shape[1:]:
        raise InputError(f"scores are {scores.shape} and labels {labels.shape}; (C, N) and (N,) were expected")
    classes = len(scores)
    if classes < 2:
        raise InputError(f"there is {classes} class; one-class detection needs another one to be unknown")
    members = [np.flatnonzero(labels == index) for index in range(classes)]
    if not all(len(rows) for rows in members) or sum(map(len, members)) < len(labels):
        raise InputError(f"labels must be 0 to {classes - 1}, each at least once")
    pairs = np.full((classes, classes), np.nan)
    pooled = np.empty(classes)
    for known, rows in enumerate(members):
        inside = scores[known, rows]
        pooled[known] = auroc(inside, scores[known, labels != known])
        for unknown, others in enumerate(members):
            if unknown != known:
                pairs[known, unknown] = auroc(inside, scores[known, others])
    return OneClass(pairs, pooled)
