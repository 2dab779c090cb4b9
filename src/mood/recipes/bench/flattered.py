"""What the weights of a network have met of a run's test set: it flatters all figures of this network."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

from mood.evaluation.protocols import TABLE_8
from mood.recipes.bench.plan import RunPlan
from mood.recipes.bench.sets import Opened
from mood.recipes.bench.trials import ALL, Trial

if TYPE_CHECKING:
    from mood.models import Stage

FEW = 3
"""Classes that are named one by one."""


def flattered(run: RunPlan, opened: Opened, trial: Trial) -> str:
    """Why the weights are not new to what all figures of a run are of, or "".

    That they were trained on the known world is as it should be; but not on its test images, nor, where each class is
    the known world in turn, on the classes that stand for the unknown.

    Args:
        run: of the recipe.
        opened: its sets.
        trial: one trial of a network, which lacks none.
    """
    return "; ".join([*_images(opened, trial), *_classes(run, opened, trial)])


def _images(opened: Opened, trial: Trial) -> list[str]:
    """A clause for each known set that is measured and of which images were trained on."""
    several = "up to " * (len(trial.weights) > 1)
    found = []
    for source in (opened.test, *opened.shifted.values()):
        count = max(weights.trained_on.get(source.manifest.fingerprint, 0) for weights in trial.weights.values())
        if count:
            found.append(f"{several}{count} of the {len(source)} images of {source.name} were trained on")
    return found


def _classes(run: RunPlan, opened: Opened, trial: Trial) -> list[str]:
    """A clause for each reason why classes that stand for the unknown are not new; none under other protocols."""
    if run.protocol not in ("one-class", "pairs"):
        return []
    names = tuple(opened.fit.manifest.class_names or ())
    every = [(known, unknown) for known in names for unknown in names if known != unknown]
    pairs = every if run.protocol == "one-class" else run.pairs or TABLE_8
    base = opened.test.name.split(":")[0]
    manifests = frozenset(source.manifest.fingerprint for source in (opened.fit, opened.test))
    reasons: dict[str, int] = {}
    for at, weights in trial.weights.items():
        unknown = frozenset(unknown for known, unknown in pairs if at in (ALL, known))
        if why := _met(weights.history or (), base, manifests, frozenset(names), unknown):
            reasons[why] = reasons.get(why, 0) + 1
    count = len(trial.weights)
    return [why if count == 1 else f"{why} (so of {those} of its {count} networks)" for why, those in reasons.items()]


def _met(
    history: "tuple[Stage, ...]",
    base: str,
    manifests: frozenset[str],
    names: frozenset[str],
    unknown: frozenset[str],
) -> str:
    stages: Mapping[bool, list[str]] = {True: [], False: []}
    for stage in history:
        same = stage.manifest in manifests or stage.data.split(":")[0] == base
        theirs = frozenset(stage.class_names)
        of_these = unknown & theirs
        if same and not names & theirs:
            of_these = unknown  # the set's finer or coarser classes, or no word on them: all of its classes were there
        elif not same:
            # A class of another set is the same where it was learned under the same name; a number is no name.
            of_these = frozenset(name for name in of_these if stage.labelled and not name.isdecimal())
        if of_these:
            some = "" if of_these == unknown else f", {_named(of_these)}"
            stages[stage.labelled].append(f"{stage.stage} on {stage.data}{some}")
    words = {True: "with labels", False: "without labels"}
    parts = [f"{words[labelled]} ({'; '.join(said)})" for labelled, said in stages.items() if said]
    return f"unknown classes were trained on {' and '.join(parts)}" if parts else ""


def _named(classes: frozenset[str]) -> str:
    return ", ".join(sorted(classes)) if len(classes) <= FEW else f"{len(classes)} of them"
