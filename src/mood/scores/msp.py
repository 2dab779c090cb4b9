"""Maximum softmax probability: Hendrycks, Gimpel, ICLR 2017."""

from torch import Tensor

from mood.core.features import Features
from mood.scores._one_class import compared_logits
from mood.scores._registry import stateless, temperature_of
from mood.scores._rows import row_by_row


@stateless("msp", needs=("logits",), source="Hendrycks & Gimpel, ICLR 2017")
def msp(features: Features, *, temperature: float | str = 1.0) -> Tensor:
    """Minus the largest softmax probability.

    Args:
        features: with logits (N, K).
        temperature: T > 0 of the softmax, or "fitted": by the labels of held-out ID images, see `mood.scores.fit`.

    Returns:
        (N,) float64 in [−1, −1/K], higher = more OOD.

    Raises:
        InputError: no logits, one logit alone, or a temperature that is not positive.
    """
    t = temperature_of(temperature)
    return row_by_row(lambda logits: -(logits / t).softmax(1).amax(1), compared_logits(features))
