"""Supervised pre-training: the network learns labels, the paper's rival of masked image modelling in Table 1."""

from collections.abc import Mapping

from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from mood.core.errors import ModelError
from mood.models.pretexts.interface import Pretext, Views


class Classification(Pretext):
    """Encoder and one linear layer, cross-entropy with label smoothing.

    Args:
        encoder: any timm network without a classifier.
        classes: K.
        label_smoothing: share of the target spread over all classes (equation 1 of the paper).

    Raises:
        ModelError: fewer than two classes, or a share outside of [0, 1).
    """

    labelled = True

    def __init__(self, encoder: nn.Module, *, classes: int = 0, label_smoothing: float = 0.1) -> None:
        super().__init__()
        if classes < 2:
            raise ModelError(f"pretext classification needs images of two classes or more, got {classes}")
        if not 0 <= label_smoothing < 1:
            raise ModelError(f"label_smoothing must lie in [0, 1), got {label_smoothing}")
        self.label_smoothing = label_smoothing
        self.encoder = encoder
        self.classifier = nn.Linear(int(encoder.num_features), classes)  # type: ignore[arg-type]

    def forward(self, batch: Views) -> tuple[Tensor, Mapping[str, Tensor]]:
        """The loss, and the accuracy on the batch."""
        assert batch.labels is not None
        logits = self.classifier(self.encoder(batch.images[0])).float()
        right = (logits.detach().argmax(dim=1) == batch.labels).float().mean()
        return cross_entropy(logits, batch.labels, label_smoothing=self.label_smoothing), {"train_accuracy": right}
