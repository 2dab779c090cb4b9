"""Which patches are hidden: functions from uniform numbers to masks, so that a mask is what its seed makes it."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from random import Random

import numpy as np
import torch
from torch import Tensor

from mood.core.errors import ModelError


@dataclass(frozen=True, slots=True)
class BlockMasks:
    """BEiT's block-wise masking (Bao et al., ICLR 2022, algorithm 1), as its code has it.

    Rectangles are thrown until `count` patches are hidden. One that would hide too many, or nothing new, is thrown
    again; after `tries` of those in a row the mask is left as it is. So `count` is the most: on 14 x 14 patches, 75
    become 65 to 75, and 74.5 on average. Rectangles and masks are integers with one bit for each
    patch, which makes a mask in 20 to 50 µs of plain Python.

    Attributes:
        grid: (rows, columns) of patches.
        count: patches to hide.
        min_block: patches of the smallest rectangle, as far as `count` has room for it.
        aspect: height : width of a rectangle lies between this and its inverse, uniform in its logarithm.
        tries: throws for each rectangle.
        exact: hide single patches at random where the rectangles left something to hide, so that `count` are.

    Raises:
        ModelError: a number that is out of range.
    """

    grid: tuple[int, int]
    count: int
    min_block: int = 16
    aspect: float = 0.3
    tries: int = 10
    exact: bool = False

    def __post_init__(self) -> None:
        """Check every field."""
        rows, columns = self.grid
        for name, value, sound, expected in (
            ("grid", self.grid, min(self.grid) >= 1, "at least 1 x 1"),
            ("count", self.count, 0 < self.count < rows * columns, f"between 1 and {rows * columns - 1}"),
            ("min_block", self.min_block, self.min_block >= 1, "at least 1"),
            ("aspect", self.aspect, 0 < self.aspect <= 1, "above 0 and at most 1"),
            ("tries", self.tries, self.tries >= 1, "at least 1"),
        ):
            if not sound:
                raise ModelError(f"{name} is {value}; it must be {expected}")

    @property
    def draws(self) -> int:
        """2: a seed of 48 bits. How many numbers a mask takes is not known before."""
        return 2

    @property
    def most(self) -> int:
        """`count`."""
        return self.count

    def __call__(self, draws: Tensor) -> Tensor:
        """(N, 2) in [0, 1) → (N, P) bool, True where the patch is hidden."""
        patches = self.grid[0] * self.grid[1]
        seeds = (draws.double().cpu().numpy() * 2**24).astype(np.int64) @ np.array([2**24, 1])
        width = -(-patches // 8)
        packed = b"".join(self._mask(seed).to_bytes(width, "little") for seed in seeds.tolist())
        bits = np.unpackbits(np.frombuffer(packed, np.uint8).reshape(-1, width), axis=1, bitorder="little")
        return torch.from_numpy(bits[:, :patches].astype(np.bool_))

    def _mask(self, seed: int) -> int:
        # Of a generator's methods, Python promises the stream of this one alone.
        uniform = Random(seed).random
        mask, left = 0, self.count
        while left > 0:
            block = self._throw(uniform, mask, left)
            if block == 0:
                break
            mask |= block
            left = self.count - mask.bit_count()
        if self.exact and left:
            patches = self.grid[0] * self.grid[1]
            free = sorted((uniform(), patch) for patch in range(patches) if not mask >> patch & 1)
            for _, patch in free[:left]:
                mask |= 1 << patch
        return mask

    def _throw(self, uniform: Callable[[], float], mask: int, most: int) -> int:
        """A rectangle that hides from 1 to `most` patches more, or 0."""
        rows, columns = self.grid
        low = math.log(self.aspect)
        for _ in range(self.tries):
            area = self.min_block + (most - self.min_block) * uniform()
            ratio = math.exp(low * (1 - 2 * uniform()))
            height, width = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
            if height < rows and width < columns:
                top, left = int(uniform() * (rows - height + 1)), int(uniform() * (columns - width + 1))
                block = _rectangle(height, width, columns) << top * columns + left
                if 0 < (block & ~mask).bit_count() <= most:
                    return block
        return 0


@dataclass(frozen=True, slots=True)
class UnitMasks:
    """SimMIM's random masking (Xie et al., CVPR 2022): squares larger than a patch, each hidden or seen as a whole.

    Attributes:
        grid: (rows, columns) of patches.
        unit: (rows, columns) of patches that are hidden together; fills the grid.
        ratio: share of the units that is hidden, rounded up.

    Raises:
        ModelError: units that do not fill the grid, or a ratio that hides nothing or everything.
    """

    grid: tuple[int, int]
    unit: tuple[int, int]
    ratio: float = 0.6

    def __post_init__(self) -> None:
        """Check every field."""
        if min(self.unit) < 1 or any(side % step for side, step in zip(self.grid, self.unit, strict=True)):
            raise ModelError(f"units of {self.unit} patches do not fill a grid of {self.grid}")
        if not 0 < self.ratio < 1 or self.hidden_units == self.draws:
            raise ModelError(
                f"ratio {self.ratio} hides {self.hidden_units} of {self.draws} units; some must stay, some must go"
            )

    @property
    def units(self) -> tuple[int, int]:
        """(rows, columns) of units."""
        return self.grid[0] // self.unit[0], self.grid[1] // self.unit[1]

    @property
    def draws(self) -> int:
        """One for each unit."""
        return self.units[0] * self.units[1]

    @property
    def hidden_units(self) -> int:
        """How many units each mask hides."""
        # .55 * 20 is a little more than 11.
        return math.ceil(self.ratio * self.draws - 1e-9)

    @property
    def most(self) -> int:
        """Patches that each mask hides."""
        return self.hidden_units * self.unit[0] * self.unit[1]

    def __call__(self, draws: Tensor) -> Tensor:
        """(N, units) in [0, 1) → (N, P) bool; the units with the smallest numbers are hidden."""
        rank = draws.argsort(dim=1, stable=True).argsort(dim=1)
        mask = (rank < self.hidden_units).reshape(-1, *self.units)
        return mask.repeat_interleave(self.unit[0], 1).repeat_interleave(self.unit[1], 2).flatten(1)


@lru_cache(maxsize=4096)
def _rectangle(height: int, width: int, columns: int) -> int:
    """Its bits in the upper left corner of a grid with so many columns."""
    row = (1 << width) - 1
    return sum(row << line * columns for line in range(height))
