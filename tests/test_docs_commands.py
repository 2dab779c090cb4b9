"""What README and docs show is true: each page's blocks are run or checked, in their order, in a folder of its own.

```
console   a line after `$` runs; it must succeed, or end with the code that a following `echo $?` shows
sh        is not run, because it trains for hours, installs, or would call this test: each line must parse
toml      becomes the file that its first line names, and must be a recipe of some command
python    runs, in one namespace a page
pycon     runs, and prints what stands there
text      is not looked at
```

Commands of mood run in this process, through the same parser as in a shell; others run in a shell.
"""

import doctest
import os
import re
import runpy
import shlex
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
from PIL import Image
from typer.testing import CliRunner

import mood
import mood.cli
from mood.core.config import load_toml
from mood.data.named import SETS
from mood.recipes.bench.plan import load_plan
from mood.recipes.train import TrainConfig, plan

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
EXAMPLES = sorted((ROOT / "examples").glob("*.py"))
RUN = ("console", "python", "pycon", "toml")
# What a shell would do something with: such a line is left to a shell.
SHELL = set("|&;<>$*?`()")


@dataclass(frozen=True)
class Block:
    """A fenced block of a page."""

    kind: str
    text: str
    line: int


@dataclass(frozen=True)
class Command:
    """A line after `$`, and the exit code that the page gives it."""

    line: str
    code: int = 0


def blocks(text: str) -> Iterator[Block]:
    for match in re.finditer(r"^```(\w+)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL):
        yield Block(match[1], match[2], text[: match.start()].count("\n") + 2)


def commands(text: str) -> list[Command]:
    """The lines after `$` of a console block. What they print stands below them and is not compared."""
    lines = text.replace("\\\n", " ").splitlines()
    found: list[Command] = []
    for line, following in zip(lines, [*lines[1:], ""], strict=True):
        if line == "$ echo $?":
            found[-1] = Command(found[-1].line, int(following))
        elif line.startswith("$ "):
            found.append(Command(line.removeprefix("$ ").strip()))
    return found


def pages(*kinds: str) -> list[str]:
    """The pages that have blocks of these kinds."""
    texts = {page: page.read_text(encoding="utf-8") for page in PAGES if "_build" not in page.parts}
    chosen = {page: [block.kind for block in blocks(text) if block.kind in kinds] for page, text in texts.items()}
    return [str(page.relative_to(ROOT)) for page, found in chosen.items() if found]


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folders that the pages speak of: `photos` in two classes, `new-photos` alike, `strange-photos` noise."""
    folder = tmp_path_factory.mktemp("images")
    random = np.random.default_rng(0)
    gradient = np.linspace(0, 200, 32)
    for name, count in (("photos/across", 200), ("photos/down", 200), ("new-photos", 40), ("strange-photos", 40)):
        (folder / name).mkdir(parents=True)
        pattern = gradient[:, None] if name.endswith("down") else gradient[None, :]
        for index in range(count):
            pixels = random.integers(0, 56, (32, 32, 3)) + pattern[..., None]
            if name == "strange-photos":
                pixels = random.integers(0, 256, (32, 32, 3))
            Image.fromarray(pixels.astype(np.uint8)).save(folder / name / f"{index:03d}.png")
    return folder


@pytest.fixture
def here(images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the images, in which one stands."""
    for folder in images.iterdir():
        (tmp_path / folder.name).symlink_to(folder)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def call(line: str) -> tuple[int, str]:
    """Run a command and return its exit code and what it printed."""
    if line.startswith("mood ") and not SHELL & set(re.sub(r"'[^']*'", "", line)):
        result = CliRunner().invoke(mood.cli.app, shlex.split(line)[1:], prog_name="mood")
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        return result.exit_code, result.output
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(["bash", "-c", line], env={**os.environ, "PATH": path}, capture_output=True, text=True)
    return done.returncode, done.stdout + done.stderr


def recipe_file(block: Block) -> None:
    """Write the recipe, after some command's config took it."""
    name = block.text.partition("\n")[0].removeprefix("# ").strip()
    Path(name).write_text(block.text, encoding="utf-8")
    if "stages" in tomllib.loads(block.text):
        plan(TrainConfig(stages=Path(name), output=Path("there")))
        return
    if "runs" in tomllib.loads(block.text):
        load_plan(Path(name))
        return
    recipe = name.removesuffix(".toml")
    config = getattr(getattr(mood.recipes, recipe), f"{recipe.capitalize()}Config")
    needed = {"data": "photos", "output": "there"}
    load_toml(name, config, {key: value for key, value in needed.items() if key not in tomllib.loads(block.text)})


@pytest.mark.parametrize("page", pages(*RUN))
def test_what_a_page_shows_runs(page: str, here: Path) -> None:
    names: dict[str, Any] = {"__name__": "__main__"}
    for block in blocks((ROOT / page).read_text(encoding="utf-8")):
        place = f"{page}:{block.line}"
        if block.kind == "console":
            for command in commands(block.text):
                code, printed = call(command.line)
                assert code == command.code, f"{place}: {command.line}\n{printed}"
        elif block.kind == "toml":
            recipe_file(block)
        elif block.kind == "python":
            # With its line numbers, so that a traceback points into the page.
            exec(compile("\n" * (block.line - 1) + block.text, str(ROOT / page), "exec"), names)
        elif block.kind == "pycon":
            test = doctest.DocTestParser().get_doctest(block.text, names, place, page, block.line - 1)
            told: list[str] = []
            doctest.DocTestRunner(verbose=False).run(test, out=told.append, clear_globs=False)
            assert not told, "".join(told)
            names.update(test.globs)


@pytest.mark.parametrize("page", pages("sh"))
def test_what_a_page_shows_and_no_test_runs_is_at_least_a_command(
    page: str, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`./run mood demo` is run by the test of the demo; `./run pytest` is this."""
    # As far as the config, which checks the values, and no further.
    monkeypatch.setattr("mood.cli.run", lambda make, recipe, debug: make())
    (here / "recipes").symlink_to(ROOT / "recipes")
    for block in blocks((ROOT / page).read_text(encoding="utf-8")):
        if block.kind != "sh":
            continue
        for line in block.text.replace("\\\n", " ").splitlines():
            words = shlex.split(line, comments=True)
            if words[:1] == ["./run"]:
                words = words[1:]
            if words[:1] == ["torchrun"]:
                words = words[words.index("mood") :]
            named = [match for word in words if (match := re.fullmatch(r"([a-z][\w-]*):(train|val|test)", word))]
            assert {match[1] for match in named} <= {*SETS}, f"{page}: {line}: nobody finds such a set"
            if not words or words[:2] in (["pip", "install"], ["git", "clone"]):
                assert not {"mood", "mood-ood"} & {*words[2:]}, f"{page}: {line}: nobody's index has this mood"
            elif words[0] == "mood":
                result = CliRunner().invoke(mood.cli.app, words[1:], prog_name="mood")
                assert result.exit_code == 0, f"{page}: {line}\n{result.output}{result.exception}"
            elif words[0] == "python":
                assert (ROOT / words[1]).is_file(), f"{page}: {line}"
            else:
                there = (ROOT / words[0]).is_file() or (Path(sys.executable).parent / words[0]).is_file()
                assert there or shutil.which(words[0]), f"{page}: {line}"


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.name)
def test_an_example_runs(example: Path, here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    runpy.run_path(str(example), run_name="__main__")
    assert capsys.readouterr().out


def test_the_picture_of_the_promise_is_drawn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["promise_picture", str(tmp_path / "promise.svg")])
    runpy.run_path(str(ROOT / "docs/guide/promise_picture.py"), run_name="__main__")
    drawn = (tmp_path / "promise.svg").read_text(encoding="utf-8")
    assert len(drawn) == pytest.approx(len((ROOT / "docs/guide/promise.svg").read_text(encoding="utf-8")), rel=0.05)


def test_every_score_has_its_definition() -> None:
    text = (ROOT / "docs/guide/scores.md").read_text(encoding="utf-8")
    headings = re.findall(r"^### (.+)$", text, re.MULTILINE)
    defined = [name for heading in headings for name in re.findall(r"`([^`]+)`", heading)]
    assert sorted(defined) == sorted(mood.scores.available())


def test_the_networks_that_the_guide_names_are_as_timm_has_them() -> None:
    text = (ROOT / "docs/guide/networks.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `([^`]+)` \| (\d+) \| (\S+) \|", text, re.MULTILINE)
    assert len(rows) > 5
    for name, size, licence in rows:
        known = timm.get_pretrained_cfg(name)
        assert known is not None, f"{name}: timm has no such weights"
        assert (known.input_size[-1], known.license) == (int(size), licence), name


def test_every_link_has_words() -> None:
    # Sphinx fills in the title of the page; whoever reads the file itself sees nothing.
    assert [page.name for page in PAGES if "[](" in page.read_text(encoding="utf-8")] == []


def test_what_the_build_makes_is_told_to_whoever_reads_the_file_itself() -> None:
    made = [match for page in PAGES for match in re.findall(r"^```\{\w+\}\n(.*?)^```$", page.read_text(), re.M | re.S)]
    assert len(made) > 2
    assert all(text.strip() for text in made)


def test_nothing_tells_anybody_to_install_somebody_elses_mood() -> None:
    files = [*PAGES, *(ROOT / "src").rglob("*.py"), *(ROOT / "examples").glob("*")]
    assert [file for file in files if re.search(r"pip install mood\b", file.read_text(encoding="utf-8"))] == []


def test_blocks_and_commands_are_found() -> None:
    first = "# page\n\n```console\n$ mood a \\\n    --b\nwhat it prints\n$ mood c\n$ echo $?\n10\n```\n"
    found = list(blocks(first + "```sh\nmood d\n```\n" + "````{note}\n````\n"))
    assert found == [
        Block("console", "$ mood a \\\n    --b\nwhat it prints\n$ mood c\n$ echo $?\n10\n", 4),
        Block("sh", "mood d\n", 12),
    ]
    assert commands(found[0].text) == [Command("mood a      --b"), Command("mood c", 10)]
    assert {"README.md", "docs/guide/quickstart.md"} <= {*pages("console"), *pages("sh")}


def test_a_command_that_fails_is_seen(here: Path) -> None:
    assert call("mood fit nowhere -o detector")[0] == 3
    assert call("mood scores --nonsense")[0] == 2
    assert call("exit 7 | cat; exit 8")[0] == 8
