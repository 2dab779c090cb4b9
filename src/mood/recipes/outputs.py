"""Which output of a network each class of the images is, for scores that compare labels with outputs in their fit."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from mood import scores
from mood.core.errors import InputError
from mood.core.features import Features

if TYPE_CHECKING:
    from mood.models import Model

SHOWN = 5
"""Names of classes in a message; of more, the others are counted."""


def compared_outputs(
    score: str, options: Mapping[str, Any], model: "Model", classes: Sequence[str], *, other_classes: bool
) -> Tensor | None:
    """(C,) int64, the output of the head for each class of the images; None where the score compares nothing.

    Args:
        score: its name.
        options: of it.
        model: the network.
        classes: C names, in the order of the labels.
        other_classes: the user says that the outputs are other classes than these.

    Raises:
        InputError: the head has no output for one of the classes, or nobody knows which it is.
    """
    parts = scores.compares(score, **options)
    if not parts:
        return None
    head = model.head()
    count = getattr(model.module, "num_classes", 0) if head is None else len(head.weight)
    outputs = None if other_classes else outputs_of(model, classes, count)
    if outputs is not None:
        return torch.tensor(outputs)
    known = {*model.class_names}
    theirs = f"{_named(classes)} are the images'"
    if other_classes:
        theirs = "other_classes says that the images are of others"
    elif known & {*classes}:
        theirs = f"{_named([name for name in classes if name not in known])} of the images are not among them"
    raise InputError(
        f"{comparing(parts)} labels with outputs. Those of {model.name} are {_named(model.class_names, count)}, and "
        f"{theirs}: {instead(parts)}"
    )


def comparing(parts: Sequence[str]) -> str:
    """The beginning of a sentence on parts of a score that compare labels with outputs."""
    return f"{' and '.join(parts)} {'compares' if len(parts) == 1 else 'compare'}"


def instead(parts: Sequence[str], *, features: bool = False) -> str:
    """What to do where labels are other classes than the outputs that these parts of a score compare them with."""
    # Only its temperature makes a score that needs no fit compare anything.
    fitted = [part for part in parts if not scores.info(part).fitted]
    number = f", give a number as temperature of {' and '.join(fitted)}" if fitted else ""
    train = "" if features else ", or train the network on these classes (mood finetune)"
    return f"choose a score that does not need both (mood scores){number}{train}"


def _named(names: Sequence[str], count: int = 0) -> str:
    count = len(names) or count
    more = [f"and {len(names) - SHOWN} more"] if len(names) > SHOWN else []
    shown = ", ".join([*names[:SHOWN], *more]) or "without names"
    return f"{count} {'class' if count == 1 else 'classes'} ({shown})"


def as_outputs(rows: Features | Iterable[Features], outputs: Tensor | None) -> Features | Iterable[Features]:
    """The same features, each labelled with the output of its class.

    Args:
        rows: with the labels of the images, whole or in shards.
        outputs: (C,) int64, see `compared_outputs`; None leaves the labels as they are.
    """
    if outputs is None:
        return rows
    return _relabelled(rows, outputs) if isinstance(rows, Features) else AsOutputs(rows, outputs)


@dataclass(frozen=True, slots=True)
class AsOutputs:
    """Shards whose labels are outputs of the head, again at each iteration."""

    shards: Iterable[Features]
    outputs: Tensor

    def __iter__(self) -> Iterator[Features]:
        return (_relabelled(part, self.outputs) for part in self.shards)


def _relabelled(features: Features, outputs: Tensor) -> Features:
    return Features(
        features.embedding,
        ids=features.ids,
        logits=features.logits,
        labels=outputs[features.need("labels")],
        layers=features.layers,
        reconstruction=features.reconstruction,
        tokens=features.tokens,
    )


def outputs_of(model: "Model", classes: Sequence[str], count: int) -> list[int] | None:
    """The output of the head for each class; None where nobody knows.

    By the names that the network carries; of a foreign one, by ImageNet's, where the classes are WordNet ids; else in
    order, where there are as many outputs as classes.
    """
    names = model.class_names
    if not names and count != len(classes):
        names = _wordnet_ids(count)
    if names:
        place = {name: index for index, name in enumerate(names)}
        return [place[name] for name in classes] if place.keys() >= set(classes) else None
    return list(range(count)) if count == len(classes) else None


def _wordnet_ids(count: int) -> tuple[str, ...]:
    """Of the outputs of a classifier of ImageNet, told by how many they are."""
    from timm.data import ImageNetInfo

    subset = {1000: "imagenet-1k", 11821: "imagenet-12k", 21841: "imagenet-22k", 21843: "imagenet-21k-goog"}.get(count)
    return () if subset is None else tuple(ImageNetInfo(subset).label_names())
