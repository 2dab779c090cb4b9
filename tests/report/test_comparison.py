"""The page of a comparison: closed to the outside, sorted by one script that its policy names, safe from names."""

import base64
import hashlib
import html
import json
import re
import shutil
import subprocess
from html.parser import HTMLParser
from importlib.resources import files

import numpy as np
import pytest

from mood.core.errors import InputError
from mood.report import Card, Comparison, Drawn, Ends, Grid, Thumbnail, comparison, render_comparison
from mood.report.comparison import _table
from mood.report.comparison_figures import confusion_bars, distributions, plain, roc_lines, task_bars
from mood.report.markup import VOID, element
from mood.report.parts import document

EVIL = "\"><script>alert('x')</script><img src=x onerror=alert(1)>&amp;$x^2$ \\frac_1"


ORDERS = {
    "sorted": ["large", "small", "none"],
    "lower": ["small", "large", "none"],
    "again": ["large", "small", "none"],
}
"""After a click on numbers of which higher is better, lower is better, and after two on these."""


BROWSER = shutil.which("chromium") or shutil.which("chromium-browser")


def dumping(folder):
    """The words of a command that shows a page and prints what became of it."""
    quiet = ("--headless", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr", "--dump-dom")
    return [BROWSER, *quiet, f"--user-data-dir={folder / 'profile'}"]


class Reader(HTMLParser):
    """Reads a page strictly: every element that is opened is closed, in order."""

    def __init__(self, page):
        super().__init__(convert_charrefs=True)
        self.open, self.elements, self.scripts, self.words = [], [], [], []
        self.feed(page)
        self.close()
        assert not self.open

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        (self.scripts if self.open[-1:] == ["script"] else self.words).append(data)


def page(**changes):
    rng = np.random.default_rng(0)
    pictures = tuple(
        Thumbnail(f"{EVIL}/{place}", rng.integers(0, 256, (16, 16, 3), np.uint8), 1.0 * place, 0.01 + 0.3 * place)
        for place in range(3)
    )
    known, unknown = rng.normal(size=200), {EVIL: rng.normal(3, 1, 100), "plain": rng.normal(1, 1, 100)}
    given = {
        "title": f"A page {EVIL}",
        "summary": "One run.",
        "published": (
            Grid("Table", ("method", "", EVIL), (("ours", "here", "90.0"), ("ours", "difference", "-1.0")), 2),
        ),
        "footnotes": ("A slip.",),
        "methods": (Grid("Methods", ("network", "score", "a"), (("n", EVIL, "50.0"), ("n", "knn", "—")), 2, ("†",)),),
        "further": (Grid(f"AUPR {EVIL}", ("network", "score", "a"), (("n", EVIL, "50.0"),), 2, ("‡",)),),
        "figures": (
            Drawn("mood", distributions(known, unknown, EVIL), f"{EVIL} scores", f"Of three {EVIL}."),
            Drawn("roc", roc_lines({EVIL: (np.array([0, 0.5, 1.0]), np.array([0, 0.9, 1.0]))}), "roc"),
            Drawn("cells", confusion_bars([EVIL, "b"], {"_rival": [4, 3], EVIL: [1, 0]}), "cells"),
            Drawn("tasks", task_bars(["one"], {"rival": [90.0], "ours": [None]}), "tasks"),
        ),
        "ends": (Ends(EVIL, pictures[:2], pictures[2:]),),
        "cards": (Card(EVIL, {"images": "10"}, "† seen"),),
        "missing": {"svhn": EVIL},
        "left_out": ((EVIL, "why"),),
        "chosen": ("oas",),
        "notes": ("a note",),
        "costs": (Grid("Cost", ("work", "s"), (("stored", "0.1"),)),),
        "seen": ("cifar",),
        "config": {"plan": {"title": EVIL, "runs": [{"fit": "a"}, {"fit": "b"}]}},
        "versions": {"mood": "0"},
        "hashes": {"weights": "abc"},
    }
    return Comparison(**(given | changes))


def test_everything_is_there_and_nothing_comes_from_elsewhere():
    text = render_comparison(page())
    read = Reader(text)
    ids = [attributes["id"] for _, attributes in read.elements if "id" in attributes]
    for name in (
        "published",
        "methods",
        "further",
        "chosen",
        "missing",
        "left-out",
        "sets",
        "seen",
        "costs",
        "provenance",
    ):
        assert name in ids
    for tag, attributes in read.elements:
        for key in ("src", "href"):
            assert attributes.get(key, "data:").startswith("data:"), (tag, attributes)
        assert not [key for key in attributes if key.startswith("on")]
    assert "plan.runs[1].fit" in read.words
    assert len(text) < 5_000_000
    assert text == render_comparison(page())
    assert any(attributes.get("name") == "viewport" for _, attributes in read.elements)


def test_one_script_runs_and_the_policy_names_it_by_its_hash():
    read = Reader(render_comparison(page()))
    (script,) = read.scripts
    assert script == files("mood.report").joinpath("sorting.js").read_text()
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    policy = next(a["content"] for _, a in read.elements if a.get("http-equiv") == "Content-Security-Policy")
    assert re.findall(r"script-src ([^;]+)", policy) == [f"'sha256-{digest}'"]
    assert policy.startswith("default-src 'none'")


def test_pictures_beyond_the_test_images_are_marked():
    read = Reader(render_comparison(page()))
    assert [a.get("class") for tag, a in read.elements if tag == "li"].count("flagged") == 1


def test_footnotes_are_there_once_with_published_tables_or_without():
    for published in (page().published, ()):
        assert Reader(render_comparison(page(published=published))).words.count("A slip.") == 1


def test_empty_parts_are_left_out():
    empty = Comparison(title="t", summary="s")
    ids = {a["id"] for _, a in Reader(render_comparison(empty)).elements if "id" in a}
    assert ids == {"provenance"}


def test_figures_beyond_the_budget_are_told(monkeypatch):
    whole = render_comparison(page())
    count = whole.count("<figure")
    monkeypatch.setattr(comparison, "BUDGET", len(whole.encode()) // 3)
    short = render_comparison(page())
    shown = short.count("<figure")
    assert 0 < shown < count
    assert f"Not shown, since a page holds no more: {count - shown}; the folder" in short
    assert "Further figures" not in whole
    Reader(short)


def test_further_tables_are_closed_and_those_beyond_the_budget_are_told(monkeypatch):
    grids = tuple(Grid(f"metric {place}", ("a", "b"), (("x" * 500, "1"),)) for place in range(3))
    whole = render_comparison(page(further=grids))
    closed = [attributes for tag, attributes in Reader(whole).elements if tag == "details"]
    assert closed == [{}, {}, {}], "none is open"
    assert "table.md has all" not in whole
    monkeypatch.setattr(comparison, "FURTHER", 2000)
    short = render_comparison(page(further=grids))
    assert short.count("<details") == 2
    assert "Not shown, since a page holds no more: 1; table.md has all." in Reader(short).words


def test_a_note_of_figures_stands_once_above_its_group():
    words = Reader(render_comparison(page())).words
    assert words.count(f"Of three {EVIL}.") == 1


def test_words_stay_in_sight_while_numbers_are_moved():
    """What sticks needs the page's ground behind it, light or dark, and the second column the width of the first."""
    css = files("mood.report").joinpath("page.css").read_text()
    sticky = re.findall(r"(\.grid-table[^{]*) \{ position: sticky; left: ([^;]+); [^}]*background: var\(--card\)", css)
    assert sticky == [
        (".grid-table tr > :first-child", "0"),
        (".grid-table.two-words tr > :nth-child(2)", "var(--first)"),
    ]
    for words, kind in ((1, "grid-table"), (2, "grid-table two-words")):
        table = Reader(_table(Grid("t", ("a", "b", "c"), (), words), sortable=False))
        assert table.elements[0] == ("table", {"class": kind})


MEASURED = """
document.querySelector("main").style.maxWidth = "390px";
const broken = [...document.querySelectorAll("tbody th bdi")].flatMap((name) => {
  const node = name.firstChild;
  return [...node.data.matchAll(/\\S+/g)].filter((word) => {
    const range = document.createRange();
    range.setStart(node, word.index);
    range.setEnd(node, word.index + word[0].length);
    return range.getClientRects().length > 1;
  }).map(String);
});
const end = document.querySelector(".scroll").getBoundingClientRect().right;
const shown = [...document.querySelectorAll("tbody tr:first-child .number")].filter(
  (cell) => cell.getBoundingClientRect().right <= end
).length;
document.title = JSON.stringify({ broken, shown });
"""


@pytest.mark.skipif(BROWSER is None, reason="no chromium here")
@pytest.mark.parametrize(
    ("names", "broken", "numbers"),
    [
        (("Mahalanobis [34]", "Contrastive loss [29]", "(improve)"), [], 3),
        (("relative_mahalanobis++", "x" * 40), ["x" * 40], 1),
    ],
)
def test_a_phone_breaks_names_between_words_and_shows_several_numbers(tmp_path, names, broken, numbers):
    """At 390 pixels, as a browser lays it out; only a word that is longer than a column may be broken."""
    rows = tuple((name, "paper only", *["99.8"] * 5) for name in names)
    grid = Grid("Table", ("method", "", "SVHN", "CIFAR-100", "LSUN", "mean, near", "Average"), rows, 2)
    (tmp_path / "phone.html").write_text(
        document("t", element("section", element("div", _table(grid, sortable=True), class_="scroll")), MEASURED)
    )
    shown = subprocess.run(
        [*dumping(tmp_path), "--window-size=500,900", f"file://{tmp_path}/phone.html"],
        capture_output=True,
        text=True,
        check=True,
        timeout=300,
    )
    found = json.loads(html.unescape(re.search("<title>(.*)</title>", shown.stdout)[1]))
    assert found["broken"] == broken
    assert found["shown"] >= numbers


def test_a_row_has_its_second_word_also_below_its_first():
    for words, beneath in ((2, "here"), (1, None)):
        read = Reader(_table(Grid("t", ("a", "b", "c"), (("x", "here", "1"),), words), sortable=False))
        (first,) = (attributes for tag, attributes in read.elements if tag == "th" and attributes["scope"] == "row")
        assert first.get("data-beneath") == beneath


def test_headings_can_be_pressed_and_say_at_which_end_sorting_begins():
    for lower in (False, True):
        read = Reader(_table(Grid("t", ("a", "b"), (("x", "1"),), lower_is_better=lower), sortable=True))
        headings = [attributes for tag, attributes in read.elements if tag == "th" and attributes["scope"] == "col"]
        assert [attributes.get("data-first") for attributes in headings] == [
            "ascending",
            "ascending" if lower else None,
        ]
        buttons = [attributes for tag, attributes in read.elements if tag == "button"]
        assert buttons == [{"type": "button"}] * 2, "a button has the focus and takes Enter"


def test_labels_of_bars_have_the_whole_width():
    name = "CIFAR-100: automobile → pickup_truck"
    figure = confusion_bars([name, "x" * 99], {"rival": [4, 3], "ours": [1, 0]})
    figure.draw_without_rendering()
    axes = figure.axes[0]
    labels = {text.get_text(): text.get_window_extent() for text in axes.texts}
    ends = [box for text, box in labels.items() if text in (name, f"{'x' * 47}…")]
    assert len(ends) == 2, "whole, or cut where the figure ends"
    for box in ends:
        assert box.x0 >= 0
        # A phone shows 8.5 points as 10.5.
        assert box.x0 + 1.24 * box.width <= figure.bbox.width
        assert not [bar for bar in axes.patches if bar.get_window_extent().overlaps(box)]


def test_a_method_without_a_figure_has_no_place_in_a_legend_and_the_others_keep_their_colours():
    whole = task_bars(["one", "two"], {"rival": [90.0, 80.0], "ours": [95.0, None], "here": [70.0, 60.0]})
    without = task_bars(["one", "two"], {"rival": [90.0, 80.0], "ours": [None, None], "here": [70.0, 60.0]})

    def colours(figure):
        containers = figure.axes[0].containers
        return {item.get_label(): item.patches[0].get_facecolor() for item in containers}

    assert [text.get_text() for text in without.axes[0].get_legend().get_texts()] == ["rival", "here"]
    assert colours(without) == {name: colour for name, colour in colours(whole).items() if name != "ours"}
    assert len({*colours(whole).values()}) == 3


def test_names_in_figures_are_plain():
    assert plain("_hidden").endswith("_hidden")
    assert not plain("_hidden").startswith("_")
    assert len(plain("x" * 99)) < 40
    assert "\ufffd" in plain("a\x00b")


def test_a_grid_is_the_same_in_three_forms():
    grid = Grid("A & B", ("set", "x_1"), (("a|b", "1.0"), ("c → d", "—")), 1, ("100 %",))
    assert grid.to_text().splitlines() == ["A & B", "set    x_1", "a|b    1.0", "c → d    —", "100 %"]
    assert "| a\\|b | 1.0 |" in grid.to_markdown()
    tex = grid.to_latex()
    assert "A \\& B" in tex
    assert "x\\_1" in tex
    assert "$\\rightarrow$" in tex
    assert "100 \\%" in tex
    with pytest.raises(InputError, match="1 cells"):
        Grid("t", ("a", "b"), (("1",),))


def test_a_browser_shows_it_without_a_word_of_complaint_and_sorts(tmp_path):
    """In headless Chromium where there is one; strictly read in any case."""
    sorting = files("mood.report").joinpath("sorting.js").read_text()
    # As a reader would click: on the heading of the last column, which puts the largest number first.
    grid = Grid("Scores", ("score", "AUROC"), (("small", "9.5"), ("none", "—"), ("large", "80.1")))
    click = "document.querySelectorAll('th button')[1].click();"
    page_text = document("t", _table(grid, sortable=True), f"{sorting}\n{click}")
    assert [tag for tag, _ in Reader(page_text).elements].count("button") == 2
    if BROWSER is None:
        return
    risk = Grid("Risks", ("score", "AURC"), grid.rows, lower_is_better=True)
    twice = "document.querySelectorAll('th button')[1].click();" * 2
    pages = {
        "sorted": page_text,
        "lower": document("t", _table(risk, sortable=True), f"{sorting}\n{click}"),
        "again": document("t", _table(risk, sortable=True), f"{sorting}\n{twice}"),
        "whole": render_comparison(page()),
    }
    for name, text in pages.items():
        (tmp_path / f"{name}.html").write_text(text, encoding="utf-8")
        shown = subprocess.run(
            [*dumping(tmp_path), "--window-size=400,800", f"file://{tmp_path}/{name}.html"],
            capture_output=True,
            text=True,
            check=True,
            timeout=300,
        )
        assert "Refused" not in shown.stderr
        assert "CONSOLE" not in shown.stderr
        if name != "whole":
            order = sorted(("large", "small", "none"), key=lambda word: shown.stdout.index(f"<bdi>{word}"))
            assert order == ORDERS[name]
            assert f'aria-sort="{"ascending" if name == "lower" else "descending"}"' in shown.stdout
