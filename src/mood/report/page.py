"""The page: one self-contained file that opens without a network, on a phone, in the dark and on paper.

Nothing on it comes from elsewhere, and nothing runs but what sorts its table; its content security policy says so to
the browser.
"""

import math
from collections.abc import Mapping, Sequence

from mood.report import figures
from mood.report.markup import Child, Html, element, join
from mood.report.parts import SORTED, data_sets, document, heading, provenance, section, sorting, thumbnails
from mood.report.results import Measured, Promise, Report, ScoredSet
from mood.report.table import Cell, Row, Table, metrics_table, percent
from mood.report.thumbnails import data_uris

REJECTIONS = 100
"""Rejected images that are listed for each set; the others are counted."""


def render(report: Report) -> str:
    """The page as text, to be written as UTF-8; under 5 MB, and the same for the same report.

    Args:
        report: everything on it.
    """
    pictures = [picture for item in report.sets for picture in (*item.most_unusual, *item.least_unusual)]
    sources = dict(zip(map(id, pictures), data_uris(pictures), strict=True))
    sections = (
        _at_a_glance(report),
        _promise(report),
        _metrics(report),
        _scores(report),
        _curves(report),
        *(_images(item, position, report, sources) for position, item in enumerate(report.sets)),
        _rejected(report.sets),
        data_sets(report.cards),
        _seen(report),
        provenance(report.config, report.versions, report.hashes),
    )
    return document(report.title, (_header(report), sections, _footer()), sorting())


def _header(report: Report) -> Html:
    facts = [
        ("score", element("code", report.score)),
        ("network", report.model),
        ("ID", (element("bdi", report.id.name), f", {_count(len(report.id.scores), 'image')}")),
        ("OOD", _names(report.ood) if report.ood else "none"),
    ]
    if report.created:
        facts.append(("made", report.created))
    return element(
        "header",
        element("p", "mood · out-of-distribution report", class_="eyebrow"),
        element("h1", report.title),
        element(
            "dl", (element("div", element("dt", name), element("dd", value)) for name, value in facts), class_="facts"
        ),
        element("pre", element("code", report.command), class_="command") if report.command else None,
        (element("p", note, class_="note") for note in report.notes),
    )


def _at_a_glance(report: Report) -> Html:
    """Three or four big numbers."""
    promise, observed = report.promise, report.id.flagged(report.promise.alpha)
    cards = [
        _card(
            "False alarms on unseen ID",
            f"{percent(observed)} %",
            f"promised: at most {percent(promise.alpha)} % on average",
            _pill(*_verdict(promise, observed)),
        )
    ]
    unseen = [item for item in report.ood if not item.seen_by_weights] or report.ood
    if unseen:
        caught = [item.flagged(promise.alpha) for item in unseen]
        cards.append(
            _card(
                "OOD images caught",
                f"{percent(sum(caught) / len(caught))} %",
                f"mean of {_count(len(caught), 'set')}, from {percent(min(caught))} % to {percent(max(caught))} %",
            )
        )
    table = metrics_table(report.ood, score=report.score)
    means = [row for row in table.rows if row.set is None] or [row for row in table.rows if row.set == 0]
    if means and "AUROC ↑" in table.columns:
        column = table.columns.index("AUROC ↑")
        rivals = [f"{row.cells[2].text} {row.cells[column].number}" for row in means[1:]]
        cards.append(
            _card(
                f"AUROC, {means[0].cells[0].text}",
                means[0].cells[column].number,
                f"controls: {', '.join(rivals)}" if rivals else "no control was measured",
            )
        )
    scored, rejected = sum(len(item.scores) for item in report.sets), sum(len(item.rejections) for item in report.sets)
    cards.append(
        _card(
            "Images scored",
            f"{scored:,}",
            f"{rejected:,} rejected, each with its reason" if rejected else "none rejected",
        )
    )
    return element("div", cards, class_="cards")


def _card(label: str, number: str, detail: str, pill: Child = None) -> Html:
    return element(
        "div",
        element("p", label, class_="label"),
        element("p", number, class_="big"),
        element("p", detail, class_="detail"),
        pill,
        class_="card",
    )


def _verdict(promise: Promise, observed: float) -> tuple[str, str]:
    """What became of the promise, in words and as a class of the page's style."""
    if observed > promise.allowed[1]:
        return "broken", "bad"
    return ("kept", "good") if promise.verified else ("unverified", "unsure")


def _pill(word: str, kind: str) -> Html:
    return element("span", word, class_=f"pill {kind}")


def _promise(report: Report) -> Html:
    promise, item = report.promise, report.id
    observed = item.flagged(promise.alpha)
    low, high = promise.allowed
    word, kind = _verdict(promise, observed)
    if observed > high:
        meaning = "It is above that: these images are not like the calibration images, or those were seen in training."
    elif observed < low:
        meaning = (
            "It is below that: no promise is broken, but these images are more ordinary than the calibration images, "
            "or many scores are equal."
        )
    else:
        meaning = "It is inside."
    flagged = "its p-value is at most α" if promise.threshold is None else f"its score is above {promise.threshold:.6g}"
    sentences = (
        f"What is flagged at α = {promise.alpha:g}: {promise.sentence}. ",
        f"{_count(promise.n_calibration, 'ID image')} stand behind it: an image is flagged when {flagged}, and no "
        f"p-value is smaller than {promise.smallest:.2g}.",
    )
    seen = (
        f"Of {_count(len(item.scores), 'unseen ID image')}, ",
        element("strong", f"{round(observed * len(item.scores)):,} ({percent(observed)} %)"),
        " were flagged",
        (", and of all such images ", _range((promise.observed.low, promise.observed.high)), " (95 % confidence)")
        if promise.observed.low is not None and promise.observed.high is not None
        else None,
        ". If the promise holds, this share lies in ",
        _range(promise.allowed),
        f" with {100 * promise.confidence:g} % probability. {meaning}",
    )
    reason = ("Verified: " if promise.verified else "Unverified: ", promise.reason)
    return section(
        "promise",
        ("What is promised ", _pill(word, kind)),
        element("p", sentences),
        element("p", seen),
        _gauge(promise, observed),
        element("p", reason, class_=None if promise.verified else "warning"),
    )


def _gauge(promise: Promise, observed: float) -> Html:
    """The allowed range as a band on a line, with α and what was seen."""
    low, high = promise.allowed
    end = min(1.0, 1.25 * max(high, observed, promise.alpha))

    def at(share: float) -> str:
        return f"{100 * share / end:.2f}%"

    return element(
        "div",
        element(
            "div",
            element("span", class_="band", style=f"left:{at(low)};width:{at(high - low)}"),
            element("span", class_="alpha", style=f"left:{at(promise.alpha)}"),
            element("span", class_="seen bad" if observed > high else "seen", style=f"left:{at(observed)}"),
            class_="track",
        ),
        element("div", element("span", "0 %"), element("span", f"{percent(end)} %"), class_="legend spread"),
        element(
            "div",
            element("span", element("i", class_="key band"), "allowed ", _range(promise.allowed)),
            element("span", element("i", class_="key alpha"), f"α {percent(promise.alpha)} %"),
            element("span", element("i", class_="key seen"), f"seen {percent(observed)} %"),
            class_="legend",
        ),
        class_="gauge",
    )


def _range(ends: tuple[float, float]) -> Html:
    return element("span", f"{percent(ends[0])}–{percent(ends[1])} %", class_="together")


def _metrics(report: Report) -> Html | None:
    if not report.ood:
        return None
    table = metrics_table(report.ood, score=report.score)
    first = table.columns.index("AUROC ↑") if "AUROC ↑" in table.columns else None
    return section(
        "metrics",
        "How well OOD is told from ID",
        element(
            "p",
            "In percent, with intervals over the draw of the images where they are given. ↑ higher is better, ↓ lower "
            "is better; the best of a set is bold. AUROC: a random OOD image scores higher than a random ID image. "
            "FPR95 (ID positive): OOD accepted while 95 % of ID is. FPR95 (OOD positive): ID flagged while 95 % of OOD "
            "is. Flagged: OOD images that this detector catches at its threshold.",
            class_="explain",
        ),
        element("div", _table(table, first), class_="scroll", tabindex="0"),
        (element("p", note, class_="note") for note in (*table.notes, SORTED)),
    )


def _table(table: Table, barred: int | None) -> Html:
    """The table, with a bar beside the numbers of one column.

    Rows of one set stand together until somebody sorts them, so each names its set; the name is seen once until then.
    Means stay below.
    """

    def cell(content: Cell, column: int, row: Row, above: Row) -> Html:
        if content.measured is None and column < 3:
            again = None if content.text else "again"
            shown = content.text or above.cells[column].text
            swatch = _swatch(row.set) if column == 0 and shown and row.set is not None else None
            inside = element("span", swatch, element("bdi", shown), class_=again)
            return element("th" if column == 0 else "td", inside, scope="row" if column == 0 else None)
        number = element("b" if content.best else "span", content.number or "—")
        interval = element("small", content.interval) if content.interval else None
        bar = _bar(content.measured) if column == barred and content.measured else None
        value = None if content.measured is None else f"{content.measured.value:.6g}"
        return element("td", bar, number, interval, class_="number barred" if bar else "number", data_value=value)

    def line(row: Row, above: Row) -> Html:
        starts = " starts" if row.cells[0].text else ""
        kind = "mean" if row.set is None else row.kind
        cells = [cell(content, column, row, above) for column, content in enumerate(row.cells)]
        return element("tr", cells, class_=f"{kind} {row.kind}{starts}")

    above, lines = table.rows[0], []
    for row in table.rows:
        above = row if row.cells[0].text else above
        lines.append(line(row, above))
    of_sets = sum(row.set is not None for row in table.rows)
    names = (
        heading(name, True, number=place == 1 or place > 2, ascending=place in (0, 2) or name.endswith("↓"))
        for place, name in enumerate(table.columns)
    )
    bodies = [element("tbody", part) for part in (lines[:of_sets], lines[of_sets:]) if part]
    return element("table", element("thead", element("tr", names)), bodies, class_="sortable")


def _bar(measured: Measured) -> Html:
    """A number from 0 to 100 on a line with its interval; the tick in the middle is guessing."""
    low, high = (measured.value if end is None else end for end in (measured.low, measured.high))
    span = element("i", style=f"left:{100 * low:.1f}%;width:{100 * (high - low):.1f}%")
    dot = element("b", style=f"left:{100 * measured.value:.1f}%")
    return element("span", span, dot, class_="bar", aria_hidden="true")


def _scores(report: Report) -> Html | None:
    if not report.ood:
        return None
    panels = []
    for position, item in enumerate(report.ood):
        # Where there is no one threshold, none is drawn.
        threshold = math.inf if report.promise.threshold is None else report.promise.threshold
        drawn = figures.score_histogram(report.id.scores, item.scores, threshold, position)
        legend = (
            element("span", _swatch(None), element("bdi", report.id.name)),
            element("span", _swatch(position), element("bdi", item.name), _dagger(item)),
            element("span", f"{percent(item.flagged(report.promise.alpha))} % flagged", class_="detail"),
        )
        panels.append(element("figure", element("figcaption", legend, class_="legend"), drawn))
    return section("scores", "Scores", element("div", panels, class_="grid"))


def _curves(report: Report) -> Html:
    panels = []
    drawn = [(position, item, item.roc) for position, item in enumerate(report.ood) if item.roc is not None]
    if drawn:
        false_alarms = report.id.flagged(report.promise.alpha)
        curves = figures.roc_curves(
            [(position, *roc) for position, _, roc in drawn],
            [(false_alarms, item.flagged(report.promise.alpha)) for _, item, _ in drawn],
        )
        legend = [element("span", _swatch(position), element("bdi", item.name)) for position, item, _ in drawn]
        legend.append(element("span", "● at the detector's threshold", class_="detail"))
        panels.append(element("figure", element("h3", "ROC"), curves, element("figcaption", legend, class_="legend")))
    legend = [
        element("span", _swatch(None), element("bdi", report.id.name)),
        element("span", "where the promise holds the bars follow the dashed line", class_="detail"),
    ]
    spread = figures.p_value_histogram(report.id.p_values, report.promise.alpha)
    panels.append(
        element(
            "figure",
            element("h3", "p-values of unseen ID images"),
            spread,
            element("figcaption", legend, class_="legend"),
        )
    )
    return section("curves", "Curves and p-values", element("div", panels, class_="grid"))


def _images(item: ScoredSet, position: int, report: Report, sources: Mapping[int, str]) -> Html | None:
    """The images at both ends of a set; position 0 is ID."""
    known = position == 0
    rows = (
        ("Most unusual", "the first false alarms" if known else "the easiest to catch", item.most_unusual),
        ("Least unusual", "the most typical" if known else "the first to be missed", item.least_unusual),
    )
    shown = [
        (element("h3", heading, element("small", f" {meaning}")), thumbnails(pictures, report.promise.alpha, sources))
        for heading, meaning, pictures in rows
        if pictures
    ]
    if not shown:
        return None
    title = (
        _swatch(None if known else position - 1),
        element("bdi", item.name),
        " ",
        _tag("ID" if known else "OOD"),
        _dagger(item),
    )
    return section(f"images-{position}", title, shown)


def _rejected(sets: Sequence[ScoredSet]) -> Html | None:
    blocks = []
    for item in sets:
        if not item.rejections:
            continue
        rows = [
            element("tr", element("th", element("bdi", lost.id), scope="row"), element("td", lost.reason))
            for lost in item.rejections[:REJECTIONS]
        ]
        more = len(item.rejections) - len(rows)
        blocks += [
            element("h3", element("bdi", item.name), element("small", f" {_count(len(item.rejections), 'image')}")),
            element("div", element("table", element("tbody", rows), class_="plain"), class_="scroll", tabindex="0"),
            element("p", f"… and {more:,} more.", class_="detail") if more else Html(""),
        ]
    return section("rejected", "Rejected images", blocks) if blocks else None


def _seen(report: Report) -> Html:
    marked = [item for item in report.ood if item.seen_by_weights]
    lines = (
        element("ul", (element("li", line) for line in report.seen)) if report.seen else element("p", "Not recorded.")
    )
    warning = (
        element(
            "p",
            "† Of the OOD sets here, they have seen: ",
            _names(marked),
            "; what they reach there says little about the unknown.",
            class_="warning",
        )
        if marked
        else None
    )
    return section("seen", "What the weights have seen", lines, warning)


def _footer() -> Html:
    return element(
        "footer",
        element(
            "p",
            "Score: higher = more OOD. p-value: the share of calibration images at least as unusual, counting the "
            "image itself; small = OOD. An image is flagged where p ≤ α.",
        ),
    )


def _swatch(position: int | None) -> Html:
    """A patch of the colour of an OOD set, or of ID."""
    if position is None:
        return element("i", class_="swatch", style="--colour:var(--id)")
    dashed = " dashed" if figures.is_dashed(position) else ""
    return element("i", class_=f"swatch{dashed}", style=f"--colour:var({figures.set_variable(position)})")


def _tag(word: str) -> Html:
    return element("span", word, class_="tag")


def _dagger(item: ScoredSet) -> Html | None:
    return element("abbr", " †", title="the weights have seen images of this set") if item.seen_by_weights else None


def _names(sets: Sequence[ScoredSet]) -> Html:
    named = ((element("bdi", item.name), _dagger(item)) for item in sets)
    return join((", " if place else None, name) for place, name in enumerate(named))


def _count(number: int, what: str) -> str:
    return f"{number:,} {what}{'' if number == 1 else 's'}"
