"""Temperature of the softmax from held-out ID images.

Guo, Pleiss, Sun, Weinberger: On Calibration of Modern Neural Networks, ICML 2017, section 4.2: the temperature with the
largest likelihood of the labels. One number needs few images, so at most `ROWS` of the held-out cut are kept.
"""

from collections.abc import Callable
from math import sqrt
from typing import Any, TypeVar

import torch
from torch import Tensor

from mood.core.errors import InputError
from mood.core.features import Features
from mood.scores._labels import head_labels
from mood.scores._round import Round
from mood.scores._sampling import Bank, bank_round, held_out

Fitted = TypeVar("Fitted")

FITTED = "fitted"
ROWS = 10_000
"""80 MB of float64 logits with 1000 classes."""
SMALLEST, LARGEST = 1e-4, 1e4


def temperature_round(build: Callable[[float], Fitted]) -> Round[Any, Any, Any]:
    """The round that ends in `build(T)`."""
    kept = bank_round(
        lambda bank: build(best_temperature(bank)),
        size=ROWS,
        seed=0,
        names=("logits", "labels"),
        columns=lambda features: (features.need("logits"), head_labels(features)),
    )

    def collect(features: Features, before: None) -> Any:
        head_labels(features)
        return kept.collect(features[held_out(features.ids)], before)

    return Round(collect, kept.merge, kept.finish)


def best_temperature(bank: Bank) -> float:
    """T > 0 with the largest likelihood of the labels.

    Raises:
        InputError: no T between 1e-4 and 1e4 is best: the network is always right, or knows nothing of the labels.
    """
    logits, labels = bank.columns[0].to(torch.float64), bank.columns[1]
    right = logits.gather(1, labels[:, None])

    def slope(inverse: float) -> float:
        """Of the mean negative log-likelihood in 1/T, in which it is convex."""
        expected = ((logits * inverse).softmax(1) * logits).sum(1, keepdim=True)
        return float((expected - right).mean())

    low, high = 1 / LARGEST, 1 / SMALLEST
    if not slope(low) < 0 < slope(high):
        raise InputError(
            "no temperature fits the held-out images best: the network puts all of them, or none, into their classes; "
            "pass a number"
        )
    while high / low > 1 + 1e-12:
        middle = sqrt(low * high)
        low, high = (middle, high) if slope(middle) < 0 else (low, middle)
    return 1 / sqrt(low * high)


def images_behind(ids: tuple[str, ...]) -> int:
    """How many of the fit rows with these ids a fitted temperature is taken from."""
    return min(int(held_out(ids).sum()), ROWS)


def nll(logits: Tensor, labels: Tensor, temperature: float) -> float:
    """Mean negative log-likelihood of the labels, in nats."""
    log_p = (logits.to(torch.float64) / temperature).log_softmax(1)
    return -float(log_p.gather(1, labels[:, None]).mean())
