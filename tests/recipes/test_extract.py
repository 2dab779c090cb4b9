"""Features: one pass for all, kept under a key that nothing stale can hit, and resumed where a kill cut it off."""

import json
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from mood.core.errors import DataError, InputError, OutputError
from mood.core.features import Features
from mood.data import batches, open_source
from mood.models import Embedder, load_model, open_model, save_model
from mood.recipes import extract as recipe
from mood.recipes.extract import ExtractConfig, cache_folder, extract, extract_features
from mood.recipes.fit import FitConfig, fit


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("MOOD_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def embedder(tiny_network):
    return Embedder(open_model(str(tiny_network)), device="cpu", precision="fp32")


@pytest.fixture
def passes(monkeypatch):
    """Images that went through the network, pass by pass, without the one that only asks for the width."""
    seen = []
    embed = recipe._embed

    def counted(source, embedder, start, stop, *rest):
        seen.append((start, stop))
        return embed(source, embedder, start, stop, *rest)

    monkeypatch.setattr(recipe, "_embed", counted)
    return seen


def config(folder, network, **changes):
    settings = {"data": str(folder), "model": str(network), "precision": "fp32", "device": "cpu", "workers": 0}
    return ExtractConfig(**{**settings, **changes})


def test_the_input_transform_can_be_told_otherwise(stripes_folder, tiny_network, tmp_path):
    folder = stripes_folder(tmp_path / "data", 4)
    plain = pq.read_table(extract(config(folder, tiny_network, output=tmp_path / "a.parquet")).output)
    closer = {"transform_options": ("crop_pct=0.5",), "output": tmp_path / "b.parquet"}
    other = pq.read_table(extract(config(folder, tiny_network, **closer)).output)
    assert plain["embedding"] != other["embedding"]
    with pytest.raises(InputError, match="transform has no setting 'crop'"):
        extract(config(folder, tiny_network, output=tmp_path / "c.parquet", transform_options=("crop=1",)))


def test_the_table_holds_what_the_network_says(stripes_folder, tiny_network, embedder, tmp_path):
    folder = stripes_folder(tmp_path / "data", 20)
    (folder / "class 0" / "broken.png").write_bytes(b"no image")
    result = extract(config(folder, tiny_network, output=tmp_path / "f.parquet"))
    assert (result.images, result.rejected) == (20, 1)
    assert "features of 20 images" in result.summary()
    assert "1 could not be read" in result.summary()
    features = Features.load(result.output)
    source = open_source(str(folder))
    (batch,) = batches(source, embedder.model.transform, batch_size=64)
    embedding, logits = embedder(batch.pixels)
    assert torch.equal(features.embedding, embedding)
    assert torch.equal(features.logits, logits)
    assert features.ids == batch.ids
    assert features.labels.tolist() == batch.labels.tolist()


def test_the_table_goes_back_into_fit(stripes_folder, tiny_network, tmp_path):
    folder = stripes_folder(tmp_path / "data", 150)
    table = extract(config(folder, tiny_network, output=tmp_path / "f.parquet")).output
    settings = {"score": "mahalanobis", "alpha": 0.1, "held_out": 0.3}
    detector = fit(FitConfig(data=str(table), **settings)).detector
    assert detector.card["fit_images"] + detector.card["calibration_images"] == 150
    assert not detector.promise.verified


def test_an_encoder_on_unlabelled_images_gives_embeddings_alone(stripes_folder, tmp_path):
    folder = stripes_folder(tmp_path / "data", 6) / "class 0"
    tiny = ("embed_dim=32", "depth=1", "num_heads=2", "num_classes=0")
    with pytest.raises(Exception, match="no weights|could not be fetched"):
        extract(config(folder, "mood_vit_patch4_32", model_options=tiny, output=tmp_path / "f.parquet"))
    weights = tmp_path / "w.pth"
    torch.save(
        open_model(
            "mood_vit_patch4_32", options=dict(embed_dim=32, depth=1, num_heads=2, num_classes=0), random_weights=True
        ).module.state_dict(),
        weights,
    )
    extract(config(folder, "mood_vit_patch4_32", model_options=tiny, checkpoint=weights, output=tmp_path / "f.parquet"))
    assert pq.read_schema(tmp_path / "f.parquet").names == ["ids", "embedding"]


def test_finished_it_is_reused_and_kept_from_other_settings(stripes_folder, tiny_network, tmp_path, passes):
    folder = stripes_folder(tmp_path / "data", 10)
    first = extract(config(folder, tiny_network, output=tmp_path / "f.parquet"))
    before = first.output.stat().st_mtime_ns
    assert extract(config(folder, tiny_network, output=tmp_path / "f.parquet")) == first
    assert first.output.stat().st_mtime_ns == before
    assert len(passes) == 1
    with pytest.raises(OutputError, match="pool"):
        extract(config(folder, tiny_network, output=tmp_path / "f.parquet", pool="avg"))


def test_a_network_that_changed_its_mind_is_asked_again(stripes_folder, tiny_network, tmp_path):
    folder, model = stripes_folder(tmp_path / "data", 10), load_model(tiny_network)
    save_model(tmp_path / "network", model)
    extract(config(folder, tmp_path / "network", output=tmp_path / "f.parquet"))
    save_model(tmp_path / "network", replace(model, pool="mean+std"))
    with pytest.raises(OutputError, match="pool"):
        extract(config(folder, tmp_path / "network", output=tmp_path / "f.parquet"))
    wide = extract(config(folder, tmp_path / "network", output=tmp_path / "wide.parquet"))
    width = pq.read_schema(wide.output).field("embedding").type.list_size
    assert width == 2 * pq.read_schema(tmp_path / "f.parquet").field("embedding").type.list_size


def test_a_second_pass_is_not_made(stripes, embedder, passes):
    source = stripes(30)
    first = extract_features(source, embedder)
    second = extract_features(source, embedder)
    assert passes == [(0, 30)]
    assert torch.equal(first.store.shard(0).embedding, second.store.shard(0).embedding)


@pytest.mark.parametrize("change", ["pool", "layer", "precision", "batch size", "weights", "images", "labels"])
def test_whatever_could_change_a_number_is_another_key(stripes, embedder, tiny_network, passes, change):
    source, other, size = stripes(30), stripes(30), 64
    extract_features(source, embedder)
    if change == "batch size":
        size = 7
    elif change == "images":
        other = stripes(30, seed=1)
    elif change == "labels":
        other = stripes(30, classes=3)
    else:
        model = open_model(str(tiny_network))
        if change == "weights":
            with torch.no_grad():
                next(iter(model.module.parameters())).mul_(1.001)
        settings = {"pool": {"pool": "avg"}, "layer": {"layer": "0"}, "precision": {"precision": "bf16"}}
        embedder = Embedder(model, device="cpu", **{"precision": "fp32", **settings.get(change, {})})
    extract_features(other, embedder, batch_size=size)
    assert len(passes) == 2


def test_a_broken_pass_goes_on_at_the_first_missing_shard(stripes, embedder, passes, monkeypatch, tmp_path):
    monkeypatch.setattr(recipe, "SHARD", 16)
    source = stripes(60)
    counted = recipe._embed

    def killed(source, embedder, start, *rest):
        if start == 32:
            raise KeyboardInterrupt
        return counted(source, embedder, start, *rest)

    monkeypatch.setattr(recipe, "_embed", killed)
    with pytest.raises(KeyboardInterrupt):
        extract_features(source, embedder)
    monkeypatch.setattr(recipe, "_embed", counted)
    resumed = extract_features(source, embedder)
    assert passes == [(0, 16), (16, 32), (32, 48), (48, 60)]
    monkeypatch.setenv("MOOD_CACHE", str(tmp_path / "another"))
    whole = extract_features(source, embedder)
    assert torch.equal(Features.concat([*resumed.store]).embedding, Features.concat([*whole.store]).embedding)


def test_shards_without_a_readable_image_are_empty_and_counted(stripes_folder, embedder, tmp_path, monkeypatch):
    monkeypatch.setattr(recipe, "SHARD", 4)
    folder = stripes_folder(tmp_path / "data", 12)
    for number in (0, 2, 4, 6):  # the first four in the order of their paths
        (folder / "class 0" / f"{number:04d}.png").write_bytes(b"no image")
    extracted = extract_features(open_source(str(folder)), embedder)
    assert [len(shard) for shard in extracted.store] == [0, 4, 4]
    assert extracted.positions.tolist() == list(range(4, 12))
    assert [item.id for item in extracted.rejections] == [f"class 0/{number:04d}.png" for number in (0, 2, 4, 6)]
    assert all("not an image" in item.reason for item in extracted.rejections)
    mask = np.zeros(12, bool)
    mask[[0, 5]] = True
    assert len(extracted.rows(mask)) == 1


def test_a_set_without_one_readable_image_is_refused_with_a_reason(embedder, tmp_path):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "a.png").touch()
    for _ in range(2):  # the second time from the cache
        with pytest.raises(DataError, match="not one image of data could be read; a.png: It is empty"):
            extract_features(open_source(str(tmp_path / "data")), embedder)


def test_a_cache_that_cannot_be_written_is_named(stripes, embedder, tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("MOOD_CACHE", str(tmp_path / "file"))
    with pytest.raises(OutputError, match="nothing can be written there.*MOOD_CACHE"):
        extract_features(stripes(5), embedder)


@pytest.mark.parametrize("wrong", [{"batch_size": 0}, {"workers": -1}])
def test_what_cannot_be_loaded_is_refused_where_the_cache_has_the_features_too(stripes, embedder, wrong):
    source = stripes(10)
    extract_features(source, embedder)
    with pytest.raises(InputError, match=f"{next(iter(wrong))} is"):
        extract_features(source, embedder, **wrong)


def cut_short(folder):
    path = folder / "shard-00001.safetensors"
    path.write_bytes(path.read_bytes()[:-1])


def overwritten(folder):
    (folder / "shard-00000.safetensors").write_bytes(bytes(4096))


def of_another(folder):
    shard = Features.load(folder / "shard-00001.safetensors")
    shard[: len(shard) - 1].save(folder / "shard-00001.safetensors")


@pytest.mark.parametrize(
    ("damage", "told"),
    [
        (cut_short, "shard-00001.safetensors: the shard is damaged"),
        (overwritten, "shard-00000.safetensors: the shard is damaged"),
        (of_another, "the shard has 13 rows, and 14 were written"),
        (lambda folder: (folder / "shard-00001.safetensors").unlink(), "the shard is gone"),
        (lambda folder: (folder / "rejected-00000.json").write_text("["), "Expecting value"),
        (lambda folder: (folder / "rejected-00000.json").write_text('[[0, "a", "b"]]'), "of 31 images, not of 30"),
        (lambda folder: (folder / "cost.json").write_text("{}"), "seconds"),
        (lambda folder: (folder / "features.json").write_text("{"), "Expecting property name"),
        (lambda folder: (folder / "features.json").write_text("[]"), "indices must be integers"),
    ],
)
def test_what_is_damaged_in_the_cache_is_told_and_made_again(
    stripes, embedder, passes, monkeypatch, caplog, damage, told
):
    monkeypatch.setattr(recipe, "SHARD", 16)
    source = stripes(30)
    extract_features(source, embedder)
    (folder,) = (path for path in cache_folder().iterdir() if path.is_dir())
    before = Features.concat([*extract_features(source, embedder).store])
    damage(folder)
    again = Features.concat([*extract_features(source, embedder).store])
    assert torch.equal(again.embedding, before.embedding)
    (record,) = caplog.records
    message = record.getMessage()
    assert message.startswith("features that were kept are damaged, and are made again: ")
    assert told in message
    assert "\n" not in message
    assert passes == [(0, 16), (16, 30)] * 2
    extract_features(source, embedder)
    assert len(passes) == 4


def test_a_killed_pass_goes_on_at_a_damaged_shard_too(stripes, embedder, passes, monkeypatch):
    monkeypatch.setattr(recipe, "SHARD", 16)
    source = stripes(40)
    extract_features(source, embedder)
    (folder,) = (path for path in cache_folder().iterdir() if path.is_dir())
    index = json.loads((folder / "features.json").read_text())
    (folder / "features.json").write_text(json.dumps(index | {"rows": None}))
    cut_short(folder)
    assert len(extract_features(source, embedder).store) == 40
    assert passes[3:] == [(16, 32), (32, 40)]


def test_a_damaged_file_of_the_users_is_refused(tmp_path):
    (tmp_path / "f.npz").write_bytes(b"no archive")
    with pytest.raises(InputError, match="cannot be read as an .npz file"):
        fit(FitConfig(data=str(tmp_path / "f.npz")))


def test_a_run_that_waited_finds_the_features_made(stripes, embedder, passes, monkeypatch):
    source = stripes(20)
    alone = recipe.alone

    def somebody_was_first(folder):
        monkeypatch.setattr(recipe, "alone", alone)
        extract_features(source, embedder)
        return alone(folder)

    monkeypatch.setattr(recipe, "alone", somebody_was_first)
    assert len(extract_features(source, embedder).store) == 20
    assert passes == [(0, 20)]


def test_threads_take_turns(stripes, embedder, passes, monkeypatch):
    source, fill, inside = stripes(20), recipe._fill, []

    def slowly(*arguments):
        inside.append("in")
        time.sleep(0.2)
        fill(*arguments)
        inside.append("out")

    monkeypatch.setattr(recipe, "_fill", slowly)
    with ThreadPoolExecutor(2) as pool:
        found = [*pool.map(lambda _: len(extract_features(source, embedder).store), range(2))]
    assert (found, passes, inside) == ([20, 20], [(0, 20)], ["in", "out"])


def test_the_key_is_written_beside_the_features(stripes, embedder):
    extract_features(stripes(5), embedder)
    (index,) = cache_folder().glob("*/features.json")
    meta = json.loads(index.read_text())["meta"]
    assert meta["model"] == embedder.model.fingerprint()
    assert meta["device"] == "cpu"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"pool": "max"}, "'pool' is 'max'; it should be 'model', 'cls', 'avg' or"),
        ({"layer": "first"}, "layer must be 'last'"),
        ({"layer": "7"}, "layer 7 does not exist"),
        ({"precision": "fp8"}, "'precision' is 'fp8'; it should be 'auto', 'fp32' or 'bf16'"),
        ({"model_options": ("depth=1",)}, "brings its own architecture"),
        ({"batch_size": 0}, "'batch_size' is 0"),
    ],
)
def test_what_cannot_be_done_is_told(stripes_folder, tiny_network, tmp_path, change, message):
    folder = stripes_folder(tmp_path / "data", 4)
    with pytest.raises(InputError, match=message):
        extract(config(folder, tiny_network, output=tmp_path / "f.parquet", **change))
    assert not (tmp_path / "f.parquet").exists()
