"""The protocol of -o: made, resumed, reused, refused, and nobody else's files are touched."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from mood.core.errors import OutputError
from mood.core.output import Kind, open_output

KINDS: tuple[Kind, ...] = ("folder", "file")
ONE = {"alpha": 0.05, "score": "mood"}
OTHER = {"alpha": 0.1, "score": "mood"}


def make(path: Path, settings: dict[str, Any], kind: Kind, text: str = "made", *, overwrite: bool = False) -> bool:
    """Write an output; whether there was something to do."""
    with open_output(path, settings, kind=kind, overwrite=overwrite) as output:
        if output.finished:
            return False
        target = output.work / "result.txt" if kind == "folder" else output.work
        target.write_text(text)
        output.commit()
        assert output.finished
    return True


def content(path: Path) -> str:
    return (path / "result.txt" if path.is_dir() else path).read_text()


def names(folder: Path) -> list[str]:
    return sorted(child.name for child in folder.iterdir())


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> Kind:
    chosen: Kind = request.param
    return chosen


def test_absent_is_made_with_its_settings_and_nothing_else_is_left(tmp_path: Path, kind: Kind) -> None:
    assert make(tmp_path / "new" / "out.v1", ONE, kind)
    assert content(tmp_path / "new" / "out.v1") == "made"
    if kind == "folder":
        assert names(tmp_path / "new") == ["out.v1"]
        assert names(tmp_path / "new" / "out.v1") == ["config.json", "result.txt"]
    else:
        assert names(tmp_path / "new") == ["out.v1", "out.v1.config.json"]


def test_finished_with_the_same_settings_is_reused(tmp_path: Path, kind: Kind) -> None:
    make(tmp_path / "out", ONE, kind)
    assert not make(tmp_path / "out", dict(reversed(ONE.items())), kind, "again")
    assert not make(tmp_path / "out", ONE, kind, "again", overwrite=True)
    assert content(tmp_path / "out") == "made"


def test_other_settings_are_refused_with_the_difference_and_replaced_with_overwrite(tmp_path: Path, kind: Kind) -> None:
    make(tmp_path / "out", ONE, kind)
    before = names(tmp_path)
    with pytest.raises(OutputError, match=r"\(alpha: 0\.05 → 0\.1\): choose another -o.*--overwrite$"):
        make(tmp_path / "out", OTHER, kind)
    assert content(tmp_path / "out") == "made"
    assert make(tmp_path / "out", OTHER, kind, "replaced", overwrite=True)
    assert content(tmp_path / "out") == "replaced"
    assert not make(tmp_path / "out", OTHER, kind)
    assert names(tmp_path) == before


def test_a_difference_is_of_single_values_by_the_way_to_them(tmp_path: Path) -> None:
    runs = [{"name": "a", "scores": ["mood", "knn k=20"]}, {"name": "b", "scores": ["msp"]}]
    make(tmp_path / "out", {"plan": {"title": "T", "runs": runs}, "images": {"known": "5f"}}, "folder")
    other = [{"name": "a", "scores": ["mood", "knn k=5"]}, {"name": "b", "scores": ["msp", "ödin"]}]
    settings = {"plan": {"title": "T", "runs": other}, "images": {"known": "5f", "strange": "a0"}}
    with pytest.raises(OutputError) as raised:
        make(tmp_path / "out", settings, "folder")
    assert (
        '(images.strange: not there → "a0"; plan.runs[0].scores[1]: "knn k=20" → "knn k=5"; '
        'plan.runs[1].scores[1]: not there → "ödin"): choose'
    ) in str(raised.value)


def test_a_long_difference_is_cut_short(tmp_path: Path) -> None:
    make(tmp_path / "out", {str(n): "x" * 99 for n in range(6)}, "folder")
    with pytest.raises(OutputError, match=r"\(0: \"x{23}… → not there; 1: .*3: [^;]*; 2 more\)"):
        make(tmp_path / "out", {}, "folder")


def test_who_is_refused_is_told_what_replacing_takes(tmp_path: Path) -> None:
    make(tmp_path / "out", ONE, "folder")
    with (
        pytest.raises(OutputError, match=r"replace it with --overwrite \(a minute\)$"),
        open_output(tmp_path / "out", OTHER, replacing="a minute"),
    ):
        pass


def test_what_was_not_at_hand_and_has_come_since_is_added_without_overwrite(tmp_path: Path) -> None:
    def reached(settings: dict[str, Any]) -> bool:
        with open_output(tmp_path / "out", settings, at_hand=("images",)) as output:
            finished = output.finished
            if not finished:
                output.commit()
        return finished

    assert not reached({"alpha": 0.05, "images": {}})
    assert not reached({"alpha": 0.05, "images": {"known": "5f"}})
    assert reached({"alpha": 0.05, "images": {"known": "5f"}})
    for settings in (
        {"alpha": 0.05, "images": {}},
        {"alpha": 0.05, "images": {"known": "a0", "strange": "a0"}},
        {"alpha": 0.1, "images": {"known": "5f", "strange": "a0"}},
        {"alpha": 0.05, "images": {"known": "5f", "strange": "a0"}, "limit": 3},
    ):
        with pytest.raises(OutputError, match="made with another configuration"):
            reached(settings)


def test_the_old_result_stays_until_the_new_one_is_finished(tmp_path: Path, kind: Kind) -> None:
    make(tmp_path / "out", ONE, kind)
    with pytest.raises(RuntimeError), open_output(tmp_path / "out", OTHER, kind=kind, overwrite=True):
        assert content(tmp_path / "out") == "made"
        raise RuntimeError
    assert content(tmp_path / "out") == "made"
    assert not make(tmp_path / "out", ONE, kind)


def test_a_failed_run_is_resumed_and_another_one_starts_afresh(tmp_path: Path, kind: Kind) -> None:
    with pytest.raises(RuntimeError), open_output(tmp_path / "out", ONE, kind=kind) as output:
        (output.scratch / "part-0").write_text("half")
        raise RuntimeError
    assert not (tmp_path / "out").exists()
    with open_output(tmp_path / "out", OTHER, kind=kind) as output:
        assert names(output.scratch) == []
    with open_output(tmp_path / "out", ONE, kind=kind) as output:
        assert (output.scratch / "part-0").read_text() == "half"
    assert make(tmp_path / "out", ONE, kind)
    assert not any("partial" in name for name in names(tmp_path))


def test_a_run_that_wrote_nothing_leaves_nothing(tmp_path: Path, kind: Kind) -> None:
    with pytest.raises(RuntimeError), open_output(tmp_path / "out", ONE, kind=kind):
        raise RuntimeError
    assert names(tmp_path) == []


@pytest.mark.parametrize("overwrite", [False, True])
def test_what_mood_did_not_write_is_left_alone(tmp_path: Path, kind: Kind, overwrite: bool) -> None:
    path = tmp_path / "out"
    if kind == "folder":
        path.mkdir()
    (path / "result.txt" if kind == "folder" else path).write_text("mine")
    with pytest.raises(OutputError, match="was not written by mood and is left alone"):
        make(path, ONE, kind, overwrite=overwrite)
    record = path / "config.json" if kind == "folder" else tmp_path / "out.config.json"
    for text in ("{", "[]", "{}", '{"format": "other"}', '{"format": "mood.output/1"}'):
        record.write_text(text)
        with pytest.raises(OutputError, match="was not written by mood and is left alone"):
            make(path, ONE, kind, overwrite=overwrite)
    assert content(path) == "mine"


@pytest.mark.parametrize("overwrite", [False, True])
def test_what_somebody_changed_is_left_alone(tmp_path: Path, kind: Kind, overwrite: bool) -> None:
    path = tmp_path / "out"
    make(path, ONE, kind)
    (path / "notes.txt" if kind == "folder" else path).write_text("mine")
    for settings in (ONE, OTHER):
        with pytest.raises(OutputError, match="was changed after mood wrote it"):
            make(path, settings, kind, overwrite=overwrite)
    assert (path / "notes.txt" if kind == "folder" else path).read_text() == "mine"


def test_what_appears_while_the_work_goes_on_is_left_alone(tmp_path: Path, kind: Kind) -> None:
    path = tmp_path / "out"
    with (
        pytest.raises(OutputError, match="was not written by mood"),
        open_output(path, ONE, kind=kind) as output,
    ):
        (output.work / "result.txt" if kind == "folder" else output.work).write_text("made")
        if kind == "folder":
            path.mkdir()
        (path / "result.txt" if kind == "folder" else path).write_text("mine")
        output.commit()
    assert content(path) == "mine"


def test_a_foreign_file_in_the_place_of_the_settings_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "out.config.json").write_text("mine")
    with pytest.raises(OutputError, match=r"out\.config\.json was not written by mood"):
        make(tmp_path / "out", ONE, "file", overwrite=True)


def test_a_result_that_was_deleted_is_made_again(tmp_path: Path, kind: Kind) -> None:
    make(tmp_path / "out", ONE, kind)
    if kind == "folder":
        (tmp_path / "out" / "result.txt").unlink()
        (tmp_path / "out" / "config.json").unlink()
    else:
        (tmp_path / "out").unlink()
    assert make(tmp_path / "out", OTHER, kind)


def test_an_empty_folder_is_as_good_as_none_and_a_link_is_followed(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "out").symlink_to("real")
    assert make(tmp_path / "out", ONE, "folder")
    assert (tmp_path / "out").is_symlink()
    assert content(tmp_path / "real") == "made"


def test_a_folder_is_no_file_and_a_file_no_folder(tmp_path: Path) -> None:
    make(tmp_path / "folder", ONE, "folder")
    make(tmp_path / "file", ONE, "file")
    with pytest.raises(OutputError, match="is a folder and a file is to be written"):
        make(tmp_path / "folder", ONE, "file", overwrite=True)
    with pytest.raises(OutputError, match="is a file and a folder is to be written"):
        make(tmp_path / "file", ONE, "folder", overwrite=True)


def test_a_place_where_nothing_can_be_written_is_told(tmp_path: Path, kind: Kind) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match=r"nothing can be written to .*: (Not a directory|File exists)"):
        make(tmp_path / "file" / "out", ONE, kind)
    with pytest.raises(OutputError, match="nothing can be written to .*: File name too long"):
        make(tmp_path / ("n" * 300), ONE, kind)


def test_a_mounted_disk_is_refused_before_the_work() -> None:
    with pytest.raises(OutputError, match="is where a disk is mounted"):
        make(Path("/"), ONE, "folder")


def test_two_runs_do_not_write_the_same_output(tmp_path: Path, kind: Kind) -> None:
    with open_output(tmp_path / "out", ONE, kind=kind):
        for settings in (ONE, OTHER):
            with pytest.raises(OutputError, match="another run is writing"):
                make(tmp_path / "out", settings, kind)
        code = f"from mood.core.output import *\nwith open_output({str(tmp_path / 'out')!r}, {OTHER!r}): pass"
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
        assert "another run is writing" in done.stderr
    assert make(tmp_path / "out", ONE, kind)


KILLED = """
import os, sys, time
from mood.core.output import open_output
kind, path = sys.argv[1:]
with open_output(path, {"alpha": 0.05, "score": "mood"}, kind=kind, overwrite=True) as output:
    (output.scratch / "part-0").write_text("half")
    (output.work / "result.txt" if kind == "folder" else output.work).write_text("killed")
    if os.fork() == 0:  # a worker that outlives its parent
        time.sleep(30)
        os._exit(0)
    print("ready", flush=True)
    time.sleep(30)
"""


def test_a_killed_run_is_resumed_at_once_while_its_workers_still_die(tmp_path: Path, kind: Kind) -> None:
    make(tmp_path / "out", OTHER, kind, "old")
    with subprocess.Popen(
        [sys.executable, "-c", KILLED, kind, str(tmp_path / "out")], stdout=subprocess.PIPE, start_new_session=True
    ) as run:
        try:
            assert run.stdout is not None
            assert run.stdout.readline() == b"ready\n"
            with pytest.raises(OutputError, match="another run is writing"):
                make(tmp_path / "out", ONE, kind, overwrite=True)
            run.kill()
            run.wait()
            assert content(tmp_path / "out") == "old"
            with open_output(tmp_path / "out", ONE, kind=kind, overwrite=True) as output:
                assert (output.scratch / "part-0").read_text() == "half"
                output.commit()
        finally:
            os.killpg(run.pid, signal.SIGKILL)
    assert content(tmp_path / "out") == "killed"
    assert not any(name.startswith(".") for name in names(tmp_path))


KILLED_IN_COMMIT = """
import os, signal, sys
from mood.core.output import open_output
kind, path, moment = sys.argv[1], sys.argv[2], int(sys.argv[3])
committing = False

def watch(event, arguments):
    # Whatever changes a file announces itself here.
    global moment
    if committing and (event in ("os.rename", "os.remove", "os.rmdir") or event == "open" and arguments[1] == "w"):
        moment -= 1
        if moment < 0:
            os.kill(os.getpid(), signal.SIGKILL)

sys.addaudithook(watch)
with open_output(path, {"alpha": 0.05, "score": "mood"}, kind=kind, overwrite=True) as output:
    (output.work / "result.txt" if kind == "folder" else output.work).write_text("new")
    committing = True
    output.commit()
    committing = False
print("finished")
"""


def test_a_kill_at_any_moment_of_the_commit_loses_nothing(tmp_path: Path, kind: Kind) -> None:
    moments = 0
    while True:
        path = tmp_path / str(moments) / "out"
        make(path, OTHER, kind, "old")
        run = [sys.executable, "-c", KILLED_IN_COMMIT, kind, str(path), str(moments)]
        if subprocess.run(run, capture_output=True).stdout:
            break
        moments += 1
        assert not path.exists() or content(path) in ("old", "new")
        make(path, ONE, kind, "new", overwrite=True)
        assert content(path) == "new"
        assert not make(path, ONE, kind)
    assert moments > 5


def test_a_lock_file_that_a_killed_run_left_is_no_lock(tmp_path: Path, kind: Kind) -> None:
    (tmp_path / ".out.lock").write_text("")
    started = time.monotonic()
    assert make(tmp_path / "out", ONE, kind)
    assert time.monotonic() - started < 5
