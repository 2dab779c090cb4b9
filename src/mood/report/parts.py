"""What pages are made of: the document around them, its policy, and the parts that more than one page has."""

import base64
import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from importlib.resources import files
from typing import Any

from mood.report.markup import Child, Html, element
from mood.report.results import Card, Thumbnail

POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"

SORTED = "A click on a heading sorts by its column, the best first; again, the other way."

LONGEST = 600
"""Characters of a setting that are shown."""


def document(title: str, main: Child, script: str = "") -> str:
    """A whole page as text: self-contained, and the browser is told that nothing may come from elsewhere.

    Args:
        title: of the window.
        main: what is on it.
        script: JavaScript that may run; it alone does, by its hash.
    """
    policy = POLICY
    if script:
        digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
        policy += f"; script-src 'sha256-{digest}'"
    head = element(
        "head",
        element("meta", charset="utf-8"),
        element("meta", http_equiv="Content-Security-Policy", content=policy),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("meta", name="color-scheme", content="light dark"),
        element("title", title),
        element("style", Html(files("mood.report").joinpath("page.css").read_text(encoding="utf-8"))),
    )
    body = element("body", element("main", main), element("script", Html(script)) if script else None)
    return f"<!DOCTYPE html>\n{element('html', head, body, lang='en')}\n"


def section(name: str, heading: Child, *children: Child) -> Html:
    """A part of a page under a heading."""
    return element("section", element("h2", heading), children, id=name)


def thumbnails(pictures: Sequence[Thumbnail], alpha: float, sources: Mapping[int, str]) -> Html:
    """Pictures with what was said of them.

    Args:
        pictures: in their order.
        alpha: a picture with p ≤ alpha is marked.
        sources: id() of each picture → its data URI.
    """

    def picture(item: Thumbnail) -> Html:
        flagged = item.p_value <= alpha
        sharp = "sharp" if max(item.pixels.shape[:2]) <= 64 else None
        return element(
            "li",
            element("img", src=sources[id(item)], alt=f"image {item.id}", title=item.id, class_=sharp),
            element("span", f"p {item.p_value:.3g}", element("b", " flagged") if flagged else None, class_="p"),
            element("span", f"score {item.score:.4g}", class_="detail"),
            element("span", element("bdi", item.id), class_="id", title=item.id),
            class_="flagged" if flagged else None,
        )

    return element("ul", map(picture, pictures), class_="pictures")


def heading(title: str, sortable: bool, *, number: bool = False, ascending: bool = False) -> Html:
    """The heading of a column; in a table of the class "sortable" it is a button, which `sorting` listens to.

    Args:
        title: of the column.
        sortable: whether its table is.
        number: whether numbers stand below it.
        ascending: whether sorting begins at the low end: where lower is better, and of words.
    """
    inside: Child = element("button", title, type="button") if sortable else title
    first = "ascending" if sortable and ascending else None
    return element("th", inside, scope="col", class_="number" if number else None, data_first=first)


def sorting() -> str:
    """The script for tables of the class "sortable": the only one that any page runs."""
    return files("mood.report").joinpath("sorting.js").read_text(encoding="utf-8")


def data_sets(cards: Sequence[Card]) -> Html | None:
    """What is known of each set."""

    def card(item: Card) -> Html:
        facts = (element("div", element("dt", name), element("dd", value)) for name, value in item.facts.items())
        return element(
            "div",
            element("p", element("strong", element("bdi", item.name))),
            element("dl", facts, class_="facts"),
            element("p", item.warning, class_="warning") if item.warning else None,
            class_="card",
        )

    return section("sets", "Data sets", element("div", map(card, cards), class_="cards")) if cards else None


def provenance(settings: Mapping[str, Any], versions: Mapping[str, str], hashes: Mapping[str, str]) -> Html:
    """Where a page comes from: the full effective settings, versions, and hashes."""
    parts = (
        ("Settings", dict(_flat(settings))),
        ("Versions", dict(versions)),
        ("Hashes", dict(hashes)),
    )
    return section(
        "provenance",
        "Where this comes from",
        (
            (
                element("h3", name),
                element(
                    "table",
                    element(
                        "tbody",
                        (
                            element(
                                "tr", element("th", key, scope="row"), element("td", element("code", _short(value)))
                            )
                            for key, value in entries.items()
                        ),
                    ),
                    class_="plain",
                ),
            )
            for name, entries in parts
            if entries
        ),
    )


def _flat(settings: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, str]]:
    """Nested settings as dotted names; the tables of a list are numbered."""
    for key, value in settings.items():
        if isinstance(value, Mapping) and value:
            yield from _flat(value, f"{above}{key}.")
        elif isinstance(value, list | tuple) and value and all(isinstance(item, Mapping) for item in value):
            yield from _flat({f"{key}[{index}]": item for index, item in enumerate(value)}, above)
        else:
            yield (
                f"{above}{key}",
                value if isinstance(value, str) else json.dumps(value, default=str, ensure_ascii=False),
            )


def _short(value: str) -> str:
    return value if len(value) <= LONGEST else f"{value[:LONGEST]}… ({len(value):,} characters)"
