"""Features: what they accept and refuse, in memory and on disk."""

import dataclasses
import hashlib
import json
import os
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save_file

from mood.core.errors import ArtifactError, InputError, OutputError
from mood.core.feature_store import FeatureStore
from mood.core.features import Features, Head


def made(rows: int = 6, seed: int = 0) -> Features:
    rng = np.random.default_rng(seed)
    return Features(
        rng.normal(size=(rows, 4)).astype(np.float32),
        ids=[f"ä/{seed}-{row}.png" for row in range(rows)],
        logits=rng.normal(size=(rows, 3)),
        labels=rng.integers(0, 3, rows),
        layers=(rng.normal(size=(rows, 2)), rng.normal(size=(rows, 5)).astype(np.float16)),
        reconstruction=rng.random(rows),
    )


def same(found: Features, expected: Features) -> None:
    assert found.ids == expected.ids
    assert list(found.columns) == list(expected.columns)
    for name, column in expected.columns.items():
        assert found.columns[name].dtype == column.dtype
        assert torch.equal(found.columns[name], column)


# In memory


@pytest.mark.parametrize("convert", [list, np.array, torch.tensor, np.asfortranarray])
def test_lists_arrays_and_tensors_are_welcome(convert):
    features = Features(embedding=convert([[1.0, 2.0], [3.0, 4.0]]), labels=convert([0, 1]))
    assert torch.equal(features.embedding, torch.tensor([[1, 2], [3, 4]], dtype=features.embedding.dtype))
    assert features.labels.dtype == torch.int64
    assert features.ids == ("0", "1")
    assert len(features) == 2


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64])
def test_the_float_dtype_is_kept(dtype):
    assert Features(torch.zeros(2, 3, dtype=dtype)).embedding.dtype == dtype


def test_bfloat16_becomes_float32():
    assert Features(torch.ones(2, 3, dtype=torch.bfloat16)).embedding.dtype == torch.float32


def test_gradients_strides_byte_order_and_read_only_memory_do_not_matter():
    rows = np.arange(6, dtype=np.float32).reshape(2, 3)
    frozen = rows.copy()
    frozen.flags.writeable = False
    for other in (
        torch.from_numpy(rows).requires_grad_(),
        rows.astype(">f4"),
        frozen,
        np.flip(np.flip(rows, 0).copy(), 0),
    ):
        features = Features(other)
        assert torch.equal(features.embedding, torch.from_numpy(rows))
        assert not features.embedding.requires_grad
        assert features.embedding.is_contiguous()


def test_memory_is_shared_not_copied():
    rows = torch.zeros(2, 3)
    assert Features(rows).embedding.data_ptr() == rows.data_ptr()


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"embedding": np.zeros(3)}, r"embedding is float64 \(3,\); floating numbers of shape \(N, width\)"),
        ({"embedding": np.zeros((2, 3), int)}, r"embedding is int64 \(2, 3\); floating"),
        ({"embedding": np.zeros((2, 0))}, r"embedding is float64 \(2, 0\); at least one value per row"),
        ({"embedding": [["a"]]}, r"embedding: list cannot be read as numbers \(it holds 'a'\)$"),
        ({"embedding": [[1.0], [1.0, 2.0]]}, "embedding: list cannot be read as numbers"),
        ({"embedding": [[0.0], [np.inf], [np.nan]]}, "embedding has 2 values that are not finite, the first in row 1"),
        ({"logits": np.zeros((3, 2))}, "logits has 3 rows; 2 were expected"),
        ({"logits": np.zeros(2)}, r"logits is float64 \(2,\)"),
        ({"logits": [[0.0], [np.nan]]}, "logits has 1 values that are not finite, the first in row 1"),
        ({"labels": [0]}, "labels has 1 rows; 2 were expected"),
        ({"labels": [0.0, 1.0]}, r"labels is float64 \(2,\); whole numbers from 0 of shape \(N,\)"),
        ({"labels": ["cat", "dog"]}, r"labels: list .* \(it holds 'cat'\); whole numbers from 0 .* np.unique\(names"),
        ({"labels": np.array(["cat", None])}, r"labels: ndarray .* \(it holds 'cat'\); whole numbers from 0"),
        ({"labels": [True, False]}, "labels is bool"),
        ({"labels": [1j, 2]}, "labels is complex128"),
        ({"labels": [[0, 1]]}, r"labels is int64 \(1, 2\)"),
        ({"layers": [np.zeros((2, 3)), np.zeros((1, 3))]}, "layers.1 has 1 rows; 2 were expected"),
        ({"layers": [np.zeros(2)]}, r"layers.0 is float64 \(2,\)"),
        ({"reconstruction": [[0.0], [0.0]]}, r"reconstruction is float64 \(2, 1\); floating numbers of shape \(N,\)"),
        ({"reconstruction": [0.0, -np.inf]}, "reconstruction has 1 values that are not finite"),
        ({"ids": ["a"]}, "ids has 1 rows; 2 were expected"),
        ({"ids": "ab"}, "ids are str; 2 strings or integers"),
        ({"ids": [0.5, 1.5]}, "ids are list; 2 strings or integers"),
        ({"ids": 7}, "ids are int; 2 strings or integers"),
    ],
)
def test_what_is_wrong_is_named(columns, message):
    with pytest.raises(InputError, match=message):
        Features(**{"embedding": np.zeros((2, 3)), **columns})


def test_ids_may_be_numbers():
    assert Features(np.zeros((2, 1)), ids=np.array([7, 9])).ids == ("7", "9")
    assert Features(np.zeros((2, 1)), ids=np.array(["a", "b"])).ids == ("a", "b")


def test_features_cannot_be_changed():
    with pytest.raises(dataclasses.FrozenInstanceError):
        made().embedding = torch.zeros(1)
    with pytest.raises((AttributeError, TypeError)):
        made().extra = 1


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        (slice(1, 4), [1, 2, 3]),
        (slice(None, None, -2), [5, 3, 1]),
        (slice(4, 2), []),
        ([0, -1, 2], [0, 5, 2]),
        (torch.tensor([3, 3]), [3, 3]),
        (np.array([True, False, False, True, False, False]), [0, 3]),
        ([], []),
    ],
)
def test_rows_are_chosen_in_every_column(rows, expected):
    features = made()
    found = features[rows]
    assert found.ids == tuple(features.ids[row] for row in expected)
    for name, column in features.columns.items():
        assert torch.equal(found.columns[name], column[expected])


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (2, r"rows are int64 \(\); a slice, bool \(6,\) or integer positions"),
        ([True, False], r"rows are bool \(2,\)"),
        ([0.5], "rows are float64"),
        ([6], "rows go from 6 to 6; there are 6"),
        ([-7], "rows go from -7 to -7; there are 6"),
    ],
)
def test_rows_that_are_not_there_are_refused(rows, message):
    with pytest.raises(InputError, match=message):
        made()[rows]


def test_concat_is_the_inverse_of_slicing():
    features = made()
    same(Features.concat([features[:1], features[1:1], features[1:4], features[4:]]), features)


@pytest.mark.parametrize(
    ("part", "message"),
    [
        (Features(np.zeros((1, 4), np.float32)), "part 1 and part 0 differ in 'logits': absent"),
        (Features(np.zeros((1, 5), np.float32)), "differ in 'embedding'"),
        (Features(np.zeros((1, 4))), "differ in 'embedding'.*float64.*float32"),
    ],
)
def test_parts_that_differ_are_refused(part, message):
    with pytest.raises(InputError, match=message):
        Features.concat([made(), part])
    with pytest.raises(InputError, match="got no parts"):
        Features.concat([])


def test_a_needed_column_is_given_or_named():
    assert made().need("logits") is not None
    with pytest.raises(InputError, match="'labels' is missing from the features, which have 'embedding'"):
        Features(np.zeros((1, 1))).need("labels")


def test_features_with_anything_changed_have_another_fingerprint():
    draws = np.random.default_rng(0)
    columns = {
        "embedding": draws.normal(size=(6, 4)),
        "logits": draws.normal(size=(6, 3)),
        "labels": draws.integers(0, 3, 6),
        "ids": [f"image {index}" for index in range(6)],
        "reconstruction": draws.normal(size=6),
    }
    prints = {Features(**columns).fingerprint()}
    assert Features(**columns).fingerprint() in prints
    for name in columns:
        changed = dict(columns)
        changed[name] = columns[name][::-1] if name == "ids" else columns[name] + 1
        prints.add(Features(**changed).fingerprint())
    prints.add(Features(columns["embedding"]).fingerprint())
    prints.add(Features(columns["embedding"].astype(np.float32)).fingerprint())
    prints |= {Features(**columns, tokens=[np.full((6, 2, 3), value)]).fingerprint() for value in (0.0, 1.0)}
    assert len(prints) == 10


def test_a_row_is_known_by_its_embedding_in_single_precision_alone():
    rows = np.random.default_rng(0).normal(size=(6, 4)).astype(np.float32)
    found = Features(rows).hashes()
    assert len(set(found)) == 6
    assert found[0] == hashlib.sha256(rows[0].tobytes()).hexdigest()
    assert Features(rows.astype(np.float64), labels=np.arange(6)).hashes() == found
    assert Features(rows[::-1].copy()).hashes() == found[::-1]


def test_a_head_with_anything_changed_has_another_fingerprint():
    weight, bias = np.ones((3, 2)), np.zeros(3)
    prints = {Head(weight, bias).fingerprint(), Head(weight).fingerprint()}
    assert len(prints) == 1
    prints |= {Head(weight + 1, bias).fingerprint(), Head(weight, bias + 1).fingerprint()}
    assert len(prints) == 3


def test_head():
    head = Head(np.ones((3, 2), np.float32))
    assert torch.equal(head.bias, torch.zeros(3))
    for weight, bias, message in (
        (np.ones(3), None, "head weight is float64"),
        (np.ones((3, 2)), np.zeros(2), "head bias has 2 rows; 3 were expected"),
        (np.ones((3, 2)), np.full(3, np.nan), "head bias has 3 values that are not finite"),
    ):
        with pytest.raises(InputError, match=message):
            Head(weight, bias)


# One file


@pytest.mark.parametrize("rows", [6, 1, 0])
def test_save_and_load_are_exact(tmp_path, rows):
    made(rows).save(tmp_path / "f.safetensors")
    same(Features.load(tmp_path / "f.safetensors"), made(rows))
    assert [path.name for path in tmp_path.iterdir()] == ["f.safetensors"]


@given(ids=st.lists(st.text(st.characters(codec="utf-8"), max_size=8), max_size=5))
def test_any_text_is_an_id(ids, tmp_path_factory):
    path = tmp_path_factory.mktemp("ids") / "f.safetensors"
    Features(np.zeros((len(ids), 1)), ids=ids).save(path)
    assert Features.load(path).ids == tuple(ids)


def test_a_failed_save_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "f.safetensors"
    made().save(path)
    monkeypatch.setattr(os, "replace", lambda *_: (_ for _ in ()).throw(OSError("disk")))
    with pytest.raises(OSError, match="disk"):
        made(2).save(path)
    same(Features.load(path), made())
    assert len(list(tmp_path.iterdir())) == 1


def test_npz(tmp_path):
    columns = {name: column.numpy() for name, column in made().columns.items()}
    np.savez(tmp_path / "f.npz", ids=np.array(made().ids), file_names=np.arange(3), **columns)
    same(Features.load(tmp_path / "f.npz"), made())
    np.savez(tmp_path / "plain.npz", embedding=columns["embedding"])
    assert Features.load(tmp_path / "plain.npz").ids == tuple("012345")


def test_files_that_are_damaged(tmp_path):
    columns = {"embedding": np.random.default_rng(0).random((40, 30))}
    np.savez_compressed(tmp_path / "whole.npz", **columns)
    pq.write_table(pa.table({"embedding": [[1.0, 2.0]] * 50}), tmp_path / "whole.parquet")
    np.save(tmp_path / "single.npy", columns["embedding"])
    damaged = {"single.npz": (tmp_path / "single.npy").read_bytes()}
    for ending in ("npz", "parquet"):
        whole = (tmp_path / f"whole.{ending}").read_bytes()
        damaged |= {
            f"empty.{ending}": b"",
            f"text.{ending}": b"no features",
            f"half.{ending}": whole[: len(whole) // 2],
        }
        middle = len(whole) // 3
        damaged[f"other.{ending}"] = whole[:middle] + bytes(40) + whole[middle + 40 :]
    for name, data in damaged.items():
        (tmp_path / name).write_bytes(data)
        with pytest.raises(InputError, match=f"{name} cannot be read as a"):
            Features.load(tmp_path / name)


def test_npz_is_never_unpickled(tmp_path):
    np.savez(tmp_path / "f.npz", embedding=np.array([[object()]]))
    with pytest.raises(InputError, match="allow_pickle"):
        Features.load(tmp_path / "f.npz")


@pytest.mark.parametrize(
    "kind", [pa.list_(pa.float32()), pa.large_list(pa.float64()), pa.list_(pa.float32(), 4), pa.list_(pa.float16())]
)
def test_parquet(tmp_path, kind):
    rows = made().embedding.numpy()
    value = kind.value_type.to_pandas_dtype()
    columns = {
        "embedding": pa.array([list(row) for row in rows.astype(value)], kind),
        "logits": pa.array(made().logits.tolist()),
        "labels": pa.array(made().labels.tolist(), pa.int32()),
        "ids": pa.array(made().ids),
        "path": pa.array(["x"] * 6),
        "reconstruction": pa.array(made().reconstruction.tolist()),
    }
    pq.write_table(pa.table(columns), tmp_path / "f.parquet", row_group_size=4)
    found = Features.load(tmp_path / "f.parquet")
    assert found.ids == made().ids
    assert torch.equal(found.embedding, torch.from_numpy(rows.astype(value)))
    for name in ("logits", "labels", "reconstruction"):
        assert torch.equal(found.columns[name], made().columns[name])


@pytest.mark.parametrize(
    ("column", "message"),
    [
        ([[1.0], None], "column 'embedding' has empty cells"),
        ([[1.0], [None]], "column 'embedding' has empty cells"),
        ([[1.0], [1.0, 2.0]], "column 'embedding' has lists of 1 to 2 values"),
        ([1.0, 2.0], r"embedding is float64 \(2,\)"),
        (["a", "b"], "embedding"),
    ],
)
def test_a_parquet_column_that_is_no_matrix_is_named(tmp_path, column, message):
    pq.write_table(pa.table({"embedding": column}), tmp_path / "f.parquet")
    with pytest.raises(InputError, match=message):
        Features.load(tmp_path / "f.parquet")


def test_files_that_hold_no_features_are_refused(tmp_path):
    (tmp_path / "f.csv").write_text("1")
    (tmp_path / "f.parquet").write_text("1")
    np.savez(tmp_path / "other.npz", logits=np.zeros((2, 2)))
    np.savez(tmp_path / "short.npz", embedding=np.zeros((2, 2)), labels=[1])
    for name, message in (
        ("f.csv", "features are read from .safetensors, .npz, .parquet, not from '.csv'"),
        ("gone.npz", "no such file"),
        ("f.parquet", "f.parquet cannot be read as a Parquet table: "),
        ("other.npz", "no column 'embedding'.*found 'logits'"),
        ("short.npz", "short.npz: labels has 1 rows"),
    ):
        with pytest.raises(InputError, match=message):
            Features.load(tmp_path / name)


def test_damaged_foreign_and_newer_safetensors_are_refused(tmp_path):
    path = tmp_path / "f.safetensors"
    made().save(path)
    path.write_bytes(path.read_bytes()[:-5])
    with pytest.raises(ArtifactError, match="damaged"):
        Features.load(path)
    save_file({"embedding": torch.zeros(1, 1)}, path)
    with pytest.raises(ArtifactError, match="not one of features"):
        Features.load(path)
    save_file({"embedding": torch.zeros(1, 1)}, path, metadata={"format": "mood.features", "version": "2"})
    with pytest.raises(ArtifactError, match="format version 2; this mood reads 1"):
        Features.load(path)


# Many files


def stored(path: Path, sizes: tuple[int, ...] = (3, 1, 4)) -> list[Features]:
    parts = [made(size, seed) for seed, size in enumerate(sizes)]
    writer = FeatureStore.create(path, {"weights": "abc"})
    for index, part in enumerate(parts):
        writer.append(index, part)
    writer.finish()
    return parts


def test_a_store_gives_back_its_shards_again_and_again(tmp_path):
    parts = stored(tmp_path / "store")
    store = FeatureStore(tmp_path / "store")
    assert len(store) == 8
    assert store.rows == (3, 1, 4)
    assert store.meta == {"weights": "abc"}
    for _ in range(2):
        for found, expected in zip(store, parts, strict=True):
            same(found, expected)
    assert sorted(path.name for path in (tmp_path / "store").iterdir()) == [
        "features.json",
        *(f"shard-0000{index}.safetensors" for index in range(3)),
    ]


def test_a_selection_is_a_store_of_the_chosen_rows(tmp_path):
    whole = Features.concat(stored(tmp_path / "store"))
    store = FeatureStore(tmp_path / "store")
    mask = np.array([1, 0, 1, 0, 0, 1, 1, 0], bool)
    fit_rows, held_out = store.select(mask), store.select(~mask)
    assert (len(fit_rows), len(held_out), len(store)) == (4, 4, 8)
    same(Features.concat(list(fit_rows)), whole[mask])
    same(Features.concat(list(held_out)), whole[~mask])
    assert [len(shard) for shard in fit_rows] == [2, 0, 2]
    same(Features.concat(list(fit_rows.select([False, True, True, False]))), whole[[2, 5]])


@pytest.mark.parametrize("mask", [np.ones(7, bool), np.ones(8), np.ones((8, 1), bool)])
def test_a_mask_of_another_shape_is_refused(tmp_path, mask):
    stored(tmp_path / "store")
    with pytest.raises(InputError, match=r"the store has 8 rows, so bool \(8,\) was expected"):
        FeatureStore(tmp_path / "store").select(mask)


def test_a_killed_extraction_goes_on_at_the_first_missing_shard(tmp_path):
    writer = FeatureStore.create(tmp_path / "store", {"weights": "abc"})
    assert writer.next_shard == 0
    writer.append(0, made(3))
    writer.append(2, made(2, seed=2))
    with pytest.raises(ArtifactError, match="did not finish; run it again"):
        FeatureStore(tmp_path / "store")
    (tmp_path / "store" / ".shard-00001.safetensors.77").write_bytes(b"half a shard")
    again = FeatureStore.create(tmp_path / "store", {"weights": "abc"})
    assert again.next_shard == 1
    with pytest.raises(InputError, match="shard 1 is missing"):
        again.finish()
    again.append(1, made(1, seed=1))
    assert again.next_shard == 3
    assert len(again.finish()) == 6
    assert not list((tmp_path / "store").glob(".*"))


def test_a_run_killed_before_its_index_is_no_obstacle(tmp_path):
    (tmp_path / ".features.json.77").write_text("{")
    assert FeatureStore.create(tmp_path, {}).next_shard == 0


def test_a_folder_that_is_taken_is_refused(tmp_path):
    writer = FeatureStore.create(tmp_path / "store", {"weights": "abc"})
    with pytest.raises(OutputError, match="made from something else"):
        FeatureStore.create(tmp_path / "store", {"weights": "xyz"})
    writer.append(0, made())
    writer.finish()
    with pytest.raises(OutputError, match="the features are finished"):
        FeatureStore.create(tmp_path / "store", {"weights": "abc"})
    with pytest.raises(OutputError, match="not empty and holds no features"):
        FeatureStore.create(tmp_path, {})


def test_shards_that_differ_are_refused(tmp_path):
    writer = FeatureStore.create(tmp_path / "store", {})
    with pytest.raises(InputError, match="shard 0 is missing"):
        writer.finish()
    writer.append(0, made())
    writer.append(1, Features(np.zeros((2, 4))))
    with pytest.raises(
        InputError, match=r"shard-00001\.safetensors and shard-00000\.safetensors differ in 'embedding'"
    ):
        writer.finish()


def test_a_store_that_is_damaged_or_newer_is_refused(tmp_path):
    with pytest.raises(ArtifactError, match="not the index of a feature store"):
        FeatureStore(tmp_path)
    stored(tmp_path / "store")
    path = tmp_path / "store" / "features.json"
    index = json.loads(path.read_text())
    for change in ({"version": 2}, {"format": "other"}):
        path.write_text(json.dumps({**index, **change}))
        with pytest.raises(ArtifactError, match="this mood reads 1"):
            FeatureStore(tmp_path / "store")
    path.write_text(json.dumps(index))
    (tmp_path / "store" / "shard-00001.safetensors").unlink()
    with pytest.raises(ArtifactError, match=r"shard-00001.safetensors: the shard is gone"):
        FeatureStore(tmp_path / "store")
