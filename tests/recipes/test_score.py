"""Scoring: one table in every format, exit codes, resume, odd names, and what an image's score depends on."""

import json
import random

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest
from PIL import Image
from typer.testing import CliRunner

import mood
from mood.cli import app
from mood.core.errors import ArtifactError, DataError, InputError, OutputError
from mood.detector import COLUMNS, Detector
from mood.recipes import score as recipe
from mood.recipes.fit import FitConfig, fit
from mood.recipes.score import ScoreConfig, score


@pytest.fixture(scope="module")
def saved(tmp_path_factory, tiny_network, stripes_folder):
    """A detector on disk and the folder of images it was fitted on."""
    folder = tmp_path_factory.mktemp("score")
    data = stripes_folder(folder / "known", 300)
    fit(FitConfig(data=str(data), model=str(tiny_network), output=folder / "d", held_out=0.3, alpha=0.1, workers=0))
    return folder / "d", data


@pytest.fixture
def strange(tmp_path, stripes_folder):
    """Twenty images, noise among them, and two that cannot be read."""
    folder = stripes_folder(tmp_path / "strange", 20, seed=7)
    draws = np.random.default_rng(0)
    for number in range(3):
        pixels = draws.integers(0, 256, (16, 16, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / "class 0" / f"noise {number}.png")
    (folder / "class 0" / "empty.png").touch()
    (folder / "class 1" / "text.png").write_text("not an image")
    return folder


def run(saved, images, **changes):
    settings = {"detector": saved[0], "images": str(images), "workers": 0}
    return score(ScoreConfig(**{**settings, **changes}))


def read(path):
    if path.suffix == ".parquet":
        return pq.read_table(path)
    if path.suffix == ".jsonl":
        return pa.Table.from_pylist([json.loads(line) for line in path.read_text().splitlines()], COLUMNS)
    return recipe._read(path, "csv")


@pytest.mark.parametrize("kind", ["parquet", "csv", "jsonl"])
def test_every_format_holds_the_table_of_the_detector(saved, strange, tmp_path, kind):
    expected = mood.load(saved[0])(str(strange))
    result = run(saved, strange, output=tmp_path / f"out.{kind}")
    assert read(result.output).equals(expected)
    assert (result.images, result.rejected) == (25, 2)
    assert result.flagged == sum(value is True for value in expected["is_ood"].to_pylist())
    assert run(saved, strange, output=tmp_path / f"out.{kind}") == result
    assert f"25 images: 23 scored, {result.flagged} flagged" in result.summary()


@pytest.mark.parametrize("kind", ["csv", "jsonl"])
def test_standard_output_holds_the_table_and_standard_error_the_summary(saved, strange, tmp_path, kind):
    done = CliRunner().invoke(app, ["score", str(saved[0]), str(strange), "--format", kind, "--workers", "0"])
    assert done.exit_code == 0
    (tmp_path / f"out.{kind}").write_text(done.stdout)
    assert read(tmp_path / f"out.{kind}").equals(mood.load(saved[0])(str(strange)))
    assert "25 images: 23 scored" in done.stderr


def test_images_that_the_detector_was_made_of_are_told(saved, strange, tmp_path):
    detector = mood.load(saved[0])
    calibrated = len(detector.calibration)
    told = run(saved, saved[1], output=tmp_path / "t.csv")
    assert told.note == (
        f"300 of the 300 images are not new to the detector ({300 - calibrated} fitted its score, {calibrated} "
        "calibrated it): their scores and p-values are not those of new images"
    )
    assert told.summary().splitlines()[1:] == [told.note]
    assert run(saved, saved[1], output=tmp_path / "t.csv").note == told.note, "from the finished table too"
    assert run(saved, strange, output=tmp_path / "s.csv").note == ""


def test_rows_of_features_that_the_detector_was_made_of_are_told(saved, tmp_path):
    rows = np.random.default_rng(0).normal(size=(300, 32)).astype(np.float32)
    np.savez(tmp_path / "f.npz", embedding=rows)
    np.savez(tmp_path / "n.npz", embedding=rows[:20] + 1)
    fit(FitConfig(data=str(tmp_path / "f.npz"), output=tmp_path / "d", held_out=0.3))
    own = tmp_path / "d", tmp_path / "f.npz"
    assert "300 of the 300 rows are not new to the detector" in run(own, own[1], output=tmp_path / "f.csv").summary()
    assert run(own, tmp_path / "n.npz", output=tmp_path / "n.csv").note == ""
    # Of features nobody knows whose images they are.
    assert run(saved, own[1], output=tmp_path / "o.csv").note == ""


def test_parts_on_standard_output_have_one_header(saved, strange, monkeypatch):
    whole = CliRunner().invoke(app, ["score", str(saved[0]), str(strange), "--workers", "0", "--batch-size", "10"])
    monkeypatch.setattr(recipe, "PART", 10)
    parts = CliRunner().invoke(app, ["score", str(saved[0]), str(strange), "--workers", "0", "--batch-size", "10"])
    assert parts.stdout == whole.stdout


def test_a_script_can_tell_flagged_unreadable_and_fine_by_the_exit_code(saved, strange, tmp_path):
    def code(folder):
        return (
            CliRunner().invoke(app, ["score", str(saved[0]), str(folder), "--fail-on-ood", "--workers", "0"]).exit_code
        )

    assert code(strange) == 10
    fine = tmp_path / "fine"
    fine.mkdir()
    table = mood.load(saved[0])(str(saved[1]))
    usual = table["id"].to_pylist()[int(np.argmin(table["score"].to_numpy()))]
    (fine / "usual.png").write_bytes((saved[1] / usual).read_bytes())
    assert code(fine) == 0
    (fine / "broken.png").touch()
    assert code(fine) == 11
    assert CliRunner().invoke(app, ["score", str(saved[0]), str(fine), "--workers", "0"]).exit_code == 0


def test_names_that_would_break_a_table_come_back_whole(saved, stripes_folder, tmp_path):
    folder = stripes_folder(tmp_path / "data", 10)
    names = ["a,b.png", 'say "x".png', "two\nlines.png", "null", "NA", "größe.png", " .png", "'.png", "nan", "#N/A"]
    for path, name in zip(sorted(folder.rglob("*.png")), names, strict=True):
        path.rename(folder / name.replace("/", " "))
    (folder / "NULL").write_bytes(b"no image")
    expected = mood.load(saved[0])(str(folder))
    for kind in ("parquet", "csv", "jsonl"):
        result = run(saved, folder, output=tmp_path / f"out.{kind}")
        again = run(saved, folder, output=tmp_path / f"out.{kind}")
        assert read(result.output).equals(expected)
        assert again == result
        assert (result.images, result.rejected) == (11, 1)


def test_kept_from_other_settings_other_images_and_another_detector(saved, strange, tmp_path, tiny_network):
    out = tmp_path / "out.csv"
    run(saved, strange, output=out)
    with pytest.raises(OutputError, match="batch_size: 64 → 32"):
        run(saved, strange, output=out, batch_size=32)
    (strange / "class 0" / "empty.png").unlink()
    with pytest.raises(OutputError, match="images"):
        run(saved, strange, output=out)
    assert run(saved, strange, output=out, overwrite=True).images == 24
    other = tmp_path / "other"
    fit(FitConfig(data=str(saved[1]), model=str(tiny_network), output=other, held_out=0.3, alpha=0.2, workers=0))
    with pytest.raises(OutputError, match="another configuration"):
        run((other, None), strange, output=out)


def test_a_broken_run_goes_on_with_the_part_it_had_not_finished(saved, strange, tmp_path, monkeypatch):
    monkeypatch.setattr(recipe, "PART", 8)
    whole = run(saved, strange, output=tmp_path / "whole.parquet", batch_size=8)
    stream, starts = Detector.stream, []

    def broken(self, source, *, start, **rest):
        starts.append(start)
        if start == 16 and starts.count(16) == 1:
            raise KeyboardInterrupt
        return stream(self, source, start=start, **rest)

    monkeypatch.setattr(Detector, "stream", broken)
    with pytest.raises(KeyboardInterrupt):
        run(saved, strange, output=tmp_path / "out.parquet", batch_size=8)
    assert not (tmp_path / "out.parquet").exists()
    result = run(saved, strange, output=tmp_path / "out.parquet", batch_size=8)
    assert starts == [0, 8, 16, 16, 24]
    assert read(result.output).equals(read(whole.output))


def test_killed_anywhere_the_table_is_that_of_an_unbroken_run(saved, stripes_folder, tmp_path, kill_when):
    folder = stripes_folder(tmp_path / "data", 6000, seed=3)
    settings = {"detector": saved[0], "images": str(folder), "workers": 0, "batch_size": 16}
    at = random.randrange(2)

    def reached():
        return bool(list(tmp_path.glob(f".out.parquet.*.partial/scratch/part-{at:06d}.parquet")))

    kill_when(reached, score, ScoreConfig(**settings, output=tmp_path / "out.parquet"))
    assert not (tmp_path / "out.parquet").exists()
    score(ScoreConfig(**settings, output=tmp_path / "out.parquet"))
    score(ScoreConfig(**settings, output=tmp_path / "whole.parquet"))
    assert (tmp_path / "out.parquet").read_bytes() == (tmp_path / "whole.parquet").read_bytes()
    assert not list(tmp_path.glob(".out*"))


def test_a_set_without_one_readable_image_is_scored_to_the_end(saved, tmp_path):
    (tmp_path / "data").mkdir()
    for number in range(3):
        (tmp_path / "data" / f"{number}.jpg").write_bytes(b"\xff\xd8" * number)
    result = run(saved, tmp_path / "data", output=tmp_path / "out.csv", fail_on_ood=True)
    assert (result.images, result.flagged, result.rejected, result.exit_code) == (3, 0, 3, 11)
    assert run(saved, tmp_path / "data", output=tmp_path / "out.csv", fail_on_ood=True) == result
    rows = read(result.output).to_pylist()
    assert [row["id"] for row in rows] == ["0.jpg", "1.jpg", "2.jpg"]
    assert all(row["error"] and row["score"] is None for row in rows)


@pytest.fixture
def features_file(tmp_path):
    def write(name, seed=0, shift=0.0, count=60):
        draws = np.random.default_rng(seed)
        np.savez(tmp_path / name, embedding=draws.normal(size=(count, 6)) + shift, labels=draws.integers(0, 2, count))
        return tmp_path / name

    return write


def test_features_are_scored_as_they_are(features_file, tmp_path):
    known = features_file("known.npz", count=400)
    fit(FitConfig(data=str(known), score="mahalanobis", output=tmp_path / "d", held_out=0.2))
    out = tmp_path / "out.csv"
    near = run((tmp_path / "d", None), features_file("new.npz", seed=1), output=out)
    assert (near.images, near.rejected) == (60, 0)
    assert near.flagged < 15
    # The same name, other numbers.
    features_file("new.npz", seed=1, shift=9.0)
    with pytest.raises(OutputError, match="images"):
        run((tmp_path / "d", None), tmp_path / "new.npz", output=out)
    far = run((tmp_path / "d", None), tmp_path / "new.npz", output=out, overwrite=True)
    assert far.flagged == 60
    with pytest.raises(InputError, match="fitted on features"):
        run((tmp_path / "d", None), "clothing", output=tmp_path / "other.csv")


def test_features_of_another_width_are_refused(saved, features_file, tmp_path):
    with pytest.raises(InputError, match="6"):
        run(saved, features_file("new.npz"), output=tmp_path / "out.csv")


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"output": "out.txt"}, InputError, "must end in .parquet, .csv or .jsonl"),
        ({"format": "parquet"}, InputError, "parquet cannot go to standard output"),
        ({"images": "no-such-set"}, DataError, "no-such-set"),
        ({"images": "no-such-file.npz"}, InputError, "no such file"),
        (
            {"detector": "no-such-folder"},
            ArtifactError,
            "no-such-folder is no folder that mood saved: it does not exist",
        ),
        ({"batch_size": 0}, InputError, "'batch_size' is 0"),
        ({"workers": -1}, InputError, "'workers' is -1"),
        ({"device": "abacus"}, InputError, "cannot be used here"),
    ],
)
def test_what_cannot_be_done_is_told(saved, strange, changes, error, message):
    with pytest.raises(error, match=message):
        run(saved, changes.get("images", strange), **{name: changes[name] for name in changes if name != "images"})


def test_a_damaged_table_is_told_in_one_line(saved, tmp_path):
    (tmp_path / "x.parquet").write_bytes(b"PAR1 and nothing else")
    with pytest.raises(DataError, match="x.parquet"):
        run(saved, tmp_path / "x.parquet", output=tmp_path / "out.csv")
    (tmp_path / "x.npz").write_bytes(b"no archive")
    with pytest.raises(InputError, match="x.npz"):
        run(saved, tmp_path / "x.npz", output=tmp_path / "out.csv")


def test_a_format_may_be_said_against_the_ending(saved, strange, tmp_path):
    run(saved, strange, output=tmp_path / "table.txt", format="csv")
    assert (tmp_path / "table.txt").read_text().startswith('"id","score","p_value","is_ood","error"')


def test_verdicts_do_not_depend_on_workers(saved, strange):
    detector = mood.load(saved[0])
    assert detector(str(strange), workers=2, batch_size=5).equals(detector(str(strange), batch_size=5))


@pytest.mark.parametrize(("precision", "tolerance"), [("fp32", 1e-4), ("bf16", 0.05)])
def test_a_score_depends_on_its_neighbours_by_rounding_alone(tiny_network, saved, strange, precision, tolerance):
    detector = fit(
        FitConfig(data=str(saved[1]), model=str(tiny_network), held_out=0.3, alpha=0.1, workers=0, precision=precision)
    ).detector
    together, alone, turned = (
        detector(str(strange), batch_size=64),
        detector(str(strange), batch_size=1),
        detector([str(path) for path in sorted(strange.rglob("*.png"), reverse=True)], batch_size=4),
    )
    scores = {row["id"]: row["score"] for row in together.to_pylist()}
    again = {row["id"]: row["score"] for row in alone.to_pylist()}
    backwards = {row["id"].removeprefix(f"{strange.as_posix()}/"): row["score"] for row in turned.to_pylist()}
    assert scores.keys() == again.keys() == backwards.keys()
    for name, value in scores.items():
        if value is not None:
            assert again[name] == pytest.approx(value, rel=tolerance)
            assert backwards[name] == pytest.approx(value, rel=tolerance)
