"""From the scores of images that nothing has seen to a promise: what `mood fit` and `mood calibrate` share."""

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from mood.core.errors import InputError, PromiseError

if TYPE_CHECKING:
    from torch import Tensor

    from mood.core.features import Features
    from mood.data import Source
    from mood.decisions import Calibration, Usual
    from mood.detector import Promise
    from mood.models import Model
    from mood.recipes.settings import PromiseConfig
    from mood.scores import Score


def check_settings(settings: "PromiseConfig", alpha: float, count: int) -> None:
    """Refuse before anything costs time what cannot be promised with so many images.

    Raises:
        InputError: settings that exclude each other, or one out of its range.
        PromiseError: too few images for alpha.
    """
    from mood.decisions import Conditional, check_alpha

    if settings.guarantee == "marginal":
        check_alpha(alpha, count)
        return
    if settings.conformal == "by-class":
        raise InputError(
            "a conditional guarantee for each class is not offered: classes with few images share one calibration, "
            "and what is proven for it is an average. Take --guarantee marginal, or --conformal split"
        )
    if settings.conformal == "cross":
        raise InputError(
            "a conditional guarantee needs images that are held out: the folds of --conformal cross share theirs, and "
            "nothing is proven for one such set. Take --guarantee marginal, or --conformal split"
        )
    check_alpha(alpha, count)
    numbers = np.arange(count, dtype=np.float64)
    Conditional(numbers, confidence=settings.confidence, bound=settings.bound).check(alpha)


def calibrated(
    settings: "PromiseConfig", alpha: float, score: "Score", shards: "Iterable[Features]"
) -> "tuple[Calibration, Usual]":
    """Score held-out images, and make of the scores what the settings ask for; and say where their embeddings lie.

    Raises:
        InputError: a score is not finite, or predicted classes are wanted and there are no logits.
        PromiseError: too few images for alpha.
    """
    from mood.decisions import Conditional, Conformal, Mondrian, Usual
    from mood.detector import predicted_classes

    values: list[np.ndarray] = []
    classes: list[np.ndarray] = []

    def embeddings() -> Iterator[np.ndarray]:
        for shard in shards:
            values.append(score(shard).numpy())
            if settings.conformal == "by-class":
                classes.append(predicted_classes(shard))
            yield shard.embedding.numpy()

    # One pass for both: of some scores it is a pass through the network.
    usual = Usual.of(embeddings())
    held = np.concatenate(values)
    made: Calibration
    if settings.conformal == "by-class":
        made = Mondrian(held, np.concatenate(classes), alpha=alpha, ties=settings.ties)
    elif settings.guarantee == "conditional":
        made = Conditional(held, confidence=settings.confidence, bound=settings.bound, ties=settings.ties)
    else:
        made = Conformal(held, ties=settings.ties)
    made.check(alpha)
    return made, usual


def promise_of_cut(model: "Model", calibration: Sequence[str]) -> "Promise":
    """Of images that the hash cut holds out of DATA.

    Raises:
        PromiseError: the network was trained on one of them.
    """
    from mood.detector import Promise

    if model.seen is None:
        return Promise(
            False,
            f"what {model.name} was trained on is not known; if these images were among it, more than alpha of new "
            "images will be flagged. Give images that it has not seen as `calibration`",
        )
    seen = int(model.seen_among(calibration).sum())
    if seen:
        stage = next((s for s in reversed(model.history or ()) if s.images), None)
        cut = f" (it was trained with seed {stage.seed} and held_out {stage.held_out:g})" if stage else ""
        raise PromiseError(
            f"{seen} of the {len(calibration)} calibration images were seen in the training of {model.name}{cut}: "
            f"their scores are too low, and new images would be flagged too often. Use the cut of its training, or "
            "give other images as `calibration`"
        )
    return Promise(True, f"none of the calibration images was seen by any stage of {model.name}")


def promise_of_set(other: "Source", fitted_on: "Tensor", fitted_name: str, model: "Model") -> "Promise":
    """Of images that were given for calibration alone.

    Args:
        other: these images.
        fitted_on: (n,) int64 keys of the images that the score is fitted on.
        fitted_name: what to call those.
        model: the network.

    Raises:
        PromiseError: the score is fitted on one of them, or the network was trained on one.
    """
    from mood.detector import Promise
    from mood.models import image_keys
    from mood.recipes.inputs import NOTHING

    keys = image_keys([digest for digest in other.manifest.hashes if digest != NOTHING]).numpy()
    shared = len(np.intersect1d(keys, fitted_on.numpy()))
    if shared:
        raise PromiseError(
            f"{shared} calibration images are among the {len(fitted_on)} images of {fitted_name} that the score is "
            "fitted on: calibrate on images that nothing else uses"
        )
    if model.seen is None:
        return Promise(True, f"the calibration images {other.name} were given as unseen by {model.name}")
    seen = int(model.seen_among(other.manifest.hashes).sum())
    if seen:
        raise PromiseError(f"{seen} calibration images of {other.name} were seen in the training of {model.name}")
    return Promise(True, f"none of the calibration images {other.name} was seen by any stage of {model.name}")


def promise_of_folds(model: "Model", hashes: Sequence[str]) -> "Promise":
    """Of images that fit and calibrate by turns.

    Raises:
        PromiseError: the network was trained on one of them.
    """
    from mood.detector import Promise

    if model.seen is None:
        return Promise(
            False,
            f"what {model.name} was trained on is not known; folds keep images out of the score's fit, not out of the "
            "network's training",
        )
    seen = int(model.seen_among(hashes).sum())
    if seen:
        raise PromiseError(
            f"{seen} of the {len(hashes)} images were seen in the training of {model.name}: folds keep an image out of "
            "the score's fit, not out of the network, and no fold can make it new. Use --conformal split with images "
            "that were held out, or a network that has not seen these"
        )
    return Promise(True, f"none of the images was seen by any stage of {model.name}, and none by its own fold's fit")


def promise_of_features(fitted_on: "Tensor | None", digests: Sequence[str]) -> "Promise":
    """Of features, which say nothing about the images that their network was trained on.

    Args:
        fitted_on: keys of the rows that the score is fitted on; None where they are not known.
        digests: of the calibration rows.

    Raises:
        PromiseError: a row is used twice.
    """
    from mood.detector import Promise
    from mood.models import image_keys

    if fitted_on is not None:
        shared = int(np.isin(image_keys(digests).numpy(), fitted_on.numpy()).sum())
        if shared:
            raise PromiseError(
                f"{shared} calibration rows are among the {len(fitted_on)} that the score is fitted on: calibrate on "
                "images that nothing else uses"
            )
    return Promise(False, "features say nothing about the images that their network was trained on")


def written(settings: "PromiseConfig") -> dict[str, Any]:
    """The settings of a calibration, for the card of a detector."""
    conditional = settings.guarantee == "conditional"
    return {
        "conformal": settings.conformal,
        "guarantee": settings.guarantee,
        "confidence": settings.confidence if conditional else None,
        "bound": settings.bound if conditional else None,
        "ties": settings.ties,
    }
