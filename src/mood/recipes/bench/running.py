"""All runs of a benchmark, one after the other: whatever cannot be done is named, and the rest is done."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from mood.core.errors import MoodError
from mood.core.progress import say
from mood.recipes.bench.first_network import FirstNetwork
from mood.recipes.bench.flattered import flattered
from mood.recipes.bench.image_scores import SCORES, ImageScores
from mood.recipes.bench.made import Made
from mood.recipes.bench.networks import OWN
from mood.recipes.bench.pages import Shown, shown
from mood.recipes.bench.plan import Plan, RunPlan, score_spec
from mood.recipes.bench.protocols import PROTOCOLS
from mood.recipes.bench.readable import readable, unread
from mood.recipes.bench.results import Cost, Figure, LeftOut, Results
from mood.recipes.bench.session import Cells, Session
from mood.recipes.bench.sets import Opened
from mood.recipes.bench.trials import Networks, Trial
from mood.recipes.bench.units import Units

if TYPE_CHECKING:
    from mood.core.output import Output
    from mood.models import Model
    from mood.recipes.bench import BenchConfig

FEW = 3
"""Images for each dimension below which the smallest eigenvalue of a covariance comes out at less than a fifth of the
true one: (1 - 1/√3)² (Marchenko and Pastur 1967)."""


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
    runs: Sequence[tuple[RunPlan, Opened, Sequence[Trial]]],
    left_out: Sequence[LeftOut],
    missing: Mapping[str, str],
    output: "Output",
    settings: Mapping[str, Any],
    brought: "Mapping[str, Model]",
) -> tuple[Results, list[Shown]]:
    """Run the protocols.

    Args:
        config: of the command.
        plan: the recipe.
        runs: those of it that are wanted and can be run, with their sets and trials.
        left_out: the others that are wanted, and networks that cannot be had.
        missing: sets that are not there.
        output: that is being written: units are kept in its scratch, and the scores of all images are written.
        settings: the full effective configuration, for the report.
        brought: networks in memory by what the recipe calls them.

    Returns:
        The results, and what a page shows of each run and network.
    """
    import platform

    import timm
    import torch

    import mood

    found, units = Found(left_out=[*left_out]), Units(output.scratch)
    ready: list[tuple[RunPlan, Opened, Trial, Cells, FirstNetwork]] = []
    for place, (run, opened, of_run) in enumerate(runs):
        found.notes += opened.notes
        # The rival's network says which cells all of them show.
        cells: Cells = {}
        first = FirstNetwork(output.scratch / f"first network {place}")
        for trial in sorted(of_run, key=lambda trial: trial.plan.name != run.rival_network):
            if not trial.lacking:
                ready.append((run, opened, trial, cells, first))
    with ImageScores(output.work / SCORES) as images:
        for number, (run, opened, trial, cells, first) in enumerate(ready, 1):
            began, before = time.perf_counter(), len(found.left_out)
            networks = Networks(
                trial,
                brought=brought,
                device=config.device,
                batch_size=config.batch_size,
                workers=config.workers,
            )
            _run(config, run, opened, networks, units, images, cells, first, found)
            took = f"{time.perf_counter() - began:.1f} s"
            short = len(found.left_out) - before
            say(
                f"{number} of {len(ready)}: {run.name}, {trial.called('')}: {took}"
                + (f", {short} left out" if short else "")
            )
    results = Results(
        title=plan.title,
        figures=tuple(found.figures),
        costs=tuple(found.costs),
        missing=dict(missing),
        left_out=tuple(dict.fromkeys(found.left_out)),
        notes=tuple(dict.fromkeys(found.notes)),
        chosen=tuple(dict.fromkeys(found.chosen)),
        published=plan.published,
        footnotes=plan.footnotes,
        other_sets=tuple(run.name for run, *_ in runs if _is_elsewhere(run, plan)),
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
    config: "BenchConfig",
    run: RunPlan,
    opened: Opened,
    networks: Networks,
    units: Units,
    images: ImageScores,
    cells: Cells,
    first: FirstNetwork,
    found: Found,
) -> None:
    """One run with one trial of one network."""
    called, trial = networks.trial.plan.name, networks.trial.number
    if opened.unknown:
        try:
            opened, unreadable = readable(opened, networks.any)
        except MoodError as error:
            found.left_out.append(LeftOut(run.name, called, str(error)))
            return
        found.left_out += [LeftOut(run.name, f"{called}, {name}", why) for name, why in unreadable.items()]
        if not opened.unknown:
            return
    made = Made(run, opened, networks, units)
    session = Session(
        run=run,
        sets=opened,
        networks=networks,
        made=made,
        replicates=config.replicates,
        confidence=config.confidence,
        seed=config.seed,
        cells=cells,
        first=first,
        left_out=lambda what, reason: found.left_out.append(LeftOut(run.name, f"{called}, {what}", reason)),
        flattered=flattered(run, opened, networks.trial),
    )
    try:
        found.figures += PROTOCOLS[run.protocol](session)
    except MoodError as error:
        found.left_out.append(LeftOut(run.name, called, str(error)))
        return
    images.add(session)
    ends = run.name not in {part.run for part in found.shown}
    found.shown.append(shown(session, made.scored, drawn=trial == 0, ends=ends))
    for text, one in made.scored.items():
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
                    trial=trial,
                )
            )
    for name, seconds in made.spent().items():
        found.costs.append(
            Cost(
                run=run.name,
                network=called,
                score=name,
                kind=name,
                fit_seconds=0.0,
                score_seconds=seconds,
                trial=trial,
            )
        )
    found.notes += _small_fit(session) + unread(run.name, opened, networks.any)


def _small_fit(session: Session) -> list[str]:
    """A word where a score of the run inverts a covariance of few images that nothing shrinks."""
    texts = [text for text, one in session.made.scored.items() if one.values and _shrunk(text)]
    if not texts:
        return []
    images, width = len(session.sets.fit), session.network.shards(session.sets.test, OWN)[0].embedding.shape[1]
    of_each = ""
    if session.run.protocol in ("one-class", "pairs"):
        images //= max(1, len(session.class_names))
        of_each = " of a class"
    if images >= FEW * width:
        return []
    singular = "has no inverse there, and says nothing of directions in which these images do not differ"
    loose = "takes its smallest directions for smaller than they are"
    instead = [
        " ".join([*(word for word in text.split() if "shrinkage=" not in word), *_shrunk(text)]) for text in texts
    ]
    return [
        f"{session.run.name}, {session.network.plan.name}: {images} images{of_each} for {width} dimensions, "
        f"{images / width:.2g} times as many, where {FEW} times are few: a covariance that nothing shrinks, as that of "
        f"{', '.join(map(repr, texts))}, {singular if images <= width else loose}; measure "
        f"{', '.join(map(repr, instead))} beside it."
    ]


def _shrunk(text: str) -> list[str]:
    """The options that would shrink the covariances which a score does not; none where they are chosen for it."""
    from mood.scores import info

    name, given, chosen = score_spec(text)
    if chosen:
        return []
    options = {**info(name).options, **given}
    return [f"{key}=oas" for key, value in options.items() if key.endswith("shrinkage") and value in ("none", 0)]


def _is_elsewhere(run: RunPlan, plan: Plan) -> bool:
    """Whether a stand-in has other OOD sets than the run of its name."""
    return any(run.name == other.name and run.unknown.keys() != other.unknown.keys() for other in plan.runs)
