"""Figures as tables: each run's scores beside each other, and published tables with ours and the difference."""

from collections.abc import Iterable, Sequence
from pathlib import Path

from mood.evaluation import Spread, over_trials
from mood.recipes.bench.plan import PublishedPlan, RowPlan
from mood.recipes.bench.results import LESS_THIS, Figure, Results, trials_of
from mood.report import Grid
from mood.report.grid import escaped, tex

SHOWN = {
    "multi-class": ("auroc", "fpr95_id_positive"),
    "full-spectrum": ("auroc", "auroc_without_shifts"),
    "one-class": ("auroc", "auroc_pooled"),
    "pairs": ("auroc",),
    "confusion": ("accepted",),
    "few-shot": ("auroc",),
}
"""Metrics that get a table of their own, by protocol; all others are in the files."""

TITLES = {
    "auroc": "AUROC (%)",
    "auroc_pooled": "AUROC against all other classes together (%)",
    "auroc_without_shifts": "AUROC, shifted known images left out (%)",
    "auroc_of_shift": "AUROC of shifted known images against plain ones (%; 50 = not moved)",
    "fpr95_id_positive": "FPR95, ID positive (%)",
    "fpr95_ood_positive": "FPR95, OOD positive (%)",
    "aupr_id_positive": "AUPR, ID positive (%)",
    "aupr_ood_positive": "AUPR, OOD positive (%)",
    "detection_error": "detection error (%)",
    "accuracy": "accuracy (%)",
    "aurc": "AURC (%)",
    "excess_aurc": "excess AURC (%)",
    "oscr": "OSCR (%)",
    "accepted": "OOD images accepted where 95 % of ID are (images)",
}
LOWER = frozenset({"fpr95_id_positive", "fpr95_ood_positive", "detection_error", "aurc", "excess_aurc", "accepted"})
ORACLE = "oracle"
PAPER_ONLY = "paper only"
NOTHING = "—"
KINDS = ("stored", "scikit-learn", "probes", "intervals", "further pass")
"""Of work, in the order of the cost table."""


def grids(results: Results) -> list[Grid]:
    """Published tables first, then every run's own."""
    return [*published_grids(results), *measured_grids(results)]


def published_grids(results: Results) -> list[Grid]:
    """The tables of others, with ours and the difference."""
    return [published(results, table) for table in results.published]


def measured_grids(results: Results) -> list[Grid]:
    """Every run's own tables, one for each metric that its protocol is known by, and that of paired tests."""
    found = []
    for run in dict.fromkeys(figure.run for figure in results.figures):
        protocol = next(figure.protocol for figure in results.figures if figure.run == run)
        found += [grid for metric in SHOWN[protocol] if (grid := measured(results, run, metric)) is not None]
        if (grid := paired(results, run)) is not None:
            found.append(grid)
    return found


def measured(results: Results, run: str, metric: str) -> Grid | None:
    """What every network and score of a run reaches, a column for each set; None where nothing was measured."""
    figures = results.of(run, metric=metric)
    if not figures:
        return None
    cells = {at[1:4]: _spread(values) for at, values in trials_of(figures).items()}
    # Of one-class detection the pairs are in the files; here they would be hundreds of columns.
    pairs = figures[0].protocol == "one-class"
    keys = [key for key in dict.fromkeys(figure.key for figure in figures) if not (pairs and " / " in key)]
    keys.sort(key=lambda key: key.startswith("mean"))
    rows = []
    scale = 1.0 if metric == "accepted" else 100.0
    for network, score in dict.fromkeys((figure.network, figure.score) for figure in figures):
        values = [cells.get((network, score, key)) for key in keys]
        rows.append((network, score, *(_shown(value, scale) for value in values)))
    scores = {score for _, score, *_ in rows}
    notes = []
    if metric == "auroc" and len(scores) > 1 and figures[0].protocol == "multi-class":
        best = []
        for key in keys:
            means = [cells[at].mean for at in cells if at[2] == key]
            best.append(f"{100 * max(means):.1f}" if means and not key.startswith("mean") else "")
        rows.append((ORACLE, "best of each set", *best))
        notes.append("oracle: the best score of each set, picked by the unknown images themselves; nobody can have it.")
    reach = [max(f.value - f.low, f.high - f.value) for f in figures if f.low is not None and f.high is not None]
    if reach:
        share = 100 * results.settings.get("confidence", 0.95)
        notes.append(
            f"{share:g} % intervals over the draw of the test images reach at most {scale * max(reach):.1f} points "
            "from these figures; results.csv has each."
        )
    seen: dict[str, list[str]] = {}
    for key, why in dict.fromkeys((figure.key, figure.seen) for figure in figures if figure.seen):
        seen.setdefault(why, []).append(key)
    notes += [f"† {'; '.join(by_reason)}: {why}." for why, by_reason in seen.items()]
    marked = {key for by_reason in seen.values() for key in by_reason}
    columns = ("network", "score", *(f"{key} †" if key in marked else key for key in keys))
    return Grid(f"{run}, {TITLES.get(metric, metric)}", columns, tuple(rows), 2, tuple(notes))


def paired(results: Results, run: str) -> Grid | None:
    """The AUROC of a run's first score less that of each other, with DeLong's p-value; None where there are none."""
    figures = [figure for figure in results.of(run) if figure.p_value is not None]
    if not figures:
        return None
    cells = {at[1:4]: of_cell for at, of_cell in trials_of(figures).items()}
    keys = tuple(dict.fromkeys(figure.key for figure in figures))
    rows = []
    for network, score in dict.fromkeys((figure.network, figure.score) for figure in figures):
        rows.append((network, score, *(_compared(cells.get((network, score, key), ())) for key in keys)))
    before, after = LESS_THIS.split("{}")
    first = figures[0].metric.removeprefix(before).removesuffix(after)
    notes = (
        "In brackets the p-value of DeLong's test, in which both scores meet the same images; of several trials, which "
        f"are shown as mean ± standard deviation, none. Each is of one comparison, and here are {len(figures)}: by "
        f"Bonferroni's rule 5 % for all of them together are {0.05 / len(figures):.2g} for each.",
    )
    title = f"{run}, AUROC of {first} less that of each score (points)"
    return Grid(title, ("network", "score", *keys), tuple(rows), 2, notes)


def _compared(figures: Sequence[Figure]) -> str:
    if not figures:
        return NOTHING
    shown = _shown(_spread(figures), 100.0, sign=True)
    if len(figures) > 1:
        return shown
    p_value = figures[0].p_value or 0.0
    return f"{shown} ({p_value:.3f})" if p_value >= 0.0005 else f"{shown} (< 0.001)"


def published(results: Results, table: PublishedPlan) -> Grid:
    """The paper's table in its own layout; below a row that is measured here, ours, its interval and the difference.

    A row of which the paper says nothing is of ours alone, and is not there where nothing was measured.
    """
    columns = range(len(table.columns))
    scales = [1.0 if metric == "accepted" else 100.0 for metric in table.metrics or ("auroc",) * len(columns)]
    printed = [value for row in table.rows for value in row.values if not isinstance(value, str)]
    digits = 2 if any(round(value, 1) != value for value in printed) else 1
    cells = {
        row.name: [results.beside(table, row, column) for column in columns]
        for row in table.rows
        if row.network is not None
    }
    ours = {name: [_spread(found) if found else None for found in of_row] for name, of_row in cells.items()}
    rows: list[tuple[str, ...]] = []
    for row in table.rows:
        here = _improved(table, row, ours) if row.improves else ours.get(row.name)
        sign = bool(row.improves)
        deviations = row.deviations or ("-",) * len(row.values)
        paper = [_printed(*pair, digits, sign) for pair in zip(row.values, deviations, strict=True)]
        measured_here = here is not None and any(value is not None for value in here)
        said = any(not isinstance(value, str) for value in row.values)
        if said:
            rows.append((row.name, "paper" if measured_here else PAPER_ONLY, *paper))
        if here is None or not measured_here:
            continue
        shown = [_shown(value, scale, digits, sign) for value, scale in zip(here, scales, strict=True)]
        rows.append((row.name, "here", *shown))
        between = [_interval(*pair, digits) for pair in zip(cells.get(row.name, ()), scales, strict=False)]
        if any(word != NOTHING for word in between):
            rows.append((row.name, "interval", *between))
        if said:
            rows.append((row.name, "difference", *_differences(here, row.values, scales, digits)))
    return Grid(table.title, ("method", "", *table.columns), tuple(rows), 2)


def write_tables(results: Results, folder: Path) -> None:
    """Write table.md and table.tex."""
    made = grids(results)
    notes = [f"* {escaped(note)}\n" for note in (*results.footnotes, *results.notes, *results.chosen)]
    text = "\n".join([f"# {escaped(results.title)}\n", *(grid.to_markdown() for grid in made), *notes])
    (folder / "table.md").write_text(text, encoding="utf-8")
    below = [f"\\noindent {tex(note)}\n" for note in results.footnotes]
    text = "\n".join([*(grid.to_latex() for grid in made), *below])
    (folder / "table.tex").write_text(text, encoding="utf-8")


def for_terminal(results: Results) -> str:
    """Tables, footnotes, what is missing, what was left out, and costs, as plain lines."""
    blocks = [grid.to_text() for grid in grids(results)]
    parts = {
        "": (*results.footnotes, *results.notes),
        "Chosen on known images:": results.chosen,
        "Missing sets:": tuple(f"{name}: {reason}" for name, reason in results.missing.items()),
        "Left out:": tuple(f"{item.run}, {item.what}: {item.reason}" for item in results.left_out),
    }
    blocks += [
        "\n".join([*[title] * bool(title), *(f"* {line}" for line in lines)]) for title, lines in parts.items() if lines
    ]
    return "\n\n".join([*blocks, *(grid.to_text() for grid in costs(results))])


def costs(results: Results) -> list[Grid]:
    """What each kind of work took beside one extraction pass, and each score."""
    made = []
    for run, network in dict.fromkeys((cost.run, cost.network) for cost in results.costs):
        mine = [cost for cost in results.costs if (cost.run, cost.network) == (run, network)]
        passes = sum(cost.score_seconds for cost in mine if cost.kind == "extraction")
        rows: list[tuple[str, ...]] = []
        for kind in KINDS:
            of_kind = [cost for cost in mine if cost.kind == kind]
            if not of_kind:
                continue
            total = sum(cost.fit_seconds + cost.score_seconds for cost in of_kind)
            rows.append((f"{kind}, together", "", "", f"{total:.2f}", _passes(total, passes)))
            for cost in of_kind if kind not in ("probes", "intervals") else ():
                spent = cost.fit_seconds + cost.score_seconds
                numbers = (cost.fit_seconds, cost.score_seconds, spent)
                rows.append((f"– {cost.score}", *(f"{number:.2f}" for number in numbers), _passes(spent, passes)))
        told = f"an extraction pass took {passes:.1f} s" if passes else "nobody timed the extraction pass"
        title = f"Cost of {run} with {network}: {told}"
        made.append(Grid(title, ("work", "fit, s", "score, s", "both, s", "passes"), tuple(rows)))
    return made


def _improved(table: PublishedPlan, row: RowPlan, ours: dict[str, list[Spread | None]]) -> list[Spread | None] | None:
    """Our figure of the better row less the rival's: ours where it was measured, else the paper's."""
    better, rival = row.improves
    if better not in ours:
        return None
    paper = next(item for item in table.rows if item.name == rival).values
    theirs = ours.get(rival, [None] * len(paper))
    found: list[Spread | None] = []
    for mine, other, printed in zip(ours[better], theirs, paper, strict=True):
        value = other.mean if other is not None else printed / 100 if isinstance(printed, float | int) else None
        found.append(None if mine is None or value is None else Spread(mine.mean - value, None, mine.trials))
    return found


def _differences(
    here: Sequence[Spread | None], paper: Sequence[float | str], scales: Sequence[float], digits: int
) -> list[str]:
    return [
        f"{scale * ours.mean - printed:+.{digits}f}" if ours is not None and not isinstance(printed, str) else NOTHING
        for ours, printed, scale in zip(here, paper, scales, strict=True)
    ]


def _spread(figures: Iterable[Figure]) -> Spread:
    return over_trials([figure.value for figure in figures])


def _shown(value: Spread | None, scale: float, digits: int = 1, sign: bool = False) -> str:
    if value is None:
        return NOTHING
    if scale == 1:
        return f"{value.mean:.0f}" if value.sd is None else f"{value.mean:.1f} ± {value.sd:.1f}"
    text = f"{scale * value.mean:{'+' * sign}.{digits}f}"
    return text if value.sd is None else f"{text} ± {scale * value.sd:.{digits}f}"


def _interval(figures: Sequence[Figure], scale: float, digits: int) -> str:
    """Of one figure; several trials are shown with their spread."""
    if len(figures) != 1 or figures[0].low is None or figures[0].high is None:
        return NOTHING
    return f"{scale * figures[0].low:.{digits}f}–{scale * figures[0].high:.{digits}f}"


def _printed(value: float | str, deviation: float | str, digits: int, sign: bool) -> str:
    if isinstance(value, str):
        return NOTHING
    text = f"{value:{'+' * sign}.{digits}f}"
    return text if isinstance(deviation, str) else f"{text} ± {deviation:.{digits}f}"


def _passes(seconds: float, one: float) -> str:
    return f"{seconds / one:.3f}" if one > 0 else NOTHING
