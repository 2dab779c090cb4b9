"""Small pictures and the places they lie in."""

import io
import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from mood.data import open_source


def encode(seed=0, height=8, width=8):
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def write(path, images, *, names=None, row_group_size=None, **columns):
    """Write a Parquet table as the project's data sets are laid out."""
    table = pa.table({"image": pa.array(images, pa.binary()), **columns})
    metadata = {key: json.dumps(value) for key, value in (names or {}).items()}
    pq.write_table(table.replace_schema_metadata(metadata), path, row_group_size=row_group_size)
    return path


@pytest.fixture(name="png")
def png_fixture():
    """`png(seed, height, width)`: the bytes of a random picture."""
    return encode


@pytest.fixture(name="write_table")
def write_table_fixture():
    """`write_table(path, images, names=…, **columns)`: a Parquet table."""
    return write


@pytest.fixture
def pets_table():
    """`pets_table(path)`: a table of 6 pets with labels of both levels."""

    def pets_table(path, **options):
        return write(
            path,
            [encode(number) for number in range(6)],
            names={"class_names": ["cat", "dog", "emu"], "coarse_class_names": ["mammal", "bird"]},
            label=pa.array([2, 0, 1, 0, 2, 1], pa.int32()),
            coarse_label=pa.array([1, 0, 0, 0, 1, 0], pa.int32()),
            **options,
        )

    return pets_table


@pytest.fixture
def pets(tmp_path):
    """A folder of 2 cats, 2 dogs and 1 emu."""
    for number, name in enumerate(["cat/a.png", "cat/b.png", "dog/a.png", "dog/deep/c.png", "emu/é.png"]):
        path = tmp_path / "pets" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encode(number))
    return tmp_path / "pets"


@pytest.fixture
def roots(tmp_path, monkeypatch):
    """An empty data root and an empty cache, and nothing else to find a set in."""
    monkeypatch.delenv("MOOD_DATA", raising=False)
    monkeypatch.setenv("MOOD_CACHE", str(tmp_path / "cache"))
    root = tmp_path / "root"
    root.mkdir()
    return root


@pytest.fixture
def table(tmp_path):
    """23 labelled pictures to be trained on."""
    images = [encode(number, 16, 20) for number in range(23)]
    return open_source(write(tmp_path / "x.parquet", images, label=np.arange(23) % 3))
