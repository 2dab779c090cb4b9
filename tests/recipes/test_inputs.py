"""What the recipes read in common: the images of a stage, options of a model, and metrics."""

import json

import numpy as np
import pytest
import torch

from mood.core.errors import InputError
from mood.data import held_out
from mood.models import image_keys
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
    with pytest.raises(InputError, match="stripes has no labels: move a.png out"):
        chosen([replace(bare, unlabelled="move a.png out")], labelled=True)


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
