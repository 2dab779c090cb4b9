"""What travels from the data room to a model: decoded pixels, and the images that could not be decoded."""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, slots=True)
class Rejection:
    """An image that came in and cannot be scored.

    Attributes:
        position: row of the image in its source's manifest.
        id: the image's id there.
        reason: one sentence that a person can act on.
    """

    position: int
    id: str
    reason: str


@dataclass(frozen=True, slots=True, eq=False)
class Batch:
    """A consecutive stretch of a source: its readable images as pixels, the others as rejections.

    Attributes:
        positions: (n,) int64, rows of the readable images in the source's manifest, ascending.
        ids: n ids, in the same order.
        pixels: (n, H, W, 3) uint8, resized and cropped by a `Transform`, not yet normalised.
        labels: (n,) int64, or None where the source has no labels.
        rejections: the images of the same stretch that could not be read.
    """

    positions: np.ndarray
    ids: tuple[str, ...]
    pixels: np.ndarray
    labels: np.ndarray | None
    rejections: tuple[Rejection, ...] = ()

    def __len__(self) -> int:
        return len(self.ids)
