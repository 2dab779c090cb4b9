"""`mood bench`: networks × sets × scores under a protocol, from one recipe, beside what was published."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from mood.core.config import Argument, NotInFingerprint, config, to_dict
from mood.core.errors import DataError, InputError, OutputError
from mood.core.ranges import Count, Level, Seed
from mood.recipes.settings import OutputConfig, PassConfig

if TYPE_CHECKING:
    from mood.models import Model
    from mood.recipes.bench.results import Results


@config
class BenchConfig(PassConfig, OutputConfig):
    """Measure scores under a protocol, as a recipe lists them, beside published figures."""

    plan: Annotated[Path, Argument("RECIPE")]
    """a TOML file with runs, networks, sets, scores and published figures"""
    output: Annotated[Path, NotInFingerprint]
    """folder for report.html, results.parquet, .json, .csv, scores.parquet, table.md, table.tex and the figures"""
    small: bool = False
    """the recipe's stand-ins that run on a small machine, in place of its runs"""
    only: tuple[str, ...] = ()
    """only the run of this name"""
    limit: Count | None = None
    """take only so many images of each set, evenly spaced"""
    replicates: Count = 100
    """bootstrap replicates behind the intervals; they are most of what stored scores cost"""
    confidence: Level = 0.95
    """of the intervals"""
    seed: Seed = 0
    """of the bootstrap"""


@dataclass(frozen=True, slots=True)
class BenchResult:
    """What was measured, and where it was written."""

    results: "Results"
    output: Path

    @property
    def exit_code(self) -> int:
        """That of missing data where nothing at all could be measured."""
        return 0 if self.results.figures else DataError.exit_code

    def summary(self) -> str:
        """The tables, what is missing, and what it cost."""
        from mood.recipes.bench.tables import for_terminal

        return f"{for_terminal(self.results)}\n\nreport: {self.output / 'report.html'}"


def bench(config: BenchConfig, *, networks: "Mapping[str, Model] | None" = None) -> BenchResult:
    """Run a recipe; what is finished is not run again, and what cannot be run is named, with the rest done.

    With sets or networks that have come since, the same call makes the output anew, from the cache where it can.

    Args:
        config: of the command.
        networks: networks in memory, by what the recipe has as their `model`.

    Raises:
        InputError: the recipe is wrong somewhere, or has no model of such a name; nothing was started then.
        DataError: a data root is no folder; likewise.
        ModelError: a model is called nearly as a network is; likewise.
        OutputError: the output is taken, or it has a figure that cannot be had any more and would be gone.
    """
    from mood.core.output import open_output
    from mood.core.progress import say
    from mood.data.named import data_roots
    from mood.recipes.bench.plan import chosen_runs, load_plan

    plan = load_plan(config.plan)
    data_roots(config.data_root)
    # A slip in the recipe is answered before they are loaded, which takes seconds.
    from mood.models import check_spelling
    from mood.recipes.bench.pages import write_page
    from mood.recipes.bench.results import RESULTS, read_results, write_results
    from mood.recipes.bench.running import run_all
    from mood.recipes.bench.sets import open_sets, opened_runs
    from mood.recipes.bench.tables import write_tables
    from mood.recipes.bench.trials import digests, trials_of

    runs = chosen_runs(plan, small=config.small, only=config.only)
    brought = networks or {}
    models = {trial for run in runs for network in run.networks for trial in network.trials}
    if stray := [name for name in brought if name not in models]:
        raise InputError(f"networks has {stray[0]!r}, and the models of the recipe are {', '.join(sorted(models))}")
    # Whoever says how a network is trained has a folder in mind.
    trained = {
        trial
        for run in runs
        for network in run.networks
        for number, trial in enumerate(network.trials)
        if network.trained(number)
    }
    for name in sorted(models - trained - brought.keys()):
        check_spelling(name)
    sets = open_sets(runs, roots=config.data_root, limit=config.limit)
    ready, left_out = opened_runs(runs, sets)
    # Before networks are opened, which may take a download.
    for line in (
        *(f"missing: {key}: {why}" for key, why in sets.missing.items()),
        *(f"left out: {item}" for item in left_out),
        *(f"note: {note}" for _, opened in ready for note in opened.notes),
    ):
        say(line)
    trials = trials_of(ready, brought=brought, device=config.device)
    every = [(*of_run, those) for of_run, those in zip(ready, trials, strict=True)]
    lacking = [item for run, _, those in every for trial in those for item in trial.left_out(run.name)]
    for item in lacking:
        say(f"left out: {item}")
    settings = to_dict(config) | {
        "plan": to_dict(plan),
        "images": {key: item.manifest.fingerprint for key, item in sets.found.items()},
        "weights": digests(trials),
    }
    cheap = "only what is new takes long then: passes, and scores of images, are kept in the cache"
    with open_output(
        config.output, settings, overwrite=config.overwrite, replacing=cheap, at_hand=("images", "weights")
    ) as output:
        if not output.finished:
            told = [*left_out, *lacking]
            results, parts = run_all(config, plan, every, told, sets.missing, output, settings, brought)
            # What is there has less at hand; it may have had more packages.
            if not config.overwrite and (config.output / RESULTS).exists():
                _keeps(config.output, results)
            write_results(results, output.work)
            write_tables(results, output.work)
            write_page(results, parts, output.work)
            output.commit()
        return BenchResult(read_results(config.output), config.output)


def _keeps(output: Path, new: "Results") -> None:
    """Refuse to lose a figure of a result that is made anew without anybody's word."""
    from mood.recipes.bench.results import lost, read_results

    old = read_results(output)
    if not (gone := lost(old, new)):
        return
    first = gone[0]
    of = ", ".join(filter(None, (first.run, first.network, f"trial {first.trial}", first.score, first.key)))
    why = next((f" (left out now: {item})" for item in new.left_out if item not in old.left_out), "")
    raise OutputError(
        f"of the figures in {output} {len(gone)} cannot be had now, the first of which is {first.metric} of {of}"
        f"{why}: choose another -o, or lose them with --overwrite"
    )
