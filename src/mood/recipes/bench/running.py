"""All runs of a benchmark, one after the other: whatever cannot be done is named, and the rest is done."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mood.core.errors import DataError, MoodError
from mood.recipes.bench.networks import OWN, Network, Scored, over_classes
from mood.recipes.bench.pages import Shown, shown
from mood.recipes.bench.plan import Plan, RunPlan
from mood.recipes.bench.protocols import PROTOCOLS
from mood.recipes.bench.results import Cost, Figure, LeftOut, Results
from mood.recipes.bench.session import Session
from mood.recipes.bench.sets import Opened, Sets, sets_of
from mood.recipes.bench.trials import ALL, Networks, Trial
from mood.recipes.bench.units import Units

if TYPE_CHECKING:
    from mood.data import Source
    from mood.models import Model
    from mood.recipes.bench import BenchConfig


@dataclass(slots=True)
class Found:
    """What runs have found so far."""

    figures: list[Figure] = field(default_factory=list)
    costs: list[Cost] = field(default_factory=list)
    left_out: list[LeftOut] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    chosen: list[str] = field(default_factory=list)
    shown: list[Shown] = field(default_factory=list)


def run_all(
    config: "BenchConfig",
    plan: Plan,
    runs: Sequence[RunPlan],
    sets: Sets,
    trials: Sequence[Sequence[Trial]],
    scratch: Path,
    settings: Mapping[str, Any],
    brought: "Mapping[str, Model]",
) -> tuple[Results, list[Shown]]:
    """Run the protocols.

    Args:
        config: of the command.
        plan: the recipe.
        runs: those of it that are wanted.
        sets: opened.
        trials: of each run.
        scratch: where units are kept.
        settings: the full effective configuration, for the report.
        brought: networks in memory by what the recipe calls them.

    Returns:
        The results, and what a page shows of each run and network.
    """
    import platform

    import timm
    import torch

    import mood

    found, units = Found(), Units(scratch)
    for run, of_run in zip(runs, trials, strict=True):
        try:
            opened = sets_of(run, sets)
        except MoodError as error:
            found.left_out.append(LeftOut(run.name, run.fit, str(error)))
            continue
        found.notes += opened.notes
        for trial in of_run:
            if trial.lacking:
                found.left_out += trial.left_out(run.name)
                continue
            networks = Networks(
                trial,
                brought=brought,
                device=config.device,
                batch_size=config.batch_size,
                workers=config.workers,
            )
            _run(config, run, opened, networks, units, found)
    results = Results(
        title=plan.title,
        figures=tuple(found.figures),
        costs=tuple(found.costs),
        missing=dict(sets.missing),
        left_out=tuple(dict.fromkeys(found.left_out)),
        notes=tuple(dict.fromkeys(found.notes)),
        chosen=tuple(dict.fromkeys(found.chosen)),
        published=plan.published,
        footnotes=plan.footnotes,
        other_sets=tuple(run.name for run in runs if _is_elsewhere(run, plan)),
        settings=settings,
        versions={
            "mood": mood.__version__,
            "python": platform.python_version(),
            "torch": torch.__version__,
            "timm": timm.__version__,
        },
    )
    return results, found.shown


def _run(config: "BenchConfig", run: RunPlan, opened: Opened, networks: Networks, units: Units, found: Found) -> None:
    """One run with one trial of one network."""
    called, trial = networks.trial.plan.name, networks.trial.number
    at = (run.name, called, str(trial))
    if opened.unknown:
        try:
            opened, unreadable = _readable(opened, networks.any)
        except MoodError as error:
            found.left_out.append(LeftOut(run.name, called, str(error)))
            return
        found.left_out += [LeftOut(run.name, f"{called}, {name}", why) for name, why in unreadable.items()]
        if not opened.unknown:
            return
    every: dict[str, Scored] = {}
    spent: dict[str, float] = {"intervals": 0.0}

    def kept(text: str, name: str = ALL) -> Scored | None:
        one = units.scores((*at, text, name))
        if one is not None:
            networks.seconds.setdefault(networks.at(name), {}).update(one.passes)
        return one

    def keep(one: Scored, text: str, name: str = ALL) -> None:
        # What was left out is tried again by the next run, for its reason may be gone.
        if not one.reason:
            units.keep_scores((*at, text, name), replace(one, passes=networks.seconds[networks.at(name)]))

    def scored(texts: Sequence[str], wanted: "Mapping[str, Source]") -> Mapping[str, Scored]:
        # A set that could not be read before may be there now, and what was kept then lacks it.
        done = {text: one for text in texts if (one := kept(text)) is not None and wanted.keys() <= one.values.keys()}
        rest = [text for text in texts if text not in done]
        known = session.knows_classes
        for text, one in networks.any.score(rest, opened.fit, wanted, knows_classes=known):
            keep(one, text)
            done[text] = one
        every.update({text: done[text] for text in texts})
        return {text: done[text] for text in texts}

    def scored_classes(texts: Sequence[str], classes: Mapping[str, int], knows: bool) -> Mapping[str, Scored]:
        parts: dict[str, dict[str, Scored]] = {text: {} for text in texts}
        # Class by class: where each has a network of its own, it is opened once for all scores.
        for name, label in classes.items():
            for text in texts:
                if any(one.reason for one in parts[text].values()):
                    continue
                one = kept(text, name)
                if one is None:
                    one = networks.of(name).score_class(text, opened.fit, opened.test, name, label, knows_classes=knows)
                    keep(one, text, name)
                parts[text][name] = one
        every.update({text: over_classes(parts[text]) for text in texts})
        return {text: every[text] for text in texts}

    def figures(name: str, make: Callable[[], list[Figure]], kind: str = "intervals") -> list[Figure]:
        # Of these sets: one that could not be read before has no figure among those that were kept.
        made, seconds = units.figures((*at, "figures", name, *opened.unknown), make)
        spent[kind] = spent.get(kind, 0.0) + seconds
        return made

    session = Session(
        run=run,
        sets=opened,
        networks=networks,
        scored=scored,
        scored_classes=scored_classes,
        figures=figures,
        replicates=config.replicates,
        confidence=config.confidence,
        seed=config.seed,
        left_out=lambda what, reason: found.left_out.append(LeftOut(run.name, f"{called}, {what}", reason)),
    )
    try:
        found.figures += PROTOCOLS[run.protocol](session)
    except MoodError as error:
        found.left_out.append(LeftOut(run.name, called, str(error)))
        return
    first = run.name not in {part.run for part in found.shown}
    found.shown.append(shown(session, every, drawn=trial == 0, ends=first))
    for text, one in every.items():
        if one.chosen:
            found.chosen.append(f"{run.name}, {called}, {text}: {one.chosen}")
        if one.values:
            found.costs.append(
                Cost(
                    run=run.name,
                    network=called,
                    score=text,
                    kind=one.kind,
                    fit_seconds=one.fit_seconds,
                    score_seconds=one.score_seconds,
                )
            )
    passes = [seconds for of_one in networks.seconds.values() for seconds in of_one.values()]
    timed = [seconds for seconds in passes if seconds is not None]
    if len(timed) == len(passes):
        spent["extraction"] = sum(timed)
    for name, seconds in spent.items():
        found.costs.append(
            Cost(run=run.name, network=called, score=name, kind=name, fit_seconds=0.0, score_seconds=seconds)
        )
    found.notes += _small_fit(session) + _unread(session)


def _readable(opened: Opened, network: Network) -> tuple[Opened, dict[str, str]]:
    """The sets without those that have no two readable images, and why: one would end every score's run.

    Raises:
        MoodError: that is so of shifted known images, without which a figure would be of something else.
    """
    for name, source in opened.shifted.items():
        if why := _unreadable(source, network, 2):
            raise DataError(f"shifted set {name}: {why}")
    unknown = {name: why for name, source in opened.unknown.items() if (why := _unreadable(source, network, 2))}
    exposed = {name: why for name, source in opened.exposed.items() if (why := _unreadable(source, network, 1))}
    kept = replace(
        opened,
        unknown={name: source for name, source in opened.unknown.items() if name not in unknown},
        exposed={name: source for name, source in opened.exposed.items() if name not in exposed},
        unshown={**opened.unshown, **{name: f"of what is to be shown, {why}" for name, why in exposed.items()}},
    )
    return kept, unknown


def _unreadable(source: "Source", network: Network, fewest: int) -> str:
    """Why a set has not the images that are needed (an interval needs two), or ""."""
    try:
        count = len(network.extracted(source, OWN).positions)
    except MoodError as error:
        return str(error)
    return "" if count >= fewest else f"{count} of its {len(source)} images can be read; at least {fewest} must be"


def _small_fit(session: Session) -> list[str]:
    """A word where there are fewer images than dimensions: a covariance without shrinkage is singular then."""
    images, width = len(session.sets.fit), session.network.shards(session.sets.test, OWN)[0].embedding.shape[1]
    if session.run.protocol in ("one-class", "pairs"):
        images //= max(1, len(session.class_names))
    if images > width:
        return []
    return [
        f"{session.run.name}, {session.network.plan.name}: {images} images for {width} dimensions: a covariance is "
        "singular there, and distances without shrinkage look at the directions that occur alone; "
        "'mahalanobis shrinkage=oas' or 'chosen' does better."
    ]


def _unread(session: Session) -> list[str]:
    """A word on each measured set of which some images cannot be read: its figures are of the others."""
    sets = {"test": session.sets.test, **session.sets.shifted, **session.sets.unknown}
    return [
        f"{session.run.name}: {count} of the {len(source)} images of {name} cannot be read; the figures are of the "
        "others."
        for name, source in sets.items()
        if (count := len(session.network.extracted(source, OWN).rejections))
    ]


def _is_elsewhere(run: RunPlan, plan: Plan) -> bool:
    """Whether a stand-in has other OOD sets than the run of its name."""
    return any(run.name == other.name and run.unknown.keys() != other.unknown.keys() for other in plan.runs)
