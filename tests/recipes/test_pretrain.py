"""Pre-training: what it learns, what it writes down, what it refuses, and a kill that changes nothing."""

import json
import random

import pytest

from mood.core.errors import InputError, ModelError, OutputError
from mood.data import held_out
from mood.models import image_keys, load_model, open_model
from mood.recipes.pretrain import PretrainConfig, pretrain

WRITTEN = ["artifact.json", "config.json", "metrics.jsonl", "model.safetensors", "pretext.safetensors"]


@pytest.fixture
def config(tiny, tmp_path):
    def config(**changes):
        settings = {
            "data": ("stripes",),
            "output": tmp_path / "out",
            "model": "mood_vit_patch4_32",
            "model_options": tiny,
            "decoder_width": 16,
            "decoder_heads": 2,
            "epochs": 2,
            "batch_size": 16,
            "warmup_epochs": 0.0,
            "workers": 0,
        }
        return PretrainConfig(**{**settings, **changes})

    return config


# The settings that `config` gives to MAE.
PLAIN = {"decoder_width": None, "decoder_heads": None}
# SSD+'s network and optimiser, in small.
RESNET = {
    "model": "mood_resnet50_32",
    "model_options": ("layers=[1, 1, 1, 1]", "channels=[4, 4, 8, 8]"),
    "optimiser": "sgd",
    "base_lr": 0.5,
}


def losses(folder):
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [row["loss"] for row in rows if "loss" in row]


def contents(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_learns_sixty_four_images_by_heart(config, stripes):
    made = config(epochs=150, batch_size=64, base_lr=0.03, crop_scale=1.0, held_out=0.0, decoder_width=32)
    result = pretrain(made, source=stripes(64))
    first, *_, last = losses(result.output)
    assert last == result.loss < 0.5 * first


@pytest.mark.parametrize(
    ("settings", "share"),
    [
        (
            {
                "pretext": "moco_v3",
                "momentum": 0.9,
                "temperature": 0.1,
                "hidden_width": 128,
                "base_lr": 0.02,
                "crop_scale": 1.0,
            },
            0.6,
        ),
        ({"pretext": "supcon", "base_lr": 0.08, "crop_scale": 0.8}, 0.85),
        ({"pretext": "supcon", "crop_scale": 0.8, **RESNET}, 0.85),
        ({"pretext": "classification", "base_lr": 0.08, "crop_scale": 0.8}, 0.8),
    ],
    ids=lambda settings: settings["pretext"] if isinstance(settings, dict) else "",
)
def test_each_other_pretext_learns_sixty_four_images_too(config, stripes, settings, share):
    plain = {"decoder_width": None, "decoder_heads": None, "batch_size": 64, "held_out": 0.0, "warmup_epochs": 5.0}
    result = pretrain(config(epochs=80, **plain, **settings), source=stripes(64, classes=4))
    first, *_, last = losses(result.output)
    assert last < share * first
    (stage,) = load_model(result.output).history
    assert stage.labelled == (settings["pretext"] != "moco_v3")


@pytest.mark.parametrize(
    ("settings", "share"),
    [
        ({"pretext": "simmim", "base_lr": 0.03}, 0.6),
        ({"pretext": "beit", "base_lr": 0.05, "exact_mask": True}, 0.6),
    ],
    ids=["simmim", "beit"],
)
def test_masked_pixels_and_tokens_are_learned_too(config, stripes, tokenizer_folder, settings, share):
    settings = {**settings, "tokenizer": tokenizer_folder} if settings["pretext"] == "beit" else settings
    run = {"epochs": 150, "batch_size": 64, "crop_scale": 1.0, "held_out": 0.0, "color_jitter": 0.0, "drop_path": 0.0}
    result = pretrain(config(**PLAIN, **run, **settings), source=stripes(64))
    first, *_, last = losses(result.output)
    assert last == result.loss < share * first
    assert set(load_model(result.output).module.state_dict()) == set(
        open_model(
            "mood_vit_patch4_32", options=load_model(result.output).architecture.options, random_weights=True
        ).module.state_dict()
    )


def test_beit_is_as_its_recipe_has_it_unless_told_otherwise(config, stripes, tiny, tokenizer_folder, tmp_path):
    # The drop path of a single block is none.
    beit = {"pretext": "beit", "tokenizer": tokenizer_folder, "model_options": (*tiny, "depth=2"), **PLAIN}

    def written(name, **changes):
        folder = tmp_path / name
        pretrain(config(output=folder, **beit, **changes), source=stripes(32))
        return (folder / "model.safetensors").read_bytes()

    plain = written("plain")
    module = load_model(tmp_path / "plain").module
    assert module.blocks[0].ls1.gamma.detach().mean().item() == pytest.approx(0.1, abs=0.01)
    usual = {"color_jitter": 0.4, "drop_path": 0.1, "mask_ratio": 75 / 196, "min_block": 1, "exact_mask": False}
    assert written("same", **usual) == plain
    for key, value in {"color_jitter": 0.0, "drop_path": 0.0, "mask_ratio": 0.6, "min_block": 6}.items():
        assert written(key, **{key: value}) != plain, key
    large = {"mask_ratio": 0.7, "min_block": 9}
    assert written("exact", exact_mask=True, **large) != written("not exact", **large)


def test_scratch_is_a_network_that_has_seen_nothing(config, stripes):
    nothing = {"decoder_width": None, "decoder_heads": None}
    result = pretrain(config(pretext="scratch", **nothing), source=stripes(20))
    model = load_model(result.output)
    assert (model.history, len(model.seen), result.loss) == ((), 0, None)
    assert "as it was initialised" in result.summary()
    assert pretrain(config(pretext="scratch", **nothing), source=stripes(20)).reused


def test_what_it_saw_is_every_image_outside_of_the_cut_and_no_other(config, stripes):
    source = stripes(200)
    result = pretrain(config(held_out=0.3, seed=5), source=source)
    cut = held_out(source.manifest.hashes, seed=5, fraction=0.3)
    model = load_model(result.output)
    assert model.seen_among(source.manifest.hashes).tolist() == (~cut).tolist()
    assert len(model.seen) == len(set(image_keys(source.manifest.hashes)[~cut].tolist()))
    (stage,) = model.history
    assert (stage.stage, stage.images, stage.seed, stage.held_out) == ("pretrain", result.images, 5, 0.3)
    assert result.images == (~cut).sum()


def test_leaves_a_network_and_no_optimiser(config, stripes):
    result = pretrain(config(), source=stripes(40))
    assert sorted(path.name for path in result.output.iterdir()) == [*WRITTEN, "seen.safetensors"]
    assert load_model(result.output).classifier() is None
    assert f"pre-trained on {result.images} images, loss " in result.summary()


@pytest.mark.parametrize(
    "settings",
    [{"pretext": "mae"}, {"pretext": "simmim", **PLAIN}, {"pretext": "supcon", **PLAIN, **RESNET}],
    ids=lambda settings: settings["pretext"],
)
def test_killed_anywhere_it_ends_with_the_bytes_of_an_unbroken_run(
    config, stripes_folder, tmp_path, kill_when, settings
):
    data = (str(stripes_folder(tmp_path / "data", 48)),)
    long = {"data": data, "epochs": 60, "save_seconds": 0.0, **settings}
    at = random.randrange(1, 60)

    def reached():
        steps = [int(path.suffix[1:]) for path in tmp_path.glob("broken/.net.*.partial/scratch/checkpoint.[0-9]*")]
        return bool(steps) and max(steps) >= at

    kill_when(reached, pretrain, config(**long, output=tmp_path / "broken" / "net"))
    assert not (tmp_path / "broken" / "net").exists()
    resumed = pretrain(config(**long, output=tmp_path / "broken" / "net"))
    whole = pretrain(config(**long, output=tmp_path / "whole" / "net"))
    assert resumed.loss == whole.loss
    assert contents(tmp_path / "broken") == contents(tmp_path / "whole")


def test_workers_change_nothing(config, stripes, tmp_path):
    alone = pretrain(config(output=tmp_path / "a"), source=stripes(40))
    helped = pretrain(config(output=tmp_path / "b", workers=2), source=stripes(40))
    assert (alone.output / "model.safetensors").read_bytes() == (helped.output / "model.safetensors").read_bytes()


def test_finished_it_is_reused_and_kept_from_other_settings(config, stripes):
    first = pretrain(config(), source=stripes(40))
    again = pretrain(config(), source=stripes(40))
    assert again.reused
    assert (again.images, again.loss) == (first.images, first.loss)
    assert "already finished" in again.summary()
    with pytest.raises(OutputError, match="epochs: 2 → 3"):
        pretrain(config(epochs=3), source=stripes(40))
    with pytest.raises(OutputError, match="images"):
        pretrain(config(), source=stripes(41))


def test_several_sets_are_one_and_each_is_written_down(config, stripes_folder, tmp_path):
    first = stripes_folder(tmp_path / "one", 30)
    second = stripes_folder(tmp_path / "two", 50, seed=1)
    result = pretrain(config(data=(str(first), str(second)), held_out=0.2))
    history = load_model(result.output).history
    assert [stage.data for stage in history] == ["one", "two"]
    assert (
        sum(stage.images for stage in history)
        == result.images
        == pretrain(config(data=(str(first), str(second)), held_out=0.2)).images
    )


def test_an_image_without_bytes_is_nobodys_image(config, stripes_folder, tmp_path):
    folder = stripes_folder(tmp_path / "data", 40)
    (folder / "class 0" / "empty.png").touch()
    result = pretrain(config(data=(str(folder),), held_out=0.0))
    assert len(load_model(result.output).seen) == 40


@pytest.mark.parametrize(
    "change",
    [
        {"normalise_target": False},
        {"mask_ratio": 0.5},
        {"crop_scale": 1.0},
        {"seed": 1},
        {"clip": 0.01},
        {"beta2": 0.5},
        {"optimiser": "sgd"},
    ],
    ids=lambda change: next(iter(change)),
)
def test_each_setting_reaches_the_training(config, stripes, tmp_path, change):
    plain = pretrain(config(output=tmp_path / "a", held_out=0.0), source=stripes(32))
    other = pretrain(config(output=tmp_path / "b", held_out=0.0, **change), source=stripes(32))
    assert (plain.output / "model.safetensors").read_bytes() != (other.output / "model.safetensors").read_bytes()


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"model": "resnet10t", "model_options": ()}, ModelError, "MAE needs a timm VisionTransformer"),
        ({"pretext": "jigsaw"}, InputError, "'pretext' is 'jigsaw'"),
        ({"pretext": "moco_v3"}, InputError, "decoder_width is a setting of pretext mae"),
        ({"pretext": "beit", **PLAIN}, InputError, "train one with `mood tokenizer`"),
        ({"min_block": 4}, InputError, "min_block is a setting of pretext beit; mae has decoder_width"),
        ({"pretext": "simmim", "mask_unit": 5, **PLAIN}, ModelError, "mask_unit is 5 pixels"),
        (
            {"pretext": "simmim", "model": "resnet10t", "model_options": (), **PLAIN},
            ModelError,
            "SimMim needs a Vision",
        ),
        ({"drop_path": 1.0}, InputError, "'drop_path' is 1.0; it should be less than 1"),
        ({"color_jitter": -1.0}, InputError, "'color_jitter' is -1.0"),
        ({"pretext": "supcon", "color_jitter": 0.4, **PLAIN}, InputError, "color_jitter is not for pretext supcon"),
        ({"optimiser": "lion"}, InputError, "'optimiser' is 'lion'"),
        ({"optimiser": "sgd", "beta2": 0.9}, InputError, "beta2 is 0.9, and sgd has none: leave beta2 out"),
        ({"mask_ratio": 1.0}, InputError, "'mask_ratio' is 1.0; it should be less than 1"),
        ({"mask_ratio": 0.99}, ModelError, "leaves none of 16 patches visible"),
        ({"decoder_width": 18}, ModelError, "divisible by 4 and by 2 heads"),
        ({"decoder_heads": 3}, ModelError, "divisible by 4 and by 3 heads"),
        ({"model_options": ("embed_dim=34", "num_heads=2")}, ModelError, "the encoder's is 34"),
        ({"model_options": ("embed_dim=33", "num_heads=2")}, ModelError, "cannot be built with these options"),
        ({"model_options": ("depth",)}, InputError, "KEY=VALUE"),
        ({"batch_size": 21, "held_out": 0.0}, InputError, "batch_size is 21, and 20 images are left"),
        ({"model_options": ("img_size=30",)}, ModelError, "patches of 4 pixels do not fill 30: set img_size to .* 28"),
        ({"batch_size": 0}, InputError, "'batch_size' is 0"),
        ({"epochs": 0}, InputError, "'epochs' is 0"),
        ({"held_out": 1.0}, InputError, "'held_out' is 1.0"),
        ({"held_out": -0.5}, InputError, "'held_out' is -0.5"),
        ({"device": "abacus"}, InputError, "device 'abacus' cannot be used"),
    ],
)
def test_what_cannot_be_done_is_told_and_leaves_nothing_behind(config, stripes, tmp_path, change, error, message):
    with pytest.raises(error, match=message):
        pretrain(config(**change), source=stripes(20))
    assert not (tmp_path / "out").exists()
