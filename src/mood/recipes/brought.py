"""Features that the user brings in place of images: which DATA they are, and how they are told from others."""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mood.core.errors import InputError

if TYPE_CHECKING:
    from mood.core.features import Features
    from mood.data import Source


def opened(
    data: Any,
    *,
    roots: Sequence[str] = (),
    coarse: bool = False,
    classes: Sequence[str] = (),
    limit: int | None = None,
) -> "Source | Features":
    """DATA as images, or as features where it names a file of these; what is open already stays as it is.

    Args:
        data: a name, in-memory images, an opened source or features.
        roots: folders in which named sets are looked for.
        coarse: whether the coarse labels are the classes.
        classes: only these; all of them where none is named.
        limit: take only so many images.

    Raises:
        DataError: there are no images.
        InputError: coarse labels, classes or a limit for features, or a file that holds none.
    """
    from mood.core.features import Features
    from mood.data import Source, open_source

    if isinstance(data, Source | Features):
        return data
    if isinstance(data, str | Path) and is_features(str(data)):
        return load_features(data, coarse=coarse, classes=classes, limit=limit)
    return open_source(data, roots=roots, coarse=coarse, classes=classes or None, limit=limit)


def is_features(data: str) -> bool:
    """Whether DATA names features that the user already has."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    path = Path(data)
    if path.suffix == ".npz":
        return True
    if path.suffix != ".parquet":
        return False
    try:
        return path.is_file() and "embedding" in pq.read_schema(path).names
    except (pa.ArrowException, OSError):  # what is wrong with it is told by whoever opens its images
        return False


def load_features(
    path: str | Path, *, coarse: bool = False, classes: Sequence[str] = (), limit: int | None = None
) -> "Features":
    """Read features.

    Raises:
        InputError: coarse labels, classes or a limit are named, or the file holds no features.
    """
    from mood.core.features import Features

    if coarse or classes or limit is not None:
        raise InputError("coarse, classes and limit are of images; of features take the rows before you save them")
    return Features.load(path)


def feature_hashes(features: "Features") -> tuple[str, ...]:
    """A digest of each embedding: what stands for the image's bytes in the cut where there are no images."""
    rows = np.ascontiguousarray(features.embedding.numpy())
    return tuple(hashlib.sha256(row.tobytes()).hexdigest() for row in rows)


def features_fingerprint(features: "Features") -> str:
    """A digest of all that features hold: two files with the same one give the same results."""
    digest = hashlib.sha256(json.dumps(features.ids).encode())
    columns = (features.embedding, features.logits, features.labels, *features.layers, features.reconstruction)
    for column in columns:
        described = "none" if column is None else f"{column.dtype} {tuple(column.shape)}"
        digest.update(described.encode() + (b"" if column is None else np.ascontiguousarray(column.numpy()).tobytes()))
    return digest.hexdigest()
