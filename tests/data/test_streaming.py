"""Shards that are streamed: the cut, the order, and what is kept in memory."""

import io
import pickle
import tarfile

import numpy as np
import pyarrow as pa
import pytest

from mood.core.errors import DataError, InputError
from mood.data import Augment, Stream, TrainingImages, held_out, open_source, scan, stream_shards, training_batches
from mood.data import streaming as room
from mood.models import image_keys


@pytest.fixture
def shards(tmp_path, png):
    """5 shards of 13 images in 4 classes."""
    for shard in range(5):
        with tarfile.open(tmp_path / f"s-{shard}.tar", "w") as archive:
            for number in range(shard * 13, shard * 13 + 13):
                for name, content in ((f"{number}.png", png(number)), (f"{number}.cls", str(number % 4).encode())):
                    member = tarfile.TarInfo(name)
                    member.size = len(content)
                    archive.addfile(member, io.BytesIO(content))
    return str(tmp_path / "s-*.tar")


def opened(data, fraction=0.2, seed=0):
    paths = stream_shards(data)
    return Stream(data, paths, scan(paths, seed=seed, fraction=fraction))


def images(stream, **changes):
    given = {"augments": (Augment(),), "size": (8, 8), "mean": (0.5,) * 3, "std": (0.5,) * 3}
    return TrainingImages(stream, **{**given, **changes})


def test_the_cut_and_the_keys_are_those_of_the_same_images_in_a_list(shards):
    stream, source = opened(shards), open_source(shards)
    kept = np.flatnonzero(~held_out(source.manifest.hashes, seed=0, fraction=0.2))
    assert 0 < len(kept) < 65
    assert sorted(stream.order(0, 0, 0, len(stream)).tolist()) == kept.tolist()
    hashes = [source.manifest.hashes[position] for position in kept]
    assert stream.keys.tolist() == image_keys(hashes).sort().values.tolist()
    for position in kept.tolist():
        assert stream.read(position) == source.read(position)
        assert stream.id(position) == source.manifest.ids[position]
    assert stream.labels(kept).tolist() == source.manifest.labels[kept].tolist()


def test_an_order_is_of_seed_and_epoch_and_any_stretch_of_it_is_found_alone(shards, monkeypatch):
    monkeypatch.setattr(room, "WINDOW", 16)
    stream = opened(shards, fraction=0.0)
    whole = stream.order(3, 1, 0, 65)
    assert sorted(whole.tolist()) == list(range(65))
    for start, stop in ((0, 1), (5, 30), (15, 17), (16, 32), (60, 65), (64, 65), (7, 7)):
        assert stream.order(3, 1, start, stop).tolist() == whole[start:stop].tolist()
    assert whole.tolist() == opened(shards, fraction=0.0).order(3, 1, 0, 65).tolist()
    for seed, epoch in ((3, 2), (4, 1)):
        assert whole.tolist() != stream.order(seed, epoch, 0, 65).tolist()
    # Shuffled over the edges of shards, and not beyond a window.
    first = {position // 13 for position in whole[:16].tolist()}
    assert len(first) in (2, 3)
    assert np.abs(np.diff(whole[:13])).max() > 1


def test_batches_and_their_parts_do_not_depend_on_workers_or_on_where_one_starts(shards):
    stream = images(opened(shards))
    made = list(training_batches(stream, epoch=2, batch_size=12))
    later = list(training_batches(stream, epoch=2, batch_size=12, start_batch=2, workers=2))
    assert len(made) == len(stream) // 12
    for batch, same in zip(made[2:], later, strict=True):
        assert batch.positions.tolist() == same.positions.tolist()
        assert batch.labels.tolist() == same.labels.tolist() == (batch.positions % 4).tolist()
        assert (batch.views[0] == same.views[0]).all()
    parts = list(training_batches(stream, epoch=2, batch_size=12, parts=(0, 1, 2), of=3))
    for number, batch in enumerate(made):
        own = parts[3 * number : 3 * number + 3]
        positions = batch.positions.tolist()
        assert [part.positions.tolist() for part in own] == [
            positions[2 * part : 2 * part + 2] + positions[10 - 2 * part : 12 - 2 * part] for part in range(3)
        ]


def test_what_is_pickled_holds_no_listing(shards):
    stream = opened(shards)
    stream.read(0)
    assert stream._open
    assert not pickle.loads(pickle.dumps(stream))._open


def test_few_shards_are_listed_at_a_time(shards, monkeypatch):
    monkeypatch.setattr(room, "_LISTED", 2)
    monkeypatch.setattr(room, "WINDOW", 1)
    stream = opened(shards)
    for position in range(0, 65, 13):
        stream.read(position)
    assert len(stream._open) == 2


def test_parquet_shards_and_images_without_bytes(tmp_path, write_table, png):
    for number in range(2):
        content = [png(number * 4 + image) for image in range(4)] + [b""]
        write_table(tmp_path / f"p-{number}.parquet", content, label=pa.array([0, 1, 2, number, 0]))
    stream = opened(str(tmp_path / "p-*.parquet"), fraction=0.0)
    assert (len(stream), len(stream.keys), stream.class_names) == (10, 8, ("0", "1", "2"))
    (batch,) = training_batches(images(stream), epoch=0, batch_size=10)
    assert len(batch.positions) == 8
    assert {item.id for item in batch.rejections} == {"p-0.parquet#4", "p-1.parquet#4"}


def test_without_labels_it_says_how_its_shards_get_some(tmp_path, write_table, png):
    table = write_table(tmp_path / "p.parquet", [png(0)])
    for source in (opened(str(table), fraction=0.0), open_source(table)):
        assert source.unlabelled == "give the table a column 'label' of whole numbers"
    with tarfile.open(tmp_path / "s.tar", "w") as archive:
        member = tarfile.TarInfo("a.png")
        member.size = len(png(0))
        archive.addfile(member, io.BytesIO(png(0)))
    for source in (opened(str(tmp_path / "s.tar"), fraction=0.0), open_source(tmp_path / "s.tar")):
        assert source.unlabelled.startswith("put key.cls, or key.json")


def test_a_fingerprint_tells_other_images(shards, tmp_path, png):
    before = opened(shards).fingerprint
    content = (tmp_path / "s-3.tar").read_bytes()
    (tmp_path / "s-3.tar").write_bytes(content.replace(png(40), png(40)[:-9] + b"x" + png(40)[-8:]))
    assert opened(shards).fingerprint != before


def test_what_cannot_be_streamed_is_told(tmp_path, write_table, png, shards):
    with pytest.raises(InputError, match="names no files"):
        stream_shards("cifar10")
    (tmp_path / "a.png").write_bytes(png(0))
    with pytest.raises(DataError, match=r"neither a .tar nor a .parquet"):
        stream_shards(str(tmp_path / "a.png"))
    with pytest.raises(DataError, match="Nothing is left"):
        opened(shards, fraction=1.0)
    write_table(tmp_path / "s-5.parquet", [png(99)])
    with pytest.raises(DataError, match=r"s-5.parquet has no labels"):
        opened(str(tmp_path / "s-*"))
    write_table(tmp_path / "s-5.parquet", [png(99)], names={"class_names": ["cat", "dog"]}, label=pa.array([1]))
    with pytest.raises(DataError, match="do not agree on the names"):
        opened(str(tmp_path / "s-*"))
