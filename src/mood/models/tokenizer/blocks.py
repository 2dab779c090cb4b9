"""Encoder and decoder of a discrete VAE, block by block as in OpenAI's release (github.com/openai/DALL-E).

Names of weights are those of that release, so that its files fit without renaming. What is fixed there and free here:
the steps by which the grid is smaller than the image, and all widths.
"""

import math
from collections import OrderedDict
from collections.abc import Sequence
from itertools import pairwise
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn.functional import conv2d

Step = tuple[int, int]
"""(height, width) of the cells that become one, from one group of blocks to the next."""


class Conv2d(nn.Module):
    """A convolution that keeps the size, with weights `w` (out, in, k, k) and `b` (out,)."""

    def __init__(self, channels: int, out: int, size: int) -> None:
        super().__init__()
        self.padding = (size - 1) // 2
        self.w = nn.Parameter(torch.empty(out, channels, size, size))
        self.b = nn.Parameter(torch.zeros(out))
        nn.init.normal_(self.w, std=1 / math.sqrt(channels * size**2))

    def forward(self, x: Tensor) -> Tensor:
        """(N, in, H, W) → (N, out, H, W)."""
        return conv2d(x, self.w, self.b, padding=self.padding)


class Block(nn.Module):
    """Four convolutions beside the identity, a quarter as wide inside.

    Args:
        channels: that come.
        out: that go, divisible by 4.
        sizes: of the four kernels.
        blocks: how many such blocks the network has; each adds 1 / blocks² of what it finds.
    """

    def __init__(self, channels: int, out: int, sizes: Sequence[int], blocks: int) -> None:
        super().__init__()
        widths = (channels, *(out // 4,) * 3, out)
        self.gain = 1 / blocks**2
        self.id_path = Conv2d(channels, out, 1) if channels != out else nn.Identity()
        layers: OrderedDict[str, nn.Module] = OrderedDict()
        for number, ((before, after), size) in enumerate(zip(pairwise(widths), sizes, strict=True), start=1):
            layers |= {f"relu_{number}": nn.ReLU(), f"conv_{number}": Conv2d(before, after, size)}
        self.res_path = nn.Sequential(layers)

    def forward(self, x: Tensor) -> Tensor:
        """(N, in, H, W) → (N, out, H, W)."""
        found: Tensor = self.id_path(x) + self.gain * self.res_path(x)
        return found


class Encoder(nn.Module):
    """Images to logits over the codes of each cell of the grid.

    Args:
        codes: V, how many there are.
        width: of the first group of blocks, divisible by 4; it doubles from group to group.
        blocks: in each group.
        steps: one fewer than there are groups.

    Attributes:
        codes: V.
        stride: (height, width) in pixels of a cell of the grid.
    """

    def __init__(self, *, codes: int, width: int, blocks: int, steps: Sequence[Step]) -> None:
        super().__init__()
        self.codes = codes
        self.stride = math.prod(step[0] for step in steps), math.prod(step[1] for step in steps)
        groups = len(steps) + 1
        layers: OrderedDict[str, nn.Module] = OrderedDict(input=Conv2d(3, width, 7))
        channels = width
        for group in range(groups):
            out = width * 2**group
            inner: OrderedDict[str, nn.Module] = OrderedDict()
            for block in range(blocks):
                inner[f"block_{block + 1}"] = Block(channels, out, (3, 3, 3, 1), groups * blocks)
                channels = out
            if group < len(steps):
                inner["pool"] = nn.MaxPool2d(steps[group])
            layers[f"group_{group + 1}"] = nn.Sequential(inner)
        layers["output"] = nn.Sequential(OrderedDict(relu=nn.ReLU(), conv=Conv2d(channels, codes, 1)))
        self.blocks = nn.Sequential(layers)

    @torch.no_grad()
    def place_codes(self, mapped: Tensor) -> None:
        """Start each code from what the untrained encoder finds in one cell of these images.

        The logits become -s · |f - c|², up to what all codes share, where f is what a cell has, c what the code's cell
        has, and s makes all codes together, at half the usual distance, weigh as much as one at none. A layer of random
        weights has one code win nearly everywhere, and long training to get away from there.

        Args:
            mapped: (N, 3, H, W) as `map_pixels` gives them, with at least one cell.
        """
        found = self.blocks[:-1](mapped).relu().movedim(1, -1).flatten(0, -2)
        centres = found[torch.randint(len(found), (self.codes,), device=found.device)]
        usual = 2 * found.var(dim=0, correction=0).sum().clamp(min=torch.finfo(found.dtype).tiny)
        sharpness = 4 * math.log(self.codes) / usual
        output = cast(Conv2d, self.blocks.get_submodule("output.conv"))
        output.w.copy_((2 * sharpness * centres)[..., None, None])
        output.b.copy_(-sharpness * centres.square().sum(dim=1))

    def forward(self, mapped: Tensor) -> Tensor:
        """(N, 3, H, W) as `map_pixels` gives them → (N, V, rows, columns) float32 logits."""
        found: Tensor = self.blocks(mapped)
        return found.float()


class Decoder(nn.Module):
    """Codes, or mixtures of them, to images: the encoder backwards.

    Args:
        codes: V, how many there are.
        code_width: of the vector that each code stands for.
        width: of the last group of blocks.
        blocks: in each group.
        steps: of the encoder.
        channels: that come out.
    """

    def __init__(
        self, *, codes: int, code_width: int, width: int, blocks: int, steps: Sequence[Step], channels: int
    ) -> None:
        super().__init__()
        groups = len(steps) + 1
        layers: OrderedDict[str, nn.Module] = OrderedDict(input=Conv2d(codes, code_width, 1))
        before = code_width
        for group in range(groups):
            out = width * 2 ** (groups - 1 - group)
            inner: OrderedDict[str, nn.Module] = OrderedDict()
            for block in range(blocks):
                inner[f"block_{block + 1}"] = Block(before, out, (1, 3, 3, 3), groups * blocks)
                before = out
            if group < len(steps):
                inner["upsample"] = nn.Upsample(scale_factor=tuple(map(float, steps[-1 - group])), mode="nearest")
            layers[f"group_{group + 1}"] = nn.Sequential(inner)
        layers["output"] = nn.Sequential(OrderedDict(relu=nn.ReLU(), conv=Conv2d(before, channels, 1)))
        self.blocks = nn.Sequential(layers)

    def forward(self, mixture: Tensor) -> Tensor:
        """(N, V, rows, columns), shares of each code that sum to 1 → (N, channels, H, W) float32."""
        found: Tensor = self.blocks(mixture)
        return found.float()
