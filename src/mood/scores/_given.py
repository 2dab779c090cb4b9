"""What a caller gives in the place of features: it is looked at once, so that no score has to."""

from collections.abc import Iterable
from typing import Any

import numpy as np
from torch import Tensor

from mood.core.errors import InputError
from mood.core.features import Features


def checked(given: Any) -> Features:
    """The features themselves.

    Raises:
        InputError: it is something else, such as an array.
    """
    if not isinstance(given, Features):
        raise InputError(f"{_what(given)} came where Features are expected: {_HOW}")
    return given


def shards_of(given: Any) -> Iterable[Any]:
    """Features as one shard, and shards as they are; each is for `checked` to see, since some come from disk.

    Raises:
        InputError: it is neither, such as an array, of which the rows would be taken for shards.
    """
    if isinstance(given, Features):
        return (given,)
    if isinstance(given, np.ndarray | Tensor | str) or not isinstance(given, Iterable):
        raise InputError(f"{_what(given)} came where Features, or an iterable of them, are expected: {_HOW}")
    return given


_HOW = "mood.Features(embedding=…) makes them of an (N, D) array, and mood.extract of images"


def _what(given: Any) -> str:
    shape = getattr(given, "shape", None)
    return type(given).__name__ if shape is None else f"{type(given).__name__} {tuple(shape)}"
