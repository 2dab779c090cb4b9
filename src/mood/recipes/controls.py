"""What a network that has learned nothing reaches on the same images: the figures to hold beside every result."""

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from mood import scores
from mood.core.errors import ModelError
from mood.core.features import Features
from mood.detector import View
from mood.models import Embedder, randomised, six_numbers
from mood.recipes.extract import extract_features
from mood.recipes.inputs import score_options
from mood.recipes.outputs import as_outputs, compared_outputs

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
                inner="+".join(map(str, fitted.inner)),
                reconstruction=fitted.decoder is not None,
                masks=fitted.masks,
                mask_seed=fitted.mask_seed,
            )
            score_name = detector.score_name
        self.score_name = score_name
        shards = self._shards(images, View(self.embedder, score_name))
        if name == SIX_NUMBERS:
            # One Gaussian for all known images.
            shards = [
                Features(part.embedding, ids=part.ids, labels=torch.zeros(len(part), dtype=torch.int64))
                for part in shards
            ]
        options: dict[str, Any] = {}
        outputs = None
        if name == RANDOM_WEIGHTS:
            settings, classes = detector.card["config"], images.manifest.class_names or ()
            # Detectors of the first versions have no rule.
            options = score_options(score_name, settings["options"], settings.get("combine", "mean"))
            outputs = compared_outputs(score_name, options, self.embedder.model, classes, other_classes=False)
        self.score = scores.fit(score_name, as_outputs(shards, outputs), head=self.embedder.head, **options)

    def __call__(self, source: "Source") -> np.ndarray:
        """(n,) scores of the readable images of a source, higher = more OOD."""
        shards = self._shards(source, View(self.embedder, self.score_name, self.score))
        return np.concatenate([self.score(part).numpy() for part in shards])

    def _shards(self, source: "Source", view: View) -> Iterable[Features]:
        if view.live:
            return view.of(source, batch_size=self.batch_size, workers=self.workers)
        return extract_features(source, self.embedder, batch_size=self.batch_size, workers=self.workers).store
