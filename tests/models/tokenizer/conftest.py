"""The encoder of DALL-E in the forms in which it is published."""

import sys
import types
import warnings
from pathlib import Path

import pytest
import torch
from torch import nn

from mood.models import open_tokenizer
from mood.models.tokenizer.blocks import Block, Conv2d, Encoder

GOLDEN = Path(__file__).parents[2] / "golden"


def as_published(encoder, path, *, zipped=True):
    """Pickle a module whose classes have the names of OpenAI's release; they are gone when it is read."""
    names = {
        Encoder: ("dall_e.encoder", "Encoder"),
        Block: ("dall_e.encoder", "EncoderBlock"),
        Conv2d: ("dall_e.utils", "Conv2d"),
    }
    classes = {
        own: type(name, (nn.Module,), {"__module__": module, "__qualname__": name})
        for own, (module, name) in names.items()
    }
    with pytest.MonkeyPatch.context() as patch:
        for module in ("dall_e", "dall_e.encoder", "dall_e.utils"):
            patch.setitem(sys.modules, module, types.ModuleType(module))
        for cls in classes.values():
            setattr(sys.modules[cls.__module__], cls.__name__, cls)
        for child in list(encoder.modules()):
            child.__class__ = classes.get(type(child), type(child))
        encoder.device = torch.device("cpu")
        with warnings.catch_warnings():
            # The older format keeps the source of classes, and these have none.
            warnings.simplefilter("ignore", UserWarning)
            torch.save(encoder, path, _use_new_zipfile_serialization=zipped)
    return path


@pytest.fixture
def published(tmp_path):
    """`published(name)`: the golden encoder as a pickled module, in the present format or in that of 2020."""

    def make(zipped):
        encoder = open_tokenizer(GOLDEN / "dalle_encoder.pth").encoder
        return as_published(encoder, tmp_path / "encoder.pkl", zipped=zipped)

    return make
