"""LSUN's LMDB files: one encoded image a key, read when it is asked for.

torchvision's own reader keeps the keys in a pickle in the working directory, which it would load whoever wrote it.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import accumulate
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np

from mood.core.errors import DataError
from mood.data.layout import needs
from mood.data.source import Listing

CATEGORIES = (
    "bedroom",
    "bridge",
    "church_outdoor",
    "classroom",
    "conference_room",
    "dining_room",
    "kitchen",
    "living_room",
    "restaurant",
    "tower",
)


class LmdbStore:
    """The values of one or more LMDB folders, one folder after the other, each in the order of its keys."""

    def __init__(self, folders: Sequence[Path]) -> None:
        """Read the keys.

        Raises:
            DataError: where a folder holds no such database.
            MissingExtraError: where LMDB is not installed.
        """
        self._folders = tuple(folders)
        self._keys: list[bytes] = []
        sizes = []
        for folder in folders:
            with _reading(folder) as reading:
                keys = list(reading.cursor().iternext(keys=True, values=False))
            self._keys += keys
            sizes.append(len(keys))
        self.sizes = tuple(sizes)
        self._starts = np.array(list(accumulate(sizes, initial=0)))

    def __len__(self) -> int:
        """How many images lie here."""
        return len(self._keys)

    def id(self, row: int) -> str:
        """`folder#key`."""
        return f"{self._folder(row).name}#{self._keys[row].decode('utf-8', 'backslashreplace')}"

    def read(self, row: int) -> bytes:
        """The value of the row's key."""
        with _reading(self._folder(row)) as reading:
            image = reading.get(self._keys[row])
        if image is None:
            raise DataError("Its key is no longer in the database.")
        return bytes(image)

    def _folder(self, row: int) -> Path:
        return self._folders[int(np.searchsorted(self._starts, row, side="right")) - 1]


_ONE_AT_A_TIME = Lock()


@contextmanager
def _reading(folder: Path) -> Iterator[Any]:
    """A transaction. Nothing stays open: a process may open a database once only, and may not inherit one."""
    try:
        import lmdb
    except ImportError as error:
        raise needs("lmdb", "LSUN comes as LMDB databases, which") from error
    try:
        with (
            _ONE_AT_A_TIME,
            lmdb.open(str(folder), readonly=True, lock=False, readahead=False, create=False) as opened,
            opened.begin() as reading,
        ):
            yield reading
    except lmdb.Error as error:
        raise DataError(f"{folder} holds no LMDB database that can be read: {error}.") from error


def list_lsun(root: Path, split: str, _: bool) -> Listing:
    """The ten scenes of `train` or `val`, as far as they are there; `test` has no labels.

    Raises:
        DataError: where there is none, or one is damaged.
        MissingExtraError: where LMDB is not installed.
    """
    folder = root / "lsun"
    if split == "test":
        return Listing("", "", LmdbStore([folder / "test_lmdb"]))
    there = [name for name in CATEGORIES if (folder / f"{name}_{split}_lmdb").is_dir()]
    if not there:
        raise DataError(f"{folder} holds none of the folders bedroom_{split}_lmdb to tower_{split}_lmdb.")
    store = LmdbStore([folder / f"{name}_{split}_lmdb" for name in there])
    return Listing("", "", store, np.repeat(np.arange(len(there)), store.sizes), tuple(there))
