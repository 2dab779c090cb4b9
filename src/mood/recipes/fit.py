"""`mood fit`: images of the known world → a detector with a promised false-alarm rate."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, cast

import numpy as np
from pydantic import Field

from mood.core.config import Argument, NotInFingerprint, config, fields, to_dict
from mood.core.errors import DataError, InputError, PromiseError
from mood.core.ranges import Level, Seed, Share
from mood.recipes.settings import (
    EmbeddingConfig,
    MasksConfig,
    NetworkConfig,
    OutputConfig,
    PassConfig,
    PromiseConfig,
    SelectionConfig,
)

if TYPE_CHECKING:
    from mood.core.feature_store import FeatureStore
    from mood.core.features import Features, Head
    from mood.data import Source
    from mood.detector import Detector, LiveFeatures
    from mood.models import Embedder, Model
    from mood.scores import Score

# What stands for DATA that has no name.
IN_MEMORY = "images in memory"
FEATURES_IN_MEMORY = "features in memory"
DETECTOR_IN_MEMORY = "a detector in memory"


@config
class FitConfig(PromiseConfig, NetworkConfig, EmbeddingConfig, MasksConfig, SelectionConfig, PassConfig, OutputConfig):
    """Fit a detector on images of the known world."""

    data: Annotated[str, Argument("DATA")]
    """images of the known world: a folder (a sub-folder per class where the score wants labels), a Parquet file or
    glob, a named set, or features (.npz, Parquet with an embedding column, what Features.save wrote)"""
    output: Annotated[Path | None, NotInFingerprint] = None
    """folder for the detector"""
    model: str = "embedded"
    """timm name, a folder that mood wrote, or 'embedded'"""
    random_weights: bool = False
    """keep random weights (a control)"""
    inner: str = "auto"
    """blocks that scores of inner layers look at, joined by +; auto = at a quarter, half, three quarters and all of the
    depth"""
    score: str = "mood"
    """one of `mood scores`, or several with commas between them (mood,msp), which become one number"""
    combine: Literal["mean", "max", "fisher"] = "mean"
    """how several scores become one number: mean or max of what is standardised, or Fisher's sum over ranks"""
    options: tuple[str, ...] = ()
    """KEY=VALUE options of the score, such as shrinkage=oas or k=50; of several scores knn.k=50"""
    alpha: Level = 0.05
    """share of known images that may be flagged: the promised false-alarm rate"""
    calibration: str | None = None
    """images of the known world that neither the network nor anything else has seen; without it the hash cut takes a
    part of DATA"""
    folds: Annotated[int, Field(ge=2)] = 10
    """of conformal cross; as many as images leaves out one at a time"""
    held_out: Share = 0.1
    """share of DATA that the hash cut keeps for calibration; the cut of `mood finetune` must be the same"""
    fit_on: Literal["clean", "augmented"] = "clean"
    """augmented = fit the score on one augmented view of each image, as the paper's official code does (random crop,
    mirror image, RandAugment, erasing); calibration images stay as they are"""
    other_classes: bool = False
    """the outputs of a foreign network are other classes than those of DATA: do not check that it names them"""
    seed: Seed = 0
    """of the cut and of every draw"""
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """auto, fp32 or bf16; auto = bf16 where the hardware is fast at it; kept for scoring"""


@dataclass(frozen=True)
class FitResult:
    """The detector, and where it was written."""

    detector: "Detector"
    output: Path | None
    reused: bool = False

    @property
    def warning(self) -> str | None:
        """What few images cost, where they are few."""
        from mood.recipes.few import told

        found = self.detector.card.get("few_images")
        return None if found is None else told(found, self.detector.alpha)

    def summary(self) -> str:
        """What a person wants to know after a fit."""
        d = self.detector
        rejected = d.card.get("rejected")
        lost = f"; {rejected} could not be read" if rejected else ""
        others = "the same, fold by fold" if d.folds else f"{len(d.calibration)} others"
        lines = [
            f"{d.score_name} on {d.card['model']}: fitted on {d.card['fit_images']} images, calibrated on "
            f"{others}{lost}",
            promised(d),
            *(
                f"temperature{f' of {part}' if d.score_name != part else ''} {found['temperature']:.4g}, fitted on "
                f"{found['images']} held-out images"
                for part, found in d.card.get("temperatures", {}).items()
            ),
            *([f"weights: {d.card['weights']}"] if d.card["config"].get("checkpoint") else []),
            *([f"network: {d.card['classifier']}"] if d.card.get("classifier") else []),
            f"promise {'verified' if d.promise.verified else 'UNVERIFIED'}: {d.promise.reason}",
        ]
        if self.warning is not None:
            lines.append(self.warning)
        if self.output is None:
            lines.append("nothing was written: name a folder with -o to keep this detector")
        elif self.reused:
            lines.append(f"{self.output} was already finished with this configuration")
        else:
            lines.append(f"the detector is in {self.output}")
        return "\n".join(lines)


def promised(detector: "Detector") -> str:
    """What is flagged, and what is promised about it."""
    threshold = detector.threshold
    what = f"a p-value up to {detector.alpha:g}" if threshold is None else f"a score above {threshold:.6g}"
    return f"{what} is flagged: {detector.guarantee.sentence}"


def fit(
    config: FitConfig,
    *,
    data: Any = None,
    calibration: Any = None,
    model: "Model | None" = None,
    head: "Head | None" = None,
) -> FitResult:
    """Fit a detector.

    Args:
        config: see `FitConfig`.
        data: in-memory images, an opened source or `Features`, in place of `config.data`.
        calibration: the same for `config.calibration`.
        model: an opened network in place of `config.model` (the user's own module).
        head: of the network that features come from, for scores that read it; an opened network brings its own.

    Raises:
        PromiseError: too few calibration images for `alpha`, or calibration images that the network has seen.
        DataError: not one image can be read.
        MoodError: bad data, a network that cannot be had, an unknown score, an output that is taken.
    """
    from mood.data import is_features, open_data
    from mood.scores import check_name

    check_name(config.score)
    given = config.data if data is None else data
    features = is_features(given)
    if config.fit_on == "augmented":
        _check_can_augment(config, features)
    if features:
        _check_only_features(config, model)
    apart = config.calibration if calibration is None else calibration
    if apart is not None and is_features(apart) != features:
        raise InputError(
            f"{'data' if features else 'calibration'} is features and the other is images, and one detector sees one "
            "kind: bring both as images or both as features"
        )
    if head is not None and not features:
        raise InputError("head is of the network that features come from, and an opened network brings its own")
    how: Any = {"roots": config.data_root, "coarse": config.coarse, "classes": config.classes}
    source = open_data(given, limit=config.limit, **how)
    other = None if apart is None else open_data(apart, **({} if features else how))
    # What takes seconds to be loaded comes after what is answered at once.
    from mood.core.features import Features
    from mood.core.output import open_output
    from mood.detector import load, write
    from mood.models import Embedder, open_model
    from mood.recipes.inputs import model_options, score_options
    from mood.scores import check, info

    check(config.score, **score_options(config.score, config.options, config.combine))
    if isinstance(source, Features):
        return _fit_features(config, source, cast("Features | None", other), head)
    other = cast("Source | None", other)
    network = model or open_model(
        config.model,
        checkpoint=config.checkpoint,
        options=model_options(config.model_options),
        random_weights=config.random_weights,
        seed=config.seed,
        transform=model_options(config.transform_options),
    )
    needs = info(config.score).needs
    # A score that reads the head wants what the head sees, whatever a network gives by its own choice.
    pool, layer = ("model", "last") if "head" in needs else (None, None)
    embedder = Embedder(
        network,
        pool=config.pool or pool,
        layer=layer if config.layer is None else config.layer,
        device=config.device,
        precision=config.precision,
        inner=config.inner if {"layers", "tokens"} & {*needs} else "",
        reconstruction="reconstruction" in needs,
        masks=config.masks,
        mask_seed=config.mask_seed,
    )
    if config.output is None:
        return FitResult(_fit_images(config, source, other, embedder), None)
    settings = to_dict(config) | {
        "images": source.manifest.fingerprint,
        "calibration_images": None if other is None else other.manifest.fingerprint,
        "weights": network.fingerprint(),
        "pool": embedder.pool,
        "layer": embedder.layer,
    }
    with open_output(config.output, settings, overwrite=config.overwrite) as output:
        if output.finished:
            own = network.module if network.architecture is None else None
            return FitResult(load(config.output, model=own, device=config.device), config.output, reused=True)
        detector = _fit_images(config, source, other, embedder)
        write(detector, output.work)
        output.commit()
    return FitResult(detector, config.output)


def fitted_source(detector: "Detector", *, data: Any = None, roots: Sequence[str] = ()) -> "Source":
    """The images that a detector's score was fitted on, found again by their bytes.

    Args:
        detector: from `fit`.
        data: where they are, if not where they were.
        roots: folders in which named sets are looked for.

    Raises:
        DataError: there are no images.
        InputError: some of them are not there any more, or the detector was fitted on features or on images in memory.
    """
    from mood.data import open_source
    from mood.models import image_keys

    settings = detector.card["config"]
    if detector.fitted_on is None or detector.embedder is None:
        raise InputError("this detector was fitted on features: there are no images to find again")
    if data is None and settings["data"] == IN_MEMORY:
        raise InputError("this detector was fitted on images in memory: say with fit_data where they are")
    source = open_source(
        settings["data"] if data is None else data,
        roots=roots,
        coarse=settings["coarse"],
        classes=settings["classes"] or None,
    )
    wanted = detector.fitted_on.numpy()
    keys = image_keys(source.manifest.hashes).numpy()
    lost = len(wanted) - int(np.isin(wanted, keys).sum())
    if lost:
        raise InputError(
            f"{lost} of the {len(wanted)} images that the detector was fitted on are not in {source.name} now: say "
            "with fit_data where they are"
        )
    return source.select(np.isin(keys, wanted))


def _check_can_augment(config: FitConfig, features: bool) -> None:
    from mood.scores import info

    if config.conformal == "cross":
        raise InputError(
            "fit_on is augmented, and cross fits and calibrates on the same views: set fit_on to clean, or take "
            "--conformal split"
        )
    if features:
        raise InputError("fit_on is augmented, and features are of images that were augmented or not: set it to clean")
    if "tokens" in info(config.score).needs:
        raise InputError(
            f"fit_on is augmented, and {config.score} looks at tokens, which are not kept: set fit_on to clean, or "
            "choose another score"
        )


def _fit_images(config: FitConfig, source: "Source", other: "Source | None", embedder: "Embedder") -> "Detector":
    from mood.core.features import Features
    from mood.data import held_out
    from mood.detector import View
    from mood.models import image_keys
    from mood.recipes.building import build, build_cross, check_score
    from mood.recipes.calibrating import check_settings, promise_of_cut, promise_of_folds, promise_of_set
    from mood.recipes.extract import extract_features
    from mood.recipes.inputs import NOTHING, check_readable, score_options
    from mood.recipes.outputs import compared_outputs
    from mood.recipes.recognition import checked
    from mood.scores import compares, info

    model = embedder.model
    hashes = source.manifest.hashes
    cross = config.conformal == "cross"
    cut = np.zeros(len(source), bool)
    if other is None and not cross:
        cut = held_out(hashes, seed=config.seed, fraction=config.held_out)
    fitting = [h for h, out in zip(hashes, cut, strict=True) if not out]
    keys = image_keys(fitting).unique()
    if cross:
        promise, count = promise_of_folds(model, [h for h in hashes if h != NOTHING]), len(source)
    elif other is None:
        promise, count = promise_of_cut(model, [h for h, out in zip(hashes, cut, strict=True) if out]), int(cut.sum())
    else:
        promise, count = promise_of_set(other, keys, source.name, model), len(other)
    try:
        check_settings(config, config.alpha, count)
    except PromiseError:
        # Of images that nobody can read, more would not help.
        for images in (source, other):
            if images is not None:
                check_readable(images)
        raise
    check_score(config, source, embedder)
    options, classes = score_options(config.score, config.options, config.combine), source.manifest.class_names or ()
    outputs = compared_outputs(config.score, options, model, classes, other_classes=config.other_classes)
    view, looked_at = View(embedder, config.score), source
    how: dict[str, int] = {"batch_size": config.batch_size, "workers": config.workers}
    if config.fit_on == "augmented":
        looked_at = source.select(~cut)
        extracted = extract_features(looked_at, embedder, augmented_by=config.seed, **how)
        stored, positions = extracted.store, extracted.positions
    else:
        extracted = extract_features(source, embedder, **how)
        stored, positions = extracted.rows(~cut), extracted.positions[~cut[extracted.positions]]
    said = checked(
        model,
        stored,
        classes,
        reads_outputs=bool({"logits", "head"} & {*info(config.score).needs}),
        other_classes=config.other_classes,
        compared=compares(config.score, **options),
    )
    card = {
        "data": source.name,
        "manifest": source.manifest.fingerprint,
        "class_names": list(classes),
        "rejected": len(extracted.rejections),
        "model": model.name,
        "weights": model.source,
        "history": None
        if model.history is None
        else [{"stage": s.stage, "data": s.data, "images": s.images} for s in model.history],
        "pool": embedder.pool,
        "layer": embedder.layer,
        "precision": embedder.precision,
        "classifier": said,
    }
    if cross:
        readable = [hashes[position] for position in extracted.positions.tolist()]
        features = Features.concat(list(extracted.store))
        made = build_cross(config, features, readable, embedder.head, embedder, promise, card, outputs)
        return replace(made, fitted_on=keys, calibrated_on=keys)
    apart = source.select(cut) if other is None else other
    if other is None and config.fit_on == "clean":
        calibration = extracted.rows(cut)
    else:
        calibration = extract_features(apart, embedder, **how).store

    def seen(score: "Score") -> "Iterable[Features]":
        own = View(embedder, config.score, score)
        return own.of(apart, **how) if own.live else calibration

    rows: FeatureStore | LiveFeatures = stored
    if view.live:
        rows = view.of(source.select(~cut), **how)
    ids = [looked_at.manifest.ids[position] for position in positions.tolist()]
    made = build(config, rows, ids, seen, embedder.head, embedder, promise, card, outputs)
    return replace(made, fitted_on=keys, calibrated_on=image_keys(apart.manifest.hashes).unique())


def _check_only_features(config: FitConfig, model: "Model | None") -> None:
    from mood.recipes.inputs import check_features

    if model is not None:
        raise InputError("model is a network, and features have passed theirs already: leave it out")
    of_network = [name for base in (NetworkConfig, EmbeddingConfig, MasksConfig) for name in fields(base)]
    check_features(config, "model", "random_weights", "inner", "other_classes", *of_network)


def _fit_features(config: FitConfig, features: "Features", apart: "Features | None", head: "Head | None") -> FitResult:
    from mood.core.output import open_output
    from mood.data import held_out
    from mood.detector import load, write
    from mood.models import image_keys
    from mood.recipes.building import build, build_cross, check_score
    from mood.recipes.calibrating import check_settings, promise_of_features
    from mood.recipes.inputs import score_options
    from mood.recipes.recognition import check_head, check_rows
    from mood.scores import compares, info

    for rows, name in ((features, config.data), (apart, config.calibration)):
        if rows is not None and not len(rows):
            raise DataError(f"there is no row in {name}: features of at least one image were expected")
    hashes = features.hashes()
    settings = to_dict(config) | {
        "features": features.fingerprint(),
        "calibration_features": None if apart is None else apart.fingerprint(),
    }
    if head is not None:
        settings["head"] = head.fingerprint()

    def make() -> "Detector":
        card = {"data": config.data, "model": "features"}
        check_score(config, features, None, head)
        if head is not None:
            check_head(features, head, reads_logits="logits" in info(config.score).needs)
        check_rows(features, compares(config.score, **score_options(config.score, config.options, config.combine)))
        if config.conformal == "cross":
            check_settings(config, config.alpha, len(features))
            made = build_cross(config, features, hashes, head, None, promise_of_features(None, ()), card)
            keys = image_keys(hashes).unique()
            return replace(made, fitted_on=keys, calibrated_on=keys)
        cut = np.zeros(len(features), bool)
        if apart is None:
            cut = held_out(hashes, seed=config.seed, fraction=config.held_out)
        keys = image_keys([h for h, out in zip(hashes, cut, strict=True) if not out]).unique()
        calibration = features[cut] if apart is None else apart
        held = calibration.hashes()
        promise = promise_of_features(None if apart is None else keys, held)
        check_settings(config, config.alpha, len(calibration))
        rows = features[~cut]
        made = build(config, rows, rows.ids, lambda _: [calibration], head, None, promise, card)
        return replace(made, fitted_on=keys, calibrated_on=image_keys(held).unique())

    if config.output is None:
        return FitResult(make(), None)
    with open_output(config.output, settings, overwrite=config.overwrite) as output:
        if output.finished:
            return FitResult(load(config.output), config.output, reused=True)
        detector = make()
        write(detector, output.work)
        output.commit()
    return FitResult(detector, config.output)
