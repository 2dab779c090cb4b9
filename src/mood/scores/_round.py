"""One pass over the fit data."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

from mood.core.features import Features

Before = TypeVar("Before")
Statistics = TypeVar("Statistics")
After = TypeVar("After")


@dataclass(frozen=True, slots=True)
class Round(Generic[Before, Statistics, After]):
    """One pass over the fit data, as three pure functions.

    Attributes:
        collect: what one shard adds, given the state that the round before left (None in the first round).
        merge: the statistics of two stretches of data, the earlier one first.
        finish: the state after the round; after the last one it is the score.
    """

    collect: Callable[[Features, Before], Statistics]
    merge: Callable[[Statistics, Statistics], Statistics]
    finish: Callable[[Statistics, Before], After]
