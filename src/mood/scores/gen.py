"""Generalised entropy of the softmax.

Liu, Lochman, Zach: GEN: Pushing the Limits of Softmax-Based Out-of-Distribution Detection, CVPR 2023.
"""

import torch
from torch import Tensor

from mood.core.features import Features
from mood.scores._one_class import compared_logits
from mood.scores._registry import between, share_of, stateless
from mood.scores._rows import row_by_row


@stateless("gen", needs=("logits",), source="Liu et al., CVPR 2023 (GEN)")
def gen(features: Features, *, gamma: float = 0.1, top: int = 100) -> Tensor:
    """Generalised entropy Σ p^γ (1 − p)^γ over the largest probabilities.

    Needs nothing but the logits of a block of rows, whatever the number of images.

    Args:
        features: with logits (N, K).
        gamma: γ in (0, 1).
        top: how many of the largest probabilities count, M; all of them where there are fewer.

    Returns:
        (N,) float64 in [0, M · 4^−γ], higher = more OOD.

    Raises:
        InputError: no logits, one logit alone, or an option out of range.
    """
    exponent, size = share_of("gamma", gamma), between("top", top, 1, 2**31)

    def entropy(logits: Tensor) -> Tensor:
        total = logits.logsumexp(1, keepdim=True)
        best = logits.topk(min(size, logits.shape[1]), dim=1)
        log_p = best.values - total
        # 1 − p of all but the largest is at least 1/2. That of the largest is the sum of the others: as a difference it
        # would be 0 from p = 1 − 2⁻⁵³ on, where p^γ (1 − p)^γ is still 0.025.
        others = logits.scatter(1, best.indices[:, :1], -torch.inf).logsumexp(1) - total[:, 0]
        log_rest = torch.cat([others[:, None], torch.log1p(-log_p[:, 1:].exp())], 1)
        return (exponent * (log_p + log_rest)).exp().sum(1)

    return row_by_row(entropy, compared_logits(features))
