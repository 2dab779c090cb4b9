"""Every shipped recipe loads, opens with its command, builds its full network, and takes two steps in small."""

import json
import shlex
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from mood.cli import app
from mood.core.config import load_toml
from mood.data import open_source
from mood.models import (
    Architecture,
    DiscreteVae,
    VaeShape,
    input_transform,
    load_model,
    make_pretext,
    open_model,
    save_vae,
    untrained_tokenizer,
)
from mood.recipes.finetune import FinetuneConfig, finetune
from mood.recipes.fit import FitConfig, fit
from mood.recipes.inputs import model_options
from mood.recipes.pretexts import pretext_settings
from mood.recipes.pretrain import PretrainConfig, architecture_of, augments_of, pretrain
from mood.recipes.tokenizer import TokenizerConfig, shape_of, tokenizer
from mood.recipes.train import TrainConfig, plan

ROOT = Path(__file__).parents[1]
# Those of `mood bench` have tests of their own: they are benchmarks and train nothing.
RECIPES = sorted(path for path in (ROOT / "recipes").rglob("*.toml") if "#     mood bench" not in path.read_text())
CONFIGS = {
    "tokenizer": TokenizerConfig,
    "pretrain": PretrainConfig,
    "finetune": FinetuneConfig,
    "train": TrainConfig,
    "fit": FitConfig,
}


def command_of(path):
    line = next(line for line in path.read_text().splitlines() if line.startswith("#     mood "))
    return shlex.split(line.removeprefix("#     "))


def stages_of(path, tmp_path):
    """The configs of a recipe: of its stages, or its own."""
    kind = command_of(path)[1]
    if kind == "train":
        return [stage.config for stage in plan(TrainConfig(stages=path, output=tmp_path / "out"))]
    return [load_toml(path, CONFIGS[kind], {"output": tmp_path / "out"})]


def pictures(count, classes):
    """Images with labels, as a set in memory would have them."""
    source = open_source(np.random.default_rng(0).integers(0, 256, (count, 32, 32, 3), dtype=np.uint8))
    labels = np.arange(count) % classes
    names = tuple(f"class {index}" for index in range(classes))
    return replace(source, manifest=replace(source.manifest, labels=labels, class_names=names))


def shrunk(name, options):
    """The same architecture at depth 2, narrow, and for small images."""
    if name.startswith("resnetv2"):
        return "resnetv2_18", options  # timm's BiT networks take no depth
    if name.startswith("mixer"):
        return "mixer_s32_224", {**options, "img_size": 64}  # nor do its mixers
    if name == "mood_resnet50_32":
        return name, {**options, "layers": [1, 1, 1, 1], "channels": [4, 4, 8, 8]}
    small = {**options, "depth": 2, "embed_dim": 16, "num_heads": 2}
    if name.startswith(("beit", "vit")):
        return name.split(".")[0], {**small, "img_size": 64}
    return "mood_vit_patch4_32" if "/" in name or name == "embedded" else name, small


def small_vae(grid):
    """The shape of a tokenizer of this grid."""
    return VaeShape(codes=8, image_size=(2 * grid[0], 2 * grid[1]), grid=grid, width=4, code_width=4)


def untrained(folder, grid):
    """A tokenizer of this grid on disk."""
    save_vae(folder, DiscreteVae(small_vae(grid)), history=(), seen=torch.empty(0, dtype=torch.int64))
    return folder


def pairs(options):
    return tuple(f"{key}={json.dumps(value)}" for key, value in options.items())


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_it_opens_with_the_command_that_runs_it(path, tmp_path):
    text, words = path.read_text(), command_of(path)
    assert str(path.relative_to(ROOT)) in words
    assert "Measured" in text or "Not run" in text
    result = CliRunner().invoke(app, [words[1], "--help"], env={"COLUMNS": "200"})
    assert result.exit_code == 0
    flags = [word for word in words[2:] if word.startswith("--")]
    assert all(flag in result.output for flag in flags)
    assert stages_of(path, tmp_path)


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_its_full_network_can_be_built(path, tmp_path):
    for config in stages_of(path, tmp_path):
        if isinstance(config, TokenizerConfig):
            shape = shape_of(config)
            with torch.device("meta"):
                vae = DiscreteVae(shape)
                mixture = vae.encoder(torch.empty(2, 3, *shape.image_size))
                assert mixture.shape == (2, shape.codes, *shape.grid)
                assert vae.decoder(mixture).shape == (2, shape.channels, *shape.image_size)
            continue
        if "/" in config.model:
            continue  # what the stage before it wrote
        architecture = Architecture(config.model.split(".")[0], model_options(config.model_options))
        if config.model == "embedded":
            architecture = open_model("embedded").architecture
        with torch.device("meta"):
            network = architecture.build(num_classes=0)
            assert next(network.parameters()).is_meta
            height, width = input_transform(network).size
            assert network(torch.empty(2, 3, height, width)).shape == (2, network.num_features)
        if isinstance(config, PretrainConfig):
            given = pretext_settings(config)
            if config.pretext == "classification":
                given["classes"] = 21841
            with torch.device("meta"):
                encoder = architecture_of(config).build()
                if config.pretext == "beit":
                    given["tokenizer"] = untrained_tokenizer(small_vae(encoder.patch_embed.grid_size))
                make_pretext(config.pretext, encoder, given)


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_it_takes_two_steps_at_depth_two(path, tmp_path):
    for number, config in enumerate(stages_of(path, tmp_path)):
        if isinstance(config, TokenizerConfig):
            small = {"width": 4, "code_width": 4, "epochs": 1, "batch_size": 8, "warmup_epochs": 0.0, "workers": 0}
            small |= {"held_out": 0.0, "measured": 0.2, "output": tmp_path / str(number)}
            result = tokenizer(replace(config, **small), source=pictures(24, 2))
            assert 16 <= result.images < 24
            continue
        name, options = shrunk(config.model, model_options(config.model_options))
        changes = {"held_out": 0.0, "workers": 0, "model": name, "output": tmp_path / str(number)}
        source = pictures(16, 2)
        if isinstance(config, FitConfig):
            changes |= {"random_weights": True, "checkpoint": None, "model_options": pairs(options), "held_out": 0.5}
            fitted = fit(replace(config, **changes | {"alpha": 0.4}), data=source)
            assert fitted.detector.card["fit_images"] + len(fitted.detector.calibration) == 16
            continue
        changes |= {"epochs": 1, "batch_size": 8, "warmup_epochs": 0.0, "model_options": pairs(options)}
        if isinstance(config, PretrainConfig):
            if config.pretext == "mae":
                changes |= {"decoder_width": 16, "decoder_heads": 2}
            if config.pretext == "beit":
                grid = Architecture(name, options).build().patch_embed.grid_size
                changes |= {"tokenizer": untrained(tmp_path / "tokenizer", grid)}
            if config.pretext == "scratch":
                assert load_model(pretrain(replace(config, **changes), source=source).output).history == ()
                continue
            result = pretrain(replace(config, **changes), source=source)
        else:
            one_class = config.head_classes is not None
            changes |= {"random_weights": True, "checkpoint": None, "eval": None}
            result = finetune(replace(config, **changes), source=pictures(16, 1) if one_class else source)
        assert result.images == 16
        assert len(load_model(result.output).history) == 1


def test_the_rival_has_the_same_constants_on_both_sets():
    paths = [ROOT / "recipes" / f"{known}-supcon-resnet.toml" for known in ("cifar10", "cifar100")]
    first, second = (load_toml(path, PretrainConfig, {"output": Path("any")}) for path in paths)
    assert (first.data, second.data) == (("cifar10:train",), ("cifar100:train",))
    assert replace(first, data=second.data) == second


def test_the_rival_of_figure_3_is_trained_in_the_steps_of_its_official_code():
    """A loss that is multiplied is the same step of SGD as a learning rate that is, and a weight decay divided."""
    path = ROOT / "recipes" / "cifar10-supcon-resnet.toml"
    config = load_toml(path, PretrainConfig, {"output": Path("any")})
    factor = config.temperature / 0.07
    assert config.base_lr * config.batch_size / 256 == pytest.approx(0.5 * factor, rel=1e-12)
    assert config.weight_decay == pytest.approx(1e-4 / factor, rel=1e-12)
    first, second = augments_of(config)
    assert first == second
    assert (first.scale, first.flip, first.color_jitter, first.color_jitter_share, first.grayscale, first.blur) == (
        (0.2, 1.0),
        0.5,
        (0.4, 0.4, 0.4, 0.1),
        0.8,
        0.2,
        0.0,
    )
