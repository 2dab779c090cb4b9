"""Does a classifier name the images that it is given better than chance? Weights that were misread do not."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from mood.core.errors import InputError, ModelError
from mood.recipes.outputs import comparing, instead, outputs_of

if TYPE_CHECKING:
    from mood.core.features import Features, Head
    from mood.models import Model

# Rows that a head is tried on, and how far its logits may be from those that came with them, relative to their size:
# an embedding that was rounded to bf16 is ten times nearer.
_TRIED, _ROUNDED = 1000, 0.02

# Standard deviations above chance below which a foreign classifier is refused: one in a hundred by luck alone.
_LEAST = 2.326


@dataclass(frozen=True, slots=True)
class Recognition:
    """How often a classifier is right, and how often it would be if its answers had nothing to do with the images.

    Attributes:
        images: that it was asked about.
        right: of them.
        chance: how many would be right if the same answers were dealt out at random.
        spread: standard deviation of that number.
    """

    images: int
    right: int
    chance: float
    spread: float

    @property
    def beats_chance(self) -> bool:
        """Whether luck explains it in fewer than one case in a hundred."""
        return self.right - self.chance > _LEAST * self.spread

    def __str__(self) -> str:
        return f"{self.right / self.images:.1%} of {self.images} images (by chance: {self.chance / self.images:.1%})"


def recognition(confusion: np.ndarray) -> Recognition:
    """From how often each answer met each class.

    Chance is a random pairing of the same answers with the same images, whose mean and variance are known in closed
    form (Hoeffding, 1951). So neither a common class nor an answer that is always given counts as knowledge.

    Args:
        confusion: (C + 1, C) counts; rows are answers, the last one any output that is none of the classes.
    """
    n = int(confusion.sum())
    answers, classes = confusion[:-1].sum(axis=1).astype(float), confusion.sum(axis=0).astype(float)
    met = float(answers @ classes)
    spread = met - (answers @ classes**2 + answers**2 @ classes) / n + met**2 / n**2
    return Recognition(n, int(np.trace(confusion)), met / n, float(np.sqrt(max(spread, 0.0) / max(n - 1, 1))))


def checked(
    model: "Model",
    rows: "Iterable[Features]",
    classes: Sequence[str],
    *,
    reads_outputs: bool,
    other_classes: bool,
    compared: Sequence[str],
) -> str | None:
    """What is to be said of the classifier of a network, in a sentence; None where there is nothing.

    A foreign network, or a module of the user's own, that is at chance on the classes of its own head was misread, and
    is refused. One that mood trained cannot be misread, since its folder is checked by its hashes: of that one it is
    said. But where a score compares labels with outputs that have no names, these are taken in the order of the
    classes, and chance says that they are not.

    Args:
        model: the network.
        rows: features of known images.
        classes: names of the labels of these images; none where they have no labels.
        reads_outputs: whether the score looks at the outputs.
        other_classes: the user says that the outputs are other classes than these.
        compared: parts of the score that compare labels with outputs.

    Raises:
        ModelError: a foreign classifier that does not beat chance, or nameless outputs that do not and are compared.
    """
    classifier = model.classifier()
    if classifier is None or model.history == ():
        return None
    foreign = model.history is None and not model.class_names
    reads = "; the score looks at these outputs, so it sees only how much an image is like one of theirs"
    outputs = None
    confusion = np.zeros((len(classes) + 1, len(classes)), dtype=np.int64)
    if len(classes) > 1 and not other_classes:
        for part in rows:
            if part.logits is None or part.labels is None:
                return None
            count = part.logits.shape[1]
            outputs = outputs_of(model, classes, count)
            if outputs is None:
                break
            class_of = torch.full((count,), len(classes))
            class_of[torch.tensor(outputs)] = torch.arange(len(classes))
            answers = class_of[part.logits.argmax(dim=1)].numpy()
            np.add.at(confusion, (answers, part.labels.numpy()), 1)
    if outputs is None or not confusion.sum():
        if not (foreign and reads_outputs):
            return None
        return f"its classifier could not be checked: its outputs are not the classes of these images{reads}"
    found = recognition(confusion)
    if found.beats_chance:
        return f"its classifier names {found} rightly"
    if foreign:
        raise ModelError(
            f"{model.name} ({model.source}) names {found} rightly: its weights or its input transform were not read as "
            "they were meant, or its outputs stand in another order than these classes. If its outputs are other "
            "classes than those of the images, say so with --other-classes (other_classes=True)"
        )
    if compared and not model.class_names:
        raise ModelError(
            f"{model.name} names {found} rightly: its outputs have no names, and in their order they are not these "
            f"classes. {comparing(compared)} labels with outputs: {instead(compared)}"
        )
    return f"CAUTION: its classifier is at chance, it names {found} rightly"


def check_head(rows: "Features", head: "Head", *, reads_logits: bool) -> None:
    """Refuse a head that is not of the network that features come from.

    Args:
        rows: features.
        head: what is said to give their logits.
        reads_logits: whether the score wants these too.

    Raises:
        InputError: it reads another width or gives another number of logits, or others than the features have; or the
            score wants logits and the features have none.
    """
    outputs, width = head.weight.shape
    if width != rows.embedding.shape[1]:
        raise InputError(
            f"head reads {width} values, and these embeddings have {rows.embedding.shape[1]}: its weight is (K, D), "
            "one row for each class, of the layer that reads these embeddings"
        )
    if rows.logits is None:
        if reads_logits:
            raise InputError(
                "the score reads logits, and these features have none: the head makes them, Features(embedding, "
                "logits=embedding @ head.weight.T + head.bias), for the fit and for whatever is scored"
            )
        return
    if rows.logits.shape[1] != outputs:
        raise InputError(f"head gives {outputs} logits, and these features have {rows.logits.shape[1]}")
    some = rows[:_TRIED]
    assert some.logits is not None
    made = some.embedding.double() @ head.weight.double().T + head.bias.double()
    off, size = (made - some.logits.double()).norm(), some.logits.double().norm()
    if off > _ROUNDED * size:
        raise InputError(
            f"head makes other logits of these embeddings than the features have (they differ by {off / size:.0%} of "
            "their size): it belongs to another layer or network, or the logits were changed since"
        )


def check_rows(rows: "Features", compared: Sequence[str]) -> None:
    """Refuse features whose labels are not indices of their logits, for a score that compares the two.

    Args:
        rows: features of known images; their classes have no names.
        compared: parts of the score that compare labels with logits.

    Raises:
        InputError: the logits name the rows no better than chance.
    """
    if not compared or rows.logits is None or rows.labels is None:
        return
    classes, labels = rows.labels.unique(return_inverse=True)
    # Of one class alone nobody can say what chance would name.
    if len(classes) < 2:
        return
    answers = rows.logits.argmax(dim=1)
    place = torch.searchsorted(classes, answers).clamp(max=len(classes) - 1)
    place[classes[place] != answers] = len(classes)
    confusion = np.zeros((len(classes) + 1, len(classes)), dtype=np.int64)
    np.add.at(confusion, (place.numpy(), labels.numpy()), 1)
    found = recognition(confusion)
    if not found.beats_chance:
        raise InputError(
            f"{comparing(compared)} labels with logits, label k with logit k, and these logits name {found} rightly: "
            f"the labels are other classes than the logits. Number the classes as the head does, or "
            f"{instead(compared, features=True)}"
        )
