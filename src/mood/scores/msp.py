"""Maximum softmax probability: Hendrycks, Gimpel, ICLR 2017."""

from torch import Tensor

from mood.core.features import Features
from mood.scores._registry import stateless
from mood.scores._rows import row_by_row


@stateless("msp", needs=("logits",), source="Hendrycks & Gimpel, ICLR 2017")
def msp(features: Features) -> Tensor:
    """Minus the largest softmax probability.

    Returns:
        (N,) float64 in [−1, −1/K], higher = more OOD.

    Raises:
        InputError: no logits.
    """
    return row_by_row(lambda logits: -logits.softmax(1).amax(1), features.need("logits"))
