"""The scores and figures of one run with one trial: each made once, also where the run was killed."""

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from mood.recipes.bench.plan import RunPlan
from mood.recipes.bench.results import Figure
from mood.recipes.bench.scoring import Scored, over_classes, score_class, score_sets
from mood.recipes.bench.sets import Opened
from mood.recipes.bench.trials import Networks
from mood.recipes.bench.units import Units

if TYPE_CHECKING:
    from mood.data import Source


class Made:
    """What one run with one trial has made.

    Args:
        run: of the recipe.
        opened: its sets.
        networks: of the trial.
        units: where its figures are kept.

    Attributes:
        scored: scores of all sets by their text, those that were left out too.
        sets: what was scored, by the names that scores have for it.
        by_class: whether these are the classes that a score was fitted on, and not the sets that it was applied to.
    """

    def __init__(self, run: RunPlan, opened: Opened, networks: Networks, units: Units) -> None:
        self.scored: dict[str, Scored] = {}
        self.sets: dict[str, Source] = {}
        self.by_class = False
        self._opened, self._networks, self._units = opened, networks, units
        self._at = (run.name, networks.trial.plan.name, str(networks.trial.number))
        self._seconds = {"intervals": 0.0}

    def scores(self, texts: Sequence[str], wanted: "Mapping[str, Source]", knows_classes: bool) -> Mapping[str, Scored]:
        """What scores say of sets."""
        found = score_sets(self._networks.any, texts, self._opened.fit, wanted, knows_classes=knows_classes)
        self.sets.update(wanted)
        self.scored.update(found)
        return found

    def scores_of_classes(
        self, texts: Sequence[str], classes: Mapping[str, int], knows_classes: bool
    ) -> Mapping[str, Scored]:
        """What scores that are fitted on one class say of all test images, for each class."""
        sets = self._opened.fit, self._opened.test
        parts: dict[str, dict[str, Scored]] = {text: {} for text in texts}
        # Class by class: where each has a network of its own, it is opened once for all scores.
        for name, label in classes.items():
            for text in texts:
                if any(one.reason for one in parts[text].values()):
                    continue
                parts[text][name] = score_class(
                    self._networks.of(name), text, *sets, name, label, knows_classes=knows_classes
                )
        found = {text: over_classes(parts[text]) for text in texts}
        self.sets.update(dict.fromkeys(classes, self._opened.test))
        self.by_class = True
        self.scored.update(found)
        return found

    def figures(self, name: str, make: Callable[[], list[Figure]], kind: str = "intervals") -> list[Figure]:
        """Figures, made now or before.

        Args:
            name: of these among the run's.
            make: makes them.
            kind: of work, which is timed together.
        """
        # Of these sets: one that could not be read before has no figure among those that were kept.
        made, seconds = self._units.figures((*self._at, "figures", name, *self._opened.unknown), make)
        self._seconds[kind] = self._seconds.get(kind, 0.0) + seconds
        return made

    def spent(self) -> dict[str, float]:
        """Seconds by kind of work; without those of the passes where somebody else made one and told no time."""
        passes = [seconds for of_one in self._networks.seconds.values() for seconds in of_one.values()]
        timed = [seconds for seconds in passes if seconds is not None]
        return self._seconds | ({"extraction": sum(timed)} if len(timed) == len(passes) else {})
