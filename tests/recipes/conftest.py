"""A small network and a few real photographs for the recipes to work on."""

import numpy as np
import pytest
import torch

from mood.data import held_out, open_source
from mood.models import Architecture, Model, image_keys, open_model, save_model
from mood.models.model import Stage

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
