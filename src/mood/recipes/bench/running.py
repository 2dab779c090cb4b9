"""All runs of a benchmark, one after the other: whatever cannot be done is named, and the rest is done."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mood.core.errors import MoodError
from mood.recipes.bench.networks import OWN, Network, Scored, open_network
from mood.recipes.bench.pages import Shown, shown
from mood.recipes.bench.plan import NetworkPlan, Plan, RunPlan
from mood.recipes.bench.protocols import PROTOCOLS, Session
from mood.recipes.bench.results import Cost, Figure, LeftOut, Results
from mood.recipes.bench.sets import Opened, Sets, sets_of
from mood.recipes.bench.units import Units

if TYPE_CHECKING:
    from mood.data import Source
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


def weights_of(runs: Sequence[RunPlan], *, device: str) -> tuple[dict[str, str], dict[str, str]]:
    """The networks of all runs that can be had, and those that cannot.

    Returns:
        What each trial is called → the digest of its weights, and → why it cannot be had.
    """
    digests: dict[str, str] = {}
    reasons: dict[str, str] = {}
    for run in runs:
        for plan, _, model in _trials(run):
            name = _called(plan, model)
            if name in digests or name in reasons:
                continue
            try:
                network = open_network(plan, model, device=device, batch_size=1, workers=0)
                digests[name] = f"{network.model.fingerprint()} {network.model.transform.fingerprint}"
            except MoodError as error:
                reasons[name] = str(error)
    return digests, reasons


def run_all(
    config: "BenchConfig",
    plan: Plan,
    runs: Sequence[RunPlan],
    sets: Sets,
    unavailable: Mapping[str, str],
    scratch: Path,
    settings: Mapping[str, Any],
) -> tuple[Results, list[Shown]]:
    """Run the protocols.

    Args:
        config: of the command.
        plan: the recipe.
        runs: those of it that are wanted.
        sets: opened.
        unavailable: networks that cannot be had, and why.
        scratch: where units are kept.
        settings: the full effective configuration, for the report.

    Returns:
        The results, and what a page shows of each run and network.
    """
    import platform

    import timm
    import torch

    import mood

    found, units = Found(), Units(scratch)
    for run in runs:
        try:
            opened = sets_of(run, sets)
        except MoodError as error:
            found.left_out.append(LeftOut(run.name, run.fit, str(error)))
            continue
        found.notes += opened.notes
        for network_plan, trial, model in _trials(run):
            if reason := unavailable.get(_called(network_plan, model)):
                found.left_out.append(LeftOut(run.name, network_plan.name, reason))
                continue
            network = open_network(
                network_plan, model, device=config.device, batch_size=config.batch_size, workers=config.workers
            )
            _run(config, run, opened, network, trial, units, found)
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


def _run(
    config: "BenchConfig", run: RunPlan, opened: Opened, network: Network, trial: int, units: Units, found: Found
) -> None:
    """One run with one trial of one network."""
    at = (run.name, network.plan.name, str(trial))
    opened, unreadable = _readable(opened, network)
    found.left_out += [LeftOut(run.name, f"{network.plan.name}, {name}", why) for name, why in unreadable.items()]
    every: dict[str, Scored] = {}
    spent: dict[str, float] = {"intervals": 0.0}

    def scored(texts: Sequence[str], wanted: "Mapping[str, Source]") -> Mapping[str, Scored]:
        done = {text: kept for text in texts if (kept := units.scores((*at, text))) is not None}
        rest = [text for text in texts if text not in done]
        known = network.knows(opened.fit.manifest.class_names)
        for text, one in network.score(rest, opened.fit, wanted, knows_classes=known):
            _keep(units, (*at, text), one)
            done[text] = one
        every.update({text: done[text] for text in texts})
        return {text: done[text] for text in texts}

    def scored_classes(texts: Sequence[str], classes: Mapping[str, int], knows: bool) -> Mapping[str, Scored]:
        for text in texts:
            one = units.scores((*at, text))
            if one is None:
                one = network.score_each_class(text, opened.fit, opened.test, classes, knows_classes=knows)
                _keep(units, (*at, text), one)
            every[text] = one
        return {text: every[text] for text in texts}

    def figures(name: str, make: Callable[[], list[Figure]], kind: str = "intervals") -> list[Figure]:
        made, seconds = units.figures((*at, "figures", name), make)
        spent[kind] = spent.get(kind, 0.0) + seconds
        return made

    session = Session(
        run=run,
        sets=opened,
        network=network,
        trial=trial,
        scored=scored,
        scored_classes=scored_classes,
        figures=figures,
        replicates=config.replicates,
        confidence=config.confidence,
        seed=config.seed,
        left_out=lambda what, reason: found.left_out.append(LeftOut(run.name, f"{network.plan.name}, {what}", reason)),
    )
    try:
        found.figures += PROTOCOLS[run.protocol](session)
    except MoodError as error:
        found.left_out.append(LeftOut(run.name, network.plan.name, str(error)))
        return
    if trial == 0:
        first = run.name not in {part.run for part in found.shown}
        found.shown.append(shown(session, every, ends=first))
    for text, one in every.items():
        if one.chosen:
            found.chosen.append(f"{run.name}, {network.plan.name}, {text}: {one.chosen}")
        if one.values:
            found.costs.append(
                Cost(
                    run=run.name,
                    network=network.plan.name,
                    score=text,
                    kind=one.kind,
                    fit_seconds=one.fit_seconds,
                    score_seconds=one.score_seconds,
                )
            )
    passes = [seconds for seconds in network.seconds.values() if seconds is not None]
    if len(passes) == len(network.seconds):
        spent["extraction"] = sum(passes)
    for name, seconds in spent.items():
        found.costs.append(
            Cost(run=run.name, network=network.plan.name, score=name, kind=name, fit_seconds=0.0, score_seconds=seconds)
        )
    found.notes += _small_fit(session)


def _keep(units: Units, name: Sequence[str], scored: Scored) -> None:
    """Keep what a score says; what was left out is tried again by the next run, for its reason may be gone."""
    if not scored.reason:
        units.keep_scores(name, scored)


def _readable(opened: Opened, network: Network) -> tuple[Opened, dict[str, str]]:
    """The sets without those OOD sets that have no two readable images, and why: one would end every score's run."""
    reasons = {}
    for name, source in opened.unknown.items():
        try:
            count = len(network.extracted(source, OWN).positions)
        except MoodError as error:
            reasons[name] = str(error)
            continue
        if count < 2:
            reasons[name] = f"{count} of its {len(source)} images can be read, and an interval needs two"
    unknown = {name: source for name, source in opened.unknown.items() if name not in reasons}
    return replace(opened, unknown=unknown), reasons


def _small_fit(session: Session) -> list[str]:
    """A word where there are fewer images than dimensions: a covariance without shrinkage is singular then."""
    parts = session.network.shards(session.sets.fit, OWN)
    images, width = sum(map(len, parts)), parts[0].embedding.shape[1]
    if session.run.protocol in ("one-class", "pairs"):
        images //= max(1, len(session.class_names))
    if images > width:
        return []
    return [
        f"{session.run.name}, {session.network.plan.name}: {images} images for {width} dimensions: a covariance is "
        "singular there, and distances without shrinkage look at the directions that occur alone; "
        "'mahalanobis shrinkage=oas' or 'chosen' does better."
    ]


def _is_elsewhere(run: RunPlan, plan: Plan) -> bool:
    """Whether a stand-in has other OOD sets than the run of its name."""
    return any(run.name == other.name and run.unknown.keys() != other.unknown.keys() for other in plan.runs)


def _trials(run: RunPlan) -> Iterator[tuple[NetworkPlan, int, str]]:
    for plan in run.networks:
        for trial, model in enumerate(plan.trials):
            yield plan, trial, model


def _called(plan: NetworkPlan, model: str) -> str:
    from mood.core.config import fingerprint, to_dict

    about = to_dict(plan)
    del about["name"], about["model"]
    return f"{model} {fingerprint(about)[:8]}"
