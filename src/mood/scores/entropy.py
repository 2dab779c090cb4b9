"""Entropy of the softmax: Shannon, 1948; as an OOD baseline in Ren et al., NeurIPS 2019."""

from torch import Tensor

from mood.core.features import Features
from mood.scores._one_class import compared_logits
from mood.scores._registry import stateless, temperature_of
from mood.scores._rows import row_by_row


@stateless("entropy", needs=("logits",), source="Shannon, 1948; for OOD: Ren et al., NeurIPS 2019")
def entropy(features: Features, *, temperature: float | str = 1.0) -> Tensor:
    """Entropy of the softmax, in nats.

    Args:
        features: with logits (N, K).
        temperature: T > 0 of the softmax, or "fitted": by the labels of held-out ID images, see `mood.scores.fit`.

    Returns:
        (N,) float64 in [0, log K], higher = more OOD.

    Raises:
        InputError: no logits, one logit alone, or a temperature that is not positive.
    """
    t = temperature_of(temperature)

    def of(logits: Tensor) -> Tensor:
        # p·log p from p alone is NaN where p underflows to 0.
        log_p = (logits / t).log_softmax(1)
        return -(log_p.exp() * log_p).sum(1)

    return row_by_row(of, compared_logits(features))
