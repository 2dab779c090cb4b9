"""Distance to the k-th nearest ID image: Sun, Ming, Zhu, Li: Out-of-Distribution Detection with Deep Nearest Neighbors.

ICML 2022. Exact: every query meets every row of the bank. A bank that is capped keeps the rows with the smallest hash
of (seed, id), so it does not depend on the order of the images or on how they were cut into shards.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from mood.core.errors import InputError
from mood.core.features import Features
from mood.scores._registry import between, fitted
from mood.scores._round import Round
from mood.scores._rows import blocks, l2_normalised, of_width, row_by_row
from mood.scores._sampling import Bank, bank_round


@dataclass(frozen=True, slots=True, eq=False)
class KNN:
    """‖h̃ − its k-th nearest bank row‖₂ with h̃ = h / (‖h‖₂ + 1e-10); in [0, 2].

    Attributes:
        bank: (M, D) in the dtype that the embeddings came in, not normalised, so that no digit is lost.
        k: which neighbour, from 1.
    """

    bank: Tensor
    k: int

    def __call__(self, features: Features) -> Tensor:
        """(N,) float64, higher = more OOD.

        Raises:
            InputError: embeddings of another width than in the fit.
        """
        embedding = of_width(features.embedding, self.bank.shape[1], "embedding")
        return row_by_row(self._distance, embedding, width=max(self.bank.shape[1], 2 * self.k, 1024))

    def _distance(self, rows: Tensor) -> Tensor:
        queries = l2_normalised(rows)
        best = queries.new_full((len(rows), 0), 0.0)
        place = torch.zeros(len(rows), 0, dtype=torch.int64)
        start = 0
        for (known,) in blocks(self.bank, width=len(rows)):
            neighbours = l2_normalised(known)
            half = neighbours.square().sum(1) / 2
            # ‖q − b‖²/2 without the term of the query, which does not change the order.
            far = torch.addmm(half, queries, neighbours.T, alpha=-1)  # (n, m)
            best = torch.cat([best, far], 1)
            place = torch.cat([place, torch.arange(start, start + len(half)).expand(len(rows), -1)], 1)
            best, kept = best.topk(min(self.k, best.shape[1]), dim=1, largest=False)
            place = place.gather(1, kept)
            start += len(half)
        kth = l2_normalised(self.bank[place[:, self.k - 1]].to(torch.float64))
        return (queries - kth).square_().sum(1).sqrt()


@fitted("knn", KNN, needs=("embedding",), source="Sun et al., ICML 2022, equation 2")
def knn(*, k: int = 50, bank: int = 50_000, seed: int = 0) -> tuple[Round[Any, Any, Any], ...]:
    """Distance of the L2-normalised embedding from its k-th nearest ID image.

    Args:
        k: which neighbour. 50 is the paper's choice for CIFAR-10; it takes 200 for CIFAR-100 and 1000 for ImageNet.
        bank: at most this many ID rows are kept, those with the smallest hash of (seed, id); 50 000 is all of CIFAR.
        seed: of that hash.

    Raises:
        InputError: an option out of range, or fewer fit rows than k.
    """
    between("k", k, 1, between("bank", bank, 1, 2**31))

    def build(kept: Bank) -> KNN:
        (rows,) = kept.columns
        if len(rows) < k:
            raise InputError(f"k is {k} and the bank has {len(rows)} rows; fit on more images or pass a smaller k")
        return KNN(rows.contiguous(), k)

    return (bank_round(build, size=bank, seed=seed),)
