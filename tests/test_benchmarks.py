"""Every script in benchmarks/ runs to its end, at its smallest size and on generated pictures."""

import io
import json
import runpy
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from mood.models import load_model

FOLDER = Path(__file__).parents[1] / "benchmarks"
EMBEDDED = FOLDER.parent / "src" / "mood" / "models" / "embedded"

# ROOT is a folder of generated sets, IMAGES one of them, WORK an empty folder.
# A script that comes to the folder gets its line here.
SMALLEST = {
    "cifar10": "--data-root ROOT --work WORK/runs --page WORK/page.md --limit 100 --workers 0 --device cpu",
    "choose_embedding": "--data-root ROOT --rows 60 100 --workers 0 --device cpu",
    "feature_extraction": "--images IMAGES --model vit_tiny_patch16_224 --count 4 --turns 1 --workers 0",
    "million_embeddings": "--rows 1200 --shard-rows 800",
    "monitor": "--data-root ROOT --page WORK/page.md --picture WORK/monitor.svg --length 60 --streams 4 --turning 3 "
    "--workers 0 --device cpu",
    "pretexts": "--data-root ROOT --work WORK/runs --arm mae --limit 50 --epochs 1 --workers 0 --device cpu",
    "promise": "--data-root ROOT --work WORK/runs --train 150 --tune 150 --epochs 1 --splits 3 --draws 2 --workers 0 "
    "--device cpu",
    "release_embedded": "EMBEDDED --data-root ROOT --effort none --output WORK/network",
    "scores_against_pytorch_ood": "--classes 10 --bank 3000 --scale 0.01 --turns 1",
    "training_speed": "--device cpu --batch-size 4 --turns 1 --steps 1 --warmup 1 --width 32 --depth 1",
    "shapes": "--data-root ROOT --minutes 0.001 --shape SHAPE",
}
CLASSES = {
    "cifar10": ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"],
    "cifar100": load_model(EMBEDDED).class_names,
}


def table(path: Path, rows: int, names: list[str]) -> None:
    """A set of noise, a class after the other, as the project's sets are laid out."""
    images = []
    for seed in range(rows):
        pixels = np.random.default_rng([len(path.stem), seed]).integers(0, 256, (32, 32, 3), dtype=np.uint8)
        buffer = io.BytesIO()
        Image.fromarray(pixels).save(buffer, "JPEG")
        images.append(buffer.getvalue())
    labels = pa.array(np.arange(rows) % len(names), pa.int32())
    made = pa.table({"image": pa.array(images, pa.binary()), "label": labels})
    pq.write_table(made.replace_schema_metadata({"class_names": json.dumps(list(names))}), path)


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """Small sets under the names that scripts ask for."""
    folder = tmp_path_factory.mktemp("root")
    for name, names in CLASSES.items():
        table(folder / f"{name}-train.parquet", 200, names)
        table(folder / f"{name}-test.parquet", 100, names)
    unknown = {
        *runpy.run_path(str(FOLDER / "pretexts.py"))["UNKNOWN"],
        *runpy.run_path(str(FOLDER / "monitor.py"))["SETS"],
    }
    for name in sorted(unknown):
        path = folder / f"{name.replace(':', '-')}.parquet"
        if not path.exists():
            table(path, 12, ["one", "two"])
    return folder


@pytest.mark.parametrize("script", sorted(path.stem for path in FOLDER.glob("*.py")))
def test_it_runs(script, root, tmp_path, monkeypatch, capsys):
    words = {
        "ROOT": str(root),
        "EMBEDDED": str(EMBEDDED),
        "IMAGES": str(root / "cifar10-test.parquet"),
        "SHAPE": "patch 4, 128 x 6",
    }
    arguments = [words.get(word, word.replace("WORK", str(tmp_path))) for word in SMALLEST[script].split()]
    monkeypatch.setattr(sys, "argv", [script, *arguments])
    runpy.run_path(str(FOLDER / f"{script}.py"), run_name="__main__")
    assert capsys.readouterr().out


def test_no_line_is_left_of_a_script_that_went():
    assert set(SMALLEST) == {path.stem for path in FOLDER.glob("*.py")}
