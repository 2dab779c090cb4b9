"""The scores and figures of one run with one trial: each made once, and kept so that a killed run need not again."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from mood.recipes.bench.networks import Scored, over_classes
from mood.recipes.bench.plan import RunPlan
from mood.recipes.bench.results import Figure
from mood.recipes.bench.sets import Opened
from mood.recipes.bench.trials import ALL, Networks
from mood.recipes.bench.units import Units

if TYPE_CHECKING:
    from mood.data import Source


class Made:
    """What one run with one trial has made.

    Args:
        run: of the recipe.
        opened: its sets.
        networks: of the trial.
        units: where it is kept.

    Attributes:
        scored: scores of all sets by their text, those that were left out too.
    """

    def __init__(self, run: RunPlan, opened: Opened, networks: Networks, units: Units) -> None:
        self.scored: dict[str, Scored] = {}
        self._opened, self._networks, self._units = opened, networks, units
        self._at = (run.name, networks.trial.plan.name, str(networks.trial.number))
        self._seconds = {"intervals": 0.0}

    def scores(self, texts: Sequence[str], wanted: "Mapping[str, Source]", knows_classes: bool) -> Mapping[str, Scored]:
        """What scores say of sets."""
        # A set that could not be read before may be there now, and what was kept then lacks it.
        done = {
            text: one for text in texts if (one := self._had(text)) is not None and wanted.keys() <= one.values.keys()
        }
        rest = [text for text in texts if text not in done]
        for text, one in self._networks.any.score(rest, self._opened.fit, wanted, knows_classes=knows_classes):
            self._keep(one, text)
            done[text] = one
        self.scored.update({text: done[text] for text in texts})
        return {text: done[text] for text in texts}

    def scores_of_classes(
        self, texts: Sequence[str], classes: Mapping[str, int], knows_classes: bool
    ) -> Mapping[str, Scored]:
        """What scores that are fitted on one class say of all test images, for each class."""
        parts: dict[str, dict[str, Scored]] = {text: {} for text in texts}
        # Class by class: where each has a network of its own, it is opened once for all scores.
        for name, label in classes.items():
            for text in texts:
                if any(one.reason for one in parts[text].values()):
                    continue
                one = self._had(text, name)
                if one is None:
                    sets = self._opened.fit, self._opened.test
                    one = self._networks.of(name).score_class(text, *sets, name, label, knows_classes=knows_classes)
                    self._keep(one, text, name)
                parts[text][name] = one
        self.scored.update({text: over_classes(parts[text]) for text in texts})
        return {text: self.scored[text] for text in texts}

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

    def _had(self, text: str, name: str = ALL) -> Scored | None:
        one = self._units.scores((*self._at, text, name))
        if one is not None:
            self._networks.seconds.setdefault(self._networks.at(name), {}).update(one.passes)
        return one

    def _keep(self, one: Scored, text: str, name: str = ALL) -> None:
        # What was left out is tried again by the next run, for its reason may be gone.
        if not one.reason:
            passes = self._networks.seconds[self._networks.at(name)]
            self._units.keep_scores((*self._at, text, name), replace(one, passes=passes))
