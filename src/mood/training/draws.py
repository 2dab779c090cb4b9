"""Random numbers that are a function of what they are for, not of when they were drawn.

A generator's state depends on everything drawn before, so a resumed, re-batched or re-sharded run would draw others.
Here each number is a hash of (seed, epoch, image, index): whoever asks, whenever, gets the same.
"""

import random

import numpy as np
import torch
from torch import Tensor

_GOLDEN = 0x9E3779B97F4A7C15


def _mix(state: np.ndarray) -> np.ndarray:
    """SplitMix64's finaliser (Steele, Lea & Flood, 2014) on uint64."""
    state = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    state = (state ^ (state >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return np.asarray(state ^ (state >> np.uint64(31)))


def _key(*parts: int) -> np.ndarray:
    key = np.zeros(1, np.uint64)
    for part in parts:
        key = _mix(key * np.uint64(_GOLDEN) + np.uint64(part % 2**64) + np.uint64(_GOLDEN))
    return key


def uniform(seed: int, epoch: int, items: Tensor, count: int) -> Tensor:
    """(len(items), count) float32 in [0, 1): row i belongs to items[i] alone.

    Args:
        seed: of the run.
        epoch: in which the numbers are used.
        items: (n,) int64, what each row is for (an image's position in its set).
        count: numbers per item.
    """
    rows = _mix(_key(seed, epoch) + items.numpy().astype(np.uint64) * np.uint64(_GOLDEN))
    columns = np.arange(1, count + 1, dtype=np.uint64) * np.uint64(_GOLDEN)
    bits = _mix(rows[:, None] + columns[None, :])
    return torch.from_numpy((bits >> np.uint64(40)).astype(np.float32) * np.float32(2**-24))


def seed_everything(*parts: int) -> None:
    """Seed Python's, NumPy's and torch's global generators from a hash of the parts.

    For code that draws from them (drop path, mixup): called before each step with (seed, step), it makes the step's
    draws independent of the steps before.
    """
    value = int(_key(*parts)[0])
    random.seed(value)
    np.random.seed(value % 2**32)
    torch.manual_seed(value % 2**63)


def seed_of(*parts: int) -> int:
    """A number of 63 bits that is a function of the parts alone."""
    return int(_key(*parts)[0]) % 2**63
