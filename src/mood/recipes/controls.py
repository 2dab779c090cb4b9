"""What a network that has learned nothing reaches on the same images: the figures to hold beside every result."""

from typing import TYPE_CHECKING

import numpy as np
import torch

from mood import scores
from mood.core.errors import ModelError
from mood.core.features import Features
from mood.models import Embedder, randomised, six_numbers
from mood.recipes.extract import extract_features
from mood.recipes.fit import score_options

if TYPE_CHECKING:
    from mood.data import Source
    from mood.detector import Detector

SIX_NUMBERS = "six numbers"
RANDOM_WEIGHTS = "random weights"


class Control:
    """A score on features that nobody trained, fitted on the images that the detector was fitted on.

    Args:
        name: `SIX_NUMBERS` (a Mahalanobis distance on channel means and standard deviations) or `RANDOM_WEIGHTS` (the
            detector's own network and score, with the weights it had before any training).
        detector: the one to hold it beside.
        images: the images that the detector's score was fitted on.
        batch_size: images a pass.
        workers: processes that decode.
        seed: of the random weights.

    Raises:
        ModelError: the detector has no network, or its network cannot be built anew.
    """

    def __init__(
        self, name: str, detector: "Detector", images: "Source", *, batch_size: int, workers: int, seed: int = 0
    ) -> None:
        if detector.embedder is None:
            raise ModelError("a detector on features has no images to hold controls beside")
        self.name = name
        self.batch_size = batch_size
        self.workers = workers
        fitted = detector.embedder
        if name == SIX_NUMBERS:
            self.embedder = Embedder(six_numbers(fitted.model.transform), device="cpu", precision="fp32")
            score_name = "mahalanobis"
        else:
            self.embedder = Embedder(
                randomised(fitted.model, seed),
                pool=fitted.pool,
                layer=fitted.layer,
                device=str(fitted.device),
                precision=fitted.precision,
            )
            score_name = detector.score_name
        features = self._features(images)
        if name == SIX_NUMBERS:
            # One Gaussian for all known images.
            features = Features(
                features.embedding, ids=features.ids, labels=torch.zeros(len(features), dtype=torch.int64)
            )
        options = {} if name == SIX_NUMBERS else score_options(detector.card["config"]["options"])
        self.score = scores.fit(score_name, features, head=self.embedder.head, **options)

    def __call__(self, source: "Source") -> np.ndarray:
        """(n,) scores of the readable images of a source, higher = more OOD."""
        return self.score(self._features(source)).numpy()

    def _features(self, source: "Source") -> Features:
        extracted = extract_features(source, self.embedder, batch_size=self.batch_size, workers=self.workers)
        return Features.concat(list(extracted.store))
