"""What BEiT and SimMIM share: an encoder that sees one learned token wherever a patch is hidden.

The token is placed by a hook on timm's patch embedding, so no forward is copied.
"""

import math
from typing import Any, cast

import torch
from timm.layers import PatchEmbed
from timm.models.beit import Beit, RelativePositionBias
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from mood.core.errors import ModelError
from mood.models.pretexts.interface import Pretext, patch_size
from mood.models.pretexts.masks import BlockMasks, UnitMasks


class MaskedModelling(Pretext):
    """An encoder, the token that stands for hidden patches, and positions that all blocks share.

    A `Beit` of timm has a table of relative positions in each block. While it is pre-trained, one table serves all of
    them, as in the official code (`RelativePositionBias` of its `modeling_pretrain.py`); `release` gives each block a
    copy, as its fine-tuning does.

    Args:
        encoder: a timm `VisionTransformer` or `Beit`, or another network that says where it is at home in `families`.
        families: classes of networks that the pretext knows.

    Attributes:
        grid: (rows, columns) of patches.
        patch: (height, width) of a patch in pixels.
        masks: makes the masks; set by the subclass.

    Raises:
        ModelError: the encoder is none of the families, drops patches of its own, or has no positions.
    """

    mask_token: nn.Parameter
    masks: BlockMasks | UnitMasks
    drop_path = 0.1

    def __init__(self, encoder: nn.Module, *, families: tuple[type[nn.Module], ...]) -> None:
        super().__init__()
        if not isinstance(encoder, families):
            raise ModelError(
                f"{type(self).__name__} needs a {' or '.join(family.__name__ for family in families)} of timm, got "
                f"{type(encoder).__name__}: choose a model whose name begins with 'vit_', 'mood_vit_' or 'beit_'"
            )
        network = cast(Any, encoder)
        self.grid: tuple[int, int] = tuple(network.patch_embed.grid_size)
        self.patch = patch_size(tuple(network.patch_embed.img_size), self.grid)
        if not isinstance(getattr(network, "patch_drop", nn.Identity()), nn.Identity):
            raise ModelError("an encoder that drops patches cannot tell what the hidden ones show: no patch_drop_rate")
        if isinstance(encoder, VisionTransformer) and encoder.pos_embed is None:
            raise ModelError("hidden patches differ by their position alone, and this encoder has none: set pos_embed")
        # A stem with overlapping windows would let visible patches tell of hidden ones: there the pixels go as well.
        self.stem_overlaps = type(network.patch_embed) is not PatchEmbed
        self.shares_positions = isinstance(encoder, Beit) and _share_positions(encoder)
        self.encoder = encoder
        self.mask_token = nn.Parameter(torch.zeros(1, 1, network.embed_dim))
        nn.init.trunc_normal_(self.mask_token, std=0.02, a=-0.02, b=0.02)
        self._hidden: Tensor | None = None
        self._hook = network.patch_embed.register_forward_hook(self._place_token)

    def hide(self, draws: Tensor) -> Tensor:
        """(N, draws) → (N, P) bool, True where the patch is hidden."""
        return self.masks(draws)

    def encode(self, images: Tensor, mask: Tensor) -> Tensor:
        """(N, 3, H, W) normalised and (N, P) bool → (N, P', D): the patch tokens after the final norm.

        P' is P, but for networks that merge patches on their way.
        """
        if self.stem_overlaps:
            images = images.masked_fill(self.to_pixels(mask), 0)
        self._hidden = mask
        tokens = cast(Any, self.encoder).forward_features(images)
        self._hidden = None
        if tokens.ndim == 4:
            return cast(Tensor, tokens.flatten(1, 2))
        patches = tokens[:, cast(Any, self.encoder).num_prefix_tokens :]
        # Encoders that pool have their norm behind the pooling; it sees single patches here, and their mean later.
        pooled_first = isinstance(self.encoder.norm, nn.Identity)
        return cast(Tensor, cast(Any, self.encoder).fc_norm(patches) if pooled_first else patches)

    def to_pixels(self, mask: Tensor) -> Tensor:
        """(N, P) → (N, 1, H, W): each patch's value spread over its pixels."""
        blocks = mask.reshape(len(mask), 1, *self.grid)
        return blocks.repeat_interleave(self.patch[0], dim=2).repeat_interleave(self.patch[1], dim=3)

    @torch.no_grad()
    def initialise(self) -> None:
        """The initial weights of BEiT, which SimMIM's ViT took over (`modeling_pretrain.py` of the first).

        Normal of deviation 0.02 within one deviation, no biases, zero tables, and what each block adds divided by
        the root of twice its number. A stem of convolutions stays as timm made it.
        """
        network = cast(Any, self.encoder)
        linear = [module for module in self.modules() if isinstance(module, nn.Linear)]
        if not self.stem_overlaps:
            linear.append(network.patch_embed.proj)
        for module in linear:
            nn.init.trunc_normal_(module.weight, std=0.02, a=-0.02, b=0.02)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        for name in ("cls_token", "pos_embed"):
            if getattr(network, name, None) is not None:
                nn.init.trunc_normal_(getattr(network, name), std=0.02, a=-0.02, b=0.02)
        for number, block in enumerate(getattr(network, "blocks", ()), start=1):
            block.attn.proj.weight.div_(math.sqrt(2 * number))
            block.mlp.fc2.weight.div_(math.sqrt(2 * number))

    def no_weight_decay(self) -> set[str]:
        """Names of the tokens and of the tables of positions."""
        own = {f"encoder.{name}" for name in cast(Any, self.encoder).no_weight_decay()}
        tables = {name for name, _ in self.named_parameters() if name.endswith("relative_position_bias_table")}
        return own | tables | {"mask_token"}

    def release(self) -> nn.Module:
        """The encoder without hook, each of its blocks with its own table again."""
        self._hook.remove()
        if self.shares_positions:
            _unshare_positions(cast(Beit, self.encoder))
        return self.encoder

    def _place_token(self, embedding: nn.Module, inputs: Any, patches: Tensor) -> Tensor:
        """(N, P, D) or (N, rows, columns, D) → the same with the token in place of hidden patches."""
        if self._hidden is None:
            return patches
        hidden = self._hidden.reshape(*patches.shape[:-1], 1)
        return torch.where(hidden, self.mask_token.to(patches.dtype), patches)


@torch.no_grad()
def _share_positions(encoder: Beit) -> bool:
    """Put one table in the place of those of the blocks, their mean; False where there are none."""
    layers = [block.attn for block in cast(Any, encoder).blocks if block.attn.relative_position_bias_table is not None]
    if not layers or encoder.rel_pos_bias is not None:
        return False
    shared = RelativePositionBias(layers[0].window_size, layers[0].num_heads)
    shared = shared.to(layers[0].relative_position_bias_table.device)
    shared.relative_position_bias_table.copy_(
        torch.stack([layer.relative_position_bias_table for layer in layers]).mean(dim=0)
    )
    for layer in layers:
        layer.relative_position_bias_table = None
    encoder.rel_pos_bias = shared
    return True


def _unshare_positions(encoder: Beit) -> None:
    shared = cast(Any, encoder.rel_pos_bias).relative_position_bias_table
    for block in cast(Any, encoder).blocks:
        block.attn.relative_position_bias_table = nn.Parameter(shared.detach().clone())
    cast(Any, encoder).rel_pos_bias = None
