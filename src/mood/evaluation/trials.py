"""A figure over several trials: other seeds, or other draws of the few images that were shown."""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean, stdev

from mood.core.errors import InputError


@dataclass(frozen=True, slots=True)
class Spread:
    """Mean and spread of one figure over trials.

    Attributes:
        mean: over the trials.
        sd: standard deviation with n − 1, as tables of papers have it; None of a single trial, which has none.
        trials: how many.
    """

    mean: float
    sd: float | None
    trials: int


def over_trials(values: Sequence[float]) -> Spread:
    """Mean ± sd.

    Args:
        values: the figure of each trial.

    Raises:
        InputError: no trials.
    """
    if not values:
        raise InputError("there are no trials to take the mean of")
    return Spread(fmean(values), stdev(values) if len(values) > 1 else None, len(values))
