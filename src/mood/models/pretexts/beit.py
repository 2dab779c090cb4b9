"""BEiT (Bao et al., ICLR 2022): which word of a visual vocabulary stands where a patch is hidden?

A tokenizer turns the same crop into one of its words for each patch. The encoder sees some 60 % of the patches, and a
linear layer predicts the words of the others.
"""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, Protocol, cast

import torch
from timm.models.beit import Beit
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from mood.core.errors import InputError, ModelError
from mood.models.pretexts.interface import Views
from mood.models.pretexts.masked import MaskedModelling
from mood.models.pretexts.masks import BlockMasks

# Of the official recipe at 224 pixels: at most 75 of 14 x 14 patches, in blocks of 16 and more.
_MASKED, _BLOCK, _PATCHES = 75, 16, 196


class Tokenizer(Protocol):
    """What BEiT asks of a tokenizer.

    Attributes:
        vocabulary: number of different tokens.
        image_size: (h, w) of the images that it is given.
        grid: (rows, columns) of tokens that it gives for them.
    """

    @property
    def vocabulary(self) -> int:
        """Number of different tokens."""

    @property
    def image_size(self) -> tuple[int, int]:
        """(h, w) of its images."""

    @property
    def grid(self) -> tuple[int, int]:
        """(rows, columns) of its tokens."""

    def tokens(self, images: Tensor) -> Tensor:
        """(N, 3, h, w) in [0, 1] → (N, rows, columns) int64."""


class BeitPretext(MaskedModelling):
    """Encoder, mask token and the layer that predicts tokens; the names are those of the official checkpoints.

    Args:
        encoder: a timm `Beit`, or a `VisionTransformer` with position embeddings.
        tokenizer: gives one token for each patch. It is neither trained nor saved with the pretext.
        mask_ratio: the largest share of the patches that is hidden, 75 of 196 in the paper.
        min_block: patches of the smallest block; what is not said is 16 of 196, in proportion.
        exact_mask: hide exactly that share, by single patches where blocks leave something to hide.

    Raises:
        InputError: no tokenizer.
        ModelError: an encoder that has no such patches, a tokenizer of another grid, a ratio or a block that is out of
            range.
    """

    options = MappingProxyType({"init_values": 0.1})
    color_jitter = 0.4

    def __init__(
        self,
        encoder: nn.Module,
        *,
        tokenizer: Tokenizer | None = None,
        mask_ratio: float = _MASKED / _PATCHES,
        min_block: int | None = None,
        exact_mask: bool = False,
    ) -> None:
        super().__init__(encoder, families=(VisionTransformer, Beit))
        if tokenizer is None:
            raise InputError(
                "pretext beit predicts the tokens of a tokenizer: train one with `mood tokenizer`, and give its folder "
                "as tokenizer"
            )
        rows, columns = self.grid
        if tuple(tokenizer.grid) != self.grid:
            raise ModelError(
                f"the tokenizer gives {tokenizer.grid[0]} x {tokenizer.grid[1]} tokens and the network has {rows} x "
                f"{columns} patches, and each patch needs one token: take a network of img_size and patch_size for "
                f"{tokenizer.grid[0]} x {tokenizer.grid[1]} patches, or a tokenizer of {rows} x {columns} tokens"
            )
        if not 0 < mask_ratio < 1:
            raise ModelError(f"mask_ratio must lie between 0 and 1, got {mask_ratio}")
        patches = rows * columns
        count = round(mask_ratio * patches)
        if min_block is None:
            min_block = max(1, round(patches * _BLOCK / _PATCHES))
        elif min_block > count:
            raise ModelError(f"min_block is {min_block}, and mask_ratio {mask_ratio:.3g} hides {count} of {patches}")
        self.masks = BlockMasks(self.grid, count, min_block, exact=exact_mask)
        if min(self.grid) < 2 and not exact_mask:
            raise ModelError(f"no block fits into a grid of {rows} x {columns} patches: set exact_mask")
        self.draws = self.masks.draws
        self.twin_size = tokenizer.image_size
        self.lm_head = nn.Linear(int(cast(Any, encoder).embed_dim), tokenizer.vocabulary)
        # Kept out of the parameters, so that neither checkpoints nor what is left at the end hold a second copy of it.
        self._tokenizer = (tokenizer,)
        if isinstance(tokenizer, nn.Module):
            tokenizer.eval().requires_grad_(False)

    @property
    def tokenizer(self) -> Tokenizer:
        """What gives the tokens."""
        return self._tokenizer[0]

    def forward(self, batch: Views) -> tuple[Tensor, Mapping[str, Tensor]]:
        """The loss, and the accuracy: the share of hidden patches whose token is the most likely one."""
        assert batch.mask is not None
        assert batch.twin is not None
        with torch.no_grad(), torch.autocast(batch.twin.device.type, enabled=False):
            tokens = self.tokenizer.tokens(batch.twin).flatten(1)
        # Masks hide different numbers of patches. As many places for each keep the shapes, and no place is lost.
        places = batch.mask.byte().argsort(dim=1, descending=True, stable=True)[:, : self.masks.most]
        weight = batch.mask.gather(1, places).float()
        encoded = self.encode(batch.images[0], batch.mask)
        encoded = encoded.gather(1, places.unsqueeze(-1).expand(-1, -1, encoded.shape[-1]))
        logits, wanted = self.lm_head(encoded).float(), tokens.gather(1, places)
        count = weight.sum().clamp(min=1)
        error = cross_entropy(logits.transpose(1, 2), wanted, reduction="none")
        right = (logits.detach().argmax(dim=2) == wanted) * weight
        return (error * weight).sum() / count, {"token_accuracy": right.sum() / count}

    def weight(self, batch: Views) -> float:
        """The number of hidden patches."""
        assert batch.mask is not None
        return float(batch.mask.sum())

    def logits(self, images: Tensor, mask: Tensor) -> Tensor:
        """(N, 3, H, W) normalised and (N, P) bool → (N, P, vocabulary), for every patch, hidden or not."""
        return cast(Tensor, self.lm_head(self.encode(images, mask)))

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Any:
        # What torch calls to move or convert a module: the tokenizer goes along.
        if isinstance(self.tokenizer, nn.Module):
            self.tokenizer._apply(fn, recurse)  # type: ignore[no-untyped-call]
        return super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
