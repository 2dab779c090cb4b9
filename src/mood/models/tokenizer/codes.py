"""A trained encoder as BEiT asks for it: images to codes, with what it has seen."""

import torch
from torch import Tensor, nn

from mood.core.errors import ModelError
from mood.models.model import Stage
from mood.models.tokenizer.blocks import Encoder
from mood.models.tokenizer.likelihood import map_pixels


class DvaeTokenizer(nn.Module):
    """The encoder of a discrete VAE, which gives each cell of an image the number of its most likely code.

    Args:
        encoder: of V codes.
        image_size: (H, W) of the images that it is given.
        grid: (rows, columns) of codes that it gives for them.
        history: what its weights were trained on; None where nobody knows.
        seen: (n,) int64 keys of those images (`mood.models.image_keys`), sorted; None where nobody knows.

    Raises:
        ModelError: the encoder does not bring images of that size to that grid.
    """

    def __init__(
        self,
        encoder: Encoder,
        *,
        image_size: tuple[int, int],
        grid: tuple[int, int],
        history: tuple[Stage, ...] | None,
        seen: Tensor | None,
    ) -> None:
        super().__init__()
        self.encoder = encoder
        self.image_size = image_size
        self.grid = grid
        self.history = history
        self.seen = seen
        if tuple(side * step for side, step in zip(grid, encoder.stride, strict=True)) != image_size:
            raise ModelError(
                f"the tokenizer makes one token of {encoder.stride[0]} x {encoder.stride[1]} pixels, so images of "
                f"{image_size[0]} x {image_size[1]} do not have {grid[0]} x {grid[1]}"
            )
        self.eval().requires_grad_(False)

    @property
    def vocabulary(self) -> int:
        """V, the number of different tokens."""
        return self.encoder.codes

    def logits(self, images: Tensor) -> Tensor:
        """(N, 3, H, W) in [0, 1] → (N, V, rows, columns) float32."""
        found: Tensor = self.encoder(map_pixels(images))
        return found

    @torch.no_grad()
    def tokens(self, images: Tensor) -> Tensor:
        """(N, 3, H, W) in [0, 1] → (N, rows, columns) int64."""
        return self.logits(images).argmax(dim=1)
