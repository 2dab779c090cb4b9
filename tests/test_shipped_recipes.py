"""Every shipped recipe loads, opens with its command, builds its full network, and takes two steps in small."""

import shlex
import tomllib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from mood.cli import app
from mood.core.config import load_toml
from mood.data import open_source
from mood.models import Architecture, load_model, make_pretext, open_model
from mood.recipes.finetune import FinetuneConfig, finetune
from mood.recipes.inputs import model_options
from mood.recipes.pretrain import PretrainConfig, pretext_settings, pretrain

RECIPES = sorted((Path(__file__).parents[1] / "recipes").glob("*.toml"))
CONFIGS = {"pretrain": PretrainConfig, "finetune": FinetuneConfig}


def command_of(path):
    line = next(line for line in path.read_text().splitlines() if line.startswith("#     mood "))
    return shlex.split(line.removeprefix("#     "))


def load(path, tmp_path):
    kind = command_of(path)[1]
    return load_toml(path, CONFIGS[kind], {"output": tmp_path / "out"})


def pictures(count, classes):
    """Images with labels, as a set in memory would have them."""
    source = open_source(np.random.default_rng(0).integers(0, 256, (count, 32, 32, 3), dtype=np.uint8))
    labels = np.arange(count) % classes
    names = tuple(f"class {index}" for index in range(classes))
    return replace(source, manifest=replace(source.manifest, labels=labels, class_names=names))


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_it_opens_with_the_command_that_runs_it(path):
    text, words = path.read_text(), command_of(path)
    assert f"recipes/{path.name}" in words
    assert "Measured" in text or "Not run" in text
    result = CliRunner().invoke(app, [words[1], "--help"], env={"COLUMNS": "200"})
    assert result.exit_code == 0
    flags = [word for word in words[2:] if word.startswith("--")]
    assert all(flag in result.output for flag in flags)
    assert set(tomllib.loads(text)) <= set(CONFIGS[words[1]].__dataclass_fields__)


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_its_full_network_can_be_built(path, tmp_path):
    config = load(path, tmp_path)
    architecture = Architecture(config.model, model_options(config.model_options))
    if config.model == "embedded":
        architecture = open_model("embedded").architecture
    with torch.device("meta"):
        network = architecture.build(num_classes=0)
    assert next(network.parameters()).is_meta
    height, width = network.patch_embed.img_size
    assert network(torch.empty(2, 3, height, width, device="meta")).shape == (2, network.num_features)
    if isinstance(config, PretrainConfig):
        autoencoder = make_pretext(config.pretext, architecture.build(num_classes=0), pretext_settings(config))
        assert autoencoder.patches * autoencoder.patch[0] * autoencoder.patch[1] == height * width


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_it_takes_two_steps_at_depth_two(path, tmp_path):
    config = load(path, tmp_path)
    small = {"depth": 2, "embed_dim": 16, "num_heads": 2}
    options = tuple(f"{key}={value}" for key, value in {**model_options(config.model_options), **small}.items())
    changes = {"epochs": 1, "batch_size": 8, "held_out": 0.0, "workers": 0, "model_options": options}
    if isinstance(config, PretrainConfig):
        changes |= {"decoder_width": 16, "decoder_heads": 2}
        result = pretrain(replace(config, **changes), source=pictures(16, 2))
    else:
        changes |= {"model": "mood_vit_patch4_32", "random_weights": True, "eval": None}
        result = finetune(replace(config, **changes), source=pictures(16, 2))
    assert result.images == 16
    assert len(load_model(result.output).history) == 1
