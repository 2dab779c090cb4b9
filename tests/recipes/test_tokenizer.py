"""Training a tokenizer: what it learns, what it leaves, what it refuses, and a kill that changes nothing."""

import json
import math
import random

import numpy as np
import pytest
import torch
from PIL import Image

from mood.core import artifact
from mood.core.errors import ArtifactError, InputError, ModelError, OutputError
from mood.data import held_out
from mood.models import image_keys, load_model, open_tokenizer
from mood.models.tokenizer import load_vae
from mood.recipes.pretrain import PretrainConfig, pretrain
from mood.recipes.reconstructions import beside
from mood.recipes.tokenizer import Schedule, TokenizerConfig, shape_of, tokenizer

WRITTEN = [
    "artifact.json",
    "config.json",
    "metrics.jsonl",
    "reconstructions.png",
    "seen.safetensors",
    "tokenizer.safetensors",
]


@pytest.fixture
def config(tmp_path):
    def config(**changes):
        settings = {
            "data": ("stripes",),
            "output": tmp_path / "out",
            "image_size": (16,),
            "grid": (4,),
            "codes": 16,
            "width": 4,
            "code_width": 8,
            "epochs": 2,
            "batch_size": 16,
            "warmup_epochs": 0.0,
            "measured": 0.3,
            "workers": 0,
        }
        return TokenizerConfig(**{**settings, **changes})

    return config


def rows(folder):
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def contents(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("reconstruction", ["logit_laplace", "mse"])
def test_learns_a_few_images_by_heart(config, stripes, reconstruction):
    weights = {"logit_laplace": (0.1, 5.0), "mse": (1e-3, 0.5)}[reconstruction]
    learning = {"lr": 4e-3, "crop_scale": 1.0, "ema": 0.0, "held_out": 0.0, "temperature": 0.5, "min_temperature": 0.1}
    learning |= {"kl_weight": weights[0], "balance": weights[1], "straight_through": 0.3, "decoder_first": 0.2}
    shape = {"codes": 32, "width": 16, "code_width": 32, "reconstruction": reconstruction}
    result = tokenizer(config(epochs=60, precision="fp32", **shape, **learning), source=stripes(60))
    first = next(row for row in rows(result.output) if "measured_mse" in row)
    # Images of the same kind that it did not learn from, each cell by one of its codes.
    assert result.metrics["measured_mse"] < 0.55 * first["measured_mse"]
    assert result.metrics["perplexity"] > 10
    assert 0.5 < result.metrics["codes_used"] <= 1


def test_a_codebook_that_nothing_balances_falls_to_a_few_codes(config, stripes, tmp_path):
    run = {"epochs": 30, "lr": 4e-3, "codes": 32, "width": 16, "code_width": 32, "crop_scale": 1.0, "ema": 0.0}
    run |= {"temperature": 0.5, "min_temperature": 0.1, "kl_weight": 0.1, "precision": "fp32", "held_out": 0.0}
    perplexity = [
        tokenizer(config(output=tmp_path / name, balance=weight, **run), source=stripes(60)).metrics["perplexity"]
        for name, weight in (("off", 0.0), ("on", 5.0))
    ]
    assert 2 * perplexity[0] < perplexity[1]


def test_leaves_a_tokenizer_its_figures_and_a_picture(config, stripes):
    result = tokenizer(config(), source=stripes(60))
    assert sorted(path.name for path in result.output.iterdir()) == WRITTEN
    opened = open_tokenizer(result.output)
    assert (opened.vocabulary, opened.image_size, opened.grid) == (16, (16, 16), (4, 4))
    tokens = opened.tokens(torch.rand(3, 3, 16, 16))
    assert (tokens.shape, tokens.dtype) == ((3, 4, 4), torch.int64)
    last = rows(result.output)[-1]
    assert {"measured_reconstruction", "measured_mse", "measured_kl", "codes_used", "perplexity"} < set(last)
    assert {"loss", "reconstruction", "kl", "temperature"} < set(rows(result.output)[0])
    picture = np.asarray(Image.open(result.output / "reconstructions.png"))
    assert picture.shape[1:] == (8 * (96 + 4), 3)
    assert f"perplexity {last['perplexity']:.0f}; the tokenizer is in" in result.summary()
    assert artifact.describe(result.output)["kind"] == "tokenizer"


def test_the_picture_shows_each_image_above_its_reconstruction(stripes):
    originals = np.random.default_rng(0).integers(0, 256, (3, 40, 60, 3), dtype=np.uint8)
    sheet = beside(originals, 255 - originals, columns=2)
    assert sheet.shape == (2 * (80 + 8), 2 * 64, 3)
    np.testing.assert_array_equal(sheet[:40, 64:124], originals[1])
    np.testing.assert_array_equal(sheet[40:80, 64:124], 255 - originals[1])
    np.testing.assert_array_equal(sheet[88:128, :60], originals[2])
    large = beside(originals[:, :10, :12], originals[:, :10, :12])
    np.testing.assert_array_equal(large[:80:8, : 12 * 8 : 8], originals[0, :10, :12])


def test_what_it_saw_is_every_image_outside_of_both_cuts(config, stripes):
    source = stripes(200)
    result = tokenizer(config(held_out=0.3, measured=0.2, seed=5), source=source)
    hashes = source.manifest.hashes
    free = ~held_out(hashes, seed=5, fraction=0.3) & ~held_out(hashes, seed=6, fraction=0.2)
    _, (stage,), seen = load_vae(result.output)
    assert torch.equal(seen, image_keys(np.array(hashes)[free].tolist()).unique())
    assert (stage.stage, stage.images, stage.held_out, stage.seed) == ("tokenizer", free.sum(), 0.3, 5)
    assert result.images == free.sum()


def test_a_network_that_learns_its_tokens_has_seen_what_it_saw(config, stripes, tiny, tmp_path):
    first, second = stripes(60, seed=1), stripes(40, seed=2)
    tokens = tokenizer(config(output=tmp_path / "tokens", held_out=0.0), source=first)
    given = {"output": tmp_path / "net", "model": "mood_vit_patch4_32", "model_options": tiny, "batch_size": 16}
    given |= {"data": ("stripes",), "epochs": 2, "warmup_epochs": 0.0, "workers": 0, "held_out": 0.0}
    result = pretrain(PretrainConfig(pretext="beit", tokenizer=tokens.output, **given), source=second)
    model = load_model(result.output)
    assert [stage.stage for stage in model.history] == ["tokenizer", "pretrain"]
    assert model.seen_among(second.manifest.hashes).all()
    assert model.seen_among(first.manifest.hashes).sum() == tokens.images
    assert (
        result.images
        == 40
        == pretrain(PretrainConfig(pretext="beit", tokenizer=tokens.output, **given), source=second).images
    )


def test_what_the_official_encoder_saw_nobody_knows(golden, stripes, tiny, tmp_path):
    given = {"output": tmp_path / "net", "model": "mood_vit_patch4_32", "model_options": tiny, "batch_size": 16}
    given |= {"data": ("stripes",), "epochs": 1, "warmup_epochs": 0.0, "workers": 0, "held_out": 0.0}
    settings = PretrainConfig(pretext="beit", tokenizer=golden / "dalle_encoder.pth", **given)
    model = load_model(pretrain(settings, source=stripes(16)).output)
    assert model.seen is None
    assert [stage.stage for stage in model.history] == ["pretrain"]


def test_killed_anywhere_it_ends_with_the_bytes_of_an_unbroken_run(config, stripes_folder, tmp_path, kill_when):
    data = (str(stripes_folder(tmp_path / "data", 48)),)
    long = {"data": data, "epochs": 30, "save_seconds": 0.0, "held_out": 0.0}
    at = random.randrange(1, 60)

    def reached():
        steps = [int(path.suffix[1:]) for path in tmp_path.glob("broken/.net.*.partial/scratch/checkpoint.[0-9]*")]
        return bool(steps) and max(steps) >= at

    kill_when(reached, tokenizer, config(**long, output=tmp_path / "broken" / "net"))
    assert not (tmp_path / "broken" / "net").exists()
    tokenizer(config(**long, output=tmp_path / "broken" / "net"))
    tokenizer(config(**long, output=tmp_path / "whole" / "net"))
    assert contents(tmp_path / "broken") == contents(tmp_path / "whole")


def test_finished_it_is_reused_and_kept_from_other_settings(config, stripes):
    first = tokenizer(config(), source=stripes(60))
    again = tokenizer(config(), source=stripes(60))
    assert again.reused
    assert (again.images, again.metrics) == (first.images, first.metrics)
    assert "already finished" in again.summary()
    with pytest.raises(OutputError, match="codes: 16 → 17"):
        tokenizer(config(codes=17), source=stripes(60))


@pytest.mark.parametrize(
    "change",
    [
        {"kl_weight": 5.0, "kl_warmup": 0.0},
        {"kl_warmup": 0.9},
        {"balance": 0.0},
        {"temperature": 3.0},
        {"min_temperature": 1.0},
        {"straight_through": 1.0},
        {"decoder_first": 0.9},
        {"crop_scale": 1.0},
        {"color_jitter": 0.4},
        {"clip": 0.01},
        {"ema": 0.0},
        {"seed": 1},
        {"blocks": 2},
        {"reconstruction": "mse"},
    ],
    ids=lambda change: next(iter(change)),
)
def test_each_setting_reaches_the_training(config, stripes, tmp_path, change):
    plain = {"held_out": 0.0, "lr": 0.01}
    written = []
    for name, changes in (("a", {}), ("b", change)):
        result = tokenizer(config(output=tmp_path / name, **plain, **changes), source=stripes(60))
        written.append((result.output / "tokenizer.safetensors").read_bytes())
    assert written[0] != written[1]


def test_the_schedule_goes_from_mixtures_to_single_codes():
    schedule = Schedule(
        temperature=1.0,
        min_temperature=0.1,
        kl_weight=2.0,
        balance=1.0,
        kl_warmup=0.4,
        straight_through=0.2,
        decoder_first=0.1,
    )
    assert schedule.at(0.0) == (1.0, 0.0, False, True)
    temperature, weight, hard, fixed = schedule.at(0.2)
    assert temperature == pytest.approx(0.1 + 0.9 * (1 + math.cos(math.pi / 4)) / 2)
    assert (weight, hard, fixed) == (1.0, False, False)
    assert schedule.at(0.4)[:2] == pytest.approx((0.55, 2.0))
    assert schedule.at(0.8) == schedule.at(0.99) == (pytest.approx(0.1), 2.0, True, False)
    at_once = Schedule(
        temperature=1.0,
        min_temperature=0.5,
        kl_weight=1.0,
        balance=0.0,
        kl_warmup=0.0,
        straight_through=1.0,
        decoder_first=0.0,
    )
    assert at_once.at(0.0) == (0.5, 1.0, True, False)


@pytest.mark.parametrize(
    ("image_size", "grid", "steps"),
    [
        ((32,), (8,), ((2, 2), (2, 2))),
        ((112,), (14,), ((2, 2), (2, 2), (2, 2))),
        ((48, 32), (8, 8), ((2, 2), (3, 2))),
        ((16, 64), (16, 16), ((1, 2), (1, 2))),
        ((5,), (1,), ((5, 5),)),
        ((7,), (7,), ()),
    ],
)
def test_any_grid_that_divides_the_image(config, image_size, grid, steps):
    shape = shape_of(config(image_size=image_size, grid=grid))
    assert shape.steps == steps
    assert shape.grid == (grid[0], grid[-1])


def test_images_that_are_not_square(config, stripes):
    result = tokenizer(config(image_size=(12, 20), grid=(2, 5)), source=stripes(60))
    assert open_tokenizer(result.output).tokens(torch.rand(2, 3, 12, 20)).shape == (2, 2, 5)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"grid": (3,)}, ModelError, "a grid of 3 x 3 does not divide an image of 16 x 16"),
        ({"grid": (4, 4, 4)}, InputError, r"grid is \[4, 4, 4\]; it must be one number, or two"),
        ({"image_size": (0,)}, InputError, r"'image_size\[0\]' is 0"),
        ({"grid": (0,)}, InputError, r"'grid\[0\]' is 0"),
        ({"codes": 1}, InputError, "'codes' is 1; it should be greater than or equal to 2"),
        ({"codes": 65537}, ModelError, "codes is 65537; it must be from 2 to 65536"),
        ({"width": 6}, ModelError, "width is 6; it must be a multiple of 4"),
        ({"code_width": 0}, InputError, "'code_width' is 0"),
        ({"blocks": 0}, InputError, "'blocks' is 0"),
        ({"reconstruction": "l1"}, InputError, "'reconstruction' is 'l1'"),
        ({"temperature": 0.0}, InputError, "'temperature' is 0.0"),
        ({"min_temperature": 2.0}, InputError, "min_temperature is 2.0; it must be at most temperature"),
        ({"kl_weight": -1.0}, InputError, "'kl_weight' is -1.0"),
        ({"balance": -1.0}, InputError, "'balance' is -1.0"),
        ({"kl_warmup": 2.0}, InputError, "'kl_warmup' is 2.0"),
        ({"straight_through": 1.5}, InputError, "'straight_through' is 1.5"),
        ({"decoder_first": 1.0}, InputError, "'decoder_first' is 1.0"),
        ({"measured": 0.0}, InputError, "leaves none of 20 images to measure the tokenizer on"),
        ({"batch_size": 30}, InputError, "batch_size is 30"),
        ({"crop_scale": 0.0}, InputError, "'crop_scale' is"),
        ({"held_out": 1.0, "measured": 0.0}, InputError, "'held_out' is 1.0"),
    ],
)
def test_what_cannot_be_done_is_told_and_leaves_nothing_behind(config, stripes, tmp_path, change, error, message):
    with pytest.raises(error, match=message):
        tokenizer(config(**{"held_out": 0.0, **change}), source=stripes(20))
    assert not (tmp_path / "out").exists()


def test_a_folder_of_another_kind_is_no_tokenizer(tiny_network, config, stripes):
    with pytest.raises(ArtifactError, match="holds a model, a tokenizer was expected"):
        open_tokenizer(tiny_network)
    folder = tokenizer(config(), source=stripes(60)).output
    tensors, meta = artifact.read(folder, kind="tokenizer")
    artifact.write(folder, kind="tokenizer", tensors=tensors, meta={**meta, "shape": {**meta["shape"], "codes": 8}})
    with pytest.raises(ModelError, match="do not fit the tokenizer that it describes"):
        open_tokenizer(folder)
