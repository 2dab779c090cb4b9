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
from mood.core.config import fields
from mood.core.decoding import as_seen
from mood.core.errors import DataError, InputError
from mood.core.features import Features
from mood.data import Source, Stream, held_out, join, scan, stream_shards
from mood.data.manifest import content_hash
from mood.models import Stage, image_keys
from mood.recipes.rejected import keep_rejections
from mood.training import Processes, Share, Strategy, check_strategy

METRICS = "metrics.jsonl"

# What stands for the bytes of every image that has none: an empty file is nobody's image, and in no set twice.
NOTHING = content_hash(b"")


@dataclass(frozen=True, slots=True)
class TrainingSet:
    """The images of one training stage after the cut.

    Attributes:
        source: the images that the stage sees; a `Stream` where they have no list in memory.
        keys: (n,) int64 keys of them, sorted (`mood.models.image_keys`).
        stages: one entry of history per set.
        measured: images beside them that the stage is measured on and does not learn from; None where there are none.
    """

    source: Source | Stream
    keys: Tensor
    stages: tuple[Stage, ...]
    measured: Source | None = None

    @property
    def class_names(self) -> tuple[str, ...]:
        """Of the labels; empty where there are none."""
        names = self.source.class_names if isinstance(self.source, Stream) else self.source.manifest.class_names
        return names or ()


def check_stream(data: Sequence[str], limit: int | None) -> None:
    """Refuse to stream what has no stream.

    Raises:
        InputError: a limit, which a stream does not know, or several sets.
    """
    if limit is not None:
        raise InputError("limit picks images from a list, and a stream has none: name fewer shards")
    if len(data) > 1:
        raise InputError(
            f"one glob of shards can be streamed, got {len(data)}: put them under one, or leave stream out"
        )


def open_stream(data: str, together: Processes, *, seed: int, fraction: float) -> Stream:
    """Shards that are streamed, each read once for its hashes by one of the processes.

    Raises:
        InputError: there are no such shards.
        DataError: one of them cannot be read.
    """
    paths = stream_shards(data)
    own = together.attempt(lambda: scan(paths[together.number :: together.count], seed=seed, fraction=fraction))
    parts = together.gather(own)
    scanned = [parts[index % together.count][index // together.count] for index in range(len(paths))]
    return Stream(data, paths, scanned)


def fingerprint_of(images: Source | Stream | Features) -> str:
    """What tells whether the images, or features of them, are the same."""
    if isinstance(images, Features):
        return images.fingerprint()
    return images.fingerprint if isinstance(images, Stream) else images.manifest.fingerprint


def training_set(
    sources: Sequence[Source | Stream],
    *,
    stage: str,
    labelled: bool,
    seed: int,
    fraction: float,
    settings: Mapping[str, Any],
    measured: float = 0.0,
) -> TrainingSet:
    """Leave out the images that the hash cut holds out, and write down what is seen.

    Args:
        sources: the sets.
        stage: its name in the history.
        labelled: whether it needs labels.
        seed: of the cut.
        fraction: of the images that the cut holds out.
        settings: for the history.
        measured: share of the others to measure on, by a second cut, so that figures that settings are chosen by
            tell nothing of the images that calibrate.

    Raises:
        InputError: labels are needed and a set has none.
    """
    kept: list[Source] = []
    apart: list[Source] = []
    stages = []
    for source in sources:
        names = source.class_names if isinstance(source, Stream) else source.manifest.class_names
        if labelled and names is None:
            raise InputError(f"{source.name} has no labels: {source.unlabelled}")
        part: Source | Stream = source
        if isinstance(source, Source):
            free = ~held_out(source.manifest.hashes, seed=seed, fraction=fraction)
            second = free & held_out(source.manifest.hashes, seed=seed + 1, fraction=measured)
            if second.any():
                apart.append(source.select(second))
            part = source.select(free & ~second)
            kept.append(part)
        stages.append(
            Stage(
                stage=stage,
                data=source.name,
                images=len(part),
                class_names=names or (),
                labelled=labelled,
                manifest=fingerprint_of(source),
                seed=seed,
                held_out=fraction,
                settings=dict(settings),
            )
        )
    if not kept:
        (stream,) = sources
        assert isinstance(stream, Stream)
        return TrainingSet(stream, torch.from_numpy(stream.keys.copy()), tuple(stages))
    joined = _as_one(kept)
    seen = [digest for digest in joined.manifest.hashes if digest != NOTHING]
    return TrainingSet(joined, image_keys(seen).unique(), tuple(stages), _as_one(apart) if apart else None)


def _as_one(sources: Sequence[Source]) -> Source:
    return sources[0] if len(sources) == 1 else join(sources)


def model_options(pairs: Sequence[str]) -> dict[str, Any]:
    """`("depth=8", "img_size=[32, 64]")` → arguments of an architecture; values are json, else text.

    Raises:
        InputError: a pair without "=".
    """
    options: dict[str, Any] = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        # An option of one of several scores has its name before it: knn.k=50.
        if not equals or not all(part.isidentifier() for part in key.split(".")):
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


def check_features(config: Any, *names: str) -> None:
    """Refuse settings of a network where features are brought, which have none.

    Args:
        config: of a command.
        names: of these settings; one that is as it would be without a word is none that was said.

    Raises:
        InputError: those that were said.
    """
    known = fields(type(config))
    said = [name for name in names if getattr(config, name) != known[name].default]
    if said:
        raise InputError(
            f"{', '.join(said)}: of a network, and features have none any more: leave it out, or bring the images"
        )


def check_given(**files: Path | None) -> None:
    """Refuse files that are not there, by the names of the settings that name them.

    Raises:
        InputError: one that does not exist.
    """
    for key, path in files.items():
        if path is not None and not path.exists():
            raise InputError(f"{key} is {path}, and there is nothing: check the path, or leave {key} out")


def check_training(strategy: Strategy, *, batch_size: int, accumulate: int, compile: bool) -> Share:
    """Refuse what the processes cannot do, and give what this one takes of each batch.

    Raises:
        InputError: a strategy without its processes, or a batch that cannot be cut into equal parts.
    """
    check_strategy(strategy, compile=compile)
    return Share.of_batch(batch_size, accumulate)


def check_batch_size(images: int, batch_size: int) -> None:
    """Refuse a batch that the images cannot fill.

    Raises:
        InputError: the batch size is above the number of images.
    """
    if batch_size > images:
        raise InputError(
            f"batch_size is {batch_size}, and {images} images are left to train on: set it to {images} or less, or "
            "bring more images"
        )


def check_readable(source: Source) -> None:
    """Refuse images of which none can be read; it looks no further than the first that can.

    Raises:
        DataError: not one of them can be read.
    """
    first = ""
    for position in range(len(source)):
        try:
            as_seen(source.read(position))
        except DataError as error:
            first = first or f"{source.manifest.ids[position]}: {error}"
        else:
            return
    raise DataError(f"not one image of {source.name} could be read; {first}")


def keep_records(scratch: Path, folder: Path) -> dict[str, float]:
    """Copy metrics and rejections of a training run to what it leaves, and give the newest value of each metric."""
    shutil.copyfile(scratch / METRICS, folder / METRICS)
    keep_rejections(scratch, folder)
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
