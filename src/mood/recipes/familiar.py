"""Which images are not new to a detector, or to the weights of its network: what is said of them says less."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

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
    from mood.models import image_keys
    from mood.recipes.brought import feature_hashes
    from mood.recipes.inputs import NOTHING

    features, model = isinstance(data, Features), None if detector.embedder is None else detector.embedder.model
    if features == (model is not None):
        return ""
    hashes = (feature_hashes(data) if isinstance(data, Features) else data.manifest.hashes)[start:]
    keys = image_keys([digest for digest in hashes if digest != NOTHING]).numpy()
    met = {
        "trained its network": None if model is None else model.seen,
        "fitted its score": detector.fitted_on,
        "calibrated it": detector.calibrated_on,
    }
    among = {stage: np.isin(keys, known.numpy()) for stage, known in met.items() if known is not None}
    parts = [f"{int(mask.sum())} {stage}" for stage, mask in among.items() if mask.any()]
    if not parts:
        return ""
    count = int(np.logical_or.reduce(list(among.values())).sum())
    what = "rows" if features else "images"
    return (
        f"{count} of the {len(hashes)} {what} are not new to the detector ({', '.join(parts)}): their scores and "
        f"p-values are not those of new {what}"
    )


def notes(detector: "Detector", sets: "Mapping[str, Source | Features]") -> tuple[str, ...]:
    """A word on every set of an evaluation that is not new to the detector, or of whose kind the weights have seen.

    Args:
        detector: that is measured.
        sets: by name; the known one is "id", and others of its kind are as they should be.
    """
    from mood.data import Source

    model = None if detector.embedder is None else detector.embedder.model
    told = {}
    for name, data in sets.items():
        told[name] = not_new(detector, data)
        if not told[name] and name != "id" and isinstance(data, Source):
            told[name] = familiar(model, data)
    return tuple(f"{name}: {said}" for name, said in told.items() if said)
