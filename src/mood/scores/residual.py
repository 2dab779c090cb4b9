"""Length of the embedding outside the principal space of ID embeddings.

Wang, Li, Feng, Zhang: ViM: Out-Of-Distribution with Virtual-logit Matching, CVPR 2022, section 4.1.
"""

from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from mood.core.errors import InputError
from mood.core.features import Features, Head
from mood.scores._registry import between, fitted
from mood.scores._round import Round
from mood.scores._rows import blocks, of_width, row_by_row


@dataclass(frozen=True, slots=True, eq=False)
class Residual:
    """‖Rᵀ(h − o)‖₂; ≥ 0.

    Attributes:
        origin: (D,) float64, o = −W⁺b, where the head's logits all vanish as nearly as they can.
        complement: (D, D − dim) float64, R: orthonormal, the eigenvectors of the smallest eigenvalues of
            (1/N) Σ (h − o)(h − o)ᵀ, which is not centred: a covariance would cancel o.
    """

    origin: Tensor
    complement: Tensor

    def __call__(self, features: Features) -> Tensor:
        """(N,) float64, higher = more OOD.

        Raises:
            InputError: embeddings of another width than in the fit.
        """
        embedding = of_width(features.embedding, len(self.origin), "embedding")
        return row_by_row(self.length, embedding, width=len(self.origin))

    def length(self, rows: Tensor) -> Tensor:
        """(n,) lengths of (n, D) float64 rows outside the principal space."""
        outside = (rows - self.origin) @ self.complement  # (n, D − dim)
        return (outside * outside).sum(1).sqrt()


@dataclass(frozen=True, slots=True, eq=False)
class SecondMoment:
    """Count and Σ (h − o)(h − o)ᵀ.

    Attributes:
        count: rows.
        outer: (D, D) float64.
    """

    count: int
    outer: Tensor

    def merge(self, later: "SecondMoment") -> "SecondMoment":
        """Of both stretches of data together."""
        return SecondMoment(self.count + later.count, self.outer + later.outer)


def _collect(features: Features, _: None, *, origin: Tensor) -> SecondMoment:
    embedding = of_width(features.embedding, len(origin), "embedding")
    outer = torch.zeros(len(origin), len(origin), dtype=torch.float64)
    for (rows,) in blocks(embedding, width=len(origin)):
        seen = rows - origin
        outer.addmm_(seen.T, seen)
    return SecondMoment(len(embedding), outer)


def _finish(moment: SecondMoment, _: None, *, origin: Tensor, dim: int) -> Residual:
    if moment.count == 0:
        raise InputError("there are no rows to fit on")
    width = len(origin)
    values, vectors = torch.linalg.eigh(moment.outer / moment.count)
    rank = min(moment.count, int((values > width * torch.finfo(torch.float64).eps * values[-1]).sum()))
    # Beyond the rank the eigenvalues are rounding noise, and their order, so the score, would be chance.
    if dim > rank:
        raise InputError(f"dim is {dim} and the fit rows span {rank} dimensions; pass a smaller dim, or more rows")
    return Residual(origin, vectors[:, : width - dim].contiguous())


def principal_space(head: Head, dim: int | None) -> Round[Any, Any, Any]:
    """The round that ends in a `Residual`.

    Args:
        head: (K, D).
        dim: of the principal space, 0 ≤ dim < D; None: 1000 if D ≥ 2048, 512 if D ≥ 768, else D // 2.

    Raises:
        InputError: dim out of range.
    """
    width = head.weight.shape[1]
    default = 1000 if width >= 2048 else 512 if width >= 768 else width // 2
    chosen = default if dim is None else between("dim", dim, 0, width - 1)
    weight, bias = head.weight.to(torch.float64), head.bias.to(torch.float64)
    # The shortest solution, as W⁺ gives it, by a pivoted QR: less than half the time of an SVD.
    origin = torch.linalg.lstsq(weight, -bias[:, None], driver="gelsy").solution[:, 0]
    return Round(partial(_collect, origin=origin), SecondMoment.merge, partial(_finish, origin=origin, dim=chosen))


@fitted("residual", Residual, needs=("embedding", "head"), source="Wang et al., CVPR 2022 (ViM), section 4.1")
def residual(head: Head, *, dim: int | None = None) -> tuple[Round[Any, Any, Any], ...]:
    """Length of the embedding outside the principal space of ID embeddings, seen from where the logits vanish.

    For 1000 classes × 1M images of 768 values: a D × D matrix and the head, 11 MB.

    Args:
        head: the linear head of the network, (K, D).
        dim: of the principal space, 0 ≤ dim < D; None: 1000 if D ≥ 2048, 512 if D ≥ 768, else D // 2, as in the paper.

    Raises:
        InputError: dim out of range, or larger than the number of dimensions that the fit rows span.
    """
    return (principal_space(head, dim),)
