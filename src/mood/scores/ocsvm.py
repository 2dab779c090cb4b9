"""One-class support vector machine.

Schölkopf, Platt, Shawe-Taylor, Smola, Williamson: Estimating the Support of a High-Dimensional Distribution, 2001.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from mood.core.errors import InputError
from mood.core.features import Features
from mood.scores._registry import fitted
from mood.scores._round import Round
from mood.scores._rows import l2_normalised, of_width, row_by_row
from mood.scores._sklearn import bank_fitted, tensor


@dataclass(frozen=True, slots=True, eq=False)
class OCSVM:
    """−Σ_i α_i exp(−γ‖h̃ − v_i‖²); ≤ 0.

    Attributes:
        support: (M, D) float64, v, the support vectors.
        weights: (M,) float64, α > 0.
        gamma: γ.
    """

    support: Tensor
    weights: Tensor
    gamma: float

    def __call__(self, features: Features) -> Tensor:
        """(N,) float64, higher = more OOD.

        Raises:
            InputError: embeddings of another width than in the fit.
        """
        embedding = of_width(features.embedding, self.support.shape[1], "embedding")
        return row_by_row(self._outside, embedding, width=max(self.support.shape))

    def _outside(self, rows: Tensor) -> Tensor:
        directions = l2_normalised(rows)
        lengths = directions.square().sum(1, keepdim=True) + self.support.square().sum(1)
        squared = torch.addmm(lengths, directions, self.support.T, alpha=-2).clamp_min_(0)
        return -(squared.mul_(-self.gamma).exp_() @ self.weights)


@fitted("ocsvm", OCSVM, needs=("embedding",), source="Schölkopf et al., 2001; fitted by scikit-learn")
def ocsvm(*, nu: float = 0.1, bank: int = 5000, seed: int = 0) -> tuple[Round[Any, Any, Any], ...]:
    """Minus the decision function of a one-class SVM with a Gaussian kernel on the L2-normalised embedding; no labels.

    scikit-learn fits it, with γ = 1 / (D · variance). The time of the fit grows with the square of the bank, so that
    stays small. For 1M images of 768 values: 200 MB while fitting; then the support vectors, at most 30 MB in float64.

    Args:
        nu: in (0, 1], the share of the ID rows that may lie outside, and at least that share are support vectors.
        bank: fitted on at most this many ID rows, those with the smallest hash of (seed, id).
        seed: of that hash.

    Raises:
        InputError: an option out of range, or too few rows.
        MissingExtraError: scikit-learn is not installed.
    """
    if not 0 < nu <= 1:
        raise InputError(f"nu is {nu!r}; a number above 0 and up to 1 was expected")

    def build(svm: Any, rows: Any) -> OCSVM:
        found = svm.OneClassSVM(nu=nu).fit(rows)
        return OCSVM(tensor(found.support_vectors_), tensor(found.dual_coef_[0]), float(found._gamma))

    return bank_fitted(build, "svm", size=bank, seed=seed, fewest=2)
