"""Maximum logit: Hendrycks et al., Scaling Out-of-Distribution Detection for Real-World Settings, ICML 2022."""

from torch import Tensor

from mood.core.features import Features
from mood.scores._registry import stateless
from mood.scores._rows import row_by_row


@stateless("max_logit", needs=("logits",), source="Hendrycks et al., ICML 2022")
def max_logit(features: Features) -> Tensor:
    """Minus the largest logit.

    Returns:
        (N,) float64, unbounded, higher = more OOD.

    Raises:
        InputError: no logits.
    """
    return row_by_row(lambda logits: -logits.amax(1), features.need("logits"))
