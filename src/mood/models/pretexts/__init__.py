"""Pretexts: how a network learns from images alone, one file each behind one small interface."""

import inspect
from collections.abc import Mapping
from typing import Any, TypeAlias

from torch import nn

from mood.core.errors import InputError
from mood.models.pretexts.beit import BeitPretext
from mood.models.pretexts.classification import Classification
from mood.models.pretexts.interface import Pretext, Views
from mood.models.pretexts.mae import MaskedAutoencoder
from mood.models.pretexts.moco_v3 import MocoV3
from mood.models.pretexts.scratch import Scratch
from mood.models.pretexts.simmim import SimMim
from mood.models.pretexts.supcon import SupCon

PRETEXTS: Mapping[str, type[Pretext]] = {
    "beit": BeitPretext,
    "mae": MaskedAutoencoder,
    "simmim": SimMim,
    "moco_v3": MocoV3,
    "supcon": SupCon,
    "classification": Classification,
    "scratch": Scratch,
}


Reconstructing: TypeAlias = MaskedAutoencoder | SimMim
"""Pretexts that predict pixels: `errors(images, draws)` says how far off they are, image by image."""


def make_pretext(name: str, encoder: nn.Module, settings: Mapping[str, Any]) -> Pretext:
    """A pretext around an encoder.

    Args:
        name: one of `PRETEXTS`.
        encoder: a timm network without a classifier; changed by some pretexts until `Pretext.release`.
        settings: keyword arguments of the pretext; those that are None are left to its defaults.

    Raises:
        InputError: a setting that this pretext does not have.
        ModelError: an encoder that the pretext cannot use, or settings that do not go together.
    """
    known = settings_of(name)
    given = {key: value for key, value in settings.items() if value is not None}
    for key in given:
        if key not in known:
            others = [other for other in PRETEXTS if key in settings_of(other)]
            raise InputError(
                f"{key} is a setting of pretext {', '.join(others)}; {name} has {', '.join(known) or 'none'}"
            )
    return PRETEXTS[name](encoder, **given)


def reconstructs(name: str) -> bool:
    """Whether the pretext of this name predicts pixels."""
    return name in PRETEXTS and issubclass(PRETEXTS[name], Reconstructing)


def settings_of(name: str) -> dict[str, Any]:
    """The settings of a pretext and their defaults."""
    parameters = inspect.signature(PRETEXTS[name]).parameters.values()
    return {item.name: item.default for item in parameters if item.kind is item.KEYWORD_ONLY}


__all__ = [
    "PRETEXTS",
    "BeitPretext",
    "Classification",
    "MaskedAutoencoder",
    "MocoV3",
    "Pretext",
    "Reconstructing",
    "Scratch",
    "SimMim",
    "SupCon",
    "Views",
    "make_pretext",
    "reconstructs",
    "settings_of",
]
