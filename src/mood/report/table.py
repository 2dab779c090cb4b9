"""One table, three faces: the console, Markdown, and (in `page`) HTML."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal, Self

from mood.report.grid import escaped
from mood.report.results import METRICS, Measured, ScoredSet

if TYPE_CHECKING:
    import rich.table

LOWER_IS_BETTER = frozenset({"fpr95_id_positive", "fpr95_ood_positive"})

RowKind = Literal["detector", "control", "mean"]


@dataclass(frozen=True, slots=True)
class Cell:
    """One cell: words, or a number.

    Attributes:
        text: the words.
        measured: the number, or None for words.
        best: the best number of its column among the rows of the same set.
    """

    text: str = ""
    measured: Measured | None = None
    best: bool = False

    @property
    def number(self) -> str:
        """The number in percent."""
        return "" if self.measured is None else percent(self.measured.value)

    @property
    def interval(self) -> str:
        """Its interval in percent, or nothing."""
        if self.measured is None or self.measured.low is None or self.measured.high is None:
            return ""
        return f"{percent(self.measured.low)}–{percent(self.measured.high)}"


@dataclass(frozen=True, slots=True)
class Row:
    """One row.

    Attributes:
        cells: one for each column.
        kind: whose numbers these are.
        set: position of the set among those of the table, or None for a mean over them.
    """

    cells: tuple[Cell, ...]
    kind: RowKind
    set: int | None = None


@dataclass(frozen=True, slots=True)
class Table:
    """Rows under headings, and what to say below them.

    Attributes:
        columns: headings.
        rows: the rows, those of one set together.
        notes: sentences below the table.
    """

    columns: tuple[str, ...]
    rows: tuple[Row, ...]
    notes: tuple[str, ...] = ()

    def without(self, column: str) -> Self:
        """The same table without one of its columns."""
        at = self.columns.index(column)
        rows = tuple(replace(row, cells=row.cells[:at] + row.cells[at + 1 :]) for row in self.rows)
        return replace(self, columns=self.columns[:at] + self.columns[at + 1 :], rows=rows)

    def to_markdown(self) -> str:
        """The table as GitHub and Sphinx read it; the best number of a set is bold, intervals follow in brackets."""
        words = sum(1 for cell in self.rows[0].cells if cell.measured is None and cell.text) if self.rows else 0
        lines = [_markdown_line(self.columns), _markdown_line(["---"] * words + ["---:"] * (len(self.columns) - words))]
        for row in self.rows:
            cells = []
            for cell in row.cells:
                number = f"**{cell.number}**" if cell.best else cell.number
                cells.append(f"{number} ({cell.interval})" if cell.interval else number or escaped(cell.text))
            lines.append(_markdown_line(cells))
        return "\n".join([*lines, *(f"\n{escaped(note)}" for note in self.notes)]) + "\n"

    def to_console(self) -> "rich.table.Table":
        """The table for a terminal; intervals stand below their numbers."""
        from rich import box
        from rich.table import Table as Grid
        from rich.text import Text

        notes = Text("\n".join(self.notes)) if self.notes else None
        grid = Grid(box=box.SIMPLE_HEAD, caption=notes, caption_justify="left")
        for position, column in enumerate(self.columns):
            numeric = any(row.cells[position].measured for row in self.rows)
            # An interval that is cut short is none.
            width = max((len(row.cells[position].interval) for row in self.rows), default=0)
            grid.add_column(
                Text(column), justify="right" if numeric else "left", no_wrap=not numeric, min_width=width or None
            )
        for place, row in enumerate(self.rows):
            cells = []
            for cell in row.cells:
                shown = Text(cell.number or cell.text, style="bold" if cell.best else "")
                if cell.interval:
                    shown.append(f"\n{cell.interval}", style="not bold dim")
                cells.append(shown)
            grid.add_row(
                *cells,
                style="dim" if row.kind == "control" else "",
                end_section=place + 1 < len(self.rows) and self.rows[place + 1].set != row.set,
            )
        return grid


def metrics_table(sets: Sequence[ScoredSet], *, score: str, metrics: Sequence[str] = tuple(METRICS)) -> Table:
    """What a detector and its controls reach on each OOD set, in percent.

    Args:
        sets: the OOD sets.
        score: name of the detector's score.
        metrics: those to be shown, by the keys of `METRICS`.

    Returns:
        Columns: set, images, score, then each metric that any set has. Rows: the detector and its controls on each
        set, then their means over the sets that the weights have not seen, if these are more than one. The notes say
        where a control has the better AUROC, and which sets the weights have seen.
    """
    shown = [key for key in METRICS if key in metrics and any(key in item.metrics for item in sets)]
    rows: list[Row] = []
    for position, item in enumerate(sets):
        rivals = {score: item.metrics, **item.controls}
        best = _best(rivals.values(), shown)
        for place, (name, values) in enumerate(rivals.items()):
            words = (_marked(item), str(len(item.scores))) if place == 0 else ("", "")
            rows.append(_row((*words, name), values, shown, best, position, "control" if place else "detector"))
    unseen = [item for item in sets if not item.seen_by_weights]
    if len(unseen) > 1:
        every = {score: [item.metrics for item in unseen]}
        for name in unseen[0].controls:
            every[name] = [item.controls[name] for item in unseen if name in item.controls]
        means = {name: _mean(values) for name, values in every.items() if len(values) == len(unseen)}
        best = _best(means.values(), shown)
        for place, (name, values) in enumerate(means.items()):
            words = (f"mean of {len(unseen)} sets", "") if place == 0 else ("", "")
            rows.append(_row((*words, name), values, shown, best, None, "control" if place else "mean"))
    headings = [f"{METRICS[key]}{_arrow(key)}" for key in shown]
    return Table(("OOD set", "images", "score", *headings), tuple(rows), _notes(sets, score))


def percent(share: float) -> str:
    """A share with one decimal of a percent, without the sign."""
    return f"{100 * share:.1f}"


def _marked(item: ScoredSet) -> str:
    return f"{item.name} †" if item.seen_by_weights else item.name


def _arrow(key: str) -> str:
    return "" if key == "flagged" else " ↓" if key in LOWER_IS_BETTER else " ↑"


def _best(rivals: Iterable[Mapping[str, Measured]], shown: Sequence[str]) -> dict[str, float]:
    """The best value of each metric, as it is printed; none where there is nobody to be better than."""
    rivals = list(rivals)
    best = {}
    for key in shown:
        values = [metrics[key].value for metrics in rivals if key in metrics]
        if len(values) > 1:
            best[key] = min(values) if key in LOWER_IS_BETTER else max(values)
    return best


def _mean(metrics: Sequence[Mapping[str, Measured]]) -> dict[str, Measured]:
    return {
        key: Measured(sum(each[key].value for each in metrics) / len(metrics))
        for key in METRICS
        if all(key in each for each in metrics)
    }


def _row(
    words: tuple[str, ...],
    metrics: Mapping[str, Measured],
    shown: Sequence[str],
    best: Mapping[str, float],
    position: int | None,
    kind: RowKind,
) -> Row:
    cells = [Cell(word) for word in words]
    for key in shown:
        measured = metrics.get(key)
        is_best = measured is not None and key in best and percent(measured.value) == percent(best[key])
        cells.append(Cell(measured=measured, best=is_best and key != "flagged"))
    return Row(tuple(cells), kind, position)


def _notes(sets: Sequence[ScoredSet], score: str) -> tuple[str, ...]:
    notes = []
    if any(item.seen_by_weights for item in sets):
        notes.append("† The weights have seen images of this set; it is left out of the mean.")
    for control in dict.fromkeys(name for item in sets for name in item.controls):
        ahead = [
            item.name
            for item in sets
            if "auroc" in item.metrics
            and "auroc" in item.controls.get(control, {})
            and item.controls[control]["auroc"].value >= item.metrics["auroc"].value
        ]
        if ahead:
            notes.append(f"The control “{control}” has an AUROC no lower than {score} on: {', '.join(ahead)}.")
    return tuple(notes)


def _markdown_line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"
