"""Free energy of the logits: Liu, Wang, Owens, Li: Energy-based Out-of-distribution Detection, NeurIPS 2020."""

from torch import Tensor

from mood.core.features import Features
from mood.scores._registry import stateless, temperature_of
from mood.scores._rows import row_by_row


@stateless("energy", needs=("logits",), source="Liu et al., NeurIPS 2020, equation 4")
def energy(features: Features, *, temperature: float | str = 1.0) -> Tensor:
    """Free energy −T·logsumexp(z / T) of the logits.

    Args:
        features: with logits (N, K).
        temperature: T > 0, or "fitted": by the labels of held-out ID images, see `mood.scores.fit`.

    Returns:
        (N,) float64, unbounded, higher = more OOD.

    Raises:
        InputError: no logits, or a temperature that is not positive.
    """
    t = temperature_of(temperature)
    return row_by_row(lambda logits: -t * (logits / t).logsumexp(1), features.need("logits"))
