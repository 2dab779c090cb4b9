"""What a protocol is given: the images of one run, the networks of one trial, and how figures are made of them."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from mood.evaluation import flagged_share
from mood.recipes.bench.first_network import FirstNetwork
from mood.recipes.bench.made import Made
from mood.recipes.bench.networks import OWN, Network
from mood.recipes.bench.plan import RunPlan
from mood.recipes.bench.results import Figure
from mood.recipes.bench.scoring import Scored
from mood.recipes.bench.sets import Opened
from mood.recipes.bench.trials import Networks

if TYPE_CHECKING:
    from mood.data import Source
    from mood.evaluation import Estimate, Metrics

ID = "id"
METRICS = (
    "auroc",
    "fpr95_id_positive",
    "fpr95_ood_positive",
    "aupr_id_positive",
    "aupr_ood_positive",
    "detection_error",
)
SIX_NUMBERS = "mahalanobis"
"""The one score on the six numbers of each image."""

Cells = dict[str, tuple[tuple[int, int], ...]]
"""OOD set → cells (OOD class, known class) of its confusion."""


@dataclass(frozen=True, slots=True, eq=False)
class Session:
    """One run with one trial of one network.

    Attributes:
        run: of the recipe.
        sets: opened.
        networks: of the trial.
        made: its scores and figures.
        replicates: of the bootstrap.
        confidence: of the intervals.
        seed: of the bootstrap.
        cells: that the networks of the run share; the rival's sets them.
        first: the network of the run that the others are compared with.
        left_out: called with a score and the reason.
        flattered: what the weights have met of the test set, which goes with every figure; or "".
    """

    run: RunPlan
    sets: Opened
    networks: Networks
    made: Made
    replicates: int
    confidence: float
    seed: int
    cells: Cells
    first: FirstNetwork
    left_out: Callable[[str, str], None]
    flattered: str

    @property
    def network(self) -> Network:
        """The network, or where each class has one, any of them."""
        return self.networks.any

    @property
    def class_names(self) -> tuple[str, ...]:
        """Of the known classes."""
        return tuple(self.sets.fit.manifest.class_names or ())

    @property
    def knows_classes(self) -> bool:
        """Whether the network's logits are of the known classes."""
        return self.network.knows(self.class_names)

    @property
    def texts(self) -> tuple[str, ...]:
        """The scores of the run on this network, "all" spelled out."""
        from mood.scores import available

        if self.network.plan.six_numbers:
            return (SIX_NUMBERS,)
        if "all" not in self.run.scores:
            return self.run.scores
        # The paper's score first: the others are compared with it.
        named = [text for text in self.run.scores if text != "all"] or ["mood"]
        return (*named, *(name for name in available() if name not in named))

    def figure(self, score: str, key: str, metric: str, value: float, **more: Any) -> Figure:
        """A figure of this session."""
        return Figure(
            run=self.run.name,
            protocol=self.run.protocol,
            network=self.network.plan.name,
            trial=more.pop("trial", self.networks.trial.number),
            score=score,
            key=key,
            metric=metric,
            value=float(value),
            flattered=self.flattered,
            **more,
        )

    def estimated(self, score: str, key: str, metric: str, estimate: "Estimate", **more: Any) -> Figure:
        """A figure with its interval."""
        return self.figure(score, key, metric, estimate.value, low=estimate.low, high=estimate.high, **more)

    def measured(self, score: str, key: str, metrics: "Metrics", seen: str = "") -> list[Figure]:
        """All metrics of one OOD set."""
        more = {"n_id": metrics.n_id, "n_ood": metrics.n_ood, "seen": seen}
        return [self.estimated(score, key, name, getattr(metrics, name), **more) for name in METRICS]

    def share_right(self, key: str, right: np.ndarray) -> Figure:
        """Accuracy with Wilson's interval, from (n,) whether each answer is right."""
        estimate = flagged_share(right, 0.5, confidence=self.confidence)
        return self.estimated("", key, "accuracy", estimate, n_id=len(right))

    def seen(self, name: str) -> str:
        """Why the weights are not new to an OOD set, or ""."""
        from mood.recipes.familiar import familiar

        return familiar(self.network.model, self.sets.unknown[name])

    def labels(self, source: "Source", kind: str = OWN) -> np.ndarray:
        """(n,) labels of the readable images.

        Raises:
            InputError: the set has none.
        """
        return np.concatenate([part.need("labels").numpy() for part in self.network.shards(source, kind)])

    def positions(self, name: str) -> np.ndarray:
        """(n,) places of the readable images in the manifest of a set that was scored."""
        return self.network.extracted(self.made.sets[name], OWN).positions

    def scores(self, sets: "Mapping[str, Source]") -> dict[str, Scored]:
        """What the run's scores say of sets: those that can be had, for the others are told."""
        return self._told(self.made.scores(self.texts, sets, self.knows_classes))

    def scores_of_classes(self, classes: Mapping[str, int]) -> dict[str, Scored]:
        """The same of all test images, with each score fitted on one class after the other."""
        return self._told(self.made.scores_of_classes(self.texts, classes, self.knows_classes))

    def _told(self, scored: Mapping[str, Scored]) -> dict[str, Scored]:
        for text, found in scored.items():
            if found.reason:
                self.left_out(text, found.reason)
        return {text: found for text, found in scored.items() if not found.reason}
