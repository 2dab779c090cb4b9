"""Supervised contrast (Khosla et al., NeurIPS 2020): images of one class agree, those of others do not."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from mood.core.errors import ModelError
from mood.models.pretexts.interface import Pretext, Views
from mood.models.pretexts.projection import of_all_ranks, projector


class SupCon(Pretext):
    """Encoder, projector and the loss; with one Gaussian on its embedding it is SSD+ (Sehwag et al., ICLR 2021).

    Args:
        encoder: any timm network without a classifier.
        temperature: of the softmax, 0.1 in the paper.
        projection_width: width of the space in which views are compared, 128 in the paper.

    Raises:
        ModelError: a number that is out of range.
    """

    views = 2
    compares = True
    labelled = True

    def __init__(self, encoder: nn.Module, *, temperature: float = 0.1, projection_width: int = 128) -> None:
        super().__init__()
        if temperature <= 0:
            raise ModelError(f"temperature must be above 0, got {temperature}")
        if projection_width < 1:
            raise ModelError(f"projection_width must be at least 1, got {projection_width}")
        self.temperature = temperature
        self.encoder = encoder
        width = int(encoder.num_features)  # type: ignore[arg-type]  # a module's attributes have no types
        self.projector = projector((width, width, projection_width), normalised=False)

    def forward(self, batch: Views) -> tuple[Tensor, Mapping[str, Tensor]]:
        """The loss of all views of the batch together."""
        assert batch.labels is not None
        points = self.projector(self.encoder(torch.cat(batch.images)))
        return self.contrast(normalize(points.float(), dim=1), batch.labels.repeat(len(batch.images))), {}

    def contrast(self, points: Tensor, labels: Tensor) -> Tensor:
        """Equation 2 of the paper (the sum outside of the logarithm).

        Args:
            points: (M, D) unit vectors, all views of this process.
            labels: (M,).
        """
        everyone, (classes, start) = of_all_ranks(points), of_all_ranks(labels)
        similar = points @ everyone.rows.T / self.temperature
        itself = torch.arange(len(points), device=points.device) + start
        oneself = torch.zeros_like(similar, dtype=torch.bool).scatter_(1, itself[:, None], True)
        log_share = similar - similar.masked_fill(oneself, -torch.inf).logsumexp(dim=1, keepdim=True)
        positive = (labels[:, None] == classes[None, :]) & ~oneself
        return -((log_share * positive).sum(dim=1) / positive.sum(dim=1)).mean()
