"""Virtual-logit matching: Wang, Li, Feng, Zhang: ViM: Out-Of-Distribution with Virtual-logit Matching, CVPR 2022."""

from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from mood.core.errors import InputError
from mood.core.features import Features, Head
from mood.scores._registry import fitted
from mood.scores._round import Round
from mood.scores._rows import blocks, of_width, row_by_row
from mood.scores.residual import Residual, principal_space


@dataclass(frozen=True, slots=True, eq=False)
class ViM:
    """α·‖Rᵀ(h − o)‖₂ − logsumexp z: the virtual logit against all real ones; of either sign.

    The paper's score is the softmax probability of the virtual logit, which grows with this and saturates.

    Attributes:
        origin: (D,) float64, o = −W⁺b.
        complement: (D, D − dim) float64, R.
        alpha: () float64 > 0, mean of max z over mean of ‖Rᵀ(h − o)‖ on the fit rows.
    """

    origin: Tensor
    complement: Tensor
    alpha: Tensor

    def __call__(self, features: Features) -> Tensor:
        """(N,) float64, higher = more OOD.

        Raises:
            InputError: no logits, or embeddings of another width than in the fit.
        """
        residual = Residual(self.origin, self.complement)
        energy = row_by_row(lambda logits: logits.logsumexp(1), features.need("logits"))
        return self.alpha * residual(features) - energy


def _collect(features: Features, residual: Residual, *, classes: int) -> Tensor:
    """(3,) Σ max z, Σ ‖Rᵀ(h − o)‖ and Σ ‖h − o‖."""
    of_width(features.need("logits"), classes, "logits")
    sums = torch.zeros(3, dtype=torch.float64)
    for rows, logits in blocks(features.embedding, features.need("logits"), width=len(residual.origin)):
        lengths = torch.linalg.vector_norm(rows - residual.origin, dim=1)
        sums += torch.stack([logits.amax(1).sum(), residual.length(rows).sum(), lengths.sum()])
    return sums


def _finish(sums: Tensor, residual: Residual) -> ViM:
    largest, outside, whole = sums.tolist()
    # An eigenvalue at the rank cut-off, D · eps, is a length of its square root.
    if outside <= (len(residual.origin) * torch.finfo(torch.float64).eps) ** 0.5 * whole:
        raise InputError("the principal space holds all of the fit rows, so no residual sets alpha; pass a smaller dim")
    if largest <= 0:
        raise InputError("the mean of the largest logit is not positive, and ViM scales its virtual logit to it")
    return ViM(residual.origin, residual.complement, torch.tensor(largest / outside, dtype=torch.float64))


@fitted("vim", ViM, needs=("embedding", "logits", "head"), source="Wang et al., CVPR 2022 (ViM), equations 5 to 7")
def vim(head: Head, *, dim: int | None = None) -> tuple[Round[Any, Any, Any], ...]:
    """Virtual logit from the residual outside the principal space, minus the log-sum-exp of the real logits.

    For 1000 classes × 1M images of 768 values: a D × D matrix and the head, 11 MB.

    Args:
        head: the linear head of the network, (K, D).
        dim: of the principal space, 0 ≤ dim < D; None: 1000 if D ≥ 2048, 512 if D ≥ 768, else D // 2, as in the paper.

    Raises:
        InputError: dim out of range or larger than the number of dimensions that the fit rows span, or fit rows that
            give no positive alpha.
    """
    return (principal_space(head, dim), Round(partial(_collect, classes=len(head.weight)), torch.add, _finish))
