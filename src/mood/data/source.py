"""A data set that is open: its manifest, and each image by its position."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

import numpy as np

from mood.core.errors import DataError, InputError
from mood.data.manifest import Manifest

MAX_CLASSES = 10**6
"""Labels without names become names; a number that is no label, an image's own say, must not fill the memory."""


UNLABELLED = "put the images of each class into a folder of its own"
"""What to do about labels that are missing, where nothing more is known."""


class Store(Protocol):
    """Where images lie. A pickled store holds no open file and no image that can be read again from disk."""

    def __len__(self) -> int:
        """How many images lie here."""
        ...

    def id(self, row: int) -> str:
        """The image's name here."""
        ...

    def read(self, row: int) -> bytes | np.ndarray:
        """The encoded bytes, or uint8 pixels (H, W, 3); `DataError` says why there are none."""
        ...


@dataclass(frozen=True, slots=True, eq=False)
class Listing:
    """A store and the labels of all its rows, before any is left out; `unlabelled` as in `Source`."""

    name: str
    description: str
    store: Store
    labels: np.ndarray | None = None
    class_names: tuple[str, ...] | None = None
    coarse_labels: np.ndarray | None = None
    coarse_class_names: tuple[str, ...] | None = None
    unlabelled: str = UNLABELLED


@dataclass(frozen=True, slots=True, eq=False)
class Images:
    """The chosen rows of a store: all of a source that a worker process needs."""

    store: Store
    rows: np.ndarray

    def read(self, position: int) -> bytes | np.ndarray:
        """See `Source.read`."""
        return self.store.read(int(self.rows[position]))


@dataclass(frozen=True, slots=True, eq=False)
class Source:
    """Images in one fixed order. It never changes, and it can be pickled.

    Attributes:
        name: a short name for tables.
        description: where the images come from.
        manifest: ids, hashes, labels and class names of all N images.
        images: the reader behind `read`.
        unlabelled: what to do about its labels where it has none, and what is in their way: the end of a sentence that
            says so.
    """

    name: str
    description: str
    manifest: Manifest
    images: Images = field(repr=False)
    unlabelled: str = field(default=UNLABELLED, repr=False)

    def __len__(self) -> int:
        """N."""
        return len(self.manifest)

    def read(self, position: int) -> bytes | np.ndarray:
        """One image as it is kept: encoded bytes, or uint8 pixels (H, W), or (H, W, C) with C = 1, 3 or 4.

        Args:
            position: in 0..N-1.

        Raises:
            DataError: where nothing can be read there, with one sentence why.
            InputError: for a position outside of 0..N-1.
        """
        if not 0 <= position < len(self):
            raise InputError(f"position is {position}; {self.name} has the positions 0 to {len(self) - 1}.")
        return self.images.read(position)

    def select(self, positions: Sequence[int] | np.ndarray) -> "Source":
        """Some of the images, with the same classes.

        Args:
            positions: (n,) whole numbers in 0..N-1, none twice, in the order wanted; or an (N,) bool mask.

        Raises:
            InputError: for positions that are out of range or double, or a mask of another length.
            DataError: where nothing is left.
        """
        chosen = np.asarray(positions)
        if chosen.dtype == bool:
            if chosen.shape != (len(self),):
                raise InputError(f"The mask has the shape {chosen.shape}; {self.name} has {len(self)} images.")
            chosen = np.flatnonzero(chosen)
        if chosen.size == 0:
            raise DataError(f"Nothing is left of the {len(self)} images of {self.name}.")
        if chosen.ndim != 1 or chosen.dtype.kind not in "iu":
            raise InputError(f"positions is {chosen.dtype} {chosen.shape}; it must be whole numbers (n,), or a mask.")
        if chosen.min() < 0 or chosen.max() >= len(self) or len(np.unique(chosen)) != len(chosen):
            raise InputError(f"positions must lie in 0 to {len(self) - 1}, each at most once.")
        chosen = chosen.astype(np.int64)
        return replace(
            self,
            manifest=self.manifest.select(chosen),
            images=Images(self.images.store, self.images.rows[chosen]),
        )
