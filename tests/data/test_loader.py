"""Batches in the order of the manifest, whatever the images and the workers are."""

import os

import numpy as np
import pytest
import torch
from PIL import Image

from mood.core.errors import DataError, InputError
from mood.core.transform import Transform
from mood.data import batches, open_source
from mood.data.manifest import Manifest
from mood.data.source import Images, Source

TRANSFORM = Transform((6, 6), 6)


def equal(one, other):
    return (
        np.array_equal(one.positions, other.positions)
        and one.ids == other.ids
        and np.array_equal(one.pixels, other.pixels)
        and np.array_equal(one.labels, other.labels)
        and one.rejections == other.rejections
    )


@pytest.fixture
def mixed(pets):
    """Five good images, and two that are none, between them."""
    (pets / "cat" / "aa.txt").write_text("a text")
    (pets / "dog" / "b.png").write_bytes(b"")
    return open_source(pets)


def test_every_image_comes_out_once_and_in_order(mixed, png):
    made = list(batches(mixed, TRANSFORM, batch_size=3))
    assert [batch.positions.tolist() for batch in made] == [[0, 2], [3, 5], [6]]
    assert [[rejection.position for rejection in batch.rejections] for batch in made] == [[1], [4], []]
    assert made[0].ids == ("cat/a.png", "cat/b.png")
    assert made[0].labels.tolist() == [0, 0]
    assert made[0].pixels.shape == (2, 6, 6, 3)
    assert made[0].pixels.dtype == np.uint8
    assert np.array_equal(made[0].pixels[1], TRANSFORM.pixels(png(1)))
    assert made[0].rejections[0].id == "cat/aa.txt"
    assert "not an image" in made[0].rejections[0].reason
    assert "empty" in made[1].rejections[0].reason


@pytest.mark.parametrize("workers", [1, 2])
def test_workers_change_nothing(mixed, workers):
    state = torch.get_rng_state()
    alone = list(batches(mixed, TRANSFORM, batch_size=2))
    together = list(batches(mixed, TRANSFORM, batch_size=2, workers=workers))
    assert len(alone) == len(together) == 4
    assert all(equal(one, other) for one, other in zip(alone, together, strict=True))
    assert torch.equal(torch.get_rng_state(), state)


def test_a_part_of_the_positions(mixed):
    made = list(batches(mixed, TRANSFORM, batch_size=2, start=2, stop=5))
    assert [batch.positions.tolist() for batch in made] == [[2, 3], []]
    assert made[1].pixels.shape == (0, 6, 6, 3)
    assert made[1].labels.shape == (0,)


def test_images_in_memory_have_no_labels(mixed):
    (batch,) = batches(open_source([np.zeros((4, 4), np.uint8), Image.new("1", (9, 9), 1)]), TRANSFORM, batch_size=9)
    assert batch.labels is None
    assert batch.pixels.mean((1, 2, 3)).tolist() == [0, 255]


def test_wrong_numbers_are_refused_at_once(mixed):
    for options in (
        {"batch_size": 0},
        {"batch_size": 1, "workers": -1},
        {"batch_size": 1, "start": 9},
        {"batch_size": 1, "stop": 8},
    ):
        with pytest.raises(InputError):
            batches(mixed, TRANSFORM, **options)
    with pytest.raises(DataError, match="no images from position 3 to 3"):
        batches(mixed, TRANSFORM, batch_size=1, start=3, stop=3)


class Deadly:
    """A store whose second image ends the process that reads it."""

    def __len__(self):
        return 2

    def id(self, row):
        return str(row)

    def read(self, row):
        return os._exit(9) if row else np.zeros((4, 4, 3), np.uint8)


def test_a_worker_that_dies_is_told():
    source = Source("deadly", "", Manifest(("0", "1"), ("a", "b")), Images(Deadly(), np.arange(2)))
    with pytest.raises(DataError, match="A process that decodes images has died"):
        list(batches(source, TRANSFORM, batch_size=1, workers=1))


@pytest.mark.parametrize("workers", [0, 1])
def test_other_errors_are_not_taken_for_a_death(monkeypatch, workers):
    class Wrong(Deadly):
        def read(self, row):
            raise RuntimeError("a mistake")

    def loader_in_this_process(parts, **_):
        return (parts[index] for index in range(len(parts)))

    monkeypatch.setattr(torch.utils.data, "DataLoader", loader_in_this_process)
    source = Source("wrong", "", Manifest(("0", "1"), ("a", "b")), Images(Wrong(), np.arange(2)))
    with pytest.raises(RuntimeError, match="a mistake"):
        list(batches(source, TRANSFORM, batch_size=1, workers=workers))


def test_five_hundred_odd_files(tmp_path, png):
    """Whatever lies in a folder is read rightly or named with a reason."""
    random = np.random.default_rng(0)
    good = {}
    for number in range(500):
        whole, name = png(number), f"{number:03d}"
        kind = number % 5
        if kind == 0:
            good[name] = content = whole
        elif kind == 1:
            content = whole[: random.integers(0, len(whole) - 20)]
        elif kind == 2:
            content = random.bytes(int(random.integers(0, 300)))
        elif kind == 3:
            content = b"%!PS-Adobe-3.0 EPSF-3.0\n" + whole
        else:
            damaged = bytearray(whole)
            damaged[random.integers(41, len(whole) - 20)] ^= 0xFF  # In the packed pixels, which have a checksum.
            content = bytes(damaged)
        (tmp_path / name).write_bytes(content)
    source = open_source(tmp_path)
    read, rejected = {}, {}
    for batch in batches(source, TRANSFORM, batch_size=64):
        read.update(zip(batch.ids, batch.pixels, strict=True))
        rejected.update({rejection.id: rejection.reason for rejection in batch.rejections})
    assert {*read, *rejected} == set(source.manifest.ids)
    assert not {*read} & {*rejected}
    assert set(read) == set(good)
    assert all(np.array_equal(read[name], TRANSFORM.pixels(data)) for name, data in good.items())
    assert all(reason.startswith(("It ", "Its ")) and reason.endswith(".") for reason in rejected.values())
