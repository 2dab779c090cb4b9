"""The command line: flags from a config, errors as one line, exit codes for scripts."""

import importlib
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Annotated, Literal

import pytest
import typer
from typer.testing import CliRunner

from mood.cli import RECIPES, app
from mood.cli.flags import command
from mood.cli.running import run
from mood.core import artifact
from mood.core.config import Argument, NotInFingerprint, config, fields
from mood.core.errors import InputError, PromiseError
from mood.core.version import __version__


@config
class DummyConfig:
    """Do what a recipe does.

    More than one line is for readers of the code.
    """

    data: Annotated[str, Argument("DATA")]
    """where the images are"""
    more: Annotated[tuple[Path, ...], Argument("MORE...")] = ()
    """more of them"""
    output: Annotated[Path | None, NotInFingerprint] = None
    """where to write"""
    epochs: int = 3
    """passes over
    the images"""
    lr: float = 1e-3
    """learning rate"""
    kind: Literal["plain", "fancy"] = "plain"
    """which one"""
    ood: tuple[str, ...] = ()
    """NAME=DATA"""
    compile: bool = False
    """compile [or not]"""
    checked: bool = True
    """check it"""
    limit: int | None = None
    """at most so many"""


class Shown:
    def __init__(self, text: str, exit_code: int = 0, table_on_stdout: bool = False) -> None:
        self.text = text
        self.exit_code = exit_code
        self.table_on_stdout = table_on_stdout

    def summary(self) -> str:
        return self.text


def recipe(settings: DummyConfig) -> Shown:
    if settings.kind == "fancy":
        raise PromiseError("alpha 0.001 cannot be kept")
    return Shown(repr(settings), exit_code=settings.limit or 0, table_on_stdout=settings.lr == 2)


@pytest.fixture
def dummy() -> typer.Typer:
    made = typer.Typer(rich_markup_mode="markdown", pretty_exceptions_enable=False)
    made.command()(command(DummyConfig, lambda make, debug: run(make, recipe, debug=debug)))
    return made


def test_the_package_can_be_run_as_the_command() -> None:
    done = subprocess.run([sys.executable, "-m", "mood", "--version"], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == f"mood {__version__}\n"


def test_flags_arguments_and_defaults_come_from_the_config(dummy: typer.Typer) -> None:
    done = CliRunner().invoke(dummy, ["d"])
    assert done.stdout == f"{DummyConfig(data='d')!r}\n"
    flags = "d a b -o out --epochs 5 --lr 0.5 --kind plain --ood x=X --ood y=Y --compile --no-checked --limit 0"
    done = CliRunner().invoke(dummy, flags.split())
    wanted = DummyConfig(
        data="d",
        more=(Path("a"), Path("b")),
        output=Path("out"),
        epochs=5,
        lr=0.5,
        ood=("x=X", "y=Y"),
        compile=True,
        checked=False,
        limit=0,
    )
    assert done.stdout == f"{wanted!r}\n"


def test_help_is_made_from_the_docstrings(dummy: typer.Typer) -> None:
    shown = " ".join(CliRunner().invoke(dummy, ["--help"], env={"COLUMNS": "200"}).stdout.split())
    assert "[DATA] [MORE]..." in shown
    assert "Do what a recipe does." in shown
    for text in (
        "where the images are",
        "passes over the images (default: 3)",
        "learning rate (default: 0.001)",
        "<plain|fancy> which one (default: plain)",
        "NAME=DATA (may be repeated)",
        "--compile --no-compile <bool> compile [or not]",
        "check it (default: True)",
        "--recipe",
    ):
        assert text in shown


def test_a_recipe_fills_what_no_flag_says(dummy: typer.Typer, tmp_path: Path) -> None:
    path = tmp_path / "r.toml"
    path.write_text('data = "d"\nepochs = 7\nchecked = false\nood = ["x=X"]\nlr = 0.1\n')
    done = CliRunner().invoke(dummy, ["--recipe", str(path), "--epochs", "9"])
    assert done.stdout == f"{DummyConfig(data='d', epochs=9, checked=False, ood=('x=X',), lr=0.1)!r}\n"
    path.write_text("epoch = 7")
    done = CliRunner().invoke(dummy, ["d", "--recipe", str(path)])
    assert done.exit_code == InputError.exit_code
    assert "r.toml: unknown option 'epoch'; did you mean 'epochs'?" in done.stderr


def test_an_error_is_one_line_and_an_exit_code(dummy: typer.Typer) -> None:
    done = CliRunner().invoke(dummy, ["d", "--kind", "fancy"])
    assert (done.exit_code, done.stdout, done.stderr) == (7, "", "error: alpha 0.001 cannot be kept\n")
    done = CliRunner().invoke(dummy, [])
    assert (done.exit_code, done.stderr) == (2, "error: 'data' is missing: where the images are\n")
    done = CliRunner().invoke(dummy, ["d", "--kind", "fancy", "--debug"])
    assert isinstance(done.exception, PromiseError)


def test_a_result_may_bring_an_exit_code_and_leave_stdout_to_its_table(dummy: typer.Typer) -> None:
    assert CliRunner().invoke(dummy, ["d", "--limit", "10"]).exit_code == 10
    done = CliRunner().invoke(dummy, ["d", "--lr", "2"])
    assert done.stdout == ""
    assert "lr=2.0" in done.stderr


def test_errors_of_others_keep_their_traceback() -> None:
    def broken(settings: DummyConfig) -> Shown:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        run(lambda: DummyConfig(data="d"), broken, debug=False)


def test_what_the_system_refuses_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    def full(settings: DummyConfig) -> Shown:
        Path("/dev/full").write_text("x")
        return Shown("")

    with pytest.raises(typer.Exit) as caught:
        run(lambda: DummyConfig(data="d"), full, debug=False)
    assert caught.value.exit_code == 1
    assert capsys.readouterr().err == "error: [Errno 28] No space left on device\n"
    with pytest.raises(OSError, match="No space left"):
        run(lambda: DummyConfig(data="d"), full, debug=True)


SCRIPT = """
import signal, sys, time
from mood.cli.running import run
# Whoever started the tests in the background may have had it ignored.
signal.signal(signal.SIGINT, signal.default_int_handler)
class Result:
    def summary(self): return "x" * 100_000
def recipe(config):
    if config == "wait":
        print("ready", flush=True)
        time.sleep(30)
    return Result()
import typer
app = typer.Typer(pretty_exceptions_enable=False)
@app.command()
def main(what: str): run(lambda: what, recipe, debug=False)
app()
"""


def test_an_interrupted_run_says_that_it_can_go_on() -> None:
    with subprocess.Popen(
        [sys.executable, "-c", SCRIPT, "wait"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.readline() == "ready\n"
        process.send_signal(signal.SIGINT)
        assert process.wait() == 130
        assert process.stderr.read() == "\nstopped; the same command goes on from here\n"


def test_a_closed_pipe_is_quiet() -> None:
    reading, writing = os.pipe()
    with subprocess.Popen(
        [sys.executable, "-c", SCRIPT, "print"], stdout=writing, stderr=subprocess.PIPE, text=True
    ) as process:
        os.close(writing)
        os.close(reading)
        assert process.stderr is not None
        assert process.stderr.read() == ""
        assert process.wait() == 141


def test_mood_teaches_and_groups_its_commands() -> None:
    shown = CliRunner().invoke(app, ["--help"]).stdout
    assert "mood fit IMAGES -o detector" in shown
    for panel, names in RECIPES.items():
        assert panel in shown
        assert all(f"│ {name} " in shown for name in names)


@pytest.mark.parametrize("name", [name for names in RECIPES.values() for name in names])
def test_every_command_has_help(name: str) -> None:
    done = CliRunner().invoke(app, [name, "--help"])
    assert done.exit_code == 0
    assert "--recipe" in done.stdout
    module = importlib.import_module(f"mood.recipes.{name}")
    settings = fields(getattr(module, f"{name.capitalize()}Config"))
    assert all(field.description for field in settings.values())


def test_help_begins_with_what_is_special_to_a_command() -> None:
    shown = CliRunner().invoke(app, ["calibrate", "--help"], env={"COLUMNS": "200"}).stdout
    assert "calibrate [OPTIONS] [DIR] [DATA]" in shown
    flags = ["--output", "--alpha", "--conformal", "--classes", "--batch-size", "--workers", "--overwrite", "--recipe"]
    places = [shown.index(flag) for flag in flags]
    assert places == sorted(places)


def test_version() -> None:
    import mood

    assert CliRunner().invoke(app, ["--version"]).stdout == f"mood {mood.__version__}\n"


def test_scores_are_listed() -> None:
    done = CliRunner().invoke(app, ["scores"], env={"COLUMNS": "200"})
    assert done.exit_code == 0
    assert "mahalanobis++" in done.stdout
    assert "k=" in done.stdout


def test_scores_can_be_read_in_a_narrow_terminal() -> None:
    """Five lines a score at most, where the summary had a column of 18 characters."""
    from mood.scores import available

    lines = CliRunner().invoke(app, ["scores"], env={"COLUMNS": "80"}).stdout.splitlines()
    assert max(map(len, lines)) <= 80
    starts = [place for place, line in enumerate(lines) if line[:1].strip()]
    assert [lines[place].split()[0] for place in starts] == [*available()]
    assert max(after - place for place, after in zip(starts, [*starts[1:], len(lines)], strict=True)) <= 5
    first = " ".join(" ".join(line[22:].split()) for line in lines[: starts[1]])
    info = available()["ash_b"]
    assert first == f"{info.summary} needs embedding, head; options percentile=0.65"


def test_a_score_shows_what_it_needs_and_where_it_comes_from() -> None:
    done = CliRunner().invoke(app, ["scores", "knn"], env={"COLUMNS": "200"})
    rows = {line[:10].strip(): line[10:].strip() for line in done.stdout.splitlines()}
    assert list(rows) == ["score", "what it is", "source", "needs", "fitted", "options", "memory"]
    assert (rows["score"], rows["needs"], rows["fitted"]) == ("knn", "embedding", "on known images")
    assert rows["options"].startswith("k=50")
    assert "ICML 2022" in rows["source"]
    ready = CliRunner().invoke(app, ["scores", "max_logit"], env={"COLUMNS": "200"}).stdout
    assert "ready as it is" in ready
    assert "options     none" in ready
    done = CliRunner().invoke(app, ["scores", "moood"])
    assert done.exit_code == InputError.exit_code
    assert "mood" in done.stderr


def test_sets_are_listed_with_what_is_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MOOD_DATA", raising=False)
    monkeypatch.setenv("MOOD_CACHE", str(tmp_path / "cache"))
    (tmp_path / "root" / "CUB_200_2011" / "images").mkdir(parents=True)
    done = CliRunner().invoke(app, ["sets", "--data-root", str(tmp_path / "root")], env={"COLUMNS": "200"})
    rows = {line.split()[0]: line.split()[1:] for line in done.stdout.splitlines()[1:]}
    assert rows["clothing"][-1] == "yes"
    assert rows["cub200"][-2:] == ["train,", "test"]
    assert rows["pets"][-1] == "no"


def test_a_set_shows_its_card(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MOOD_DATA", raising=False)
    monkeypatch.setenv("MOOD_CACHE", str(tmp_path / "cache"))
    (tmp_path / "root" / "CUB_200_2011" / "images").mkdir(parents=True)
    told = ["sets", "cub200", "--data-root", str(tmp_path / "root")]
    shown = " ".join(CliRunner().invoke(app, told, env={"COLUMNS": "200"}).stdout.split())
    for text in (
        "licence unknown",
        "cub200:train, cub200:test",
        "overlap with ImageNet's",
    ):
        assert text in shown
    assert f"here: test {tmp_path / 'root' / 'CUB_200_2011' / 'images'}" in shown
    done = CliRunner().invoke(app, ["sets", "cub20"])
    assert done.exit_code == InputError.exit_code
    assert "no card of a set 'cub20'; known: cub200" in done.stderr


def test_a_saved_folder_describes_itself(tmp_path: Path) -> None:
    artifact.write(tmp_path / "d", kind="detector", tensors={}, meta={"alpha": 0.05, "word": "größer"})
    done = CliRunner().invoke(app, ["info", str(tmp_path / "d")])
    assert json.loads(done.stdout)["meta"] == {"alpha": 0.05, "word": "größer"}
    done = CliRunner().invoke(app, ["info", str(tmp_path)])
    assert done.exit_code == 5
    assert done.stderr.startswith("error: ")
