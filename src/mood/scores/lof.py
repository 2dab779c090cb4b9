"""Local outlier factor: Breunig, Kriegel, Ng, Sander: LOF: Identifying Density-Based Local Outliers, SIGMOD 2000."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from mood.core.features import Features
from mood.scores._registry import between, fitted
from mood.scores._round import Round
from mood.scores._rows import l2_normalised, of_width, row_by_row
from mood.scores._sklearn import bank_fitted, tensor


@dataclass(frozen=True, slots=True, eq=False)
class LOF:
    """Mean density of the k nearest ID images over the density around the image itself; > 0, about 1 inside.

    Attributes:
        bank: (M, D) float64, h̃ of ID images.
        reach: (M,) float64, the distance of each from its k-th neighbour.
        density: (M,) float64, the local reachability density of each.
        k: how many neighbours.
    """

    bank: Tensor
    reach: Tensor
    density: Tensor
    k: int

    def __call__(self, features: Features) -> Tensor:
        """(N,) float64, higher = more OOD.

        Raises:
            InputError: embeddings of another width than in the fit.
        """
        embedding = of_width(features.embedding, self.bank.shape[1], "embedding")
        return row_by_row(self._factor, embedding, width=max(*self.bank.shape, self.k * self.bank.shape[1]))

    def _factor(self, rows: Tensor) -> Tensor:
        directions = l2_normalised(rows)
        half = self.bank.square().sum(1) / 2
        place = torch.addmm(half, directions, self.bank.T, alpha=-1).topk(self.k, dim=1, largest=False).indices
        far = torch.linalg.vector_norm(directions[:, None] - self.bank[place], dim=2)  # (n, k)
        reached = torch.maximum(far, self.reach[place]).mean(1)
        return self.density[place].mean(1) * (reached + 1e-10)


@fitted("lof", LOF, needs=("embedding",), source="Breunig et al., SIGMOD 2000; fitted by scikit-learn")
def lof(*, k: int = 20, bank: int = 10_000, seed: int = 0) -> tuple[Round[Any, Any, Any], ...]:
    """How much less dense the surroundings of the L2-normalised embedding are than those of its neighbours; no labels.

    scikit-learn finds the neighbours of the bank. For 1M images of 768 values: the bank, 60 MB in float64; 260 MB while
    fitting, and 150 MB more while scoring.

    Args:
        k: how many neighbours.
        bank: at most this many ID rows are kept, those with the smallest hash of (seed, id).
        seed: of that hash.

    Raises:
        InputError: an option out of range, or no more rows than k.
        MissingExtraError: scikit-learn is not installed.
    """
    between("k", k, 1, between("bank", bank, 2, 2**31) - 1)

    def build(neighbours: Any, rows: Any) -> LOF:
        found = neighbours.LocalOutlierFactor(k, novelty=True).fit(rows)
        return LOF(tensor(rows), tensor(found._distances_fit_X_[:, k - 1]), tensor(found._lrd), k)

    return bank_fitted(build, "neighbors", size=bank, seed=seed, fewest=k + 1)
