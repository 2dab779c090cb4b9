"""The energy of a linear head on an embedding that was changed on the way."""

import math
import operator
from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor

from mood.core.errors import InputError
from mood.core.features import Features, Head
from mood.scores._round import Round
from mood.scores._rows import of_width, row_by_row

Fitted = TypeVar("Fitted")


def wide(head: Head) -> tuple[Tensor, Tensor]:
    """Weight (K, D) and bias (K,) in float64, apart from the network's own."""
    return head.weight.to(torch.float64, copy=True), head.bias.to(torch.float64, copy=True)


def energy_of(rows: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """(n,) −logsumexp(W·row + b)."""
    return -torch.addmm(bias, rows, weight.T).logsumexp(1)


def shaped_energy(
    features: Features, weight: Tensor, bias: Tensor, shape: Callable[[Tensor], Tensor] = lambda rows: rows
) -> Tensor:
    """(N,) float64 energy of the head on `shape(rows)`.

    Raises:
        InputError: embeddings of another width than the head's.
    """
    embedding = of_width(features.embedding, weight.shape[1], "embedding")
    return row_by_row(lambda rows: energy_of(shape(rows), weight, bias), embedding, width=max(weight.shape))


def head_round(build: Callable[[], Fitted], *, width: int) -> Round[Any, Any, Any]:
    """The round of a score that keeps the head and learns nothing else: it checks that the rows fit the head.

    Raises:
        InputError: embeddings of another width than the head's, or no rows.
    """

    def finish(count: int, _: None) -> Fitted:
        if not count:
            raise InputError("there are no rows to fit on: this score learns nothing from them, but checks their width")
        return build()

    def collect(features: Features, _: None) -> int:
        return len(of_width(features.embedding, width, "embedding"))

    return Round(collect, operator.add, finish)


def quantile(values: Tensor, share: float) -> float:
    """The quantile of all values, linear between its two neighbours; torch's own takes no more than 2²⁴ values."""
    place = share * (values.numel() - 1)
    low, high = math.floor(place), math.ceil(place)
    ordered = np.partition(values.reshape(-1).numpy(), (low, high))
    below, above = float(ordered[low]), float(ordered[high])
    return below + (above - below) * (place - low)
