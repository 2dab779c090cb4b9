"""One set of an evaluation after the detector, whether it was given as images or as features."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from mood.core.errors import InputError

if TYPE_CHECKING:
    import pyarrow as pa

    from mood.core.batch import Rejection
    from mood.core.features import Features
    from mood.data import Source
    from mood.detector import Detector
    from mood.report import Thumbnail


@dataclass(frozen=True, slots=True, eq=False)
class Judged:
    """One set after the detector: N images, n of which could be read.

    Attributes:
        name: of the set.
        fingerprint: of its images, or of the features.
        source: the images; None where features were brought.
        table: (N,) id, score, p-value, verdict and error, as `Detector.__call__` gives them.
        scores: (n,) float64, higher = more OOD.
        p_values: (n,) float64, small = OOD.
        positions: (n,) int64, of the readable images in their source.
        rejections: the other images.
    """

    name: str
    fingerprint: str
    source: "Source | None"
    table: "pa.Table"
    scores: np.ndarray
    p_values: np.ndarray
    positions: np.ndarray
    rejections: "tuple[Rejection, ...]"

    def pictures(self, *, most: bool) -> "tuple[Thumbnail, ...]":
        """The images at one end, as a person sees them; none of features."""
        from mood.core.decoding import as_seen
        from mood.report import Thumbnail, extremes

        source = self.source
        if source is None:
            return ()
        chosen = extremes(self.scores)[0 if most else 1]
        return tuple(
            Thumbnail(
                id=source.manifest.ids[position],
                pixels=np.asarray(as_seen(source.read(position))),
                score=float(self.scores[row]),
                p_value=float(self.p_values[row]),
            )
            for row, position in zip(chosen.tolist(), self.positions[chosen].tolist(), strict=True)
        )


def judge(detector: "Detector", data: "Source | Features", batch_size: int, workers: int) -> Judged:
    """Verdicts from cached features: the numbers of `Detector.stream`, without a second pass for every score.

    Args:
        detector: what judges.
        data: images, or features of them.
        batch_size: images a pass.
        workers: processes that decode.

    Raises:
        DataError: not one image can be read.
        InputError: images for a detector that was fitted on features, or features that it cannot judge.
    """
    import pyarrow as pa

    from mood.core.features import Features
    from mood.detector import in_order
    from mood.recipes.extract import extract_features
    from mood.recipes.inputs import fingerprint_of

    rejections: tuple[Rejection, ...]
    if isinstance(data, Features):
        rows = table = detector(data)
        name, source = "features", None
        positions, rejections = np.arange(len(data)), ()
    elif detector.embedder is None:
        raise InputError(f"this detector was fitted on features and cannot look at the images of {data.name}")
    else:
        extracted = extract_features(data, detector.embedder, batch_size=batch_size, workers=workers)
        shards: Iterable[Features] = extracted.store
        if (view := detector.view) is not None and view.live:
            shards = view.of(data.select(extracted.positions), batch_size=batch_size, workers=workers)
        rows = pa.concat_tables(detector.judge(shard) for shard in shards)
        table = in_order(rows, extracted.positions, extracted.rejections)
        name, source = data.name, data
        positions, rejections = extracted.positions, extracted.rejections
    return Judged(
        name=name,
        fingerprint=fingerprint_of(data),
        source=source,
        table=table,
        scores=rows["score"].to_numpy(),
        p_values=rows["p_value"].to_numpy(),
        positions=positions,
        rejections=rejections,
    )
