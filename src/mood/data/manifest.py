"""What is in a source: a name, a hash and a label for each image, in one fixed order."""

import hashlib
import json
from dataclasses import dataclass, field

import numpy as np


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Manifest:
    """The list of N images that came in, readable or not.

    Attributes:
        ids: N names: the relative path of a file, `file.parquet#row`, or the index of an image in memory.
        hashes: N sha256 hex digests, of the encoded bytes or of an array's shape, type and pixels. What could not be
            read at all has the digest of nothing.
        labels: (N,) int64 in 0..C-1, or None.
        coarse_labels: (N,) int64 of the coarser classes, or None.
        class_names: C names in the order of the labels, or None where there are no labels.
        coarse_class_names: the same for the coarse labels.
        fingerprint: sha256 hex digest over all of these, order included.
    """

    ids: tuple[str, ...]
    hashes: tuple[str, ...]
    labels: np.ndarray | None = None
    coarse_labels: np.ndarray | None = None
    class_names: tuple[str, ...] | None = None
    coarse_class_names: tuple[str, ...] | None = None
    fingerprint: str = field(init=False)

    def __post_init__(self) -> None:
        """Take the fingerprint once: a manifest never changes."""
        digest = hashlib.sha256()
        for part in (self.ids, self.hashes, self.class_names, self.coarse_class_names):
            digest.update(json.dumps(part).encode())
        for labels in (self.labels, self.coarse_labels):
            digest.update(b"none" if labels is None else labels.astype("<i8").tobytes())
        object.__setattr__(self, "fingerprint", digest.hexdigest())

    def __repr__(self) -> str:
        classes = "no labels" if self.class_names is None else f"{len(self.class_names)} classes"
        return f"Manifest({len(self)} images, {classes}, fingerprint={self.fingerprint[:16]!r})"

    def __len__(self) -> int:
        """N."""
        return len(self.ids)

    def select(self, positions: np.ndarray) -> "Manifest":
        """The manifest of the images at (n,) int64 positions, in that order, with the same classes."""
        return Manifest(
            ids=tuple(self.ids[position] for position in positions),
            hashes=tuple(self.hashes[position] for position in positions),
            labels=None if self.labels is None else self.labels[positions],
            coarse_labels=None if self.coarse_labels is None else self.coarse_labels[positions],
            class_names=self.class_names,
            coarse_class_names=self.coarse_class_names,
        )


def content_hash(image: bytes | np.ndarray) -> str:
    """Sha256 hex digest of encoded bytes, or of an array's shape, type and pixels."""
    if isinstance(image, bytes):
        return hashlib.sha256(image).hexdigest()
    digest = hashlib.sha256(f"{image.shape} {image.dtype.str} ".encode())
    digest.update(np.ascontiguousarray(image).tobytes())
    return digest.hexdigest()
