"""A table of words that is the same in a terminal, in Markdown, in LaTeX and on a page."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from mood.core.errors import InputError

TEX = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    **{character: f"\\{character}" for character in "&%$#_{}"},
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    "±": r"$\pm$",
    "→": r"$\rightarrow$",
    "—": "--",
    "†": r"$\dagger$",
    "−": r"$-$",
    "≤": r"$\leq$",
    "≥": r"$\geq$",
    "×": r"$\times$",
    "α": r"$\alpha$",
}
"""Characters that LaTeX would take for something else, or does not have in text."""


@dataclass(frozen=True, slots=True)
class Grid:
    """A table of words.

    Attributes:
        title: above it.
        columns: headings.
        rows: one word for each column.
        words: leading columns that are words; the others hold numbers.
        notes: sentences below it.
        lower_is_better: of its numbers, so that sorting begins at the low end.

    Raises:
        InputError: a row with another number of cells.
    """

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    words: int = 1
    notes: tuple[str, ...] = ()
    lower_is_better: bool = False

    def __post_init__(self) -> None:
        """Check once what every face relies on."""
        for row in self.rows:
            if len(row) != len(self.columns):
                raise InputError(f"table {self.title!r}: a row has {len(row)} cells, and there are {len(self.columns)}")

    def to_text(self) -> str:
        """Aligned columns, for a terminal."""
        rows = (self.columns, *self.rows)
        widths = [max(len(row[place]) for row in rows) for place in range(len(self.columns))]

        def line(row: Sequence[str]) -> str:
            cells = [
                cell.ljust(width) if place < self.words else cell.rjust(width)
                for place, (cell, width) in enumerate(zip(row, widths, strict=True))
            ]
            return "  ".join(cells).rstrip()

        return "\n".join((self.title, *map(line, rows), *self.notes))

    def to_markdown(self) -> str:
        """As GitHub and Sphinx read it."""
        marks = ["---"] * self.words + ["---:"] * (len(self.columns) - self.words)
        lines = [_line(map(escaped, self.columns)), _line(marks), *(_line(map(escaped, row)) for row in self.rows)]
        notes = [f"\n{escaped(note)}" for note in self.notes]
        return "\n".join([f"### {escaped(self.title)}", "", *lines, *notes]) + "\n"

    def to_latex(self) -> str:
        """A table with the rules of booktabs."""
        rows = [" & ".join(map(tex, row)) + r" \\" for row in (self.columns, *self.rows)]
        caption = " ".join(map(tex, (f"{self.title}.", *self.notes)))
        lines = [
            r"\begin{table}",
            rf"\caption{{{caption}}}",
            rf"\begin{{tabular}}{{{'l' * self.words}{'r' * (len(self.columns) - self.words)}}}",
            r"\toprule",
            rows[0],
            r"\midrule",
            *rows[1:],
            r"\bottomrule",
            r"\end{tabular}",
            r"\end{table}",
        ]
        return "\n".join(lines) + "\n"


def escaped(text: str) -> str:
    """Text that Markdown leaves as it is."""
    for character in "\\|*_`<[":
        text = text.replace(character, f"\\{character}")
    return " ".join(text.split())


def tex(text: str) -> str:
    """Text that LaTeX leaves as it is."""
    return "".join(TEX.get(character, character) for character in " ".join(text.split()))


def _line(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"
