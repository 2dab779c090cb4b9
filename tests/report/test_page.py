"""The page: whole, valid, closed to the outside, and safe from whatever people call their files."""

import base64
import hashlib
import re
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from mood.core.batch import Rejection
from mood.core.errors import InputError
from mood.report import Card, Report, ScoredSet, Thumbnail, render
from mood.report.markup import VOID
from mood.report.parts import sorting

EVIL = "\"><script>alert('x')</script><img src=x onerror=alert(1)>&amp;$x^2$"
SECTIONS = ("promise", "metrics", "scores", "curves", "images-0", "images-1", "rejected", "sets", "seen", "provenance")


class Reader(HTMLParser):
    """Reads a page strictly: every element that is opened is closed, in order."""

    def __init__(self, page: str) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []
        self.scripts: list[str] = []
        self.feed(page)
        self.close()
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        assert len(dict(attrs)) == len(attrs), f"{tag} has an attribute twice"
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open[-1:] == ["script"]:
            self.scripts.append(data)
        elif "style" not in self.open:
            self.text.append(data)

    @property
    def words(self) -> str:
        return " ".join("".join(self.text).split())

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]


def test_everything_is_there_once(full: Report) -> None:
    page = Reader(render(full))
    names = [attributes["id"] for _, attributes in page.elements if "id" in attributes]
    assert [name for name in names if name in SECTIONS] == list(SECTIONS)
    assert len(names) == len(set(names))
    assert len(page.all("img")) == 16
    assert len(page.all("svg")) == 3 + 2
    assert [attributes["lang"] for attributes in page.all("html")] == ["en"]
    for words in (
        "Shoes against the rest",
        "mood evaluate shoes.mood",
        "412 ID images",
        "above 1.6449",
        "and of all such images 3.4–6.8 % (95 % confidence)",
        "What is flagged at α = 0.05: at most 5.0% of known images on average",
        "Verified: Nothing has seen",
        "shoes/cut.jpg",
        "truncated file",
        "CIFAR-100 train: images and labels",
        "they have seen: known †",
        "model.layers",
        "[1, 2]",
        "9f86d081",
        "The control “six numbers” has an AUROC no lower than mood on: letters, cells.",
        "FPR95 (ID positive) ↓",
        "88.0–92.0",
        "One seed.",
        "licenceMIT",
        "† seen",
        "A click on a heading sorts by its column",
    ):
        assert words in page.words, words


def test_it_is_closed_to_the_outside(full: Report) -> None:
    page = render(full)
    read = Reader(page)
    (script,) = read.scripts
    assert script == sorting()
    markup = re.sub(r"base64,[\w+/=]*", "", page.replace(f"<script>{script}</script>", ""))
    assert not re.search(r"https?:|//|@import|<script|<link|<iframe|javascript:|\burl\(", markup)
    for tag, attributes in read.elements:
        assert not [name for name in attributes if name.startswith("on")], tag
        assert not {"href", "xlink:href", "srcset", "action"} & set(attributes), tag
        assert tag not in {"a", "link", "iframe", "object", "embed", "form", "base", "use", "image"}
    assert all(str(attributes["src"]).startswith("data:image/") for attributes in read.all("img"))
    policy = [each["content"] for each in read.all("meta") if each.get("http-equiv") == "Content-Security-Policy"]
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert policy == [f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'sha256-{digest}'"]


def test_every_row_of_the_table_can_stand_anywhere(full: Report) -> None:
    page = render(full)
    table = page[page.index('<table class="sortable">') :].partition("</table>")[0]
    of_sets, means = table.split("<tbody>")[1:]
    rows = of_sets.split("<tr ")[1:]
    assert len(rows) == 3 + 3 + 1
    for row, name in zip(rows, ["letters"] * 3 + ["cells"] * 3 + ["known †"], strict=True):
        assert f"<bdi>{name}</bdi>" in row
        assert "<bdi>120</bdi>" in row
    assert [('class="again"' in row) for row in rows] == [False, True, True] * 2 + [False]
    assert 'data-value="0.95"' in rows[1]
    assert means.count("mean of 2 sets") == 3
    assert page.count('<button type="button">AUROC ↑</button>') == 1


def test_no_name_becomes_markup(full: Report, made: SimpleNamespace) -> None:
    picture = Thumbnail(EVIL, np.zeros((4, 4), np.uint8), 1.0, 0.01)
    evil = {"most_unusual": (picture,), "rejections": (Rejection(0, EVIL, EVIL),)}
    changed = made.report(
        title=EVIL,
        score=EVIL,
        model=EVIL,
        promise=made.promise(reason=EVIL),
        id=made.scored_set(EVIL, 0.0, **evil),
        ood=(made.scored_set(EVIL, 1.0, metrics=made.METRICS, controls={EVIL: made.METRICS}, **evil),),
        seen=(EVIL,),
        notes=(EVIL,),
        cards=(Card(EVIL, {EVIL: EVIL}, EVIL),),
        config={EVIL: EVIL, "deep": {EVIL: [EVIL]}},
        versions={EVIL: EVIL},
        hashes={EVIL: EVIL},
        command=EVIL,
        created=EVIL,
    )
    page = Reader(render(changed))
    assert page.scripts == [sorting()]
    assert {tag for tag, _ in page.elements} <= {tag for tag, _ in Reader(render(full)).elements}
    assert not [attributes for _, attributes in page.elements if "onerror" in attributes]
    assert page.words.count("<script>alert('x')</script>") > 20


def test_names_that_cannot_be_written_do_not_stop_it(tmp_path: Path, made: SimpleNamespace) -> None:
    name = "caf\udce9\x00\x1b[31m 猫 \u202eevil"
    page = render(
        made.report(id=made.scored_set(name, 0.0), ood=(made.scored_set(name, 1.0, roc=(np.arange(2),) * 2),))
    )
    (tmp_path / "page.html").write_text(page, encoding="utf-8")
    assert "caf\ufffd\ufffd\ufffd[31m 猫" in page
    Reader(page)


def test_the_same_report_gives_the_same_page(full: Report) -> None:
    assert render(full) == render(full)


def test_it_stays_below_five_megabytes(made: SimpleNamespace) -> None:
    rng = np.random.default_rng(0)

    def many(name: str) -> ScoredSet:
        pictures = tuple(
            Thumbnail(f"{name}/{place}", rng.integers(0, 256, (200, 300, 3), np.uint8), 0.0, 0.5) for place in range(12)
        )
        lost = tuple(Rejection(place, f"{name}/{'long' * 40}{place}", "reason " * 20) for place in range(5000))
        curve = np.linspace(0, 1, 200_000)
        item: ScoredSet = made.scored_set(
            name,
            1.0,
            size=50_000,
            metrics=made.METRICS,
            roc=(curve, curve),
            most_unusual=pictures,
            least_unusual=pictures,
            rejections=lost,
        )
        return item

    sets = tuple(many(f"set {place}") for place in range(8))
    page = render(made.report(id=many("id"), ood=sets, config={"files": "x" * 10_000_000}))
    assert len(page.encode()) < 5_000_000
    assert "… and 4,900 more." in page
    assert "(10,000,000 characters)" in page


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"allowed": (0.0, 1.0)}, "kept"),
        ({"allowed": (0.0, 1.0), "verified": False}, "unverified"),
        ({"allowed": (0.0, 0.001), "alpha": 0.9}, "broken"),
        ({"allowed": (0.0, 0.001), "alpha": 0.9, "verified": False}, "broken"),
    ],
)
def test_the_promise_says_what_became_of_it(changes: dict[str, Any], told: str, made: SimpleNamespace) -> None:
    page = Reader(render(made.report(promise=made.promise(**changes))))
    assert f"What is promised {told}" in page.words


def test_a_share_below_the_range_breaks_no_promise(made: SimpleNamespace) -> None:
    page = Reader(render(made.report(promise=made.promise(alpha=0.001, allowed=(0.5, 0.6)))))
    assert "It is below that: no promise is broken" in page.words
    assert "What is promised kept" in page.words


@pytest.mark.parametrize("score", [0.0, 1e-300, 5.0, np.inf, -np.inf])
def test_scores_of_any_kind_can_be_drawn(score: float, made: SimpleNamespace) -> None:
    odd = ScoredSet(name="odd", scores=np.full(3, score), p_values=np.full(3, 0.25))
    Reader(render(made.report(id=odd, ood=(odd,), promise=made.promise(threshold=np.inf))))


def test_a_far_set_stretches_the_axis(made: SimpleNamespace) -> None:
    far = ScoredSet(name="far", scores=np.full(50, 1e6), p_values=np.full(50, 0.01))
    assert "asinh" in render(made.report(ood=(far,)))
    assert "asinh" not in render(made.report(ood=(made.scored_set("near", 2.0),)))


def test_id_alone_is_a_report_too(made: SimpleNamespace) -> None:
    page = Reader(render(made.report(ood=(), seen=(), config={}, versions={}, hashes={}, command=None, created=None)))
    assert "Not recorded." in page.words
    assert len(page.all("svg")) == 1


def test_what_is_no_result_is_refused(made: SimpleNamespace) -> None:
    with pytest.raises(InputError, match="'empty' has no scores"):
        ScoredSet(name="empty", scores=np.empty(0), p_values=np.empty(0))
    with pytest.raises(InputError, match="p_values of 'short' must be 2 numbers from 0 to 1"):
        ScoredSet(name="short", scores=np.zeros(2), p_values=np.zeros(1))
    with pytest.raises(InputError, match="from 0 to 1"):
        ScoredSet(name="percent", scores=np.zeros(1), p_values=np.full(1, 5.0))
    with pytest.raises(InputError, match=r"controls? of|six of 'odd': unknown \['AUROC'\]; known are auroc"):
        made.scored_set("odd", 0.0, controls={"six": {"AUROC": made.METRICS["auroc"]}})
    with pytest.raises(InputError, match=r"must be uint8 .* not float64 \(2, 2, 3\)"):
        Thumbnail("a", np.zeros((2, 2, 3)), 0.0, 0.5)
