"""The main job on real images: the same figures through both doors and twice, and 500 odd files."""

import io
import json
import os
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image
from safetensors.torch import load_file
from typer.testing import CliRunner

import mood
from mood.cli import app
from mood.data import held_out, open_source
from mood.models import open_model, save_model
from mood.recipes.evaluate import EvaluateConfig, evaluate
from mood.recipes.fit import FitConfig, fit
from mood.recipes.score import ScoreConfig, score

LIMIT = 150


@pytest.fixture(scope="module")
def network(tmp_path_factory):
    """A network that is quick and knows nothing."""
    folder = tmp_path_factory.mktemp("network") / "tiny"
    options = {"embed_dim": 32, "depth": 1, "num_heads": 2, "num_classes": 2, "img_size": 16}
    save_model(folder, open_model("mood_vit_patch4_32", options=options, random_weights=True))
    return folder


def test_the_command_line_and_python_agree_to_the_last_bit_and_so_do_two_runs(network, tmp_path):
    """Fit and evaluate on photographs, once in a process of its own, once here, each with a fresh cache."""
    fitting = ["--limit", str(LIMIT), "--alpha", "0.1", "--held-out", "0.2", "--score", "mahalanobis"]
    judging = ["--limit", "60", "--id", "clothing", "--ood", "blood=bccd", "--ood", "hand=omniglot"]
    program = [sys.executable, "-c", "from mood.cli import main; main()"]
    fit_line = ["fit", "clothing", "--model", str(network), *fitting]
    environment = {**os.environ, "MOOD_CACHE": str(tmp_path / "first cache")}
    done = subprocess.run(
        [*program, *fit_line, "-o", str(tmp_path / "d")], env=environment, capture_output=True, text=True
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert "promise verified" in done.stdout

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MOOD_CACHE", str(tmp_path / "second cache"))
        line = ["evaluate", str(tmp_path / "d"), *judging, "-o", str(tmp_path / "e")]
        again = CliRunner().invoke(app, [*fit_line, "-o", str(tmp_path / "again")])
        assert again.exit_code == 0
        assert CliRunner().invoke(app, line).exit_code == 0

        patch.setenv("MOOD_CACHE", str(tmp_path / "third cache"))
        detector = mood.fit(
            "clothing", model=network, limit=LIMIT, alpha=0.1, held_out=0.2, score="mahalanobis", workers=0
        )
        detector.save(tmp_path / "python")
        evaluation = evaluate(
            EvaluateConfig(
                detector=tmp_path / "python", id="clothing", ood=("blood=bccd", "hand=omniglot"), limit=60, workers=0
            )
        ).evaluation

    assert json.loads((tmp_path / "e" / "results.json").read_text()) == evaluation.to_dict()
    aurocs = [item["metrics"]["auroc"]["value"] for item in evaluation.to_dict()["sets"].values()]
    assert all(0 < value < 1 for value in aurocs)
    for name in ("score.safetensors", "calibration.safetensors", "model/model.safetensors"):
        files = {(tmp_path / folder / name).read_bytes() for folder in ("d", "again", "python")}
        assert len(files) == 1, name
    assert mood.load(tmp_path / "d").fingerprint() == mood.load(tmp_path / "python").fingerprint()


def picture(draws, mode="RGB", size=(20, 14)):
    pixels = draws.integers(0, 256, (size[1], size[0], 4), dtype=np.uint8)
    return Image.fromarray(pixels, "RGBA").convert(mode) if mode != "RGBA" else Image.fromarray(pixels)


def encoded(image, kind, **options):
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def turned(draws):
    exif = Image.Exif()
    exif[0x0112] = int(draws.integers(2, 9))
    return encoded(picture(draws), "JPEG", exif=exif)


def deep(draws):
    return encoded(Image.fromarray(draws.integers(0, 65536, (14, 20), dtype=np.uint16)), "PNG")


def animated(draws):
    frames = [picture(draws, "P") for _ in range(3)]
    return encoded(frames[0], "GIF", save_all=True, append_images=frames[1:])


def noise_after(head):
    return lambda draws: head + draws.bytes(int(draws.integers(1, 200)))


def cut_short(kind):
    def make(draws):
        data = encoded(picture(draws), kind)
        return data[: int(len(data) * draws.uniform(0.3, 0.7))]

    return make


READABLE = {
    "jpeg": lambda draws: encoded(picture(draws), "JPEG"),
    "grey": lambda draws: encoded(picture(draws, "L"), "PNG"),
    "one bit": lambda draws: encoded(picture(draws, "1"), "PNG"),
    "palette": lambda draws: encoded(picture(draws, "P"), "PNG"),
    "see through palette": lambda draws: encoded(picture(draws, "P"), "PNG", transparency=3),
    "alpha": lambda draws: encoded(picture(draws), "PNG"),
    "cmyk": lambda draws: encoded(picture(draws, "CMYK"), "JPEG"),
    "16 bit": deep,
    "tiff": lambda draws: encoded(picture(draws), "TIFF"),
    "webp": lambda draws: encoded(picture(draws), "WEBP"),
    "turned": turned,
    "animated": animated,
    "one pixel": lambda draws: encoded(picture(draws, size=(1, 1)), "PNG"),
    "thin": lambda draws: encoded(picture(draws, size=(400, 2)), "PNG"),
}
UNREADABLE = {
    "empty": lambda draws: b"",
    "text": lambda draws: b"this is not an image " * int(draws.integers(1, 50)),
    "noise": noise_after(b""),
    "noise behind a jpeg's head": noise_after(b"\xff\xd8\xff\xe0"),
    "noise behind a png's head": noise_after(b"\x89PNG\r\n\x1a\n"),
    "short png": cut_short("PNG"),
    "short bmp": cut_short("BMP"),
    "too many pixels": lambda draws: encoded(Image.new("1", (12000, 9000)), "PNG"),
    "postscript": lambda draws: b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n" + draws.bytes(9),
    "svg": lambda draws: b"<svg xmlns='http://www.w3.org/2000/svg' width='9' height='9'/>" + draws.bytes(3),
    "zip": noise_after(b"PK\x03\x04"),
}


@pytest.fixture(scope="module")
def odd(tmp_path_factory):
    """500 files of every kind, half of which nobody can read, in two classes; and the names of those."""
    folder = tmp_path_factory.mktemp("odd") / "odd"
    draws = np.random.default_rng(0)
    dark, kinds = set(), [*READABLE.items(), *UNREADABLE.items()]
    large = UNREADABLE["too many pixels"](draws)
    for number in range(500):
        kind, make = kinds[number % len(kinds)]
        name = f"class {number % 2}/{number:03d} {kind}"
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(large + draws.bytes(4) if kind == "too many pixels" else make(draws))
        if kind in UNREADABLE:
            dark.add(name)
    return folder, dark


def test_five_hundred_odd_files_are_scored_or_rejected_by_name(odd, network, tmp_path):
    folder, dark = odd
    fit(
        FitConfig(
            data="clothing", limit=LIMIT, model=str(network), output=tmp_path / "d", alpha=0.1, workers=0, held_out=0.2
        )
    )
    result = score(ScoreConfig(detector=tmp_path / "d", images=str(folder), output=tmp_path / "s.jsonl", workers=1))
    rows = [json.loads(line) for line in result.output.read_text().splitlines()]
    assert (result.images, result.rejected) == (500, len(dark))
    assert [row["id"] for row in rows] == sorted(row["id"] for row in rows)
    assert {row["id"] for row in rows if row["error"]} == dark
    for row in rows:
        if row["error"]:
            assert (row["score"], row["p_value"], row["is_ood"]) == (None, None, None)
            assert row["error"].startswith(("It ", "Its "))
            assert row["error"].endswith(".")
        else:
            assert np.isfinite(row["score"])
            assert 0 < row["p_value"] <= 1


def test_of_five_hundred_odd_files_the_rejected_are_neither_fitted_nor_calibrated_nor_measured(odd, network, tmp_path):
    folder, dark = odd
    detector = fit(
        FitConfig(data=str(folder), model=str(network), output=tmp_path / "d", alpha=0.1, held_out=0.3, workers=0)
    ).detector
    source = open_source(str(folder))
    cut = held_out(source.manifest.hashes, fraction=0.3)
    read = np.array([name not in dark for name in source.manifest.ids])
    assert len(source) == 500
    assert detector.card["rejected"] == len(dark)
    assert len(detector.calibration) == detector.card["calibration_images"] == (cut & read).sum()
    assert detector.card["fit_images"] == (~cut & read).sum()
    evaluation = EvaluateConfig(
        detector=tmp_path / "d", id="omniglot", ood=(f"odd={folder}",), limit=500, replicates=10, workers=0
    )
    result = evaluate(evaluation)
    measured = result.evaluation.to_dict()["sets"]["odd"]
    assert (measured["images"], measured["rejected"]) == (500 - len(dark), len(dark))
    assert result.evaluation.tables["odd"].num_rows == 500


def test_the_calibration_scores_are_on_disk_as_they_were_made(network, tmp_path):
    detector = mood.fit("clothing", model=network, limit=LIMIT, alpha=0.1, held_out=0.2, workers=0)
    detector.save(tmp_path / "d")
    kept = load_file(tmp_path / "d" / "calibration.safetensors")["scores"].numpy()
    assert np.array_equal(kept, detector.calibration.scores)
