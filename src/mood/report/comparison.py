"""The page of a comparison: methods in tables that sort, published figures, distributions, sets and costs."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from mood.report.figures import as_svg
from mood.report.grid import Grid
from mood.report.markup import Child, Html, element, join
from mood.report.parts import SORTED, data_sets, document, heading, provenance, section, sorting, thumbnails
from mood.report.results import Card, Thumbnail
from mood.report.thumbnails import data_uris

if TYPE_CHECKING:
    from matplotlib.figure import Figure

ALPHA = 0.05
"""A picture whose p-value among the test images is at most this is marked."""

BUDGET = 1_500_000
"""Bytes that all figures of a page may take: with its tables and its pictures, which have a budget of their own, it
stays under 5 MB."""

FURTHER = 1_000_000
"""Bytes that its further tables may take, likewise."""


@dataclass(frozen=True, slots=True, eq=False)
class Drawn:
    """A figure.

    Attributes:
        title: above it.
        figure: drawn by `mood.report.comparison_figures`.
        group: figures of one group stand together under its name.
        note: a sentence above those of its group.
    """

    title: str
    figure: "Figure"
    group: str
    note: str = ""


@dataclass(frozen=True, slots=True, eq=False)
class Ends:
    """The images at both ends of a set.

    Attributes:
        title: of the set, and whose scores these are.
        most_unusual: the highest scores first.
        least_unusual: the lowest first.
    """

    title: str
    most_unusual: tuple[Thumbnail, ...]
    least_unusual: tuple[Thumbnail, ...]


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Comparison:
    """Everything on the page.

    Attributes:
        title: its heading.
        summary: a sentence or two.
        published: tables of others, with ours and the difference.
        footnotes: below them.
        methods: what every method reaches, to be sorted by any column.
        further: likewise by metrics that are looked for less often; each is closed until somebody opens it.
        figures: drawn.
        ends: images at both ends.
        cards: of the data sets.
        missing: sets that are not there → where to get and put them.
        left_out: what was not measured, and why.
        chosen: what was chosen on known images, and why.
        notes: sentences to be read beside the figures.
        costs: of the work.
        seen: one line for each data set that a network's weights have seen.
        config: the full effective settings.
        versions: of python and packages.
        hashes: of weights and images.
    """

    title: str
    summary: str
    published: tuple[Grid, ...] = ()
    footnotes: tuple[str, ...] = ()
    methods: tuple[Grid, ...] = ()
    further: tuple[Grid, ...] = ()
    figures: tuple[Drawn, ...] = ()
    ends: tuple[Ends, ...] = ()
    cards: tuple[Card, ...] = ()
    missing: Mapping[str, str] = field(default_factory=dict)
    left_out: tuple[tuple[str, str], ...] = ()
    chosen: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    costs: tuple[Grid, ...] = ()
    seen: tuple[str, ...] = ()
    config: Mapping[str, Any] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)
    hashes: Mapping[str, str] = field(default_factory=dict)


def render_comparison(page: Comparison) -> str:
    """The page as text, to be written as UTF-8; under 5 MB, offline, and the same for the same comparison.

    Where figures or further tables are more than fit, the first ones are shown, and a sentence says how many are not.

    Args:
        page: everything on it.
    """
    pictures = [picture for item in page.ends for picture in (*item.most_unusual, *item.least_unusual)]
    sources = dict(zip(map(id, pictures), data_uris(pictures), strict=True))
    figures = _within_budget(page.figures)
    notes = {item.group: item.note for item in page.figures if item.note}
    hidden = len(page.figures) - sum(map(len, figures.values()))
    parts: list[Child] = [
        element(
            "header",
            element("p", "mood · benchmark", class_="eyebrow"),
            element("h1", page.title),
            element("p", page.summary),
            (element("p", note, class_="note") for note in page.notes),
            # Below the published tables, where there are any.
            () if page.published else (element("p", note, class_="note") for note in page.footnotes),
        ),
        _tables("published", "Beside what was published", page.published, page.footnotes, sortable=False),
        _tables("methods", "Methods", page.methods, (SORTED,)),
        _further(page.further),
        _lines("chosen", "Chosen on known images alone", page.chosen),
        *(_figures(place, group, notes.get(group), panels) for place, (group, panels) in enumerate(figures.items())),
        _lines("hidden", "Further figures", _left_beside(hidden)),
        *(_ends(place, item, sources) for place, item in enumerate(page.ends)),
        _lines("missing", "Missing sets", [f"{name}: {reason}" for name, reason in page.missing.items()]),
        _lines("left-out", "Left out", [f"{what}: {reason}" for what, reason in page.left_out]),
        data_sets(page.cards),
        _lines("seen", "What the weights have seen", page.seen),
        _tables("costs", "What it cost", page.costs, (), sortable=False),
        provenance(page.config, page.versions, page.hashes),
    ]
    return document(page.title, parts, sorting())


def _tables(name: str, heading: str, grids: Sequence[Grid], notes: Sequence[str], sortable: bool = True) -> Html | None:
    if not grids:
        return None
    blocks = [(element("h3", grid.title), _with_notes(grid, sortable)) for grid in grids]
    return section(name, heading, blocks, (element("p", note, class_="note") for note in notes))


def _further(grids: Sequence[Grid]) -> Html | None:
    """Tables that are closed at first, the first ones that fit."""
    blocks: list[Html] = []
    left = FURTHER
    for grid in grids:
        block = element("details", element("summary", grid.title), _with_notes(grid, sortable=True))
        left -= len(block.encode())
        if left < 0:
            break
        blocks.append(block)
    hidden = len(grids) - len(blocks)
    told = f"Not shown, since a page holds no more: {hidden}; table.md has all."
    rest = element("p", told, class_="note") if hidden else None
    return section("further", "Further metrics", blocks, rest) if grids else None


def _with_notes(grid: Grid, sortable: bool) -> Html:
    return join(
        (
            element("div", _table(grid, sortable), class_="scroll", tabindex="0"),
            [element("p", note, class_="note") for note in grid.notes],
        )
    )


def _table(grid: Grid, sortable: bool) -> Html:
    def cell(place: int, content: str, beneath: str | None) -> Html:
        if place < grid.words:
            first = place == 0
            return element(
                "th" if first else "td",
                element("bdi", content),
                scope="row" if first else None,
                data_beneath=beneath if first else None,
            )
        return element("td", content, class_="number")

    rows = []
    for row in grid.rows:
        kind = row[1] if row[1:2] in (("here",), ("interval",), ("difference",), ("paper only",)) else None
        # A phone has no place for two columns of words: it shows the second one below the first.
        beneath = row[1] if grid.words > 1 else None
        cells = [cell(place, content, beneath) for place, content in enumerate(row)]
        rows.append(element("tr", cells, class_=kind.replace(" ", "-") if kind else None))
    head = element(
        "thead",
        element(
            "tr",
            (
                heading(
                    title,
                    sortable,
                    number=place >= grid.words,
                    ascending=grid.lower_is_better or place < grid.words,
                )
                for place, title in enumerate(grid.columns)
            ),
        ),
    )
    # Both columns of words stay where they are while the numbers move.
    kind = " ".join(["grid-table", *["two-words"] * (grid.words > 1), *["sortable"] * sortable])
    return element("table", head, element("tbody", rows), class_=kind)


def _lines(name: str, heading: str, lines: Sequence[str]) -> Html | None:
    return section(name, heading, element("ul", (element("li", line) for line in lines))) if lines else None


def _left_beside(hidden: int) -> list[str]:
    return [f"Not shown, since a page holds no more: {hidden}; the folder figures has all."] if hidden else []


def _within_budget(every: Sequence[Drawn]) -> dict[str, list[Html]]:
    """Figures by group, the first ones that fit."""
    found: dict[str, list[Html]] = {}
    left = BUDGET
    for item in every:
        panel = element("figure", element("h3", item.title), as_svg(item.figure, f"{item.group}: {item.title}"))
        left -= len(panel.encode())
        if left < 0:
            break
        found.setdefault(item.group, []).append(panel)
    return found


def _figures(place: int, group: str, note: str | None, panels: Sequence[Html]) -> Html:
    told = element("p", note, class_="explain") if note else None
    return section(f"figures-{place}", group, told, element("div", panels, class_="grid"))


def _ends(place: int, item: Ends, sources: Mapping[int, str]) -> Html | None:
    rows = (("Most unusual", item.most_unusual), ("Least unusual", item.least_unusual))
    shown = [(element("h3", heading), thumbnails(pictures, ALPHA, sources)) for heading, pictures in rows if pictures]
    return section(f"images-{place}", item.title, shown) if shown else None
