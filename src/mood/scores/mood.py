"""MOOD: one Gaussian around L2-normalised embeddings of a masked-image-modelling network.

Li, Chen, Yuan, Jia: Rethinking Out-of-distribution (OOD) Detection: Masked Image Modeling is All You Need, CVPR 2023.
The paper cites the class-conditional distance of Lee et al. (2018); its code, which gave its numbers, has one mean and
one covariance for all ID images and reads no labels. So does this.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from mood.core.features import Features
from mood.scores import _gaussian
from mood.scores._gaussian import Gaussian
from mood.scores._registry import fitted
from mood.scores._round import Round
from mood.scores._rows import l2_normalised, of_width, row_by_row


@dataclass(frozen=True, slots=True, eq=False)
class Mood:
    """(h̃ − μ)ᵀ Σ⁺ (h̃ − μ) with h̃ = h / (‖h‖₂ + 1e-10); ≥ 0, about D for images like those of the fit.

    Attributes:
        mean: (D,) float64.
        whitener: (D, R) float64, whitener · whitenerᵀ = Σ⁺.
    """

    mean: Tensor
    whitener: Tensor

    def __call__(self, features: Features) -> Tensor:
        """(N,) float64, higher = more OOD.

        Raises:
            InputError: embeddings of another width than in the fit.
        """
        embedding = of_width(features.embedding, len(self.mean), "embedding")
        return row_by_row(self._distance, embedding, width=len(self.mean))

    def _distance(self, rows: Tensor) -> Tensor:
        whitened = _gaussian.whitened(l2_normalised(rows) - self.mean, self.whitener)  # (n, R)
        return whitened.square_().sum(1)


@fitted("mood", Mood, needs=("embedding",), source="Li et al., CVPR 2023 (MOOD), as in its official code")
def mood(*, shrinkage: str | float = "none") -> tuple[Round[Any, Any, Any], ...]:
    """Squared Mahalanobis distance of the L2-normalised embedding from one Gaussian, without labels.

    For 1M images of 768 values: one D × D matrix, 5 MB.

    Args:
        shrinkage: of the covariance (÷ N): "none" (pseudo-inverse), "ledoit-wolf", "oas", "auto" ("oas" under ten
            rows for a dimension, else "none"), or a number in [0, 1].
    """

    def build(gaussian: Gaussian) -> Mood:
        return Mood(torch.clone(gaussian.moments.means[0]), gaussian.whitener(shrinkage))

    return _gaussian.rounds(build, classes=False, normalise=True, shrinkage=shrinkage)
