"""Which images stand for many: by a hash of (seed, id), so that neither order nor shards have a say."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from hashlib import blake2b
from typing import Any, TypeVar

import torch
from torch import Tensor

from mood.core.errors import InputError
from mood.core.features import Features
from mood.scores._registry import between
from mood.scores._round import Round
from mood.scores._rows import of_width

Fitted = TypeVar("Fitted")

HELD_OUT = 0.2
"""Share of the fit rows that a score sets apart where it must not look at its own statistics."""


@dataclass(frozen=True, slots=True, eq=False)
class Bank:
    """Rows and the hashes of their ids, ascending.

    Attributes:
        hashes: (M,) int64.
        columns: the rows, (M, …) each, in the dtypes that they came in.
        count: rows of which these are the sample.
    """

    hashes: Tensor
    columns: tuple[Tensor, ...]
    count: int

    def smallest(self, size: int) -> "Bank":
        """The rows with the smallest hashes, in their order."""
        order = self.hashes.argsort(stable=True)[:size]
        return Bank(self.hashes[order], tuple(column[order] for column in self.columns), self.count)


def hashes(ids: tuple[str, ...], seed: int, purpose: bytes = b"") -> Tensor:
    """(N,) int64, spread evenly over all of them; another purpose gives an independent draw."""
    key = seed.to_bytes(8, "little", signed=True)
    digests = [blake2b(name.encode(), digest_size=8, key=key, person=purpose).digest() for name in ids]
    return torch.tensor([int.from_bytes(digest, "little", signed=True) for digest in digests], dtype=torch.int64)


def held_out(
    ids: tuple[str, ...], *, seed: int = 0, fraction: float = HELD_OUT, purpose: bytes = b"held out"
) -> Tensor:
    """(N,) bool: the second cut, inside the fit split; calibration images were cut off before it."""
    return hashes(ids, seed, purpose).to(torch.float64) / 2.0**64 + 0.5 < fraction


def _collect(
    features: Features, _: Any, *, columns: Callable[[Features], tuple[Tensor, ...]], size: int, seed: int
) -> Bank:
    return Bank(hashes(features.ids, seed), columns(features), len(features)).smallest(size)


def _merge(earlier: Bank, later: Bank, *, size: int, names: tuple[str, ...]) -> Bank:
    for name, ours, theirs in zip(names, earlier.columns, later.columns, strict=True):
        if ours.dim() > 1:
            of_width(theirs, ours.shape[1], name)
    columns = tuple(torch.cat(pair) for pair in zip(earlier.columns, later.columns, strict=True))
    return Bank(torch.cat([earlier.hashes, later.hashes]), columns, earlier.count + later.count).smallest(size)


def bank_round(
    build: Callable[[Bank], Fitted],
    *,
    size: int,
    seed: int,
    names: tuple[str, ...] = ("embedding",),
    columns: Callable[[Features], tuple[Tensor, ...]] = lambda features: (features.embedding,),
) -> Round[Any, Any, Any]:
    """The round that keeps at most `size` rows, those with the smallest hash of (seed, id), and builds on them.

    Args:
        build: makes the score, or the state for the next round.
        size: the cap.
        seed: of the hash.
        names: of the columns, for messages.
        columns: what is kept of each shard, one row for each image.

    Raises:
        InputError: size or seed out of range; or, later, no rows.
    """

    def finish(bank: Bank, _: Any) -> Fitted:
        if not len(bank.hashes):
            raise InputError("there are no rows to fit on")
        return build(bank)

    size = between("bank", size, 1, 2**31)
    collect = partial(_collect, columns=columns, size=size, seed=between("seed", seed, 0, 2**63 - 1))
    return Round(collect, partial(_merge, size=size, names=names), finish)
