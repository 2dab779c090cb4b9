"""The cut that keeps calibration images out of every stage."""

import hashlib
from collections.abc import Sequence

import numpy as np

from mood.core.errors import InputError


def held_out(hashes: Sequence[str], *, seed: int = 0, fraction: float = 0.1) -> np.ndarray:
    """Which images are held out: those whose sha256 of "seed:hash", as a number in [0, 1), is below the fraction.

    An image's side depends on its bytes and the seed alone, so that pre-training, fine-tuning, statistics and
    calibration each find the same cut, in any order, whatever else they are given. A larger fraction holds out the
    same images and more. About `fraction` of the images are held out, not exactly so many.

    Args:
        hashes: N hex digests, as in `Manifest.hashes`.
        seed: another seed is another cut.
        fraction: in [0, 1].

    Returns:
        (N,) bool, True where held out.

    Raises:
        InputError: for a fraction outside of [0, 1].
    """
    if not 0 <= fraction <= 1:
        raise InputError(f"fraction is {fraction!r}; it must lie between 0 and 1.")
    draws = (hashlib.sha256(f"{seed}:{digest}".encode()).digest() for digest in hashes)
    # 53 bits are what a float64 holds exactly, so that no draw rounds up to 1.
    return np.array([(int.from_bytes(draw[:8], "big") >> 11) * 2.0**-53 < fraction for draw in draws], dtype=bool)
