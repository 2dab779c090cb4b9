"""Several sources as one, for training that needs no labels."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mood.core.errors import InputError
from mood.data.manifest import Manifest
from mood.data.source import Images, Source


@dataclass(frozen=True, slots=True, eq=False)
class JoinedStore:
    """Rows of several stores, one after the other.

    Attributes:
        parts: the chosen rows of each store.
        ends: (parts,) int64, the row after the last one of each part.
        ids: of all rows.
    """

    parts: tuple[Images, ...]
    ends: np.ndarray
    ids: tuple[str, ...]

    def __len__(self) -> int:
        """Rows in all."""
        return int(self.ends[-1])

    def id(self, row: int) -> str:
        """The name of an image, behind the name of its source."""
        return self.ids[row]

    def read(self, row: int) -> bytes | np.ndarray:
        """See `Source.read`."""
        part = int(np.searchsorted(self.ends, row, side="right"))
        start = 0 if part == 0 else int(self.ends[part - 1])
        return self.parts[part].read(row - start)


def join(sources: Sequence[Source]) -> Source:
    """All images of all sources, one source after the other, without labels, whose classes would be mixed up.

    Raises:
        InputError: for no sources.
    """
    if not sources:
        raise InputError("sources is empty; join takes at least one.")
    ids = tuple(f"{source.name}/{name}" for source in sources for name in source.manifest.ids)
    hashes = tuple(value for source in sources for value in source.manifest.hashes)
    ends = np.cumsum([len(source) for source in sources])
    store = JoinedStore(tuple(source.images for source in sources), ends, ids)
    return Source(
        name="+".join(source.name for source in sources),
        description="; ".join(source.description for source in sources),
        manifest=Manifest(ids=ids, hashes=hashes),
        images=Images(store, np.arange(len(ids))),
    )
