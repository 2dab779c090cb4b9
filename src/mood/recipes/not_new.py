"""Images that a detector has met before: what it says of them is not what it says of new ones."""

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from mood.core.features import Features
    from mood.data import Source
    from mood.detector import Detector


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
    from mood.recipes.fit import feature_hashes
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
