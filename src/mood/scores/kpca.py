"""Kernel PCA: what the principal components of a kernel leave of an embedding.

Fang, Tao, Lv, He, Huang, Yang: Kernel PCA for Out-of-Distribution Detection, NeurIPS 2024. CoP is the cosine kernel
alone, CoRP a Gaussian kernel on top of it, by random Fourier features.
"""

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from mood.core.errors import InputError
from mood.core.features import Features
from mood.scores import _gaussian
from mood.scores._gaussian import Gaussian, Moments
from mood.scores._registry import between, fitted, positive, share_of
from mood.scores._round import Round
from mood.scores._rows import l2_normalised, of_width, row_by_row


@dataclass(frozen=True, slots=True, eq=False)
class CoP:
    """‖(I − U Uᵀ)(h̃ − μ)‖₂ with h̃ = h / (‖h‖₂ + 1e-10); in [0, 2].

    Attributes:
        mean: (D,) float64, μ.
        principal: (D, q) float64, U, orthonormal.
    """

    mean: Tensor
    principal: Tensor

    def __call__(self, features: Features) -> Tensor:
        """(N,) float64, higher = more OOD.

        Raises:
            InputError: embeddings of another width than in the fit.
        """
        embedding = of_width(features.embedding, len(self.mean), "embedding")
        return row_by_row(lambda rows: self.left(l2_normalised(rows)), embedding, width=len(self.mean))

    def left(self, rows: Tensor) -> Tensor:
        """(n,) lengths of (n, D) rows outside the principal space."""
        centred = rows - self.mean
        # Not ‖·‖² − ‖U·‖²: where the space holds all of a row, that would be the root of a rounding error.
        length: Tensor = torch.linalg.vector_norm(centred - (centred @ self.principal) @ self.principal.T, dim=1)
        return length


@dataclass(frozen=True, slots=True, eq=False)
class CoRP:
    """‖(I − U Uᵀ)(φ − μ)‖₂ with φ = √(2/M)·cos(wᵀh̃ + u); ≥ 0.

    Attributes:
        mean: (M,) float64, μ.
        principal: (M, q) float64, U, orthonormal.
        frequencies: (D, M) float64, w.
        phases: (M,) float64, u.
    """

    mean: Tensor
    principal: Tensor
    frequencies: Tensor
    phases: Tensor

    def __call__(self, features: Features) -> Tensor:
        """(N,) float64, higher = more OOD.

        Raises:
            InputError: embeddings of another width than in the fit.
        """
        embedding = of_width(features.embedding, len(self.frequencies), "embedding")
        inner = CoP(self.mean, self.principal)
        return row_by_row(
            lambda rows: inner.left(random_features(rows, self.frequencies, self.phases)),
            embedding,
            width=len(self.mean),
        )


@dataclass(frozen=True, slots=True, eq=False)
class Mapped:
    """Moments of random features, and the width of the embeddings that they were made from.

    Attributes:
        width: D.
        moments: over M values.
    """

    width: int
    moments: Moments

    def merge(self, later: "Mapped") -> "Mapped":
        """Of both stretches of data together."""
        if later.width != self.width:
            raise InputError(f"embedding has {later.width} values per row in one shard and {self.width} before it")
        return Mapped(self.width, self.moments.merge(later.moments))


def random_features(rows: Tensor, frequencies: Tensor, phases: Tensor) -> Tensor:
    """(n, M) random Fourier features of the rows, divided by their lengths."""
    return torch.addmm(phases, l2_normalised(rows), frequencies).cos_().mul_(math.sqrt(2 / len(phases)))


def principal_space(gaussian: Gaussian, variance: float) -> tuple[Tensor, Tensor]:
    """Mean, and the fewest components that hold this share of the variance, but not all of them.

    Raises:
        InputError: rows that are all the same.
    """
    moments = gaussian.moments
    moments.check_spread()
    values, vectors = torch.linalg.eigh(moments.scatter / moments.total)
    held = values.flip(0).clamp_min(0).cumsum(0)
    size = int((held < variance * held[-1]).sum()) + 1
    size = min(size, len(values) - 1)
    return moments.means[0].clone(), vectors[:, len(values) - size :].contiguous()


@fitted("kpca_cop", CoP, needs=("embedding",), source="Fang et al., NeurIPS 2024, CoP")
def kpca_cop(*, variance: float = 0.85) -> tuple[Round[Any, Any, Any], ...]:
    """Length of the L2-normalised embedding outside its principal components, without labels.

    For 1000 classes × 1M images: one D × D matrix, 5 MB at 768 values.

    Args:
        variance: share of the variance that the components hold, in (0, 1): 0.85 is the paper's choice for CIFAR, 0.99
            for ImageNet. At least one dimension is left out.

    Raises:
        InputError: variance out of range, or rows that are all the same.
    """
    share = share_of("variance", variance)

    def build(gaussian: Gaussian) -> CoP:
        return CoP(*principal_space(gaussian, share))

    return _gaussian.rounds(build, classes=False, normalise=True, shrinkage="none")


@fitted("kpca_corp", CoRP, needs=("embedding",), source="Fang et al., NeurIPS 2024, CoRP")
def kpca_corp(
    *, gamma: float = 2.0, width: int = 2048, variance: float = 0.8, seed: int = 0
) -> tuple[Round[Any, Any, Any], ...]:
    """Length of random Fourier features of the L2-normalised embedding outside their principal components.

    For 1000 classes × 1M images: one M × M matrix, 33 MB at 2048 features and 134 MB at 4096, and the eigenvectors of
    it.

    Args:
        gamma: γ > 0 of the kernel exp(−γ‖h̃ − h̃'‖²): 2 is the paper's choice for CIFAR, 3 for ImageNet.
        width: M, how many random features: 2048 for CIFAR, 4096 for ImageNet.
        variance: share of the variance that the components hold, in (0, 1): 0.8 for CIFAR, 0.5 for ImageNet.
        seed: of the random features.

    Raises:
        InputError: an option out of range, or rows that are all the same.
    """
    share, scale = share_of("variance", variance), math.sqrt(2 * positive("gamma", gamma))
    count, seed = between("width", width, 2, 2**20), between("seed", seed, 0, 2**63 - 1)

    def drawn(values: int) -> tuple[Tensor, Tensor]:
        generator = torch.Generator().manual_seed(seed)
        frequencies = scale * torch.randn(values, count, generator=generator, dtype=torch.float64)
        return frequencies, 2 * math.pi * torch.rand(count, generator=generator, dtype=torch.float64)

    def collect(shard: Features, _: None) -> Mapped:
        values = shard.embedding.shape[1]
        frequencies, phases = drawn(values)
        one = torch.zeros(len(shard), dtype=torch.int64)
        moments = _gaussian.moments_of(
            shard.embedding, one, count, lambda rows: random_features(rows, frequencies, phases)
        )
        return Mapped(values, moments)

    def finish(mapped: Mapped, _: None) -> CoRP:
        return CoRP(*principal_space(_gaussian.ready(mapped.moments), share), *drawn(mapped.width))

    return (Round(collect, Mapped.merge, finish),)
