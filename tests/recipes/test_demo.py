"""The demo with one epoch: figures beside both controls, the promise, a page, and nothing done twice."""

import functools
import json

import pytest

from mood.core.errors import OutputError
from mood.data import held_out, open_source
from mood.detector import load
from mood.models import load_model
from mood.recipes import pretrain as pretraining
from mood.recipes.demo import HELD_OUT, UNKNOWN_CLOTHES, DemoConfig, demo
from mood.recipes.fit import fitted_source

SETS = ["other clothes (near)", "handwriting (far)", "blood cells (far)"]


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    config = DemoConfig(output=tmp_path_factory.mktemp("demo") / "demo", epochs=1, workers=0)
    return config, demo(config)


def test_shows_every_set_beside_both_controls_and_where_the_page_is(made):
    config, result = made
    sets = result.evaluation.to_dict()["sets"]
    assert list(sets) == SETS
    for item in sets.values():
        assert set(item["controls"]) == {"six numbers", "random weights"}
        assert not item["seen_by_weights"]
        assert item["rejected"] == 0
    summary = result.summary()
    for word in (*SETS, "mood", "six numbers", "random weights", "false alarms on", "promised 5.0%"):
        assert word in summary
    assert not any(line.endswith(" ") for line in summary.splitlines())
    assert summary.endswith(f"report: {config.output / 'evaluation' / 'report.html'}")
    assert result.report.is_file()
    assert json.loads((result.report.parent / "results.json").read_text()) == result.evaluation.to_dict()


def test_the_promise_is_verified_and_no_image_has_two_parts(made):
    config, result = made
    figures = result.evaluation.to_dict()
    assert figures["verified"]
    clothes = open_source("clothing", exclude_classes=UNKNOWN_CLOTHES)
    test = held_out(clothes.manifest.hashes, seed=1, fraction=0.2)
    cut = held_out(clothes.manifest.hashes, seed=0, fraction=HELD_OUT) & ~test
    assert figures["n_calibration"] == cut.sum()
    assert figures["n_id"] == test.sum()
    seen = load_model(config.output / "network").seen_among(clothes.manifest.hashes)
    assert seen.tolist() == (~test & ~cut).tolist()


def test_the_images_behind_the_score_are_found_again(made):
    config, _ = made
    found = fitted_source(load(config.output / "detector"))
    clothes = open_source("clothing", exclude_classes=UNKNOWN_CLOTHES)
    seen = load_model(config.output / "network").seen_among(clothes.manifest.hashes)
    assert sorted(found.manifest.hashes) == sorted(clothes.select(seen).manifest.hashes)


def test_again_it_reuses_everything_and_says_the_same(made):
    config, result = made
    before = {path: path.stat().st_mtime_ns for path in config.output.rglob("*")}
    again = demo(config)
    assert again.evaluation.to_dict() == result.evaluation.to_dict()
    assert {path: path.stat().st_mtime_ns for path in config.output.rglob("*")} == before


def test_another_demo_does_not_take_its_place(made):
    config, _ = made
    with pytest.raises(OutputError, match="epochs: 1 → 2"):
        demo(DemoConfig(output=config.output, epochs=2, workers=0))


def test_from_random_weights_it_goes_through_every_stage(tmp_path, monkeypatch, tiny):
    # The stages are real, the network is small.
    small = {"epochs": 1, "model": "mood_vit_patch4_32", "model_options": tiny, "decoder_width": 16}
    config = pretraining.PretrainConfig
    monkeypatch.setattr(
        pretraining, "PretrainConfig", functools.wraps(config)(lambda **settings: config(**{**settings, **small}))
    )
    result = demo(DemoConfig(output=tmp_path / "demo", train=True, epochs=1, workers=0))
    model = load_model(tmp_path / "demo" / "network")
    assert [stage.stage for stage in model.history] == ["pretrain", "finetune"]
    assert result.evaluation.to_dict()["verified"]
    assert result.report.is_file()
