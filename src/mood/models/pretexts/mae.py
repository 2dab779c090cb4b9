"""Masked autoencoder (He et al., CVPR 2022) around any timm `VisionTransformer`.

Three quarters of an image's patches are removed, the encoder sees only the rest, and a shallow decoder predicts the
pixels of what was removed. The encoder stays timm's own: only its `patch_drop` is replaced, so no forward is copied.
"""

from collections.abc import Mapping
from typing import NamedTuple, cast

import torch
from timm.layers import PatchEmbed
from timm.layers.pos_embed_sincos import build_sincos2d_pos_embed
from timm.models.vision_transformer import Block, VisionTransformer
from torch import Tensor, nn

from mood.core.errors import ModelError
from mood.models.pretexts.interface import Pretext, Views, patch_size


class MaeOutput(NamedTuple):
    """What one pass gives.

    Attributes:
        loss: scalar, mean squared error over the removed patches.
        prediction: (N, P, p*p*3) predicted pixels of every patch, normalised per patch where the target is.
        mask: (N, P), 1 where the patch was removed.
    """

    loss: Tensor
    prediction: Tensor
    mask: Tensor


class KeepPatches(nn.Module):
    """Stands where timm's patch dropout stands and keeps the patches it was told to keep, in the order given."""

    def __init__(self, prefix_tokens: int) -> None:
        super().__init__()
        self.prefix_tokens = prefix_tokens
        self.keep: Tensor | None = None

    def forward(self, tokens: Tensor) -> Tensor:
        """(N, prefix + P, D) → (N, prefix + kept, D); everything when nothing was said."""
        if self.keep is None:
            return tokens
        prefix, patches = tokens[:, : self.prefix_tokens], tokens[:, self.prefix_tokens :]
        kept = patches.gather(1, self.keep.unsqueeze(-1).expand(-1, -1, patches.shape[-1]))
        return torch.cat((prefix, kept), dim=1)


def sincos_positions(grid: tuple[int, int], width: int, prefix_tokens: int) -> Tensor:
    """(1, prefix + P, width) fixed sine-cosine positions, zero for prefix tokens.

    MAE's table speaks of the column in its first half and of the row in its second; timm's, with the axes given
    backwards, is that table transposed.
    """
    rows, columns = grid
    table = build_sincos2d_pos_embed([columns, rows], dim=width, interleave_sin_cos=True)
    table = table.reshape(columns, rows, width).transpose(0, 1).reshape(rows * columns, width)
    return torch.cat((torch.zeros(prefix_tokens, width), table)).unsqueeze(0)


class MaskedAutoencoder(Pretext):
    """Encoder, decoder and loss of MAE; the decoder's attributes carry the names of the official checkpoints.

    Args:
        encoder: a timm `VisionTransformer` with position embeddings, whose own positions are set to the fixed
            sine-cosine table and frozen.
        decoder_width: width of the decoder's tokens, divisible by 4 and by `decoder_heads`.
        decoder_depth: number of decoder blocks; 1 or 2 are enough on small images, 8 of width 512 are the paper's.
        decoder_heads: attention heads of the decoder.
        mask_ratio: share of the patches removed; int(P * (1 - ratio)) are kept, as in the official code.
        normalise_target: each patch's pixels are normalised by its mean and unbiased variance (+1e-6).

    Raises:
        ModelError: the encoder is not a `VisionTransformer` with position embeddings, a width cannot be divided as it
            must be, or no patch would stay visible.
    """

    encoder: VisionTransformer

    def __init__(
        self,
        encoder: nn.Module,
        *,
        decoder_width: int = 128,
        decoder_depth: int = 1,
        decoder_heads: int = 4,
        mask_ratio: float = 0.75,
        normalise_target: bool = True,
    ) -> None:
        super().__init__()
        if not isinstance(encoder, VisionTransformer) or encoder.pos_embed is None:
            raise ModelError(
                f"MAE needs a timm VisionTransformer with position embeddings, got {type(encoder).__name__}: "
                "choose a model whose name begins with 'vit_' or 'mood_vit_'"
            )
        if encoder.no_embed_class and encoder.num_prefix_tokens:
            raise ModelError("MAE needs a transformer whose position table covers its class token, or that has none")
        if not 0 < mask_ratio < 1:
            raise ModelError(f"mask_ratio must lie between 0 and 1, got {mask_ratio}")
        self.grid = cast(tuple[int, int], tuple(encoder.patch_embed.grid_size))
        image = cast(tuple[int, int], tuple(encoder.patch_embed.img_size))
        if int(self.grid[0] * self.grid[1] * (1 - mask_ratio)) < 1:
            raise ModelError(f"mask_ratio {mask_ratio} leaves none of {self.grid[0] * self.grid[1]} patches visible")
        if encoder.embed_dim % 4:
            raise ModelError(f"MAE's position table needs a width that 4 divides; the encoder's is {encoder.embed_dim}")
        if decoder_width % 4 or decoder_width % decoder_heads:
            raise ModelError(f"decoder_width {decoder_width} must be divisible by 4 and by {decoder_heads} heads")
        self.patch = patch_size(image, self.grid)
        self.prefix_tokens = encoder.num_prefix_tokens
        self.mask_ratio = mask_ratio
        self.draws = self.patches
        self.normalise_target = normalise_target
        # A stem with overlapping windows would let the encoder see into removed patches: there the pixels go as well.
        self.stem_overlaps = type(encoder.patch_embed) is not PatchEmbed

        self.keep_patches = KeepPatches(self.prefix_tokens)
        encoder.patch_drop = self.keep_patches  # type: ignore[assignment]  # timm types it as its own dropout
        encoder.pos_embed.requires_grad_(False).copy_(
            sincos_positions(self.grid, encoder.embed_dim, self.prefix_tokens)
        )
        self.encoder = encoder
        self.decoder_embed = nn.Linear(encoder.embed_dim, decoder_width)
        self.mask_token = nn.Parameter(torch.zeros(1, 1, decoder_width))
        self.decoder_pos_embed = nn.Parameter(
            sincos_positions(self.grid, decoder_width, self.prefix_tokens), requires_grad=False
        )
        norm = type(encoder.norm) if not isinstance(encoder.norm, nn.Identity) else nn.LayerNorm
        self.decoder_blocks = nn.Sequential(
            *(
                Block(decoder_width, decoder_heads, mlp_ratio=4.0, qkv_bias=True, norm_layer=norm)
                for _ in range(decoder_depth)
            )
        )
        self.decoder_norm = norm(decoder_width)
        self.decoder_pred = nn.Linear(decoder_width, self.patch[0] * self.patch[1] * 3)
        nn.init.normal_(self.mask_token, std=0.02)
        for module in (self.decoder_embed, self.decoder_blocks, self.decoder_pred):
            module.apply(_initialise_linear)

    @property
    def patches(self) -> int:
        """P, the number of patches."""
        return self.grid[0] * self.grid[1]

    def forward(self, batch: Views) -> tuple[Tensor, Mapping[str, Tensor]]:
        """The loss of one view."""
        return self.reconstruct(batch.images[0], batch.draws).loss, {}

    def release(self) -> nn.Module:
        """The encoder with all its patches."""
        self.encoder.patch_drop = nn.Identity()  # type: ignore[assignment]
        return self.encoder

    def errors(self, images: Tensor, noise: Tensor) -> Tensor:
        """(N,) mean squared error of each image over its removed patches; arguments as those of `reconstruct`."""
        output = self.reconstruct(images, noise)
        error = (output.prediction.float() - self.target(images)).square().mean(dim=-1)
        return (error * output.mask).sum(1) / output.mask.sum(1)

    def reconstruct(self, images: Tensor, noise: Tensor) -> MaeOutput:
        """Mask, encode the visible, decode, and compare.

        Args:
            images: (N, 3, H, W) normalised.
            noise: (N, P); the patches with the smallest values stay visible.
        """
        order = noise.argsort(dim=1)
        restore = order.argsort(dim=1)
        kept = int(self.patches * (1 - self.mask_ratio))
        mask = (restore >= kept).to(images.dtype)
        encoded = self.encode(images, order[:, :kept], mask)
        prediction = self.decode(encoded, restore)
        error = (prediction.float() - self.target(images)).square().mean(dim=-1)
        return MaeOutput((error * mask).sum() / mask.sum(), prediction, mask)

    def encode(self, images: Tensor, keep: Tensor, mask: Tensor) -> Tensor:
        """(N, 3, H, W), (N, kept) indices, (N, P) mask → (N, prefix + kept, D) tokens after the final norm."""
        if self.stem_overlaps:
            images = images * (1 - self.to_pixels(mask))
        self.keep_patches.keep = keep
        tokens = self.encoder.forward_features(images)
        self.keep_patches.keep = None
        return tokens

    def decode(self, encoded: Tensor, restore: Tensor) -> Tensor:
        """(N, prefix + kept, D) and the (N, P) ranks of the noise → (N, P, p*p*3)."""
        tokens = self.decoder_embed(encoded)
        prefix, visible = tokens[:, : self.prefix_tokens], tokens[:, self.prefix_tokens :]
        hidden = self.mask_token.to(tokens.dtype).expand(len(tokens), restore.shape[1] - visible.shape[1], -1)
        patches = torch.cat((visible, hidden), dim=1)
        patches = patches.gather(1, restore.unsqueeze(-1).expand(-1, -1, patches.shape[-1]))
        tokens = torch.cat((prefix, patches), dim=1) + self.decoder_pos_embed
        tokens = self.decoder_norm(self.decoder_blocks(tokens))
        return cast(Tensor, self.decoder_pred(tokens))[:, self.prefix_tokens :]

    def target(self, images: Tensor) -> Tensor:
        """(N, 3, H, W) → (N, P, p*p*3): what the decoder is to predict."""
        pixels = self.patchify(images).float()
        if self.normalise_target:
            mean, variance = pixels.mean(-1, keepdim=True), pixels.var(-1, keepdim=True)
            pixels = (pixels - mean) / (variance + 1e-6).sqrt()
        return pixels

    def patchify(self, images: Tensor) -> Tensor:
        """(N, 3, H, W) → (N, P, p*p*3): row by row, pixel before channel, as in the official code."""
        (rows, columns), (height, width) = self.grid, self.patch
        blocks = images.reshape(len(images), 3, rows, height, columns, width)
        return blocks.permute(0, 2, 4, 3, 5, 1).reshape(len(images), rows * columns, height * width * 3)

    def to_pixels(self, mask: Tensor) -> Tensor:
        """(N, P) → (N, 1, H, W): each patch's value spread over its pixels."""
        blocks = mask.reshape(len(mask), 1, *self.grid)
        return blocks.repeat_interleave(self.patch[0], dim=2).repeat_interleave(self.patch[1], dim=3)


def _initialise_linear(module: nn.Module) -> None:
    if isinstance(module, nn.Linear):
        nn.init.xavier_uniform_(module.weight)
        nn.init.zeros_(module.bias)
