"""SimMIM (Xie et al., CVPR 2022): a linear layer predicts the pixels of hidden patches, judged by the L1 distance."""

from collections.abc import Mapping
from typing import Any, cast

from timm.models.beit import Beit
from timm.models.swin_transformer import SwinTransformer
from timm.models.swin_transformer_v2 import SwinTransformerV2
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from mood.core.errors import ModelError
from mood.models.pretexts.interface import Views
from mood.models.pretexts.masked import MaskedModelling
from mood.models.pretexts.masks import UnitMasks

_LARGEST_UNIT = 32
# Units on a side that the default leaves at least; the paper has 6 (Swin, 192 pixels) and 7 (ViT, 224 pixels).
_UNITS = 6


class SimMim(MaskedModelling):
    """Encoder, mask token and the layer that predicts pixels.

    Args:
        encoder: a timm `VisionTransformer` with position embeddings, `Beit`, `SwinTransformer` or `SwinTransformerV2`.
        mask_ratio: share of the units that is hidden, rounded up.
        mask_unit: side in pixels of the squares that are hidden as a whole, 32 in the paper. What is not said is the
            largest multiple of the patch up to 32 that fills the image with 6 units or more on each side, or one patch.

    Raises:
        ModelError: an encoder that has no such patches, a unit that patches do not fill or that does not fill the
            image, or a ratio that hides nothing or everything.
    """

    def __init__(self, encoder: nn.Module, *, mask_ratio: float = 0.6, mask_unit: int | None = None) -> None:
        super().__init__(encoder, families=(VisionTransformer, Beit, SwinTransformer, SwinTransformerV2))
        if not 0 < mask_ratio < 1:
            raise ModelError(f"mask_ratio must lie between 0 and 1, got {mask_ratio}")
        self.masks = UnitMasks(self.grid, self._unit(mask_unit), mask_ratio)
        self.draws = self.masks.draws
        network = cast(Any, encoder)
        merged = 2 ** (network.num_layers - 1) if isinstance(encoder, SwinTransformer | SwinTransformerV2) else 1
        self.stride = (self.patch[0] * merged, self.patch[1] * merged)
        self.decoder = nn.Linear(network.num_features, 3 * self.stride[0] * self.stride[1])

    def _unit(self, pixels: int | None) -> tuple[int, int]:
        """(rows, columns) of patches in a unit."""
        sides = [count * step for count, step in zip(self.grid, self.patch, strict=True)]
        fitting = [
            unit
            for unit in range(1, min(sides) + 1)
            if all(unit % step == 0 and side % unit == 0 for side, step in zip(sides, self.patch, strict=True))
        ]
        if pixels is None:
            pixels = max(
                (unit for unit in fitting if unit <= _LARGEST_UNIT and min(sides) // unit >= _UNITS), default=None
            )
            if pixels is None:
                return 1, 1
        if pixels not in fitting:
            raise ModelError(
                f"mask_unit is {pixels} pixels; units are made of whole patches ({self.patch[0]} x {self.patch[1]} "
                f"pixels) and fill the image ({sides[0]} x {sides[1]}): set it to "
                f"{' or '.join(map(str, fitting)) or 'nothing, which hides single patches'}"
            )
        return pixels // self.patch[0], pixels // self.patch[1]

    def official(self, state: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """The token is kept in the encoder there, and the layer is a 1 x 1 convolution."""
        own = {
            "mask_token": "encoder.mask_token",
            "decoder.weight": "decoder.0.weight",
            "decoder.bias": "decoder.0.bias",
        }
        found = {name: state[theirs] for name, theirs in own.items() if theirs in state}
        return {name: value.flatten(1) if name == "decoder.weight" else value for name, value in found.items()}

    def forward(self, batch: Views) -> tuple[Tensor, Mapping[str, Tensor]]:
        """The loss."""
        assert batch.mask is not None
        images = batch.images[0]
        hidden = self.to_pixels(batch.mask)
        error = (self.predict(images, batch.mask).float() - images).abs() * hidden
        return error.sum() / (hidden.sum() + 1e-5) / 3, {}

    def errors(self, images: Tensor, draws: Tensor) -> Tensor:
        """(N,) mean absolute error of each image over its hidden pixels.

        Args:
            images: (N, 3, H, W) normalised.
            draws: (N, units); the units with the smallest numbers are hidden.
        """
        mask = self.hide(draws)
        hidden = self.to_pixels(mask)
        error = (self.predict(images, mask).float() - images).abs() * hidden
        return error.sum(dim=(1, 2, 3)) / hidden.sum(dim=(1, 2, 3)) / 3

    def predict(self, images: Tensor, mask: Tensor) -> Tensor:
        """(N, 3, H, W) normalised and (N, P) bool → (N, 3, H, W): the pixels of every patch, hidden or not.

        A token's numbers are laid out channel by channel, each row by row: a 1 x 1 convolution and a pixel shuffle.
        """
        numbers = self.decoder(self.encode(images, mask))
        (high, wide), (height, width) = self.stride, images.shape[2:]
        blocks = numbers.reshape(len(images), height // high, width // wide, 3, high, wide)
        return cast(Tensor, blocks.permute(0, 3, 1, 4, 2, 5).reshape(len(images), 3, height, width))
