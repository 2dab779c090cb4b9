"""What a report is made of: plain numbers and pictures, filled in by a recipe."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from mood.core.batch import Rejection
from mood.core.errors import InputError
from mood.core.score_vector import score_vector

METRICS = {
    "auroc": "AUROC",
    "fpr95_id_positive": "FPR95 (ID positive)",
    "fpr95_ood_positive": "FPR95 (OOD positive)",
    "aupr_id_positive": "AUPR (ID positive)",
    "aupr_ood_positive": "AUPR (OOD positive)",
    "flagged": "flagged",
}
"""The metrics a report knows, in its order, with their headings. `flagged` is the share with p ≤ alpha."""


@dataclass(frozen=True, slots=True)
class Measured:
    """A metric and the interval around it.

    Attributes:
        value: a share in [0, 1].
        low: lower end of the interval, or None where there is none.
        high: upper end, likewise.
    """

    value: float
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Thumbnail:
    """One image with what the detector said of it.

    Attributes:
        id: its name in the manifest.
        pixels: (H, W, 3) or (H, W) uint8; it is made smaller for the page where that is needed.
        score: higher = more OOD.
        p_value: small = OOD.
    """

    id: str
    pixels: np.ndarray
    score: float
    p_value: float

    def __post_init__(self) -> None:
        """Refuse what is no picture."""
        shape, kind = self.pixels.shape, self.pixels.dtype
        if kind != np.uint8 or not (len(shape) == 2 or (len(shape) == 3 and shape[2] == 3)) or 0 in shape:
            raise InputError(f"pixels of {self.id!r} must be uint8 (H, W, 3) or (H, W), not {kind} {shape}")


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class ScoredSet:
    """The images of one set, scored.

    Attributes:
        name: what to call the set.
        scores: (N,) higher = more OOD, N ≥ 1; list, array or tensor, kept as float64.
        p_values: (N,) in [0, 1], small = OOD.
        metrics: of telling this OOD set from ID, by the keys of `METRICS`; empty for the ID set.
        controls: the same metrics of each control, by its name ("six numbers", "random weights").
        roc: shares of ID and of OOD flagged, (M,) each from (0, 0) to (1, 1), or None.
        seen_by_weights: images of this set were in the training of the network.
        most_unusual: images with the highest scores, the highest first.
        least_unusual: images with the lowest scores, the lowest first.
        rejections: images that came in and could not be scored.

    Raises:
        InputError: no scores, p-values of another number or out of range, or a metric that is not in `METRICS`.
    """

    name: str
    scores: np.ndarray
    p_values: np.ndarray
    metrics: Mapping[str, Measured] = field(default_factory=dict)
    controls: Mapping[str, Mapping[str, Measured]] = field(default_factory=dict)
    roc: tuple[np.ndarray, np.ndarray] | None = None
    seen_by_weights: bool = False
    most_unusual: tuple[Thumbnail, ...] = ()
    least_unusual: tuple[Thumbnail, ...] = ()
    rejections: tuple[Rejection, ...] = ()

    def __post_init__(self) -> None:
        """Check once, so that the page can be drawn without looking twice."""
        scores = score_vector(self.scores, f"scores of {self.name!r}")
        p_values = score_vector(self.p_values, f"p_values of {self.name!r}", infinite=False)
        if not len(scores):
            raise InputError(f"set {self.name!r} has no scores; leave it out of the report")
        if len(scores) != len(p_values) or p_values.min() < 0 or p_values.max() > 1:
            raise InputError(f"p_values of {self.name!r} must be {len(scores)} numbers from 0 to 1, one for each score")
        for name, metrics in (("metrics", self.metrics), *self.controls.items()):
            if unknown := set(metrics) - set(METRICS):
                raise InputError(f"{name} of {self.name!r}: unknown {sorted(unknown)}; known are {', '.join(METRICS)}")
        object.__setattr__(self, "scores", scores)
        object.__setattr__(self, "p_values", p_values)

    def flagged(self, alpha: float) -> float:
        """The share of images with p ≤ alpha."""
        return float((self.p_values <= alpha).mean())


@dataclass(frozen=True, slots=True)
class Card:
    """What is known of a data set.

    Attributes:
        name: of it.
        facts: by heading.
        warning: a sentence that a reader of its figures must see, or "".
    """

    name: str
    facts: Mapping[str, str]
    warning: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Promise:
    """What is promised about false alarms, and what would be allowed by chance.

    Attributes:
        alpha: at most this share of ID images is flagged, on average.
        n_calibration: number of held-out ID images behind it.
        threshold: an image is flagged when its score is above this; None where each class or fold has its own.
        verified: no stage of training or fitting is known to have seen the calibration images.
        reason: one sentence that says why, or why not.
        allowed: if the promise holds, the share of unseen ID images that are flagged lies here …
        confidence: … with this probability.
        sentence: what is promised, to follow "is flagged:"; it names where this calibration set's own rate lies.
        smallest: the smallest p-value there is.
        observed: the share of unseen ID images that were flagged, with its interval.
    """

    alpha: float
    n_calibration: int
    threshold: float | None
    verified: bool
    reason: str
    allowed: tuple[float, float]
    confidence: float = 0.99
    sentence: str
    smallest: float
    observed: Measured


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Report:
    """Everything on the page.

    Attributes:
        title: its heading.
        score: registry name of the score.
        model: what the network is, in a few words.
        promise: about false alarms.
        id: ID images that neither training, fitting nor calibration has seen.
        ood: the OOD sets, in the order in which they are shown.
        seen: one line for each data set that the weights have seen.
        notes: sentences to be read beside the numbers.
        cards: of the data sets.
        config: the full effective settings; may be nested.
        versions: of python and packages.
        hashes: of weights, transform, manifests.
        command: what was run, or None.
        created: when, in words, or None; it is not looked up here, so that the same results give the same page.
    """

    title: str
    score: str
    model: str
    promise: Promise
    id: ScoredSet
    ood: tuple[ScoredSet, ...] = ()
    seen: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    cards: tuple[Card, ...] = ()
    config: Mapping[str, Any] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)
    hashes: Mapping[str, str] = field(default_factory=dict)
    command: str | None = None
    created: str | None = None

    @property
    def sets(self) -> tuple[ScoredSet, ...]:
        """The ID set, then the OOD sets."""
        return (self.id, *self.ood)
