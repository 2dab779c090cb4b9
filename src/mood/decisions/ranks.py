"""Ranks: where a score stands among the scores of n ID images, and what becomes of ties.

A rank k among n + 1 (the n and the image itself) counts from the most unusual, so that k / (n + 1) is a p-value. Equal
scores are a matter of choice. `conservative` counts all of them as more unusual, which only lowers the false-alarm
rate: constant scores flag nothing. `randomised` puts the image at a random place among its equals, so that its rank is
uniform on 1 … n + 1 whatever the scores are, and the rate is met and not only kept (after the smoothed p-values of
Vovk, Gammerman, Shafer: Algorithmic Learning in a Random World, 2005, section 2.2; here the lot falls among equals
alone, so that a score without equals needs none). The lot is a hash of the image's id: twice gives the same.
"""

import hashlib
from collections.abc import Sequence

import numpy as np

from mood.core.errors import InputError

TIES = ("conservative", "randomised")


def check_ties(ties: str) -> str:
    """The word itself.

    Raises:
        InputError: it is none of `TIES`.
    """
    if ties not in TIES:
        raise InputError(f"ties is {ties!r}; {' or '.join(TIES)} was expected")
    return ties


def above_and_equal(ordered: np.ndarray, scores: np.ndarray, ties: str) -> tuple[np.ndarray, np.ndarray]:
    """How many of n scores count as more unusual than each score, and how many equal it and are open to the lot.

    Args:
        ordered: (n,) ascending.
        scores: (N,), no NaN.
        ties: one of `TIES`; where it is conservative, equals count as more unusual, and none is open.

    Returns:
        (N,) int64 each.
    """
    below = np.searchsorted(ordered, scores, side="left")
    if ties == "conservative":
        return len(ordered) - below, np.zeros(len(scores), np.int64)
    up_to = np.searchsorted(ordered, scores, side="right")
    return len(ordered) - up_to, up_to - below


def ranks(above: np.ndarray, equal: np.ndarray, ties: str, ids: Sequence[str] | None) -> np.ndarray:
    """The place of each image among itself and the n others, the most unusual first.

    Args:
        above: (N,) whole numbers, of the n scores that count as more unusual.
        equal: (N,) of those that are open to the lot.
        ties: one of `TIES`.
        ids: names of the N images; needed where ties are randomised.

    Returns:
        (N,) int64 in 1 … n + 1.

    Raises:
        InputError: ties are randomised and there are no ids, or another number of them.
    """
    if ties == "conservative":
        conservative: np.ndarray = 1 + above
        return conservative
    if ids is None or len(ids) != len(above):
        given = "none" if ids is None else str(len(ids))
        raise InputError(f"randomised ties draw a lot from the id of each of {len(above)} images; ids given: {given}")
    tied = np.flatnonzero(equal)
    places = np.zeros(len(above), np.int64)
    places[tied] = (lots([ids[row] for row in tied.tolist()]) * (equal[tied] + 1)).astype(np.int64)
    found: np.ndarray = 1 + above + places
    return found


def lots(ids: Sequence[str]) -> np.ndarray:
    """(N,) float64 in [0, 1), drawn from the names: the same name, the same lot, on every machine."""
    digests = (hashlib.sha256(f"tie:{name}".encode()).digest() for name in ids)
    # 53 bits are what a float64 holds exactly, so that no lot rounds up to 1.
    return np.array([(int.from_bytes(digest[:8], "big") >> 11) * 2.0**-53 for digest in digests])
