"""Mondrian p-values: the promise for each predicted class, not only for all classes together.

Vovk, Gammerman, Shafer: Algorithmic Learning in a Random World, 2005, section 4.5; Vovk: Conditional validity of
inductive conformal predictors, ACML 2012. An image is ranked among the calibration images that the network puts into
the same class. So P(p ≤ alpha) ≤ alpha for the ID images of every predicted class.

A class with fewer images than alpha needs cannot keep alpha by itself. Such classes are ranked together, and where even
they are too few, with the next smallest class, and so on: then the promise holds for these classes together, and not
for each. Which classes these are is read from the calibration images and the new image as one bag, which knows nothing
of who in it is new: given the bag, every image of a group is equally likely to be the new one, and the promise is
exact.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from mood.core.errors import InputError
from mood.core.score_vector import score_vector
from mood.decisions.conformal import (
    Conformal,
    calibration_scores,
    check_alpha,
    flagged_ranks,
    images_needed,
    inside,
)
from mood.decisions.guarantee import Guarantee
from mood.decisions.ranks import check_ties

SIMULATED = 20_000
"""Draws behind the range of what is seen over several classes."""


@dataclass(frozen=True, slots=True)
class Group:
    """Classes that are ranked together.

    Attributes:
        classes: their indices; of classes without a calibration image only the one that was asked for.
        images: calibration images of them all.
    """

    classes: tuple[int, ...]
    images: int


@dataclass(frozen=True, slots=True, eq=False, init=False)
class Mondrian:
    """The scores of n ID images with the classes that the network predicts for them.

    Attributes:
        scores: (n,) finite float64, by class, ascending within each.
        classes: (n,) int64 ≥ 0, ascending.
        alpha: what a class must be able to keep to be ranked by itself.
        ties: what becomes of equal scores.
    """

    scores: np.ndarray
    classes: np.ndarray
    alpha: float
    ties: str
    _counts: dict[int, int] = field(repr=False)
    _groups: dict[int, Group] = field(repr=False)

    def __init__(self, scores: Any, classes: Any, *, alpha: float, ties: str = "conservative") -> None:
        """Check and sort once.

        Args:
            scores: (n,) in any order, higher = more OOD.
            classes: (n,) predicted classes, whole numbers from 0.
            alpha: the rate to be promised; a class with fewer images than it needs joins others.
            ties: `conservative` or `randomised`.

        Raises:
            InputError: no scores, one that is not finite, classes of another number, or an argument out of its range.
        """
        values = calibration_scores(scores)
        labels = class_vector(classes, len(values))
        order = np.lexsort((values, labels))
        found, counts = np.unique(labels, return_counts=True)
        for name, value in (
            ("scores", values[order]),
            ("classes", labels[order]),
            ("alpha", inside("alpha", alpha)),
            ("ties", check_ties(ties)),
            ("_counts", dict(zip(found.tolist(), counts.tolist(), strict=True))),
            ("_groups", {}),
        ):
            object.__setattr__(self, name, value)

    def __len__(self) -> int:
        """The number n of calibration images."""
        return len(self.scores)

    def group(self, label: int) -> Group:
        """The classes that an image of this predicted class is ranked with; see the head of this file."""
        if label not in self._groups:
            self._groups[label] = self._partition(label)
        return self._groups[label]

    def _partition(self, label: int) -> Group:
        # Of the bag: the calibration images and one more of this class.
        bag = self._counts | {label: self._counts.get(label, 0) + 1}
        needed = images_needed(self.alpha)
        joined = {name for name, count in bag.items() if count - 1 < needed}
        others = sorted((count, name) for name, count in bag.items() if name not in joined)
        while joined and others and sum(bag[name] for name in joined) - 1 < needed:
            # Equal counts join together: between them nothing but the order would decide.
            size = others[0][0]
            joined |= {name for count, name in others if count == size}
            others = [pair for pair in others if pair[0] > size]
        members = tuple(sorted(joined)) if label in joined else (label,)
        return Group(members, sum(self._counts.get(name, 0) for name in members))

    @property
    def groups(self) -> tuple[Group, ...]:
        """The groups of the classes that occur among the calibration images, each once, by their first class."""
        return tuple(dict.fromkeys(self.group(label) for label in self._counts))

    @property
    def alone(self) -> tuple[int, ...]:
        """Classes that keep alpha by themselves."""
        return tuple(group.classes[0] for group in self.groups if len(group.classes) == 1)

    @property
    def together(self) -> tuple[int, ...]:
        """Classes with a calibration image for which alpha holds only together with others."""
        return tuple(label for label in self._counts if label not in self.alone)

    def p_values(self, scores: Any, *, classes: Any = None, ids: Sequence[str] | None = None) -> np.ndarray:
        """How unusual each score is among the ID images of its predicted class.

        Args:
            scores: (N,), higher = more OOD.
            classes: (N,) predicted classes.
            ids: names of the images, which randomised ties draw their lots from.

        Returns:
            (N,) float64 in (0, 1]; small = OOD.

        Raises:
            InputError: a score is NaN, classes are missing or of another number, or ids are needed and missing.
        """
        values = score_vector(scores, "scores")
        if classes is None:
            raise InputError("this calibration is by class: it needs the predicted class of every image (logits)")
        labels = class_vector(classes, len(values))
        found = np.empty(len(values))
        order = np.argsort(labels, kind="stable")
        present, starts = np.unique(labels[order], return_index=True)
        for label, rows in zip(present.tolist(), np.split(order, starts)[1:], strict=True):
            names = None if ids is None else [ids[row] for row in rows.tolist()]
            found[rows] = self._reference(self.group(label)).p_values(values[rows], ids=names)
        return found

    def _reference(self, group: Group) -> Conformal:
        edges = [np.searchsorted(self.classes, (label, label + 1)) for label in group.classes]
        return Conformal(np.concatenate([self.scores[start:stop] for start, stop in edges]), ties=self.ties)

    def threshold(self, alpha: float) -> None:
        """There is no one threshold: every class has its own."""

    def check(self, alpha: float) -> None:
        """Refuse an alpha that the images of some group cannot keep.

        Raises:
            PromiseError: with the smallest alpha that they keep, and the number of images alpha needs.
        """
        check_alpha(alpha, min(group.images for group in self.groups))

    def guarantee(self, alpha: float) -> Guarantee:
        """At most alpha for every class that has the images, and for the others together."""
        fewest = min(group.images for group in self.groups)
        alone, together = self.alone, self.together
        parts = [f"at most {alpha:.1%} of the known images of each predicted class on average over calibration sets"]
        if together:
            pooled = max((group for group in self.groups if len(group.classes) > 1), key=lambda group: group.images)
            parts.append(
                f"{len(alone)} classes each for itself, {len(together)} only together, with {pooled.images} images: "
                f"alpha = {alpha:g} needs {images_needed(alpha)} of a class"
            )
        else:
            parts.append(f"all {len(alone)} classes each for itself, with {fewest} images or more")
        smallest = 1 / (1 + max(group.images for group in self.groups))
        return Guarantee(rate=alpha, confidence=None, realised=None, smallest=smallest, sentence="; ".join(parts))

    def allowed(self, alpha: float, n_test: int, confidence: float = 0.99) -> tuple[float, float]:
        """Where the share of flagged images among unseen ID images lies, if classes are as frequent as here.

        Simulated: classes by their shares among the calibration images, each group's rate a draw of its Beta
        distribution.

        Raises:
            InputError: an argument is out of its range.
        """
        if n_test < 1:
            raise InputError(f"n_test is {n_test}; at least 1 image is needed")
        tail = (1 - inside("confidence", confidence)) / 2
        generator = np.random.default_rng(0)
        groups = self.groups
        weights = np.array([sum(self._counts[name] for name in group.classes) for group in groups], np.float64)
        counts = generator.multinomial(n_test, weights / weights.sum(), SIMULATED)
        flagged = np.zeros(SIMULATED, np.int64)
        for place, group in enumerate(groups):
            if k := flagged_ranks(alpha, group.images):
                rates = generator.beta(k, group.images + 1 - k, SIMULATED)
                flagged += generator.binomial(counts[:, place], rates)
        low, high = np.quantile(flagged, (tail, 1 - tail), method="inverted_cdf")
        return float(low / n_test), float(high / n_test)


def class_vector(classes: Any, count: int) -> np.ndarray:
    """(N,) int64 ≥ 0.

    Raises:
        InputError: not whole numbers from 0, or not one for each score.
    """
    labels = np.asarray(classes)
    if labels.shape != (count,) or (count and (labels.dtype.kind not in "iu" or labels.min() < 0)):
        raise InputError(
            f"classes must be a whole number from 0 for each of {count} images, not {labels.dtype} {labels.shape}"
        )
    return labels.astype(np.int64)
