"""What the recipes share in reading their inputs: the images of a training stage, the cut, and what was seen."""

import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mood.core import artifact
from mood.core.errors import InputError
from mood.data import Source, held_out, join
from mood.data.manifest import content_hash
from mood.models import Stage, image_keys
from mood.recipes.rejected import REJECTIONS

METRICS = "metrics.jsonl"

# What stands for the bytes of every image that has none: an empty file is nobody's image, and in no set twice.
NOTHING = content_hash(b"")


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
    sources: Sequence[Source], *, stage: str, labelled: bool, seed: int, fraction: float, settings: Mapping[str, Any]
) -> TrainingSet:
    """Leave out the images that the hash cut holds out, and write down what is seen.

    Raises:
        InputError: labels are needed and a set has none.
    """
    kept, stages = [], []
    for source in sources:
        labels = source.manifest.labels
        if labelled and labels is None:
            raise InputError(f"{source.name} has no labels: put the images of each class into a folder of its own")
        part = source.select(~held_out(source.manifest.hashes, seed=seed, fraction=fraction))
        kept.append(part)
        stages.append(
            Stage(
                stage=stage,
                data=source.name,
                images=len(part),
                class_names=source.manifest.class_names or (),
                labelled=labelled,
                manifest=source.manifest.fingerprint,
                seed=seed,
                held_out=fraction,
                settings=dict(settings),
            )
        )
    source = kept[0] if len(kept) == 1 else join(kept)
    seen = [digest for digest in source.manifest.hashes if digest != NOTHING]
    return TrainingSet(source, image_keys(seen).unique(), tuple(stages))


def model_options(pairs: Sequence[str]) -> dict[str, Any]:
    """`("depth=8", "img_size=[32, 64]")` → arguments of an architecture; values are json, else text.

    Raises:
        InputError: a pair without "=".
    """
    options: dict[str, Any] = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not equals or not key.isidentifier():
            raise InputError(f"options are KEY=VALUE, such as k=50 or img_size=64; got {pair!r}")
        try:
            options[key] = json.loads(value)
        except json.JSONDecodeError:
            options[key] = value
    return options


def score_options(score: str, pairs: Sequence[str], combine: str = "mean") -> dict[str, Any]:
    """`("k=50", "shrinkage=oas")` → options of a score, with the rule where several are combined.

    Raises:
        InputError: a pair without "=".
    """
    return model_options(pairs) | ({"combine": combine} if "," in score else {})


def check_batch_size(images: int, batch_size: int) -> None:
    """Refuse a batch that the images cannot fill.

    Raises:
        InputError: the batch size is below 1, or above the number of images.
    """
    if batch_size < 1:
        raise InputError(f"batch_size is {batch_size}; it must be at least 1")
    if batch_size > images:
        raise InputError(
            f"batch_size is {batch_size}, and {images} images are left to train on: set it to {images} or less, or "
            "bring more images"
        )


def keep_records(scratch: Path, folder: Path) -> dict[str, float]:
    """Copy metrics and rejections of a training run to what it leaves, and give the newest value of each metric."""
    for name in (METRICS, REJECTIONS):
        if (scratch / name).exists():
            shutil.copyfile(scratch / name, folder / name)
    return last_metrics(folder)


def images_of_last_stage(folder: Path) -> int:
    """How many images the last stage of training of a saved network saw, over all its sets."""
    history = artifact.describe(folder)["meta"]["history"] or []
    return sum(stage["images"] for stage in history if stage["stage"] == history[-1]["stage"])


def last_metrics(folder: Path) -> dict[str, float]:
    """The newest value of every metric that a training run wrote."""
    values: dict[str, float] = {}
    for line in (folder / METRICS).read_text().splitlines():
        values |= json.loads(line)
    return values


def union(*keys: Tensor) -> Tensor:
    """Sorted union of image keys."""
    merged: Tensor = torch.cat(keys).unique()
    return merged
