"""GradNorm: Huang, Geng, Li: On the Importance of Gradients for Detecting Distributional Shifts in the Wild, 2021.

The gradient of the cross-entropy between the uniform distribution and the softmax, taken at the weight of the head, is
an outer product, (p − 1/K)/T · hᵀ, so its L1 norm needs no backward pass. The official code sums the cross-entropy over
the K classes where the paper takes the mean, which is a factor K and no other order.
"""

import torch
from torch import Tensor

from mood.core.features import Features
from mood.scores._one_class import compared_logits
from mood.scores._registry import stateless, temperature_of
from mood.scores._rows import row_by_row


@stateless("gradnorm", needs=("embedding", "logits"), source="Huang et al., NeurIPS 2021, equations 3 and 8")
def gradnorm(features: Features, *, temperature: float | str = 1.0) -> Tensor:
    """Minus the L1 norm of the gradient of KL(uniform ‖ softmax) at the head, in closed form.

    Args:
        features: with embedding (N, D) and logits (N, K).
        temperature: T > 0 of the softmax, or "fitted": by the labels of held-out ID images, see `mood.scores.fit`.

    Returns:
        (N,) float64, ≤ 0, higher = more OOD: −‖h‖₁ · ‖softmax(z / T) − 1/K‖₁ / T.

    Raises:
        InputError: no logits, one logit alone, or a temperature that is not positive.
    """
    t = temperature_of(temperature)

    def norm(embedding: Tensor, logits: Tensor) -> Tensor:
        off_uniform = (logits / t).softmax(1).sub_(1 / logits.shape[1])  # (n, K)
        size: Tensor = torch.linalg.vector_norm(embedding, 1, dim=1) * torch.linalg.vector_norm(off_uniform, 1, dim=1)
        return -size / t

    return row_by_row(norm, features.embedding, compared_logits(features))
