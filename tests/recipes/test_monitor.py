"""`mood monitor`: windows, exit code, a state that outlives kills, and streams that are judged once."""

import json
import os
import shutil
import signal
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

import mood
from mood.cli import app
from mood.core.errors import ArtifactError, DataError, InputError, OutputError
from mood.core.output import locked
from mood.core.state import read_state
from mood.recipes.fit import FitConfig, fit
from mood.recipes.monitor import ALARMED, MonitorConfig, monitor


@pytest.fixture(scope="module")
def saved(tmp_path_factory, tiny_network, stripes_folder):
    """A detector on disk, and another one."""
    folder = tmp_path_factory.mktemp("monitor")
    data = stripes_folder(folder / "known", 300)
    for name, alpha in (("d", 0.1), ("other", 0.2)):
        fit(FitConfig(data=str(data), model=str(tiny_network), output=folder / name, held_out=0.3, alpha=alpha))
    return folder


def noise(folder, count):
    folder.mkdir(parents=True)
    draws = np.random.default_rng(0)
    for number in range(count):
        pixels = draws.integers(0, 256, (16, 16, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{number:03d}.png")
    return folder


def run(saved, stream, **changes):
    settings = {"detector": saved / "d", "stream": str(stream), "workers": 0, "window": 20, "batch_size": 16}
    return monitor(MonitorConfig(**{**settings, **changes}))


def flat(path):
    """The monitor and streams of a state file."""
    arrays, meta = read_state(path, kind="monitor")
    return {name: array.tobytes() for name, array in arrays.items()}, meta


def test_noise_alarms_and_known_images_do_not(saved, stripes_folder, tmp_path, capsys):
    fine = run(saved, stripes_folder(tmp_path / "fine", 60, seed=9))
    assert (fine.judged, fine.exit_code, fine.monitor.alarmed) == (60, 0, False)
    assert "no alarm; of streams that stay like the calibration images, at most 1.00%" in fine.summary()
    bad = noise(tmp_path / "noise", 60)
    assert run(saved, bad).exit_code == 0
    result = run(saved, bad, fail_on_alarm=True, format="jsonl")
    assert result.exit_code == ALARMED == 12
    assert f"ALARM at image {result.monitor.alarm}" in result.summary()
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines() if line.startswith("{")]
    assert [row["images"] for row in rows] == [20, 20, 20]
    assert rows[-1]["flagged"] > 0.9
    assert rows[-1]["drift"] > 2 * rows[-1]["drift_by_chance"]
    assert rows[-1]["alarm"] == result.monitor.alarm


def test_the_command_line(saved, tmp_path):
    bad = noise(tmp_path / "noise", 45)
    (bad / "0000.png").write_text("no image")
    line = ["monitor", str(saved / "d"), str(bad), "--window", "20", "--workers", "0", "--fail-on-alarm"]
    done = CliRunner().invoke(app, [*line, "--state", str(tmp_path / "s"), "--page", str(tmp_path / "page.html")])
    assert done.exit_code == 12
    assert len(done.stdout.splitlines()) == 4
    assert "(not full)" in done.stdout
    assert "45 new images judged, 45 in all" in done.stderr
    page = (tmp_path / "page.html").read_text()
    assert "<svg" in page
    assert "Alarm at image" in page
    again = CliRunner().invoke(app, [*line, "--state", str(tmp_path / "s")])
    assert again.exit_code == 12
    assert "0 new images judged, 45 in all" in again.stderr


def test_of_a_stream_that_cannot_be_watched_the_error_is_all_that_is_told(saved, tmp_path):
    (tmp_path / "empty").mkdir()
    np.savez(tmp_path / "none.npz", embedding=np.empty((0, 32)))
    for stream in ("empty", "none.npz", "absent"):
        done = CliRunner().invoke(app, ["monitor", str(saved / "d"), str(tmp_path / stream), "--workers", "0"])
        assert done.exit_code in (DataError.exit_code, InputError.exit_code)
        assert done.stdout == ""
        assert done.stderr.startswith("error: ")


def test_one_by_one_and_all_at_once_give_the_same_state(saved, stripes_folder, tmp_path):
    whole = stripes_folder(tmp_path / "whole", 50, seed=3)
    names = sorted(str(path.relative_to(whole)) for path in whole.rglob("*.png"))
    (whole / names[7]).write_text("no image")
    run(saved, whole, state=tmp_path / "at once")
    growing = tmp_path / "growing"
    for count in (1, 8, 8, 30, 50):
        for name in names[:count]:
            (growing / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(whole / name, growing / name)
        result = run(saved, growing, state=tmp_path / "grown")
    assert result.monitor.images == 49
    (arrays, meta), (others, same) = flat(tmp_path / "at once"), flat(tmp_path / "grown")
    assert meta["streams"][0]["digest"] == same["streams"][0]["digest"]
    assert same["monitor"]["images"] == meta["monitor"]["images"]
    assert same["monitor"]["open"] == meta["monitor"]["open"]
    assert len(others) == len(arrays)
    # Batches of another size may move the last bits of a score.
    ours, theirs = (mood.watch(mood.load(saved / "d"), tmp_path / name).monitor for name in ("at once", "grown"))
    assert ours.log_evidence == pytest.approx(theirs.log_evidence, rel=1e-3)


def test_other_streams_follow_and_none_is_judged_twice(saved, stripes_folder, tmp_path):
    first, second = (stripes_folder(tmp_path / name, 30, seed=seed) for seed, name in enumerate(("a", "b")))
    state = tmp_path / "s"
    assert run(saved, first, state=state).judged == 30
    assert run(saved, second, state=state).judged == 30
    assert run(saved, first, state=state).judged == 0
    shutil.move(first, tmp_path / "moved")
    assert run(saved, tmp_path / "moved", state=state).judged == 0
    next((tmp_path / "b").rglob("*.png")).unlink()
    before = flat(state)
    with pytest.raises(InputError, match="30 images of .* have been judged, and they are not the first ones there"):
        run(saved, second, state=state)
    assert flat(state) == before


def test_a_folder_of_classes_can_be_mixed(saved, stripes_folder, tmp_path):
    stream = stripes_folder(tmp_path / "stream", 60, seed=9)
    sorted_by_class = run(saved, stream)
    assert sorted_by_class.by_class
    assert "class by class" not in sorted_by_class.summary()
    shutil.copytree(noise(tmp_path / "noise", 60), tmp_path / "two" / "a")
    shutil.copytree(tmp_path / "noise", tmp_path / "two" / "b")
    alarmed = run(saved, tmp_path / "two")
    assert "came class by class, which alone can raise an alarm: --order random mixes them" in alarmed.summary()
    state = tmp_path / "s"
    mixed = run(saved, stream, state=state, order="random")
    assert (mixed.judged, mixed.by_class) == (60, False)
    assert "class by class" not in run(saved, tmp_path / "two", order="random").summary()
    assert flat(state) != flat_of(saved, stream, tmp_path / "given")
    assert flat(state) == flat_of(saved, stream, tmp_path / "again", order="random")
    assert flat(state) != flat_of(saved, stream, tmp_path / "other", order="random", seed=1)
    assert run(saved, stream, state=state, order="random").judged == 0
    with pytest.raises(InputError, match=r"goes on in the order \(given or random\) in which it began"):
        run(saved, stream, state=state)
    shutil.copyfile(tmp_path / "noise" / "000.png", stream / "class 1" / "zzz.png")
    with pytest.raises(InputError, match="New images must come in a folder of another name"):
        run(saved, stream, state=state, order="random")


def flat_of(saved, stream, state, **changes):
    run(saved, stream, state=state, **changes)
    return flat(state)


KILLED = """
import os, sys
from mood.core import state
from mood.recipes.monitor import MonitorConfig, monitor
write, left = state.write_state, [int(sys.argv[4])]
def killing(*args, **more):
    if not left[0]:
        os.kill(os.getpid(), 9)
    left[0] -= 1
    write(*args, **more)
state.write_state = killing
settings = {"workers": 0, "window": 20, "batch_size": 16, "order": sys.argv[5]}
monitor(MonitorConfig(detector=sys.argv[1], stream=sys.argv[2], state=sys.argv[3], **settings))
"""


@pytest.mark.parametrize("order", ["given", "random"])
def test_killed_runs_lose_no_image_and_judge_none_twice(saved, stripes_folder, tmp_path, order):
    stream = stripes_folder(tmp_path / "stream", 70, seed=4)
    run(saved, stream, state=tmp_path / "quiet", order=order)
    for writes in (0, 1, 0):
        command = [sys.executable, "-c", KILLED, saved / "d", stream, tmp_path / "killed", str(writes), order]
        done = subprocess.run(command, capture_output=True, env={**os.environ, "MOOD_CACHE": str(tmp_path)})
        assert done.returncode == -signal.SIGKILL
    assert run(saved, stream, state=tmp_path / "killed", order=order).judged == 38
    assert flat(tmp_path / "killed") == flat(tmp_path / "quiet")


def test_the_same_from_python(saved, stripes_folder, tmp_path):
    stream = stripes_folder(tmp_path / "stream", 50, seed=6)
    detector = mood.load(saved / "d")
    watch = mood.watch(detector, tmp_path / "s", window=20)
    windows = list(watch(str(stream), batch_size=16))
    assert [window.images for window in windows] == [20, 20]
    assert watch.monitor.so_far().images == 10
    run(saved, stream, state=tmp_path / "t")
    assert flat(tmp_path / "t") == flat(tmp_path / "s")
    assert mood.watch(detector, tmp_path / "s").monitor.images == 50
    alone = mood.watch(detector)
    images = [np.asarray(Image.open(path)) for path in sorted(stream.rglob("*.png"))]
    assert list(alone(images)) == []
    assert alone.monitor.images == 50


def test_features_are_a_stream_too(tmp_path):
    random = np.random.default_rng(0)
    np.savez(tmp_path / "fit.npz", embedding=random.normal(size=(400, 4)))
    np.savez(tmp_path / "new.npz", embedding=random.normal(size=(100, 4)) + 2)
    np.savez(tmp_path / "none.npz", embedding=np.empty((0, 4)))
    fit(FitConfig(data=str(tmp_path / "fit.npz"), output=tmp_path / "d", held_out=0.3))
    result = run(tmp_path, tmp_path / "new.npz", state=tmp_path / "s")
    assert (result.judged, result.monitor.alarmed) == (100, True)
    assert run(tmp_path, tmp_path / "new.npz", state=tmp_path / "s").judged == 0
    mixed = run(tmp_path, tmp_path / "new.npz", state=tmp_path / "t", order="random")
    assert (mixed.judged, flat(tmp_path / "t") == flat(tmp_path / "s")) == (100, False)
    with pytest.raises(InputError, match="no row"):
        run(tmp_path, tmp_path / "none.npz")


def test_a_detector_keeps_where_its_calibration_images_lie(saved):
    detector = mood.load(saved / "d")
    assert detector.usual is not None
    assert detector.usual.images == len(detector.calibration)
    assert detector.usual.mean.shape == detector.usual.variance.shape == (32,)


def test_the_images_that_calibrated_the_detector_are_told(saved, stripes_folder, tmp_path):
    from mood.data import held_out, open_source

    source = open_source(str(saved / "known"))
    stream, names = tmp_path / "stream", np.array(source.manifest.ids)[held_out(source.manifest.hashes, fraction=0.3)]
    for name in names:
        (stream / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(saved / "known" / name, stream / name)
    result = run(saved, stream, state=tmp_path / "s")
    assert result.summary().splitlines()[-1] == (
        f"{len(names)} of the {len(names)} images are not new to the detector ({len(names)} calibrated it): their "
        "scores and p-values are not those of new images, and neither is the evidence"
    )
    shutil.copyfile(saved / "known" / names[0], stream / "class 1" / "zzz.png")
    assert "1 of the 1 images are not new" in run(saved, stream, state=tmp_path / "s").summary()
    assert run(saved, stripes_folder(tmp_path / "new", 20, seed=3)).note == ""
    watch = mood.watch(mood.load(saved / "d"))
    list(watch(str(stream)))
    assert "calibrated it" in watch.note


def test_what_is_refused(saved, stripes_folder, tmp_path):
    stream = stripes_folder(tmp_path / "stream", 20, seed=8)
    state = tmp_path / "s"
    run(saved, stream, state=state)
    with pytest.raises(ArtifactError, match="watches another detector"):
        run(saved, stream, state=state, detector=saved / "other")
    with pytest.raises(InputError, match="was begun with window 20, now it is 30"):
        run(saved, stream, state=state, window=30)
    with pytest.raises(OutputError, match="another run is writing"), locked(state.resolve()):
        run(saved, stream, state=state)
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError):
        run(saved, tmp_path / "empty", state=state)
    for page in (tmp_path, tmp_path / "absent" / "page.html"):
        with pytest.raises(OutputError, match="it must be a file, in a folder that is there"):
            run(saved, stream, page=page)
    with pytest.raises(InputError, match="'cap' is 9223372036854775808; it should be less than"):
        run(saved, stream, cap=2**63)
    for level in (0.0, 1.0):
        with pytest.raises(InputError, match="'level' is"):
            run(saved, stream, level=level)
    state.write_bytes(state.read_bytes()[:-1])
    with pytest.raises(ArtifactError, match="damaged"):
        run(saved, stream, state=state)
