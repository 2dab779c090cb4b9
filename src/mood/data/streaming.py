"""Training sets too large for a manifest: shards that are read where the epoch goes through them.

Kept in memory are one bit an image (which the cut keeps) and 8 bytes an image (by which the network later knows what
it has seen). Names, labels and places are listed shard by shard, and forgotten again.
"""

import hashlib
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mood.core.errors import DataError, InputError
from mood.core.progress import track
from mood.data import parquet, tar
from mood.data.holdout import held_out
from mood.data.manifest import content_hash
from mood.data.source import Listing

WINDOW = 16384
_LISTED = 8


@dataclass(frozen=True, slots=True)
class ScannedShard:
    """What one reading of a shard gives.

    Attributes:
        kept: (n,) bool packed to bits, the images that the cut keeps.
        images: n.
        keys: of the kept images: the first 8 bytes of each one's hash, as int64.
        digest: of all hashes in their order.
        labelled: whether it has labels.
        class_names: of them.
    """

    kept: bytes
    images: int
    keys: bytes
    digest: str
    labelled: bool
    class_names: tuple[str, ...]


def scan_shard(path: Path, *, seed: int, fraction: float) -> ScannedShard:
    """Read a shard once: the hash of each image decides its side of the cut.

    Raises:
        DataError: the shard cannot be read.
    """
    listing = _listed(path)
    hashes = []
    for row in range(len(listing.store)):
        try:
            hashes.append(content_hash(listing.store.read(row)))
        except DataError:
            hashes.append(content_hash(b""))
    kept = ~held_out(hashes, seed=seed, fraction=fraction)
    nothing = content_hash(b"")
    keys = [
        int(value[:16], 16) - 2**63 for value, stays in zip(hashes, kept, strict=True) if stays and value != nothing
    ]
    return ScannedShard(
        kept=np.packbits(kept).tobytes(),
        images=len(hashes),
        keys=np.array(keys, np.int64).tobytes(),
        digest=hashlib.sha256("".join(hashes).encode()).hexdigest(),
        labelled=listing.labels is not None,
        class_names=listing.class_names or (),
    )


class Stream:
    """The kept images of many shards. An image's position is its number among all images of all shards.

    Attributes:
        name: a short name.
        class_names: of the labels, or None.
        fingerprint: sha256 hex digest over all images, in the order of the shards.
        keys: (n,) int64 of the kept images (`mood.models.image_keys`), sorted, each once.
        images: this, for readers that know a source.
        unlabelled: see `Source`.
    """

    def __init__(self, name: str, paths: Sequence[Path], scanned: Sequence[ScannedShard]) -> None:
        """Take what each shard's reading gave.

        Raises:
            DataError: no shard, some with labels and some without, names that differ, or nothing kept.
        """
        if not paths:
            raise DataError(f"{name} has no shards.")
        self.name = name
        self._paths = tuple(paths)
        self._bits = tuple(part.kept for part in scanned)
        self._starts = np.cumsum([0, *(part.images for part in scanned)])
        self._kept = np.array([int(self._rows(shard).size) for shard in range(len(paths))])
        if not self._kept.sum():
            raise DataError(f"Nothing is left of the {self._starts[-1]} images of {name}.")
        self.class_names = _agreed([(path, part) for path, part in zip(paths, scanned, strict=True) if part.images])
        self.unlabelled = parquet.UNLABELLED if paths[0].suffix == ".parquet" else tar.UNLABELLED
        digest = hashlib.sha256("".join(part.digest for part in scanned).encode())
        digest.update(repr(self.class_names).encode())
        self.fingerprint = digest.hexdigest()
        self.keys = np.unique(np.concatenate([np.frombuffer(part.keys, np.int64) for part in scanned]))
        self._open: OrderedDict[int, Listing] = OrderedDict()

    def __len__(self) -> int:
        """How many images the cut keeps."""
        return int(self._kept.sum())

    def __getstate__(self) -> dict[str, Any]:
        """All but what is listed: whoever unpickles lists it again."""
        return {**self.__dict__, "_open": OrderedDict()}

    @property
    def images(self) -> "Stream":
        """See `Source.images`."""
        return self

    def read(self, position: int) -> bytes | np.ndarray:
        """See `Source.read`."""
        shard, row = self._place(position)
        return self._listing(shard).store.read(row)

    def id(self, position: int) -> str:
        """The image's name."""
        shard, row = self._place(position)
        return self._listing(shard).store.id(row)

    def labels(self, positions: np.ndarray) -> np.ndarray | None:
        """(n,) int64 positions → (n,) int64 labels, or None where there are none."""
        if self.class_names is None:
            return None
        labels = []
        for position in positions.tolist():
            shard, row = self._place(position)
            known = self._listing(shard).labels
            assert known is not None
            labels.append(int(known[row]))
        return np.array(labels, np.int64)

    def order(self, seed: int, epoch: int, start: int, stop: int) -> np.ndarray:
        """(stop - start,) int64: a stretch of the positions in the order in which the epoch goes through them.

        The shards come in an order that is drawn for the epoch, and over them images are shuffled in stretches of
        `WINDOW`. Any stretch is found without those before it, and without reading an image.
        """
        shards = _permutation(len(self._paths), seed, epoch, 0)
        ends = np.cumsum(self._kept[shards])
        parts = []
        for window in range(start // WINDOW, -(-stop // WINDOW)):
            low, high = window * WINDOW, min((window + 1) * WINDOW, len(self))
            inside = self._stretch(shards, ends, low, high)[_permutation(high - low, seed, epoch, window + 1)]
            parts.append(inside[max(start - low, 0) : stop - low])
        return np.concatenate(parts) if parts else np.empty(0, np.int64)

    def _stretch(self, shards: np.ndarray, ends: np.ndarray, low: int, high: int) -> np.ndarray:
        """Positions low to high of the kept images, shard after shard."""
        found, at = [], int(np.searchsorted(ends, low, side="right"))
        while low < high:
            shard = int(shards[at])
            begin = int(ends[at]) - int(self._kept[shard])
            rows = self._rows(shard)[low - begin : high - begin]
            found.append(self._starts[shard] + rows)
            low, at = low + len(rows), at + 1
        return np.concatenate(found)

    def _rows(self, shard: int) -> np.ndarray:
        images = int(self._starts[shard + 1] - self._starts[shard])
        return np.flatnonzero(np.unpackbits(np.frombuffer(self._bits[shard], np.uint8), count=images))

    def _place(self, position: int) -> tuple[int, int]:
        shard = int(np.searchsorted(self._starts, position, side="right")) - 1
        return shard, int(position - self._starts[shard])

    def _listing(self, shard: int) -> Listing:
        if shard not in self._open:
            while len(self._open) >= max(_LISTED, self._in_a_window()):
                self._open.popitem(last=False)
            self._open[shard] = _listed(self._paths[shard])
        self._open.move_to_end(shard)
        return self._open[shard]

    def _in_a_window(self) -> int:
        """How many shards a window may touch."""
        return int(WINDOW // max(1, int(np.median(self._kept)))) + 2


def _listed(path: Path) -> Listing:
    if path.suffix == ".parquet":
        return parquet.list_parquet([path], path.name, str(path))
    return tar.list_tar([path], path.name, str(path))


def _agreed(shards: Sequence[tuple[Path, ScannedShard]]) -> tuple[str, ...] | None:
    labelled = [(path, part) for path, part in shards if part.labelled]
    if not labelled:
        return None
    if len(labelled) < len(shards):
        bare = next(path for path, part in shards if not part.labelled)
        raise DataError(f"{bare} has no labels, and {labelled[0][0]} has: label all shards, or none.")
    longest = max((part.class_names for _, part in labelled), key=len)
    numbered = longest == tuple(map(str, range(len(longest))))
    for path, part in labelled:
        if part.class_names != (longest[: len(part.class_names)] if numbered else longest):
            raise DataError(
                f"{path} and {labelled[0][0]} do not agree on the names of the classes: in a stream, labels are whole "
                "numbers, or every shard has all the names."
            )
    return longest


def _permutation(count: int, *parts: int) -> np.ndarray:
    key = int.from_bytes(hashlib.blake2b(repr(("stream", *parts)).encode(), digest_size=8).digest(), "little")
    # A bit generator's raw stream is the one that NumPy keeps for ever (NEP 19).
    return np.argsort(np.random.Philox(key=key).random_raw(count), kind="stable")


def stream_shards(data: str) -> list[Path]:
    """The shards that a path, a glob or numbered braces name: tar archives and Parquet tables, in their order.

    Raises:
        DataError: none is found, or another kind of file.
        InputError: it names no files.
    """
    from mood.data.opening import matching_files

    paths = [Path(path) for path in matching_files(data)]
    if not paths:
        raise InputError(
            f"{data} is streamed, and names no files: give tar shards or Parquet files, or leave stream out"
        )
    for path in paths:
        if path.suffix not in (".tar", ".parquet"):
            raise DataError(f"{path} is streamed, and is neither a .tar nor a .parquet file.")
    return paths


def scan(paths: Sequence[Path], *, seed: int, fraction: float) -> list[ScannedShard]:
    """`scan_shard` of each, with a bar."""
    shards = (scan_shard(path, seed=seed, fraction=fraction) for path in paths)
    return list(track(shards, description="Hashing shards", total=len(paths)))
