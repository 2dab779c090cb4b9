"""The networks of a trial, looked at before anything passes through them: one for all classes, or one for each."""

import hashlib
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from mood.core.errors import MoodError
from mood.evaluation.protocols import TABLE_8
from mood.recipes.bench.networks import OWN, Network, open_network
from mood.recipes.bench.plan import CLASS, NetworkPlan, RunPlan
from mood.recipes.bench.results import LeftOut
from mood.recipes.bench.sets import Opened

if TYPE_CHECKING:
    from mood.data import Source
    from mood.models import Model, Stage

ALL = ""
"""What the one network for all classes is called among those of its trial."""


@dataclass(frozen=True, slots=True)
class Weights:
    """What a network is.

    Attributes:
        fingerprint: of architecture, weights and transform; of a user's own module also of what it makes of two images.
        transform: fingerprint of the transform.
        history: what the weights were trained on; None where nobody knows.
        trained_on: known set that is measured, by the fingerprint of its images → how many of them trained the weights;
            without those of which none did, or nobody knows.
    """

    fingerprint: str
    transform: str
    history: "tuple[Stage, ...] | None"
    trained_on: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class Trial:
    """One trial of a network of a run.

    Attributes:
        plan: of the network.
        number: 0, 1, …
        models: class → the model that knows this class alone; or `ALL` → the one model for all classes.
        weights: likewise, of those that can be had.
        lacking: likewise, why the others cannot.
    """

    plan: NetworkPlan
    number: int
    models: Mapping[str, str]
    weights: Mapping[str, Weights]
    lacking: Mapping[str, str]

    def called(self, name: str) -> str:
        """What a page calls one of its networks."""
        trial = f"trial {self.number}" if len(self.plan.trials) > 1 else ""
        return ", ".join(filter(None, (self.plan.name, trial, name)))

    def left_out(self, run: str) -> list[LeftOut]:
        """What it lacks: classes of one reason together, as there may be hundreds of them."""
        model = self.plan.trials[self.number]
        more = "; the mean is over all of these classes, so none is measured" if self.plan.of_each_class else ""
        classes: dict[str, list[str]] = {}
        for name, reason in self.lacking.items():
            classes.setdefault(reason.replace(self.models[name], model) + more, []).append(name)
        return [
            LeftOut(run, ", ".join(filter(None, (self.plan.name, *names))), reason) for reason, names in classes.items()
        ]


class Networks:
    """The networks of one trial, of which one is open at a time.

    Args:
        trial: that lacks none.
        brought: networks in memory by what the recipe calls them.
        device: "auto", "cpu", "cuda", …
        batch_size: images a pass.
        workers: processes that decode.
    """

    def __init__(
        self, trial: Trial, *, brought: "Mapping[str, Model]", device: str, batch_size: int, workers: int
    ) -> None:
        self.trial = trial
        self._opened = partial(
            open_network, trial.plan, brought=brought, device=device, batch_size=batch_size, workers=workers
        )
        self._open: tuple[str, Network] | None = None
        self.seconds: dict[str, dict[str, float | None]] = {}
        """What each pass took, by network and as in `Network.seconds`; also of networks that are closed."""

    def of(self, name: str) -> Network:
        """That of a class, which may be the one for all.

        Raises:
            MoodError: it cannot be had any more.
        """
        at = self.at(name)
        if self._open is None or self._open[0] != at:
            # Two large networks may be more than there is memory for.
            self._open = None
            network = self._opened(self.trial.models[at])
            network.seconds = self.seconds.setdefault(at, {})
            self._open = at, network
        return self._open[1]

    def at(self, name: str) -> str:
        """The key of a class among the trial's models."""
        return ALL if ALL in self.trial.models else name

    @property
    def any(self) -> Network:
        """One of them, where each would do: that which is open, or the first."""
        return self.of(next(iter(self.trial.models)) if self._open is None else self._open[0])


def spelled(name: str) -> str:
    """A class as `{class}` has it: what file names had better not hold becomes "-", and none begins with a dot.

    `"dining table"` → `"dining-table"`.
    """
    return re.sub(r"^\.|[^A-Za-z0-9_.-]", "-", name)


def trials_of(
    runs: Sequence[tuple[RunPlan, Opened]], *, brought: "Mapping[str, Model]", device: str
) -> tuple[tuple[Trial, ...], ...]:
    """The trials of each run, with every network opened once, one after the other.

    Args:
        runs: of the recipe with their sets, those that can be run.
        brought: networks in memory by what the recipe calls them.
        device: "auto", "cpu", "cuda", …
    """
    met: dict[str, Weights | str] = {}
    measured = [source for _, opened in runs for source in (opened.test, *opened.shifted.values())]

    def look(plan: NetworkPlan, number: int, model: str) -> Weights | str:
        at = _called(plan, model)
        if at not in met:
            try:
                opened = open_network(plan, model, brought=brought, device=device, batch_size=1, workers=0)
                model_of = opened.model
                weights = model_of.fingerprint()
                if model_of.architecture is None:
                    weights += f" {hashlib.sha256(opened.embedder(OWN).probe().numpy().tobytes()).hexdigest()[:16]}"
                met[at] = Weights(
                    weights, model_of.transform.fingerprint, model_of.history, _trained_on(model_of, measured)
                )
            except MoodError as error:
                command = plan.trained(number)
                # It is a folder then, and whatever else bears a like name has nothing to do with it.
                absent = command and model not in brought and not Path(model).exists()
                met[at] = f"model {model!r} is not there. Train it: {command}" if absent else str(error)
        return met[at]

    def of_run(run: RunPlan, opened: Opened) -> tuple[Trial, ...]:
        names = tuple(opened.fit.manifest.class_names or ())
        if run.protocol == "pairs":
            # A name that is no class has its own word, from the protocol.
            names = tuple(name for name in names if name in {known for known, _ in run.pairs or TABLE_8}) or names
        found: list[Trial] = []
        for plan in run.networks:
            of_plan: list[Trial] = []
            for number in range(len(plan.trials)):
                of_plan.append(_no_twin(_trial(plan, number, names, look), of_plan))
            found += of_plan
        return tuple(found)

    return tuple(of_run(run, opened) for run, opened in runs)


def _trained_on(model: "Model", sets: "Sequence[Source]") -> dict[str, int]:
    if model.seen is None:
        return {}
    counts = {source.manifest.fingerprint: int(model.seen_among(source.manifest.hashes).sum()) for source in sets}
    return {images: count for images, count in counts.items() if count}


def digests(trials: Sequence[Sequence[Trial]]) -> dict[str, str]:
    """Every network that can be had, by what it is called → its weights and its transform."""
    return {
        _called(trial.plan, trial.models[name]): f"{weights.fingerprint} {weights.transform}"
        for of_run in trials
        for trial in of_run
        for name, weights in trial.weights.items()
    }


def _trial(
    plan: NetworkPlan, number: int, names: Sequence[str], look: Callable[[NetworkPlan, int, str], Weights | str]
) -> Trial:
    model = plan.trials[number]
    models = {name: model.replace(CLASS, spelled(name)) for name in names} if plan.of_each_class else {ALL: model}
    weights: dict[str, Weights] = {}
    lacking: dict[str, str] = {}
    for name, one in models.items():
        found = look(plan, number, one)
        reason = found if isinstance(found, str) else _unfit(name, found, models, weights)
        if reason or isinstance(found, str):
            lacking[name] = reason
        else:
            weights[name] = found
    return Trial(plan, number, models, weights, lacking)


def _no_twin(trial: Trial, before: Sequence[Trial]) -> Trial:
    """The trial, which lacks whatever is the same network in one that comes before: that would be no other draw."""
    twins = {
        name: other.plan.trials[other.number]
        for name, weights in trial.weights.items()
        for other in before
        if name in other.weights and other.weights[name].fingerprint == weights.fingerprint
    }
    lacking = {
        name: f"{trial.models[name]!r} is the same network as {twin!r}, byte for byte, and no other trial of it"
        for name, twin in twins.items()
    }
    kept = {name: weights for name, weights in trial.weights.items() if name not in twins}
    return replace(trial, weights=kept, lacking={**trial.lacking, **lacking})


def _unfit(name: str, found: Weights, models: Mapping[str, str], before: Mapping[str, Weights]) -> str:
    """Why a network cannot stand for a class, or ""."""
    if twins := [other for other in models if other != name and models[other] == models[name]]:
        return f"{models[name]!r} would be the network of {name!r} and of {twins[0]!r}: give one class another name"
    taught = found.history[-1].class_names if found.history else ()
    # Under names of another set nobody can say which class it is.
    if len(taught) == 1 and name not in taught and taught[0] in models:
        return f"{models[name]!r} was trained on {taught[0]!r} alone, and stands for {name!r}"
    first = next(iter(before.items()), (name, found))
    if first[1].transform != found.transform:
        # Then other images may be too large for it, and scores of one class would not stand beside those of another.
        return f"{models[name]!r} is fed otherwise than the network of {first[0]!r}: fine-tune both with one transform"
    return ""


def _called(plan: NetworkPlan, model: str) -> str:
    from mood.core.config import fingerprint, to_dict

    about = to_dict(plan)
    del about["name"], about["model"]
    return f"{model} {fingerprint(about)[:8]}"
