"""What the recipes read in common: the images of a stage, options of a model, metrics, and which DATA is features."""

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from mood.core.errors import InputError
from mood.core.features import Features
from mood.data import held_out
from mood.models import image_keys
from mood.recipes.fit import FitConfig, features_fingerprint, fit, is_features
from mood.recipes.inputs import (
    check_batch_size,
    keep_records,
    last_metrics,
    model_options,
    score_options,
    training_set,
    union,
)


def chosen(sources, **changes):
    settings = {"stage": "pretrain", "labelled": False, "seed": 2, "fraction": 0.25, "settings": {"epochs": 3}}
    return training_set(sources, **{**settings, **changes})


def test_a_stage_sees_what_the_cut_leaves_and_says_so(stripes):
    source = stripes(100)
    found = chosen([source])
    cut = held_out(source.manifest.hashes, seed=2, fraction=0.25)
    assert found.source.manifest.ids == tuple(np.array(source.manifest.ids)[~cut])
    assert found.keys.tolist() == sorted(set(image_keys(found.source.manifest.hashes).tolist()))
    (stage,) = found.stages
    assert (stage.data, stage.images, stage.seed, stage.held_out) == ("stripes", (~cut).sum(), 2, 0.25)
    assert stage.class_names == ("class 0", "class 1")
    assert stage.settings == {"epochs": 3}


def test_several_sets_are_cut_one_by_one(stripes):
    sources = [stripes(60), stripes(40, seed=1)]
    found = chosen(sources)
    assert [stage.images for stage in found.stages] == [len(chosen([source]).source) for source in sources]
    assert len(found.source) == sum(stage.images for stage in found.stages)


def test_labels_that_are_needed_and_missing_are_asked_for(stripes):
    from dataclasses import replace

    source = stripes(10)
    bare = replace(source, manifest=replace(source.manifest, labels=None, class_names=None))
    assert chosen([bare]).stages[0].class_names == ()
    with pytest.raises(InputError, match="stripes has no labels: put the images of each class into a folder"):
        chosen([bare], labelled=True)


def test_model_options_are_json_or_else_text():
    pairs = ("depth=8", "img_size=[32, 64]", "class_token=false", "global_pool=avg", "name=a=b", "empty=")
    assert model_options(pairs) == {
        "depth": 8,
        "img_size": [32, 64],
        "class_token": False,
        "global_pool": "avg",
        "name": "a=b",
        "empty": "",
    }
    assert score_options("knn", ("k=5", "shrinkage=oas")) == {"k": 5, "shrinkage": "oas"}


@pytest.mark.parametrize("pair", ["depth", "=8", "2=3", "a b=1"])
def test_model_options_without_a_name_are_refused(pair):
    with pytest.raises(InputError, match="KEY=VALUE"):
        model_options((pair,))


def test_the_newest_of_every_metric_is_kept(tmp_path):
    rows = [{"step": 1, "loss": 2.0}, {"step": 2, "accuracy": 0.5}, {"step": 3, "loss": 1.0}]
    (tmp_path / "scratch").mkdir()
    (tmp_path / "scratch" / "metrics.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    assert keep_records(tmp_path / "scratch", tmp_path) == {"step": 3, "loss": 1.0, "accuracy": 0.5}
    assert last_metrics(tmp_path) == last_metrics(tmp_path / "scratch")


def test_keys_are_united_once_each_in_order():
    assert union(torch.tensor([5, -1]), torch.tensor([3, 5])).tolist() == [-1, 3, 5]


def test_a_batch_is_never_larger_than_the_set():
    check_batch_size(20, 20)
    with pytest.raises(InputError, match="batch_size is 21, and 20 images are left to train on: set it to 20 or less"):
        check_batch_size(20, 21)


def test_which_data_is_features(tmp_path):
    pq.write_table(pa.table({"embedding": pa.array([[1.0, 2.0]])}), tmp_path / "features.parquet")
    pq.write_table(pa.table({"image": pa.array([b""])}), tmp_path / "images.parquet")
    (tmp_path / "damaged.parquet").write_bytes(b"PAR1")
    assert is_features("anything.npz")
    assert is_features(str(tmp_path / "features.parquet"))
    for name in ("images.parquet", "damaged.parquet", "absent.parquet", "."):
        assert not is_features(str(tmp_path / name))
    assert not is_features("cifar10")


def test_features_with_anything_changed_have_another_fingerprint():
    draws = np.random.default_rng(0)
    columns = {
        "embedding": draws.normal(size=(6, 4)),
        "logits": draws.normal(size=(6, 3)),
        "labels": draws.integers(0, 3, 6),
        "ids": [f"image {index}" for index in range(6)],
        "reconstruction": draws.normal(size=6),
    }
    prints = {features_fingerprint(Features(**columns))}
    assert features_fingerprint(Features(**columns)) in prints
    for name in columns:
        changed = dict(columns)
        changed[name] = columns[name][::-1] if name == "ids" else columns[name] + 1
        prints.add(features_fingerprint(Features(**changed)))
    prints.add(features_fingerprint(Features(columns["embedding"])))
    prints.add(features_fingerprint(Features(columns["embedding"].astype(np.float32))))
    assert len(prints) == 8


@pytest.fixture
def write(tmp_path):
    def write(name, *, rows=slice(None), labels=0):
        draws = np.random.default_rng(0)
        embedding, classes = draws.normal(size=(300, 5)), draws.integers(0, 3, 300)
        np.savez(tmp_path / name, embedding=embedding[rows], labels=(classes[rows] + labels) % 3)
        return str(tmp_path / name)

    return write


def test_a_fit_on_changed_features_is_not_the_finished_one(write, tmp_path):
    from mood.core.errors import OutputError

    settings = {"data": write("f.npz", rows=slice(0, 200)), "score": "mahalanobis", "output": tmp_path / "d"}
    apart = {"calibration": write("c.npz", rows=slice(200, 300))}
    fit(FitConfig(**settings, **apart))
    assert fit(FitConfig(**settings, **apart)).reused
    write("c.npz", rows=slice(210, 300))
    with pytest.raises(OutputError, match="calibration_features"):
        fit(FitConfig(**settings, **apart))
    write("c.npz", rows=slice(200, 300))
    write("f.npz", rows=slice(0, 200), labels=1)
    with pytest.raises(OutputError, match="features"):
        fit(FitConfig(**settings, **apart))


def test_calibration_rows_that_were_fitted_on_are_refused(write):
    from mood.core.errors import PromiseError

    with pytest.raises(PromiseError, match="50 calibration rows are among the 200"):
        fit(
            FitConfig(
                data=write("f.npz", rows=slice(0, 200)),
                calibration=write("c.npz", rows=slice(150, 300)),
                score="mahalanobis",
            )
        )


@pytest.mark.parametrize(
    "change",
    [
        {"classes": ("a",)},
        {"limit": 10},
        {"coarse": True},
        {"model": "resnet50"},
        {"checkpoint": Path("weights.pth")},
        {"transform_options": ("crop_pct=1",)},
        {"random_weights": True},
        {"pool": "avg"},
        {"layer": "3"},
        {"inner": "1+2"},
        {"precision": "bf16"},
        {"other_classes": True},
    ],
)
def test_what_is_said_of_images_or_a_network_is_refused_for_features(write, change):
    ((name, _),) = change.items()
    with pytest.raises(InputError, match=f"^{name}: of images or of a network, and features are neither"):
        fit(FitConfig(data=write("f.npz"), score="mahalanobis", **change))
