"""What the recipes share in reading their inputs: the images of a training stage, the cut, and what was seen."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import timm
import torch
from torch import Tensor, nn

from mood.core.errors import InputError
from mood.core.transform import Transform
from mood.data import Source, held_out, join, open_source
from mood.models import Stage, image_keys


@dataclass(frozen=True, slots=True)
class TrainingSet:
    """The images of one training stage after the cut.

    Attributes:
        source: the images that the stage sees.
        keys: (n,) int64 keys of them, sorted (`mood.models.image_keys`).
        stages: one entry of history per set.
    """

    source: Source
    keys: Tensor
    stages: tuple[Stage, ...]


def training_set(
    data: Sequence[str],
    *,
    stage: str,
    labelled: bool,
    roots: Sequence[str],
    limit: int | None,
    classes: Sequence[str] | None,
    seed: int,
    fraction: float,
    settings: Mapping[str, Any],
) -> TrainingSet:
    """Open sets, leave out the images that the hash cut holds out, and write down what is seen.

    Raises:
        InputError: labels are needed and a set has none, or several labelled sets would mix their classes.
        DataError: a set cannot be found.
    """
    if labelled and len(data) > 1:
        raise InputError("labelled training takes one set: the classes of several would be mixed")
    kept, stages = [], []
    for name in data:
        source = open_source(name, roots=roots, classes=classes, limit=limit)
        labels = source.manifest.labels
        if labelled and labels is None:
            raise InputError(f"{name} has no labels: put the images of each class into a folder of its own")
        part = source.select(~held_out(source.manifest.hashes, seed=seed, fraction=fraction))
        kept.append(part)
        stages.append(
            Stage(
                stage=stage,
                data=source.name,
                images=len(part),
                classes=len(np.unique(labels)) if labelled and labels is not None else 0,
                manifest=source.manifest.fingerprint,
                seed=seed,
                held_out=fraction,
                settings=dict(settings),
            )
        )
    source = join(kept) if len(kept) > 1 else kept[0]
    keys = image_keys(source.manifest.hashes).unique()
    return TrainingSet(source, keys, tuple(stages))


def model_options(pairs: Sequence[str]) -> dict[str, Any]:
    """`("depth=8", "img_size=[32, 64]")` → arguments of an architecture; values are json, else text.

    Raises:
        InputError: a pair without "=".
    """
    options: dict[str, Any] = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not equals or not key.isidentifier():
            raise InputError(f"model options are KEY=VALUE, got {pair!r}")
        try:
            options[key] = json.loads(value)
        except json.JSONDecodeError:
            options[key] = value
    return options


def transform_of(module: nn.Module) -> Transform:
    """The input transform that a timm network's own settings ask for, at the size it was built for."""
    settings = dict(timm.data.resolve_model_data_config(module))
    size = getattr(getattr(module, "patch_embed", None), "img_size", None)
    if size is not None:
        settings["input_size"] = (3, *size)
    return Transform.from_pretrained_cfg(settings)


def last_metrics(folder: Path) -> dict[str, float]:
    """The newest value of every metric that a training run wrote."""
    values: dict[str, float] = {}
    for line in (folder / "metrics.jsonl").read_text().splitlines():
        values |= json.loads(line)
    return values


def union(*keys: Tensor) -> Tensor:
    """Sorted union of image keys."""
    return torch.cat(keys).unique()
