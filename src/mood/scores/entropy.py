"""Entropy of the softmax: Shannon, 1948; as an OOD baseline in Ren et al., NeurIPS 2019."""

from torch import Tensor

from mood.core.features import Features
from mood.scores._registry import stateless
from mood.scores._rows import row_by_row


@stateless("entropy", needs=("logits",), source="Shannon, 1948; for OOD: Ren et al., NeurIPS 2019")
def entropy(features: Features) -> Tensor:
    """Entropy of the softmax, in nats.

    Returns:
        (N,) float64 in [0, log K], higher = more OOD.

    Raises:
        InputError: no logits.
    """
    return row_by_row(_entropy, features.need("logits"))


def _entropy(logits: Tensor) -> Tensor:
    # p·log p from p alone is NaN where p underflows to 0.
    log_p = logits.log_softmax(1)
    return -(log_p.exp() * log_p).sum(1)
