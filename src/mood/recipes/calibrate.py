"""`mood calibrate`: a detector's promise anew, from other images and without another fit."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from mood.core.config import Argument, NotInFingerprint, config, to_dict
from mood.core.errors import InputError, PromiseError
from mood.core.ranges import Level
from mood.recipes.settings import DetectorConfig, OutputConfig, PromiseConfig, SelectionConfig

if TYPE_CHECKING:
    from mood.core.features import Features
    from mood.data import Source
    from mood.detector import Detector, Promise


@config
class CalibrateConfig(PromiseConfig, SelectionConfig, DetectorConfig, OutputConfig):
    """Promise a false-alarm rate anew: other images, another alpha or another guarantee, and the same fitted score."""

    data: Annotated[str, Argument("DATA")]
    """images of the known world that neither the network nor the score has seen, or features of them (.npz, Parquet)"""
    output: Annotated[Path | None, NotInFingerprint] = None
    """folder for the new detector; the old one stays as it is"""
    alpha: Level | None = None
    """share of known images that may be flagged; that of the detector unless said"""
    # Folds would need another fit.
    conformal: Literal["split", "by-class"] = "split"
    """by-class: the promise holds for each predicted class"""


@dataclass(frozen=True)
class CalibrateResult:
    """The new detector, and where it was written."""

    detector: "Detector"
    output: Path | None

    def summary(self) -> str:
        """What a person wants to know."""
        from mood.recipes.fit import promised

        d = self.detector
        where = "nothing was written: name a folder with -o to keep this detector"
        if self.output is not None:
            where = f"the detector is in {self.output}"
        rejected = d.card["calibration"]["rejected"]
        lost = f"; {rejected} could not be read" if rejected else ""
        return "\n".join(
            (
                f"{d.score_name} on {d.card['model']}, as it was: calibrated on {len(d.calibration)} images{lost}",
                promised(d),
                f"promise {'verified' if d.promise.verified else 'UNVERIFIED'}: {d.promise.reason}",
                where,
            )
        )


def calibrate(config: CalibrateConfig, *, detector: "Detector | None" = None, data: Any = None) -> CalibrateResult:
    """Calibrate a fitted detector on other images.

    Args:
        config: see `CalibrateConfig`.
        detector: one in memory, in place of `config.detector`.
        data: in-memory images, an opened source or `Features`, in place of `config.data`.

    Raises:
        PromiseError: images that the network or the score has seen, or too few of them.
        MoodError: no detector there, images that cannot be found, an output that is taken.
    """
    if detector is None:
        config.check_detector()
    from mood.core.output import open_output
    from mood.data import open_data
    from mood.detector import load, write
    from mood.recipes.inputs import fingerprint_of

    old = load(config.detector, device=config.device) if detector is None else detector
    images = open_data(
        config.data if data is None else data,
        roots=config.data_root,
        coarse=config.coarse,
        classes=config.classes,
        limit=config.limit,
    )
    if config.output is None:
        return CalibrateResult(_calibrated(config, old, images), None)
    settings = to_dict(config) | {"images": fingerprint_of(images), "fitted": old.fingerprint()}
    with open_output(config.output, settings, overwrite=config.overwrite) as output:
        if output.finished:
            own = old.embedder.model.module if old.embedder and old.embedder.model.architecture is None else None
            return CalibrateResult(load(config.output, model=own, device=config.device), config.output)
        made = _calibrated(config, old, images)
        write(made, output.work)
        output.commit()
    return CalibrateResult(made, config.output)


def _calibrated(config: CalibrateConfig, old: "Detector", images: "Source | Features") -> "Detector":
    from mood.core.features import Features
    from mood.models import image_keys
    from mood.recipes.calibrating import calibrated, check_settings, promise_of_features, promise_of_set, written
    from mood.recipes.extract import extract_features

    alpha = old.alpha if config.alpha is None else config.alpha
    check_settings(config, alpha, len(images))
    promise: Promise
    shards: Iterable[Features]
    about: Mapping[str, Any]
    view = old.view
    if isinstance(images, Features):
        if view is not None and view.live:
            raise InputError(f"{old.score_name} looks at the images themselves: give it images, not features")
        hashes: Sequence[str] = images.hashes()
        # Keys of images say nothing about features: only of a detector on features are those of its rows known.
        promise = promise_of_features(old.fitted_on if view is None else None, hashes)
        shards, about = [images], {"data": "features", "rejected": 0}
    elif view is None:
        raise InputError("this detector was fitted on features: give it features (.npz, Parquet), not images")
    else:
        if old.fitted_on is None:
            raise PromiseError(
                "this detector does not say which images it was fitted on, so nobody can tell whether these are among "
                "them: fit it again"
            )
        hashes = images.manifest.hashes
        promise = promise_of_set(images, old.fitted_on, str(old.card["data"]), view.embedder.model)
        extracted = extract_features(images, view.embedder, batch_size=config.batch_size, workers=config.workers)
        shards = extracted.store
        if view.live:
            shards = view.of(images, batch_size=config.batch_size, workers=config.workers)
        about = {
            "data": images.name,
            "manifest": images.manifest.fingerprint,
            "rejected": len(extracted.rejections),
        }
    calibration, usual = calibrated(config, alpha, old.score, shards)
    card = {**old.card, "calibration_images": len(calibration), "calibration": {**written(config), **about}}
    # Of a detector on images, features tell no image again.
    keys = None if view is not None and isinstance(images, Features) else image_keys(hashes).unique()
    made = replace(old, calibration=calibration, usual=usual, alpha=alpha, promise=promise, card=card, folds=())
    return replace(made, calibrated_on=keys)
