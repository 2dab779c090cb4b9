"""A bar for terminals, silence for pipes."""

import os
import pty
import subprocess
import sys

import pytest

from mood.core.progress import progress, say, track

WORK = """
from mood.core.progress import progress, track
with progress(3, "learn", start=1) as bar:
    bar.advance(loss=0.25)
    bar.advance()
assert list(track([1, 2, 3], description="read")) == [1, 2, 3]
assert list(track(iter("ab"))) == ["a", "b"]
"""


def test_a_pipe_gets_nothing(capfd: pytest.CaptureFixture[str]) -> None:
    with progress(3, "learn") as bar:
        bar.advance(2, loss=0.5)
    assert list(track(range(3), description="read")) == [0, 1, 2]
    assert capfd.readouterr() == ("", "")


def test_a_terminal_gets_a_bar_with_what_is_measured() -> None:
    ours, theirs = pty.openpty()
    done = subprocess.run(
        [sys.executable, "-c", WORK],
        stderr=theirs,
        stdout=subprocess.PIPE,
        env={**os.environ, "TERM": "xterm", "COLUMNS": "100"},
    )
    os.close(theirs)
    drawn = os.read(ours, 1 << 20).decode()
    os.close(ours)
    assert done.returncode == 0
    assert done.stdout == b""
    assert "learn" in drawn
    assert "3/3" in drawn
    assert "loss 0.25" in drawn


def test_a_line_is_said_to_a_pipe_too_and_by_the_first_process_alone(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    say("one\n  of two")
    assert capfd.readouterr() == ("", "one of two\n")
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "1")
    say("two of two")
    assert capfd.readouterr() == ("", "")


def test_an_abandoned_loop_ends_quietly(capfd: pytest.CaptureFixture[str]) -> None:
    items = track(range(10))
    assert next(items) == 0
    del items
    assert capfd.readouterr() == ("", "")
