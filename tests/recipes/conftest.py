"""Small networks and a few images for the recipes to work on."""

import multiprocessing
import multiprocessing.forkserver
import signal
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from mood.data import held_out, open_source
from mood.models import Architecture, Model, image_keys, open_model, save_model
from mood.models.model import Stage
from mood.recipes.tokenizer import TokenizerConfig, tokenizer

TINY = ("embed_dim=32", "depth=1", "num_heads=2", "img_size=16")
OPTIONS = {"embed_dim": 32, "num_heads": 2, "depth": 2}


@pytest.fixture(scope="session")
def clothes():
    return open_source("clothing", limit=200)


def model_that_saw(folder, hashes, *, history=True):
    """A network on disk whose card says that it was trained on these images."""
    fresh = open_model("mood_vit_patch4_32", options={**OPTIONS, "num_classes": 10}, random_weights=True)
    stage = Stage(
        stage="finetune",
        data="clothing",
        images=len(hashes),
        class_names=(),
        labelled=True,
        manifest="",
        seed=0,
        held_out=0.1,
    )
    model = Model(
        name=folder.name,
        module=fresh.module,
        transform=fresh.transform,
        architecture=Architecture("mood_vit_patch4_32", {**OPTIONS, "num_classes": 10}),
        class_names=tuple(open_source("clothing", limit=10).manifest.class_names),
        history=(stage,) if history else None,
        seen=image_keys(hashes).sort().values if history else None,
        source="test",
    )
    save_model(folder, model)
    return folder


@pytest.fixture(scope="session")
def network_that_saw():
    """Makes a network on disk from a folder and the hashes of the images it has seen."""
    return model_that_saw


@pytest.fixture(scope="session")
def network(tmp_path_factory, clothes):
    """Trained (so it says) on what the default cut leaves of the clothes."""
    hashes = np.array(clothes.manifest.hashes)[~held_out(clothes.manifest.hashes)]
    return model_that_saw(tmp_path_factory.mktemp("networks") / "small", list(hashes))


@pytest.fixture(autouse=True)
def one_thread():
    torch.set_num_threads(1)


def _stripes(count, classes, seed):
    """(count, 16, 16, 3) uint8 and labels: stripes whose direction and colour are the class, under a little noise."""
    draws = np.random.default_rng(seed)
    labels = np.arange(count) % classes
    wave = np.sin(np.arange(16) / 16 * 2 * np.pi * 2 + draws.uniform(0, 6, (count, 1)))
    across = np.where((labels % 2 == 0)[:, None, None], wave[:, None, :], wave[:, :, None])
    colours = np.random.default_rng(99).uniform(0.3, 1, (classes, 3))[labels]
    noise = draws.normal(0, 5, (count, 16, 16, 3))
    return (128 + 90 * across[..., None] * colours[:, None, None] + noise).clip(0, 255).astype(np.uint8), labels


@pytest.fixture(scope="session")
def stripes():
    """`stripes(count, classes, seed)`: a source of easy classes, in memory."""

    def make(count, classes=2, seed=0):
        pixels, labels = _stripes(count, classes, seed)
        source = open_source(pixels)
        names = tuple(f"class {index}" for index in range(classes))
        return replace(source, name="stripes", manifest=replace(source.manifest, labels=labels, class_names=names))

    return make


@pytest.fixture(scope="session")
def stripes_folder():
    """`stripes_folder(path, count, classes, seed)`: the same as PNG files, a sub-folder for each class."""
    from PIL import Image

    def make(path, count, classes=2, seed=0):
        for number, (pixels, label) in enumerate(zip(*_stripes(count, classes, seed), strict=True)):
            file = path / f"class {label}" / f"{number:04d}.png"
            file.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(file)
        return path

    return make


@pytest.fixture(scope="session")
def tiny():
    """Options of the smallest network."""
    return TINY


@pytest.fixture(scope="session")
def tokenizer_folder(stripes, tmp_path_factory):
    """A tokenizer of 4 x 4 tokens for 16 x 16 pixels, trained on stripes as `mood tokenizer` trains it."""
    settings = {"image_size": (16,), "grid": (4,), "codes": 8, "width": 4, "code_width": 8, "held_out": 0.0}
    run = {"epochs": 4, "batch_size": 16, "workers": 0, "measured": 0.2}
    output = tmp_path_factory.mktemp("tokenizers") / "stripes"
    return tokenizer(TokenizerConfig(data=("stripes",), output=output, **settings, **run), source=stripes(64)).output


@pytest.fixture(scope="session")
def golden():
    """Folder of the files in official formats."""
    return Path(__file__).parents[1] / "golden"


@pytest.fixture(scope="session")
def tiny_network(tmp_path_factory):
    """The smallest network with a head of two classes, untrained, on disk."""
    options = {**{key: int(value) for key, value in (pair.split("=") for pair in TINY)}, "num_classes": 2}
    folder = tmp_path_factory.mktemp("networks") / "tiny"
    save_model(folder, open_model("mood_vit_patch4_32", options=options, random_weights=True))
    return folder


@pytest.fixture(scope="session")
def kill_when():
    """`kill_when(reached, recipe, config)`: run a recipe in a process of its own, and kill -9 it when that is true."""
    # Forked from a process that has imported torch once.
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["torch", "timm", "mood.detector", "mood.training", "mood.recipes.fit"])
    # Now: it keeps the environment of its start, and with it the cache of all tests.
    multiprocessing.forkserver.ensure_running()

    def kill(reached, recipe, config):
        process = context.Process(target=recipe, args=(config,))
        process.start()
        while process.is_alive() and not reached():
            time.sleep(0.001)
        process.kill()
        process.join()
        assert process.exitcode == -signal.SIGKILL, "it ended before it was killed"

    return kill
