"""From features to a detector: fit a score, calibrate it on rows that the fit has not seen, and write down how."""

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from mood.core.config import fields, to_dict
from mood.core.errors import InputError
from mood.recipes.inputs import score_options
from mood.recipes.settings import MasksConfig

if TYPE_CHECKING:
    from torch import Tensor

    from mood.core.feature_store import FeatureStore
    from mood.core.features import Features, Head
    from mood.data import Source
    from mood.decisions import Calibration, Usual
    from mood.detector import Detector, LiveFeatures, Promise
    from mood.models import Embedder, Model
    from mood.recipes.fit import FitConfig
    from mood.scores import Score


def check_score(
    config: "FitConfig", data: "Source | Features", embedder: "Embedder | None", head: "Head | None" = None
) -> None:
    """Refuse before an image passes the network what would be refused after the last one.

    Args:
        config: of the fit.
        data: the images, or the features that were brought.
        embedder: the network; None beside features.
        head: of the network that features come from.

    Raises:
        InputError: an option that the score does not have or that is out of range; no head, logits or labels where it
            reads them; for cross, calibration images beside, a score that looks at the images themselves, or folds out
            of range.
        MissingExtraError: the score is fitted by a package that is not installed.
    """
    from mood import scores
    from mood.decisions import deal
    from mood.detector import View

    options = score_options(config.score, config.options, config.combine)
    needs = scores.info(config.score).needs
    if config.inner != "auto" and not {"layers", "tokens"} & {*needs}:
        raise InputError(f"inner is {config.inner!r}, and {config.score} looks at no inner layer: leave inner out")
    for name, usual in fields(MasksConfig).items():
        value = getattr(config, name)
        if value != usual.default and "reconstruction" not in needs:
            raise InputError(f"{name} is {value}, and {config.score} looks at no masked image: leave {name} out")
    scores.rounds(config.score, head if embedder is None else embedder.head, **options)
    if embedder is not None:
        _check_columns(config, cast("Source", data), embedder.model)
    if config.conformal != "cross":
        return
    if config.calibration is not None:
        raise InputError("with --conformal cross every image calibrates: leave calibration out, or take split")
    moves = {**scores.info(config.score).options, **options}.get("epsilon", 0) > 0
    if embedder is not None and (moves or View(embedder, config.score).live):
        raise InputError(f"{config.score} looks at the images themselves, once for each fold: take --conformal split")
    deal(len(data), config.folds)


def _check_columns(config: "FitConfig", source: "Source", model: "Model") -> None:
    from mood import scores

    needs = scores.info(config.score).needs
    reads = {**dict.fromkeys(needs, config.score), **({"logits": "by-class"} if config.conformal == "by-class" else {})}
    options = score_options(config.score, config.options, config.combine)
    if compared := scores.compares(config.score, **options):
        reads["labels"] = " and ".join(compared)
    if "logits" in reads and model.classifier() is None:
        raise InputError(
            f"{reads['logits']} reads logits, and {model.name} has no head that gives any: take a network that has "
            "one, or train it (mood finetune)"
        )
    if "labels" in reads and source.manifest.labels is None:
        raise InputError(
            f"{reads['labels']} reads labels, and {source.name} has none: {source.unlabelled}; or choose a score that "
            "needs none (mood scores)"
        )


def build(
    config: "FitConfig",
    rows: "Features | FeatureStore | LiveFeatures",
    ids: Sequence[str],
    calibration: "Callable[[Score], Iterable[Features]]",
    head: "Head | None",
    embedder: "Embedder | None",
    promise: "Promise",
    card: Mapping[str, Any],
    outputs: "Tensor | None" = None,
) -> "Detector":
    """Fit on some rows and calibrate on others.

    Args:
        config: of the fit.
        rows: what is fitted on.
        ids: of the images that they are of.
        calibration: the other rows, as the fitted score wants to see them.
        head: the linear head of the network.
        embedder: the network; None where features were brought.
        promise: whether the rate is promised.
        card: what is known of images and network.
        outputs: the output of the head for each class, where the score compares labels with outputs.

    Raises:
        InputError: no rows, or what the score or the calibration refuses.
        PromiseError: too few rows for alpha.
    """
    from mood import scores
    from mood.detector import LiveFeatures
    from mood.recipes.calibrating import calibrated
    from mood.recipes.few import few_images
    from mood.recipes.outputs import as_outputs

    if not ids:
        raise InputError(f"nothing is left to fit on: held_out is {config.held_out:g}; lower it, or bring more images")
    options = score_options(config.score, config.options, config.combine)
    score = scores.fit(config.score, as_outputs(rows, outputs), head=head, **options)
    held, usual = calibrated(config, config.alpha, score, calibration(score))
    few = None
    # Images that a score moves would have to pass through the network once more.
    if not isinstance(rows, LiveFeatures):
        few = few_images(config.score, options, score, rows, held.scores, config.alpha)
    return _detector(config, score, held, (), usual, embedder, promise, card, ids, few)


def build_cross(
    config: "FitConfig",
    features: "Features",
    hashes: Sequence[str],
    head: "Head | None",
    embedder: "Embedder | None",
    promise: "Promise",
    card: Mapping[str, Any],
    outputs: "Tensor | None" = None,
) -> "Detector":
    """Fit and calibrate on the same rows, fold by fold.

    A score that needs no fit has nothing to keep a fold out of: all rows calibrate it, and the promise is exact.

    Args:
        config: of the fit.
        features: all rows.
        hashes: a digest of each, which decides its fold.
        head: as in `build`.
        embedder: likewise.
        promise: likewise.
        card: likewise.
        outputs: likewise.

    Raises:
        InputError: what the score refuses, or fewer different rows than folds.
        PromiseError: too few rows for alpha.
    """
    from mood import scores
    from mood.decisions import Calibration, Conformal, Cross, Usual
    from mood.recipes.few import few_images
    from mood.recipes.outputs import as_outputs

    options = score_options(config.score, config.options, config.combine)
    fold = _folds(hashes, config.folds, config.seed)
    parts = [features[fold == place] for place in range(config.folds)]
    learned = [as_outputs(part, outputs) for part in parts]
    score, without = scores.fit_folds(config.score, learned, head=head, **options)
    held: Calibration
    if all(each is score for each in without):
        held, without = Conformal(score(features).numpy(), ties=config.ties), ()
    else:
        values = np.concatenate([each(part).numpy() for each, part in zip(without, parts, strict=True)])
        held = Cross(values, np.sort(fold), ties=config.ties)
    held.check(config.alpha)
    few = few_images(config.score, options, score, features, held.scores, config.alpha)
    usual = Usual.of([features.embedding.numpy()])
    return _detector(config, score, held, without, usual, embedder, promise, card, features.ids, few)


def _folds(hashes: Sequence[str], folds: int, seed: int) -> np.ndarray:
    """(N,) int64: the fold of each image, by a hash of its bytes; equal images are in one fold."""
    from mood.decisions import deal

    drawn = [hashlib.sha256(f"fold {seed}:{digest}".encode()).hexdigest() for digest in hashes]
    different, place = np.unique(drawn, return_inverse=True)
    return deal(len(different), folds)[place]


def _detector(
    config: "FitConfig",
    score: "Score",
    calibration: "Calibration",
    without: "tuple[Score, ...]",
    usual: "Usual",
    embedder: "Embedder | None",
    promise: "Promise",
    card: Mapping[str, Any],
    ids: Sequence[str],
    few: Mapping[str, Any] | None,
) -> "Detector":
    import timm
    import torch

    import mood
    from mood import scores
    from mood.detector import Detector
    from mood.recipes.calibrating import written

    options = score_options(config.score, config.options, config.combine)
    temperatures = {
        part: {"temperature": found, "images": scores.temperature_images(config.score, tuple(ids))}
        for part, found in scores.fitted_temperatures(score, **options).items()
    }
    return Detector(
        embedder=embedder,
        score_name=config.score,
        score=score,
        calibration=calibration,
        folds=without,
        usual=usual,
        alpha=config.alpha,
        promise=promise,
        card={
            **card,
            "fit_images": len(ids),
            "calibration_images": len(calibration),
            "calibration": written(config),
            "few_images": few,
            "temperatures": temperatures,
            "seed": config.seed,
            "held_out": config.held_out,
            "config": to_dict(config),
            "versions": {"mood": mood.__version__, "torch": torch.__version__, "timm": timm.__version__},
        },
    )
