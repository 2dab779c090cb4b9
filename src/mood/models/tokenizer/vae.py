"""A discrete VAE: an image becomes one code of a codebook for each cell of a grid, and an image again.

What it is trained for is the lower bound of Ramesh et al. (ICML 2021, section 2.1), with a weight on its second term
and one term more, which keeps the codebook in use.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import one_hot

from mood.core.errors import ModelError
from mood.models.tokenizer.blocks import Decoder, Encoder, Step
from mood.models.tokenizer.likelihood import EDGE, bounded_scale, logit_laplace, map_pixels, unmap_pixels
from mood.models.tokenizer.relaxation import gumbel_softmax, imbalance, kl_to_uniform

MAX_CODES = 1 << 16

Reconstruction = Literal["logit_laplace", "mse"]


@dataclass(frozen=True, slots=True, kw_only=True)
class VaeShape:
    """What a discrete VAE is built from, checked.

    Attributes:
        codes: V, how many there are.
        image_size: (H, W).
        grid: (rows, columns) of codes.
        width: of the blocks at the image's own resolution, doubled with each step to the grid.
        code_width: of the vector that a code stands for.
        blocks: between two steps.
        reconstruction: how images are compared.

    Raises:
        ModelError: a number that is out of range, or a grid that does not divide the image.
    """

    codes: int
    image_size: tuple[int, int]
    grid: tuple[int, int]
    width: int = 32
    code_width: int = 64
    blocks: int = 1
    reconstruction: Reconstruction = "logit_laplace"

    def __post_init__(self) -> None:
        """Check every number before anything is built."""
        for name, value, sound, expected in (
            ("codes", self.codes, 2 <= self.codes <= MAX_CODES, f"from 2 to {MAX_CODES}"),
            ("width", self.width, self.width >= 4 and self.width % 4 == 0, "a multiple of 4"),
            ("code_width", self.code_width, self.code_width >= 1, "at least 1"),
            ("blocks", self.blocks, self.blocks >= 1, "at least 1"),
            ("image_size", self.image_size, min(self.image_size) >= 1, "at least 1 on each side"),
            ("grid", self.grid, min(self.grid) >= 1, "at least 1 on each side"),
        ):
            if not sound:
                raise ModelError(f"the tokenizer's {name} is {value}; it must be {expected}")
        for side, cells in zip(self.image_size, self.grid, strict=True):
            if side % cells:
                raise ModelError(
                    f"a grid of {self.grid[0]} x {self.grid[1]} does not divide an image of {self.image_size[0]} x "
                    f"{self.image_size[1]} pixels: each side of the image must be a multiple of the grid's"
                )

    @property
    def steps(self) -> tuple[Step, ...]:
        """From the image to the grid: one for each prime factor of the larger ratio, 2 x 2 wherever both have one."""
        down, across = (_primes(side // cells) for side, cells in zip(self.image_size, self.grid, strict=True))
        count = max(len(down), len(across))
        down, across = (found + [1] * (count - len(found)) for found in (down, across))
        return tuple(zip(down, across, strict=True))

    @property
    def channels(self) -> int:
        """What the decoder gives for each pixel: μ of each colour, and ln b where the likelihood has one."""
        return 6 if self.reconstruction == "logit_laplace" else 3


class Shown(NamedTuple):
    """A batch and how it is to be looked at.

    Attributes:
        images: (N, 3, H, W) in [0, 1].
        temperature: of the relaxation, a scalar tensor.
        kl_weight: on the distance of the codes from being used alike, a scalar tensor.
        balance: weight on the distance of what the whole batch uses of the codes from all alike, a scalar tensor.
        hard: one code a cell, straight-through.
        fixed: the decoder alone learns.
    """

    images: Tensor
    temperature: Tensor
    kl_weight: Tensor
    balance: Tensor
    hard: bool
    fixed: bool = False


class DiscreteVae(nn.Module):
    """Encoder and decoder around a codebook.

    Args:
        shape: of all of it.
    """

    def __init__(self, shape: VaeShape) -> None:
        super().__init__()
        self.shape = shape
        self.encoder = Encoder(codes=shape.codes, width=shape.width, blocks=shape.blocks, steps=shape.steps)
        self.decoder = Decoder(
            codes=shape.codes,
            code_width=shape.code_width,
            width=shape.width,
            blocks=shape.blocks,
            steps=shape.steps,
            channels=shape.channels,
        )

    def forward(self, batch: Shown) -> tuple[Tensor, Mapping[str, Tensor]]:
        """The loss, and its two parts: nats (or squared error) a number of the image, and nats a cell of the grid."""
        logits = self.encoder(map_pixels(batch.images))
        if batch.fixed:
            logits = logits.detach()
        # By the inverse of its distribution: torch's own exponential draws take four times as long on a CPU.
        noise = -torch.rand_like(logits).clamp(min=torch.finfo(logits.dtype).tiny).log()
        mixture = gumbel_softmax(logits, noise, batch.temperature, batch.hard)
        error = self.error(batch.images, self.decoder(mixture)).mean()
        kl = kl_to_uniform(logits).mean()
        held = batch.kl_weight * kl + batch.balance * imbalance(mixture)
        return error + held * self.cells_per_number, {"reconstruction": error.detach(), "kl": kl.detach()}

    @property
    def cells_per_number(self) -> float:
        """Cells of the grid for each number of an image: it brings nats a cell to nats a number."""
        rows, columns = self.shape.grid
        height, width = self.shape.image_size
        return rows * columns / (3 * height * width)

    def error(self, images: Tensor, given: Tensor) -> Tensor:
        """(N, 3, H, W) in [0, 1] and what the decoder gave → (N, 3, H, W): nats, or squared errors."""
        if self.shape.reconstruction == "mse":
            return (map_pixels(images) - given.sigmoid()).square() / (1 - 2 * EDGE) ** 2
        mean, raw = given.chunk(2, dim=1)
        return logit_laplace(map_pixels(images), mean, bounded_scale(raw))

    def images(self, given: Tensor) -> Tensor:
        """What the decoder gave → (N, 3, H, W) in [0, 1]."""
        return unmap_pixels(given[:, :3].sigmoid())

    def decode(self, tokens: Tensor) -> Tensor:
        """(N, rows, columns) int64 → (N, channels, H, W), see `error` and `images`."""
        found: Tensor = self.decoder(one_hot(tokens, self.shape.codes).movedim(-1, 1).float())
        return found


def _primes(number: int) -> list[int]:
    """Prime factors, ascending."""
    found, factor = [], 2
    while number > 1:
        if number % factor:
            factor += 1
        else:
            found.append(factor)
            number //= factor
    return found
