"""DATA that is either images or features which the user already has."""

from collections.abc import Sequence
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mood.core.errors import InputError
from mood.data.opening import open_source
from mood.data.source import Source

if TYPE_CHECKING:
    from mood.core.features import Features


def open_data(
    data: Any,
    *,
    roots: Sequence[str] = (),
    coarse: bool = False,
    classes: Sequence[str] = (),
    limit: int | None = None,
    value_range: tuple[float, float] | None = None,
) -> "Source | Features":
    """DATA as images, or as features where it is some or names a file of them; what is open already stays as it is.

    Args:
        data: what `open_source` takes, an opened source, `Features`, or a file that `Features.load` reads.
        roots: folders in which named sets are looked for.
        coarse: whether the coarse labels are the classes.
        classes: only these; all of them where none is named.
        limit: take only so many images.
        value_range: of floats in memory.

    Raises:
        DataError: there are no images.
        InputError: coarse labels, classes or a limit for features, or a file that holds none.
    """
    if isinstance(data, Source):
        return data
    if is_features(data):
        from mood.core.features import Features

        if coarse or classes or limit is not None:
            raise InputError("coarse, classes and limit are of images; of features take the rows before you bring them")
        return data if isinstance(data, Features) else Features.load(data)
    return open_source(data, roots=roots, coarse=coarse, classes=classes or None, limit=limit, value_range=value_range)


def is_features(data: Any) -> bool:
    """Whether DATA is features, or a path of some: `.npz`, what `Features.save` wrote, Parquet with an embedding."""
    if not isinstance(data, str | PathLike):
        from mood.core.features import Features

        return isinstance(data, Features)
    path = Path(data)
    if path.suffix in (".npz", ".safetensors"):
        return True
    if path.suffix != ".parquet":
        return False
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        return path.is_file() and "embedding" in pq.read_schema(path).names
    except (pa.ArrowException, OSError):  # what is wrong with it is told by whoever opens its images
        return False
