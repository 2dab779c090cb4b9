"""Which images are not new to a detector, to its network's weights, or beside another set: figures of them say less."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from mood.core.errors import DataError

if TYPE_CHECKING:
    from mood.core.features import Features
    from mood.data import Source
    from mood.detector import Detector
    from mood.models import Model


def familiar(model: "Model | None", source: "Source | None") -> str:
    """Why a network's weights are not new to a set; empty where they are, or where nobody knows."""
    if model is None or source is None or model.history is None or model.seen is None:
        return ""
    count = int(model.seen_among(source.manifest.hashes).sum())
    if count:
        return f"{count} of these images were trained on"
    base, names = source.name.split(":")[0], set(source.manifest.class_names or ())
    stages = [
        stage
        for stage in model.history
        # Another part of the same set is as familiar as the part that was trained on, unless its classes were left out.
        if stage.data.split(":")[0] == base and (not names or not stage.class_names or names & set(stage.class_names))
    ]
    return "; ".join(f"{stage.stage} on {stage.data}" for stage in stages)


def not_new(detector: "Detector", data: "Source | Features", *, start: int = 0) -> str:
    """How many images trained the network, fitted the score or calibrated it, in a sentence; empty where none did.

    Images are known again by their bytes, features by their embeddings: a detector on images knows nothing of features
    that somebody made of them, nor does it say anything of stages whose images nobody wrote down.

    Args:
        detector: that judges them.
        data: images or features.
        start: position of the first one that counts.
    """
    from mood.core.features import Features

    met = {stage: mask[start:] for stage, mask in _met(detector, data).items()}
    if not (parts := _parts(met)):
        return ""
    count = int(np.logical_or.reduce(list(met.values())).sum())
    what = "rows" if isinstance(data, Features) else "images"
    return (
        f"{count} of the {len(data) - start} {what} are not new to the detector ({parts}): their scores and p-values "
        f"are not those of new {what}"
    )


def only_new(detector: "Detector", known: "Source | Features") -> "tuple[Source | Features, str]":
    """The known images of which `not_new` does not speak, and a sentence on the others; empty where there are none.

    A detector finds what it was made of more ordinary than other known images: with them every figure is too good.

    Raises:
        DataError: not one of the images is new.
    """
    from mood.core.features import Features

    met = _met(detector, known)
    if not (parts := _parts(met)):
        return known, ""
    new = ~np.logical_or.reduce(list(met.values()))
    what = "rows" if isinstance(known, Features) else "images"
    if not new.any():
        raise DataError(
            f"not one of the {len(new)} known {what} is new to the detector ({parts}), and figures of those that it "
            f"was made of say nothing of others: give known {what} that were held out"
        )
    left, count = known[new] if isinstance(known, Features) else known.select(new), int((~new).sum())
    return left, f"{count} of the {len(new)} {what} are left out: they are not new to the detector ({parts})"


def _parts(met: "Mapping[str, np.ndarray]") -> str:
    """How many images each stage has seen."""
    return ", ".join(f"{int(mask.sum())} {stage}" for stage, mask in met.items() if mask.any())


def _met(detector: "Detector", data: "Source | Features") -> "dict[str, np.ndarray]":
    """(N,) bool for each stage whose images, or rows, are known: whether it has seen them."""
    from mood.core.features import Features
    from mood.models import image_keys
    from mood.recipes.inputs import NOTHING

    model = None if detector.embedder is None else detector.embedder.model
    if isinstance(data, Features) == (model is not None):
        return {}
    hashes = _digests(data)
    keys = image_keys(hashes).numpy()
    something = np.array([digest != NOTHING for digest in hashes], bool)
    stages = {
        "trained its network": None if model is None else model.seen,
        "fitted its score": detector.fitted_on,
        "calibrated it": detector.calibrated_on,
    }
    return {stage: something & np.isin(keys, known.numpy()) for stage, known in stages.items() if known is not None}


@dataclass(frozen=True, slots=True)
class Shared:
    """What a set shares with others.

    Attributes:
        count: of its images that are among those of the others.
        all: whether it holds nothing else: these are all that are not empty, and there are some.
    """

    count: int
    all: bool


def shared_images(one: "Source | Features", others: "Sequence[Source | Features]") -> Shared:
    """Which images of a set are among those of others.

    Images are the same byte for byte, features where their embeddings are; an image and features share nothing. A file
    with nothing in it is nobody's.
    """
    from mood.recipes.inputs import NOTHING

    known = {digest for other in others for digest in _digests(other)} - {NOTHING}
    own = [digest for digest in _digests(one) if digest != NOTHING]
    count = sum(digest in known for digest in own)
    return Shared(count, 0 < count == len(own))


def without_known(
    known: "Source | Features", unknown: "Mapping[str, Source | Features]"
) -> "tuple[dict[str, Source | Features], tuple[str, ...]]":
    """The sets of an evaluation that are not the known one, and sentences on those that share images with it.

    Args:
        known: the images that the others are to be told from.
        unknown: OOD sets by name.

    Raises:
        DataError: there are some, and all of them are nothing but known images.
    """
    from mood.core.features import Features

    kept, told = {}, []
    for name, data in unknown.items():
        rows = isinstance(data, Features)
        what, same = ("rows", "are rows of the known set") if rows else ("images", "are, byte for byte, known images")
        shared = shared_images(data, [known])
        if shared.all:
            told.append(f"{name} is left out: all of its {shared.count} {what} {same}")
            continue
        kept[name] = data
        if shared.count:
            told.append(
                f"{name}: {shared.count} of the {len(data)} {what} {same}; they are counted as OOD all the same"
            )
    if unknown and not kept:
        raise DataError(f"there is nothing to tell the known images from: {'; '.join(told)}. Name sets of other images")
    return kept, tuple(told)


def _digests(data: "Source | Features") -> "Sequence[str]":
    """What an image, or a row, is known again by."""
    from mood.core.features import Features

    return data.hashes() if isinstance(data, Features) else data.manifest.hashes


def notes(detector: "Detector", unknown: "Mapping[str, Source | Features]") -> tuple[str, ...]:
    """A word on every OOD set that is not new to the detector, or of whose kind the weights have seen.

    Args:
        detector: that is measured.
        unknown: OOD sets by name.
    """
    from mood.data import Source

    model = None if detector.embedder is None else detector.embedder.model
    told = {}
    for name, data in unknown.items():
        told[name] = not_new(detector, data)
        if not told[name] and isinstance(data, Source):
            told[name] = familiar(model, data)
    return tuple(f"{name}: {said}" for name, said in told.items() if said)
