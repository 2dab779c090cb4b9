"""The detector: transform, network, score and calibration as one immutable thing that is saved, loaded and called."""

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch

from mood import decisions, scores
from mood.core.batch import Batch, Rejection
from mood.core.errors import InputError
from mood.core.features import Features
from mood.core.progress import progress
from mood.data import Source, batches, open_data
from mood.data.loader import check_loading
from mood.detector.view import View
from mood.models import Embedder

# What detectors of the first versions held, which say nothing of it.
FIRST_CALIBRATION = {"kind": "split", "ties": "conservative"}

COLUMNS = pa.schema(
    [
        ("id", pa.string()),
        ("score", pa.float64()),
        ("p_value", pa.float64()),
        ("is_ood", pa.bool_()),
        ("error", pa.string()),
    ]
)


@dataclass(frozen=True, slots=True)
class Promise:
    """Whether the false-alarm rate is promised.

    Attributes:
        verified: the calibration images are known to be unseen by every stage of training.
        reason: one sentence that says why, or why not.
    """

    verified: bool
    reason: str


@dataclass(frozen=True, eq=False, kw_only=True, repr=False)
class Detector:
    """Says of each picture how unusual it is, how unusual an unusual ID picture is, and whether that is too much.

    Attributes:
        embedder: the network with pooling, device and precision as they were resolved at fit; None where the detector
            was fitted on features that the user brought.
        score_name: registry name of the score; several with commas between them where it is combined.
        score: the fitted score, features → (N,) float64, higher = more OOD.
        calibration: the scores of ID images that nothing was fitted on, and how p-values are made from them.
        folds: K scores, each fitted without one fold of the images, where the calibration is `decisions.Cross`; else
            none.
        alpha: share of ID images that may be flagged.
        promise: whether `alpha` is promised.
        card: what it was fitted on, in words and numbers (data, counts, seeds, settings, versions).
        fitted_on: (n,) int64 keys of the images behind the score (`mood.models.image_keys`), sorted, each once; of
            the digests of embeddings where it was fitted on features; None in detectors of the first versions that
            were.
        calibrated_on: the same of the images behind the calibration; None in detectors of the first versions.
        usual: where the embeddings of the calibration images lie, for the drift that a monitor shows; None in detectors
            of the first versions.
    """

    embedder: Embedder | None
    score_name: str
    score: scores.Score
    calibration: decisions.Calibration
    alpha: float
    promise: Promise
    card: Mapping[str, Any] = field(default_factory=dict)
    fitted_on: torch.Tensor | None = None
    calibrated_on: torch.Tensor | None = None
    usual: decisions.Usual | None = None
    folds: tuple[scores.Score, ...] = ()

    def __repr__(self) -> str:
        sees = "features" if self.embedder is None else self.embedder.model.name
        calibrated = f"{len(self.calibration)} calibration images"
        verified = "verified" if self.promise.verified else "unverified"
        return f"Detector({self.score_name!r} on {sees!r}, alpha={self.alpha:g}, {calibrated}, promise {verified})"

    @property
    def threshold(self) -> float | None:
        """An image is flagged exactly when its score is above this; None where each class or fold has its own.

        Where ties are randomised, lots decide on scores that equal it.
        """
        return self.calibration.threshold(self.alpha)

    @property
    def guarantee(self) -> decisions.Guarantee:
        """What is promised at `alpha`, with its size."""
        return self.calibration.guarantee(self.alpha)

    @property
    def view(self) -> View | None:
        """How the score looks at images; None where there is no network."""
        return None if self.embedder is None else View(self.embedder, self.score_name, self.score)

    def fingerprint(self) -> str:
        """Hex digest of all that decides a verdict: two detectors with the same one judge alike."""
        tensors, meta = scores.state(self.score)
        digest = hashlib.sha256(json.dumps([self.score_name, meta, self.alpha], sort_keys=True).encode())
        if self.embedder is not None:
            at = (self.embedder.model.fingerprint(), self.embedder.pool, self.embedder.layer, self.embedder.precision)
            digest.update(json.dumps(at + self.embedder.inner).encode())
            if self.embedder.decoder is not None:
                digest.update(json.dumps([self.embedder.masks, self.embedder.mask_seed]).encode())
        for name, tensor in sorted(tensors.items()):
            digest.update(name.encode() + np.ascontiguousarray(tensor.numpy()).tobytes())
        arrays, how = decisions.state(self.calibration)
        if how != FIRST_CALIBRATION:
            digest.update(json.dumps(how, sort_keys=True).encode())
        for _, array in sorted(arrays.items()):
            digest.update(array.tobytes())
        for fold in self.folds:
            for name, tensor in sorted(scores.state(fold)[0].items()):
                digest.update(name.encode() + np.ascontiguousarray(tensor.numpy()).tobytes())
        return digest.hexdigest()

    def __call__(
        self,
        images: Any,
        *,
        batch_size: int = 64,
        workers: int = 0,
        value_range: tuple[float, float] | None = None,
    ) -> pa.Table:
        """Score images.

        Args:
            images: DATA (folder, Parquet, named set), paths, PIL images, uint8 HWC arrays, uint8 CHW tensors, or
                `Features` or a file of them; float images need `value_range`.
            batch_size: images a pass.
            workers: processes that decode.
            value_range: what black and white are in float images.

        Returns:
            A table with a row per image in their order: `id`, `score` (higher = more OOD), `p_value` (small = OOD),
            `is_ood`, and `error` with the reason where the image could not be read (the others are null then).

        Raises:
            DataError: the images cannot be found.
            InputError: features for a detector that has another width or that moves its images, or images for one that
                has no network.
        """
        source = open_data(images, value_range=value_range)
        if isinstance(source, Features):
            if self.view is not None and self.view.live:
                raise InputError(f"{self.score_name} looks at the images themselves: give it images, not features")
            return self.judge(source)
        tables = list(self.stream(source, batch_size=batch_size, workers=workers))
        return pa.concat_tables(tables) if tables else COLUMNS.empty_table()

    def stream(
        self, source: Source, *, batch_size: int = 64, workers: int = 0, start: int = 0, stop: int | None = None
    ) -> Iterator[pa.Table]:
        """Score a source piece by piece, in its order; the only way from images to verdicts.

        Args:
            source: the images.
            batch_size: images a pass.
            workers: processes that decode.
            start: first position.
            stop: position after the last one.

        Yields:
            Tables as `__call__` gives them.

        Raises:
            InputError: this detector was fitted on features and has no network.
        """
        for batch, features in self._look(source, batch_size, workers, start, stop):
            yield in_order(None if features is None else self.judge(features), batch.positions, batch.rejections)

    def _look(
        self, source: Source, batch_size: int, workers: int, start: int, stop: int | None
    ) -> Iterator[tuple[Batch, Features | None]]:
        """The batches of a source, each with what the score is to see of it; None where no image could be read."""
        if self.embedder is None or (view := self.view) is None:
            raise InputError("this detector was fitted on features: give it features (.npz, Parquet), not images")
        total = (len(source) if stop is None else stop) - start
        with progress(total, "score") as bar:
            for batch in batches(
                source, self.embedder.model.transform, batch_size=batch_size, workers=workers, start=start, stop=stop
            ):
                yield batch, view(batch.ids, batch.pixels) if len(batch) else None
                bar.advance(len(batch) + len(batch.rejections))

    def monitor(
        self, *, level: float = 0.01, window: int = 500, cap: int | None = None, seed: int = 0
    ) -> decisions.Monitor:
        """A monitor for a stream of images that this detector will judge; see `mood.decisions.Monitor.start`.

        Raises:
            InputError: an argument out of its range, or a detector that was calibrated in folds.
        """
        if self.folds:
            raise InputError(
                "a monitor compares new scores with those of images held out, and this detector was calibrated in "
                "folds, each with a fit of its own: calibrate it anew on other images (mood calibrate)"
            )
        return decisions.Monitor.start(
            self.calibration.scores,
            level=level,
            alpha=self.alpha,
            window=window,
            cap=cap,
            seed=seed,
            usual=self.usual,
        )

    def watch(
        self,
        images: Source | Features,
        monitor: decisions.Monitor,
        *,
        batch_size: int = 64,
        workers: int = 0,
        start: int = 0,
    ) -> Iterator[tuple[int, list[decisions.Window]]]:
        """Let a monitor of this detector see images.

        Args:
            images: the stream, an opened source or features.
            monitor: from `monitor`; it moves on.
            batch_size: images a pass.
            workers: processes that decode.
            start: first position.

        Yields:
            After each batch the position of the next image, and the windows that the batch has filled.

        Raises:
            InputError: as `__call__` does.
        """
        if isinstance(images, Features):
            if self.view is not None and self.view.live:
                raise InputError(f"{self.score_name} looks at the images themselves: give it images, not features")
            check_loading(batch_size, workers)
            for first in range(start, len(images), batch_size):
                part = images[first : first + batch_size]
                yield first + len(part), self._shown(monitor, part, 0)
            return
        position = start
        if start == len(images):
            return
        for batch, features in self._look(images, batch_size, workers, start, None):
            position += len(batch) + len(batch.rejections)
            yield position, self._shown(monitor, features, len(batch.rejections))

    def _shown(self, monitor: decisions.Monitor, features: Features | None, unreadable: int) -> list[decisions.Window]:
        if features is None:
            return monitor.see([], [], unreadable=unreadable)
        judged = self.judge(features)
        return monitor.see(
            judged["score"].to_numpy(),
            judged["p_value"].to_numpy(),
            embedding=features.embedding.numpy(),
            unreadable=unreadable,
        )

    def judge(self, features: Features) -> pa.Table:
        """Scores, p-values and verdicts of features; see `__call__`."""
        values = self.score(features).numpy()
        against = np.stack([fold(features).numpy() for fold in self.folds], axis=1) if self.folds else values
        by_class = isinstance(self.calibration, decisions.Mondrian)
        p_values = self.calibration.p_values(
            against, classes=predicted_classes(features) if by_class else None, ids=features.ids
        )
        columns = [
            pa.array(features.ids, pa.string()),
            pa.array(values),
            pa.array(p_values),
            pa.array(p_values <= self.alpha),
            pa.nulls(len(features), pa.string()),
        ]
        return pa.table(columns, schema=COLUMNS)

    def save(self, folder: str | Path, *, overwrite: bool = False) -> None:
        """Write the detector as a folder of safetensors and json, which is there whole or not at all.

        The user's own module is saved without its code: `load` asks for it again, and checks its weights and what it
        makes of two fixed images.

        Args:
            folder: absent or empty.
            overwrite: replace a detector that is there.

        Raises:
            OutputError: something else is there, or nothing can be written there.
        """
        from mood.detector.files import save

        save(self, folder, overwrite=overwrite)


def predicted_classes(features: Features) -> np.ndarray:
    """(N,) int64: the class with the largest logit.

    Raises:
        InputError: there are no logits.
    """
    found: np.ndarray = features.need("logits").argmax(1).numpy()
    return found


def in_order(rows: pa.Table | None, positions: np.ndarray, rejections: tuple[Rejection, ...]) -> pa.Table:
    """Scored and rejected images of one stretch, in the order in which they came."""
    if not rejections:
        return rows if rows is not None else COLUMNS.empty_table()
    lost = pa.table(
        [
            pa.array([item.id for item in rejections], pa.string()),
            pa.nulls(len(rejections), pa.float64()),
            pa.nulls(len(rejections), pa.float64()),
            pa.nulls(len(rejections), pa.bool_()),
            pa.array([item.reason for item in rejections], pa.string()),
        ],
        schema=COLUMNS,
    )
    if rows is None:
        return lost
    order = np.argsort(np.concatenate((positions, [item.position for item in rejections])), kind="stable")
    return pa.concat_tables((rows, lost)).take(pa.array(order))
