"""Mixture of Gaussians: Dempster, Laird, Rubin: Maximum Likelihood from Incomplete Data via the EM Algorithm, 1977."""

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from mood.core.features import Features
from mood.scores._gaussian import whitened
from mood.scores._registry import between, fitted
from mood.scores._round import Round
from mood.scores._rows import l2_normalised, of_width, row_by_row
from mood.scores._sklearn import bank_fitted, tensor


@dataclass(frozen=True, slots=True, eq=False)
class GMM:
    """−log Σ_k π_k N(h̃; μ_k, Σ_k), in nats; of either sign.

    Attributes:
        log_weights: (k,) float64, log π.
        means: (k, D) float64, μ.
        whiteners: (k, D, D) float64, whitener · whitenerᵀ = Σ_k⁻¹, upper triangular.
    """

    log_weights: Tensor
    means: Tensor
    whiteners: Tensor

    def __call__(self, features: Features) -> Tensor:
        """(N,) float64, higher = more OOD.

        Raises:
            InputError: embeddings of another width than in the fit.
        """
        embedding = of_width(features.embedding, self.means.shape[1], "embedding")
        return row_by_row(self._surprise, embedding, width=self.means.shape[1])

    def _surprise(self, rows: Tensor) -> Tensor:
        directions, width = l2_normalised(rows), rows.shape[1]
        parts = []
        for log_weight, mean, whitener in zip(self.log_weights, self.means, self.whiteners, strict=True):
            distance = whitened(directions - mean, whitener).square_().sum(1)
            parts.append(log_weight + whitener.diagonal().log().sum() - 0.5 * distance)
        surprise: Tensor = 0.5 * width * math.log(2 * math.pi) - torch.stack(parts, 1).logsumexp(1)
        return surprise


@fitted("gmm", GMM, needs=("embedding",), source="Dempster et al., 1977; fitted by scikit-learn")
def gmm(*, components: int = 5, bank: int = 20_000, seed: int = 0) -> tuple[Round[Any, Any, Any], ...]:
    """Minus the log-likelihood of the L2-normalised embedding under a mixture of Gaussians; no labels.

    scikit-learn fits it (full covariances, ridge 1e-6, at most 100 steps). For 1M images of 768 values: 600 MB while
    fitting, the bank in float64 and what scikit-learn makes of it; then 5 MB for each Gaussian.

    Args:
        components: how many Gaussians.
        bank: fitted on at most this many ID rows, those with the smallest hash of (seed, id).
        seed: of that hash and of the start of the fit.

    Raises:
        InputError: an option out of range, or fewer rows than Gaussians.
        MissingExtraError: scikit-learn is not installed.
    """
    count = between("components", components, 1, 10_000)

    def build(mixture: Any, rows: Any) -> GMM:
        found = mixture.GaussianMixture(count, random_state=seed % 2**32).fit(rows)
        return GMM(tensor(found.weights_).log(), tensor(found.means_), tensor(found.precisions_cholesky_))

    return bank_fitted(build, "mixture", size=bank, seed=seed, fewest=max(2, count))
