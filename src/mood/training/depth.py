"""Stochastic depth whose draws belong to an image, so that a batch may be cut in any way.

timm draws a number for each row of whatever it is given, from the global generator. Here they are a function of
(seed, epoch, image, layer), put in place before the step: also a compiled network takes them as they come.
"""

from collections.abc import Sequence

import torch
from timm.layers import DropPath
from torch import Tensor, nn

from mood.training.draws import uniform

# Apart from what masks and other draws for the same image use.
_STREAM = 0x5EED


class DrawnDropPath(DropPath):
    """timm's `DropPath`, which keeps or drops each row by a factor that was drawn before.

    Attributes:
        factors: (n,) of the images that the next forward is given, 0 or 1 / (1 - drop_prob).
    """

    def __init__(self, drop_prob: float, scale_by_keep: bool) -> None:
        super().__init__(drop_prob, scale_by_keep)
        self.factors: Tensor | None = None

    def forward(self, x: Tensor) -> Tensor:
        """(n·v, …) rows of v views, one view after the other: all views of an image share its draw."""
        if self.drop_prob == 0.0 or not self.training or self.factors is None:
            return x
        factors = self.factors.repeat(len(x) // len(self.factors))
        return x * factors.to(x.dtype).reshape(-1, *[1] * (x.ndim - 1))


def place(module: nn.Module) -> tuple[DrawnDropPath, ...]:
    """Put a `DrawnDropPath` in the place of every `DropPath`."""
    for parent in list(module.modules()):
        for name, child in parent.named_children():
            if type(child) is DropPath and child.drop_prob:
                setattr(parent, name, DrawnDropPath(child.drop_prob, child.scale_by_keep).train(child.training))
    return tuple(child for child in module.modules() if isinstance(child, DrawnDropPath))


def draw(layers: Sequence[DrawnDropPath], seed: int, epoch: int, items: Tensor, device: torch.device) -> None:
    """Draw for the images that come next.

    Args:
        layers: as `place` gives them.
        seed: of the run.
        epoch: from 0.
        items: (n,) int64, the images.
        device: of the network.
    """
    if not layers:
        return
    kept = torch.tensor([1 - layer.drop_prob for layer in layers])
    factors = (uniform(seed ^ _STREAM, epoch, items, len(layers)) < kept).float()
    factors = factors / torch.tensor(
        [1 - layer.drop_prob if layer.scale_by_keep and layer.drop_prob < 1 else 1.0 for layer in layers]
    )
    for layer, column in zip(layers, factors.T.contiguous().to(device, non_blocking=True), strict=True):
        layer.factors = column
