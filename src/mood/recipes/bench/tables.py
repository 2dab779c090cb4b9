"""Figures as tables: each run's scores beside each other, and published tables with ours and the difference."""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from pathlib import Path

from mood.evaluation import Spread, over_trials
from mood.recipes.bench.plan import PublishedPlan, RowPlan
from mood.recipes.bench.results import LESS_THIS, LESS_THIS_NETWORK, Figure, Results, trials_of
from mood.recipes.bench.session import ID
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
"""Metrics that stand in the tables of every face, by protocol; a terminal has no others but accuracy."""

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
TOGETHER = ("aurc", "excess_aurc")
"""Metrics of the test images alone, which share a table."""

CHOSEN_CELLS = (
    "The cells are those in which the rival accepts most of these same images, which favours whoever stands beside it; "
    '"all" is the fair figure.'
)

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
    """Every run's own tables: one for each metric that its protocol is known by, accuracy, and paired tests."""
    found = []
    for run, protocol in _protocols(results).items():
        made = [measured(results, run, metric) for metric in SHOWN[protocol]]
        found += [grid for grid in (*made, accuracy(results, run), *paired(results, run)) if grid is not None]
    return found


def further_grids(results: Results) -> list[Grid]:
    """Every run's tables of the other metrics, which a terminal leaves to the files."""
    found = []
    for run, protocol in _protocols(results).items():
        here = {figure.metric for figure in results.of(run)} - {*SHOWN[protocol], *TOGETHER, "accuracy"}
        made = [*(measured(results, run, metric) for metric in TITLES if metric in here), selective(results, run)]
        found += [grid for grid in made if grid is not None]
    return found


def _protocols(results: Results) -> dict[str, str]:
    found: dict[str, str] = {}
    for figure in results.figures:
        found.setdefault(figure.run, figure.protocol)
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
    notes: list[str] = []
    if metric == "auroc" and figures[0].protocol == "multi-class":
        best, notes = _oracles(cells, keys, results.controls(run))
        rows += best
    if any("→" in key for key in keys):
        notes.append(CHOSEN_CELLS)
    reach = [max(f.value - f.low, f.high - f.value) for f in figures if f.low is not None and f.high is not None]
    if reach:
        share = 100 * results.settings.get("confidence", 0.95)
        notes.append(
            f"{share:g} % intervals over the draw of the test images reach at most {scale * max(reach):.1f} points "
            "from these figures; results.csv has each."
        )
    headings, told = _marked(results, figures, keys)
    columns = ("network", "score", *headings)
    known, flattered = _flattered(figures)
    rows = [(known(network), *row) for network, *row in rows]
    told = [*notes, *told, *flattered]
    return Grid(f"{run}, {TITLES[metric]}", columns, tuple(rows), 2, tuple(told), lower_is_better=metric in LOWER)


def accuracy(results: Results, run: str) -> Grid | None:
    """How often each network is right about the test images, and about shifted ones; None where nobody can say."""
    figures = results.of(run, metric="accuracy")
    if not figures:
        return None
    cells = {(at[1], at[3]): of_cell for at, of_cell in trials_of(figures).items()}
    keys = tuple(dict.fromkeys(figure.key for figure in figures))
    known, told = _flattered(figures)
    rows = tuple(
        (known(network), *(_with_interval(cells.get((network, key), ())) for key in keys))
        for network in dict.fromkeys(figure.network for figure in figures)
    )
    columns = ("network", *("test images" if key == ID else key for key in keys))
    return Grid(f"{run}, {TITLES['accuracy']}", columns, rows, 1, (_brackets(results), *told))


def selective(results: Results, run: str) -> Grid | None:
    """The risk among the test images that each score keeps, over all shares kept; None where it was not measured."""
    figures = [figure for figure in results.of(run) if figure.metric in TOGETHER]
    if not figures:
        return None
    cells = {(at[1], at[2], at[4]): of_cell for at, of_cell in trials_of(figures).items()}
    known, told = _flattered(figures)
    rows = tuple(
        (known(network), score, *(_with_interval(cells.get((network, score, metric), ())) for metric in TOGETHER))
        for network, score in dict.fromkeys((figure.network, figure.score) for figure in figures)
    )
    columns = ("network", "score", *(TITLES[metric] for metric in TOGETHER))
    notes = (_brackets(results), *told)
    return Grid(f"{run}, AURC of the test images", columns, rows, 2, notes, lower_is_better=True)


def _brackets(results: Results) -> str:
    share = 100 * results.settings.get("confidence", 0.95)
    return (
        f"In brackets the {share:g} % interval; of several trials, which are shown as mean ± standard deviation, none."
    )


def _marked(results: Results, figures: Sequence[Figure], keys: Sequence[str]) -> tuple[tuple[str, ...], list[str]]:
    """Headings of a run's table, with a mark where the weights of one of its networks have seen the set, and whose."""
    run, protocol = figures[0].run, figures[0].protocol
    seen = _seen(results, run)
    here = [at for at in dict.fromkeys((figure.network, figure.key) for figure in figures) if at in seen]
    marked = {key for _, key in here}
    names = [(network, _set_of(key, protocol), seen[network, key]) for network, key in here]
    told = _told(names, means=any(key.startswith("mean") for key in keys))
    return tuple(f"{key} †" if key in marked else key for key in keys), told


def _flattered(figures: Iterable[Figure]) -> tuple[Callable[[str], str], list[str]]:
    """What rows call a network, with a mark where its weights have met the test set, and a sentence for each such."""
    networks: dict[str, dict[str, None]] = {}
    for figure in figures:
        if figure.flattered:
            networks.setdefault(figure.network, {})[figure.flattered] = None
    told = [f"† {network}: {'; '.join(why)}; that may flatter all of its figures." for network, why in networks.items()]
    return lambda network: f"{network} †" if network in networks else network, told


def _seen(results: Results, run: str) -> dict[tuple[str, str], str]:
    """(network, key) → why its weights are not new to these images, whatever the metric."""
    return {(figure.network, figure.key): figure.seen for figure in results.of(run) if figure.seen}


def _set_of(key: str, protocol: str) -> str:
    """The OOD set of a key: without what few-shot has shown of it, or which cell of a confusion it is."""
    if protocol == "few-shot":
        return key.rpartition(", ")[0]
    return key.partition(": ")[0] if protocol == "confusion" else key


def _told(seen: Iterable[tuple[str, str, str]], *, means: bool) -> list[str]:
    """A sentence for each reason why the weights of a network are not new to a set, from (network, set, reason)."""
    networks: dict[tuple[str, str], list[str]] = {}
    for network, name, why in dict.fromkeys(seen):
        networks.setdefault((name, why), []).append(network)
    sets: dict[tuple[str, str], list[str]] = {}
    for (name, why), those in networks.items():
        sets.setdefault((why, " and of ".join(those)), []).append(name)
    return [
        f"† {', '.join(names)}, for the weights of {those}: {why}{'; the means are over these too' * means}."
        for (why, those), names in sets.items()
    ]


def _oracles(
    cells: Mapping[tuple[str, str, str], Spread], keys: Sequence[str], controls: Collection[str]
) -> tuple[list[tuple[str, ...]], list[str]]:
    """For each network that is no control and has several scores, a row of the best of each set, and whose they are."""
    sets = [key for key in keys if not key.startswith("mean")]
    scores: dict[str, list[str]] = {}
    for network, score in dict.fromkeys(at[:2] for at in cells):
        if network not in controls:
            scores.setdefault(network, []).append(score)
    rows: list[tuple[str, ...]] = []
    notes = []
    for network, of_network in scores.items():
        if len(of_network) == 1:
            continue
        shown: dict[str, str] = {}
        whose: dict[str, list[str]] = {}
        for key in sets:
            reached = {score: cells[at].mean for score in of_network if (at := (network, score, key)) in cells}
            best = max(reached, key=reached.__getitem__)
            shown[key] = f"{100 * reached[best]:.1f}"
            whose.setdefault(best, []).append(key)
        rows.append((network, ORACLE, *(shown.get(key, "") for key in keys)))
        named = "; ".join(f"{', '.join(found)}: {score}" for score, found in whose.items())
        notes.append(f"Oracle of {network}: {named}.")
    if rows:
        notes.insert(
            0,
            f"{ORACLE}: the best of this network's scores on each set, picked by the unknown images themselves; nobody "
            "can have it. Controls have no part in it.",
        )
    return rows, notes


def paired(results: Results, run: str) -> list[Grid]:
    """The AUROC of a run's first score less that of each other, and on its first network less that on each other.

    Where a network lacks the score that is first on another, its own first one stands in a table of its own.
    """
    tests = (
        (LESS_THIS, "AUROC of {} less that of each score", "scores"),
        (LESS_THIS_NETWORK, "AUROC on {} less that on each network", "networks"),
    )
    tested = [figure for figure in results.of(run) if figure.p_value is not None]
    found = []
    for test, title, both in tests:
        before, after = test.split("{}")
        for metric in dict.fromkeys(figure.metric for figure in tested if figure.metric.startswith(before)):
            first = metric.removeprefix(before).removesuffix(after)
            figures = [figure for figure in tested if figure.metric == metric]
            # What the weights of the first network have seen is in these figures too.
            theirs = results.of(run, network=first, metric="auroc") if test == LESS_THIS_NETWORK else []
            found.append(_paired(results, figures, theirs, f"{run}, {title.format(first)} (points)", both))
    return found


def _paired(results: Results, figures: Sequence[Figure], theirs: Sequence[Figure], title: str, both: str) -> Grid:
    """One of them, with DeLong's p-value, from its figures and those that mark it as well."""
    run = figures[0].run
    cells = {at[1:4]: of_cell for at, of_cell in trials_of(figures).items()}
    keys = tuple(dict.fromkeys(figure.key for figure in figures))
    known, flattered = _flattered([*figures, *theirs])
    rows = []
    for network, score in dict.fromkeys((figure.network, figure.score) for figure in figures):
        rows.append((known(network), score, *(_compared(cells.get((network, score, key), ())) for key in keys)))
    # A mean over a single set is the comparison on that set again.
    alone = {(*at[:2], results.sets_behind(run, at[2])) for at, of_cell in cells.items() if len(of_cell) == 1}
    note = (
        f"In brackets the p-value of DeLong's test, in which both {both} meet the same images; of several trials, "
        "which are shown as mean ± standard deviation, none."
    )
    if alone:
        note += (
            f" Each is of one comparison, and here are {len(alone)}: by Bonferroni's rule 5 % for all of them together "
            f"are {0.05 / len(alone):.2g} for each."
        )
    headings, told = _marked(results, [*figures, *theirs], keys)
    notes = (note, *told, *flattered)
    return Grid(title, ("network", "score", *headings), tuple(rows), 2, notes)


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

    A row of ours of which the paper says nothing is not there where nothing was measured; one of the paper's is, with
    its dashes.
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
    seen = _seen(results, table.run)
    marks: list[tuple[str, str, str]] = []
    rows: list[tuple[str, ...]] = []
    for row in table.rows:
        here = _improved(table, row, ours) if row.improves else ours.get(row.name)
        sign = bool(row.improves)
        deviations = row.deviations or ("-",) * len(row.values)
        paper = [_printed(*pair, digits, sign) for pair in zip(row.values, deviations, strict=True)]
        measured_here = here is not None and any(value is not None for value in here)
        said = any(not isinstance(value, str) for value in row.values)
        if said or (row.network is None and not row.improves):
            rows.append((row.name, "paper" if measured_here else PAPER_ONLY, *paper))
        if here is None or not measured_here:
            continue
        shown = [_shown(value, scale, digits, sign) for value, scale in zip(here, scales, strict=True)]
        for column, found in enumerate(cells.get(row.name, ())):
            if not found:
                continue
            if (at := (found[0].network, found[0].key)) in seen:
                marks.append((at[0], table.columns[column], seen[at]))
            if at in seen or any(figure.flattered for figure in found):
                shown[column] += " †"
        rows.append((row.name, "here", *shown))
        between = [_interval(*pair, digits) for pair in zip(cells.get(row.name, ()), scales, strict=False)]
        if any(word != NOTHING for word in between):
            rows.append((row.name, "interval", *between))
        if said:
            rows.append((row.name, "difference", *_differences(here, row.values, scales, digits)))
    told = _told(marks, means=any(key.startswith("mean") for key in table.keys or table.columns))
    _, flattered = _flattered(figure for of_row in cells.values() for found in of_row for figure in found)
    return Grid(table.title, ("method", "", *table.columns), tuple(rows), 2, (*told, *flattered))


def reduced(results: Results) -> list[str]:
    """What makes the figures smaller than the recipe's own, to be read before them."""
    told = []
    if limit := results.settings.get("limit"):
        told.append(f"At most {limit:,} images of each set (--limit).")
    if results.settings.get("small"):
        told.append("The recipe's stand-ins for a small machine, and not its own runs (--small).")
    return told


def write_tables(results: Results, folder: Path) -> None:
    """Write table.md and table.tex: all metrics, and below them whatever is to be read beside them."""
    made = [*grids(results), *further_grids(results)]
    parts = _lines(results)
    above = [f"{escaped(line)}\n" for line in reduced(results)]
    below = [
        "\n".join([f"## {title}\n", *(f"* {escaped(line)}" for line in lines)]) + "\n" for title, lines in parts.items()
    ]
    text = "\n".join([f"# {escaped(results.title)}\n", *above, *(grid.to_markdown() for grid in made), *below])
    (folder / "table.md").write_text(text, encoding="utf-8")
    above = [f"\\noindent {tex(line)}\n" for line in reduced(results)]
    below = [
        "\n".join(
            [
                rf"\paragraph{{{tex(title)}}}",
                r"\begin{itemize}",
                *(rf"\item {tex(line)}" for line in lines),
                r"\end{itemize}",
            ]
        )
        + "\n"
        for title, lines in parts.items()
    ]
    text = "\n".join([*above, *(grid.to_latex() for grid in made), *below])
    (folder / "table.tex").write_text(text, encoding="utf-8")


def for_terminal(results: Results) -> str:
    """The main tables, footnotes, what is missing, what was left out, and costs, as plain lines."""
    blocks = [*reduced(results), *(grid.to_text() for grid in grids(results))]
    blocks += ["\n".join([f"{title}:", *(f"* {line}" for line in lines)]) for title, lines in _lines(results).items()]
    if further_grids(results):
        blocks.append("Further metrics are in table.md, table.tex and report.html.")
    return "\n\n".join([*blocks, *(grid.to_text() for grid in costs(results))])


def _lines(results: Results) -> dict[str, tuple[str, ...]]:
    """What is to be read beside the tables, by its heading; none is empty."""
    parts = {
        "Notes": (*results.footnotes, *results.notes),
        "Chosen on known images": results.chosen,
        "Missing sets": tuple(f"{name}: {reason}" for name, reason in results.missing.items()),
        "Left out": tuple(map(str, results.left_out_together())),
    }
    return {title: lines for title, lines in parts.items() if lines}


def costs(results: Results) -> list[Grid]:
    """What each kind of work took beside one extraction pass, and each score; a table for each trial of a network."""
    made = []
    trials = {(cost.run, cost.network) for cost in results.costs if cost.trial}
    for run, network, trial in dict.fromkeys((cost.run, cost.network, cost.trial) for cost in results.costs):
        mine = [cost for cost in results.costs if (cost.run, cost.network, cost.trial) == (run, network, trial)]
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
        of_trial = f", trial {trial}" if (run, network) in trials else ""
        title = f"Cost of {run} with {network}{of_trial}: {told}"
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


def _with_interval(figures: Sequence[Figure]) -> str:
    if not figures:
        return NOTHING
    between = _interval(figures, 100.0, 1)
    shown = _shown(_spread(figures), 100.0)
    return shown if between == NOTHING else f"{shown} ({between})"


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
