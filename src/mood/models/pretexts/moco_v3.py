"""MoCo v3 (Chen, Xie & He, ICCV 2021): two views of an image agree where those of other images do not."""

import copy
import math
from collections.abc import Mapping

import torch
from timm.layers import PatchEmbed
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, normalize

from mood.core.errors import ModelError
from mood.models.pretexts.interface import Pretext, Views
from mood.models.pretexts.projection import of_all_ranks, projector


class MocoV3(Pretext):
    """Encoder and projector, their slowly following copy, a predictor, and the symmetric InfoNCE loss.

    The patch projection of a plain ViT is fixed at its random weights, which the paper's section 4 found to keep
    training stable; a stem of convolutions is trained. Positions are whatever the encoder has.

    Args:
        encoder: any timm network without a classifier; what it gives is what is projected.
        temperature: of the softmax, 0.2 in the paper.
        momentum: of the copy at the start; it rises to 1 along half a cosine. 0.99 in the paper.
        projection_width: width of the space in which views are compared, 256 in the paper.
        hidden_width: width of the layers before it, 4096 in the paper.

    Raises:
        ModelError: a number that is out of range.
    """

    views = 2
    compares = True

    def __init__(
        self,
        encoder: nn.Module,
        *,
        temperature: float = 0.2,
        momentum: float = 0.99,
        projection_width: int = 256,
        hidden_width: int = 1024,
    ) -> None:
        super().__init__()
        if temperature <= 0:
            raise ModelError(f"temperature must be above 0, got {temperature}")
        if not 0 <= momentum < 1:
            raise ModelError(f"momentum must lie in [0, 1), got {momentum}")
        if projection_width < 1 or hidden_width < 1:
            raise ModelError(f"projection_width {projection_width} and hidden_width {hidden_width} must be at least 1")
        self.temperature = temperature
        self.momentum = momentum
        self.encoder = encoder
        patches = getattr(encoder, "patch_embed", None)
        if type(patches) is PatchEmbed:
            patches.requires_grad_(False)
        width = int(encoder.num_features)  # type: ignore[arg-type]  # a module's attributes have no types
        self.projector = projector((width, hidden_width, hidden_width, projection_width), normalised=True)
        self.predictor = projector((projection_width, hidden_width, projection_width), normalised=True)
        self.slow_encoder = copy.deepcopy(self.encoder).requires_grad_(False)
        self.slow_projector = copy.deepcopy(self.projector).requires_grad_(False)

    def forward(self, batch: Views) -> tuple[Tensor, Mapping[str, Tensor]]:
        """The loss of two views, each predicted from the other (the paper's algorithm 1)."""
        queries = [self.predictor(self.projector(self.encoder(view))) for view in batch.images]
        with torch.no_grad():
            keys = [self.slow_projector(self.slow_encoder(view)) for view in batch.images]
        first, second = (normalize(query.float(), dim=1) for query in queries)
        loss = self.contrast(first, normalize(keys[1].float(), dim=1)) + self.contrast(
            second, normalize(keys[0].float(), dim=1)
        )
        # 1 where the directions fill the space evenly, 0 where all images have become one.
        spread = first.detach().std(dim=0).mean() * math.sqrt(first.shape[1])
        return loss, {"spread": spread}

    def contrast(self, queries: Tensor, keys: Tensor) -> Tensor:
        """InfoNCE of (N, D) unit queries against their (N, D) unit keys, times 2T as in the official code."""
        everyone = of_all_ranks(keys)
        logits = queries @ everyone.rows.T / self.temperature
        own = torch.arange(len(queries), device=queries.device) + everyone.start
        return cross_entropy(logits, own) * (2 * self.temperature)

    @torch.no_grad()
    def after_step(self, done: float) -> None:
        """The copy follows: m·copy + (1 - m)·original, m = 1 - (1 - momentum)·(1 + cos(π·done))/2."""
        kept = 1 - (1 - self.momentum) * (1 + math.cos(math.pi * done)) / 2
        for slow, fast in ((self.slow_encoder, self.encoder), (self.slow_projector, self.projector)):
            torch._foreach_lerp_(list(slow.parameters()), list(fast.parameters()), 1 - kept)

    def release(self) -> nn.Module:
        """The encoder with every weight trainable again."""
        return self.encoder.requires_grad_(True)
