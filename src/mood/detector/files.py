"""The detector as a folder of safetensors and json."""

from pathlib import Path
from typing import Any

import torch
from torch import nn

from mood import decisions, scores
from mood.core import artifact
from mood.core.errors import ArtifactError
from mood.core.transform import Transform
from mood.detector.detector import FIRST_CALIBRATION, Detector, Promise
from mood.models import Embedder, Model, load_model, own_model, save_model

KIND = "detector"

PROBE_TOLERANCE = 0.02
"""Relative; bf16 and fp32, or a CPU and a GPU, are nearer to each other, and another activation is not."""


def save(detector: Detector, folder: str | Path, *, overwrite: bool = False) -> None:
    """See `Detector.save`."""
    with artifact.placed(folder, kind=KIND, overwrite=overwrite) as place:
        write(detector, place)


def write(detector: Detector, folder: Path) -> None:
    """Write the files of a detector into a folder of the caller's, beside whatever is there."""
    tensors, score_meta = scores.state(detector.score)
    meta: dict[str, Any] = {
        "score": {"name": detector.score_name, **score_meta},
        "alpha": detector.alpha,
        "promise": {"verified": detector.promise.verified, "reason": detector.promise.reason},
        "card": dict(detector.card),
        "model": None,
    }
    if detector.embedder is not None:
        model = detector.embedder.model
        meta["model"] = {
            "fingerprint": model.fingerprint(),
            "pool": detector.embedder.pool,
            "layer": detector.embedder.layer,
            "precision": detector.embedder.precision,
            "inner": "+".join(map(str, detector.embedder.inner)),
            "reconstruction": detector.embedder.decoder is not None,
            "masks": detector.embedder.masks,
            "mask_seed": detector.embedder.mask_seed,
            "own": None
            if model.architecture
            else {
                "head": model.head_name,
                "name": model.name,
                "transform": model.transform.to_dict(),
                "probe": detector.embedder.probe().tolist(),
            },
        }
        if model.architecture is not None:
            save_model(folder / "model", model)
    arrays, meta["calibration"] = decisions.state(detector.calibration)
    held = {"score": tensors, "calibration": {name: torch.from_numpy(array) for name, array in arrays.items()}}
    if detector.usual is not None:
        meta["usual_images"] = detector.usual.images
        held["calibration"]["embedding_mean"] = torch.from_numpy(detector.usual.mean)
        held["calibration"]["embedding_variance"] = torch.from_numpy(detector.usual.variance)
    for place, fold in enumerate(detector.folds):
        held[f"fold-{place:04d}"], fold_meta = scores.state(fold)
        meta.setdefault("folds", []).append(fold_meta)
    for name, keys in (("fitted_on", detector.fitted_on), ("calibrated_on", detector.calibrated_on)):
        if keys is not None:
            held[name] = {"keys": keys}
    artifact.write(folder, kind=KIND, tensors=held, meta=meta)


def load(folder: str | Path, *, model: nn.Module | None = None, device: str = "auto") -> Detector:
    """Read a detector that `save` wrote.

    Args:
        folder: where it is.
        model: the user's own module, where the detector was fitted on one.
        device: where to run.

    Raises:
        ArtifactError: the folder is damaged, of another kind, or needs a module that was not given.
    """
    folder = Path(folder)
    tensors, meta = artifact.read(folder, kind=KIND)
    about = meta["model"]
    embedder = None
    if about is not None:
        own = about["own"]
        if own is None:
            network: Model = load_model(folder / "model")
        elif model is None:
            raise ArtifactError(
                f"{folder} was fitted on your own module {own['name']!r}: pass it, mood.load(folder, model=module)"
            )
        else:
            network = own_model(model, Transform.from_dict(own["transform"]), head=own["head"], name=own["name"])
        if network.fingerprint() != about["fingerprint"]:
            raise ArtifactError(
                f"the weights differ from those that {folder} was fitted with: its promise would be void"
            )
        embedder = Embedder(
            network,
            pool=about["pool"],
            layer=about["layer"],
            device=device,
            precision=about["precision"],
            # Detectors of the first versions have none.
            **{key: about[key] for key in ("inner", "reconstruction", "masks", "mask_seed") if key in about},
        )
        if own is not None:
            _check_code(folder, embedder, torch.tensor(own["probe"]))
    score_meta = dict(meta["score"])
    name = score_meta.pop("name")
    held = {key: tensor.numpy() for key, tensor in tensors["calibration"].items()}
    usual = None
    if "embedding_mean" in held:
        usual = decisions.Usual(held.pop("embedding_mean"), held.pop("embedding_variance"), meta["usual_images"])
    return Detector(
        embedder=embedder,
        score_name=name,
        score=scores.restore(name, tensors["score"], score_meta),
        calibration=decisions.restore(held, meta.get("calibration", FIRST_CALIBRATION)),
        alpha=meta["alpha"],
        promise=Promise(**meta["promise"]),
        card=meta["card"],
        fitted_on=tensors["fitted_on"]["keys"] if "fitted_on" in tensors else None,
        calibrated_on=tensors["calibrated_on"]["keys"] if "calibrated_on" in tensors else None,
        usual=usual,
        folds=tuple(
            scores.restore(name, tensors[f"fold-{place:04d}"], fold) for place, fold in enumerate(meta.get("folds", ()))
        ),
    )


def _check_code(folder: Path, embedder: Embedder, expected: torch.Tensor) -> None:
    """Refuse a module whose code does something else with the same weights.

    Raises:
        ArtifactError: what it makes of two fixed images is further off than another device or precision explains.
    """
    found = embedder.probe()
    if found.shape != expected.shape or (found - expected).norm() > PROBE_TOLERANCE * expected.norm():
        raise ArtifactError(
            f"your module has the weights that {folder} was fitted with, and its code makes something else of them: "
            "its promise would be void; fit again"
        )
