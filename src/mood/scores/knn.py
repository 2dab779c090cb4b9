"""Distance to the k-th nearest ID image: Sun, Ming, Zhu, Li: Out-of-Distribution Detection with Deep Nearest Neighbors.

ICML 2022. Exact: every query meets every row of the bank. A bank that is capped keeps the rows with the smallest hash
of (seed, id), so it does not depend on the order of the images or on how they were cut into shards.
"""

from dataclasses import dataclass
from functools import partial
from hashlib import blake2b
from typing import Any

import torch
from torch import Tensor

from mood.core.errors import InputError
from mood.core.features import Features
from mood.scores._fitting import Round
from mood.scores._registry import between, fitted
from mood.scores._rows import blocks, l2_normalised, of_width, row_by_row


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


@dataclass(frozen=True, slots=True, eq=False)
class Bank:
    """Rows and the hashes of their ids, ascending.

    Attributes:
        hashes: (M,) int64.
        rows: (M, D).
    """

    hashes: Tensor
    rows: Tensor

    def smallest(self, size: int) -> "Bank":
        """The rows with the smallest hashes, in their order."""
        order = self.hashes.argsort(stable=True)[:size]
        return Bank(self.hashes[order], self.rows[order])


def _collect(features: Features, _: None, *, size: int, seed: int) -> Bank:
    key = seed.to_bytes(8, "little", signed=True)
    digests = [blake2b(name.encode(), digest_size=8, key=key).digest() for name in features.ids]
    hashes = [int.from_bytes(digest, "little", signed=True) for digest in digests]
    return Bank(torch.tensor(hashes, dtype=torch.int64), features.embedding).smallest(size)


def _merge(earlier: Bank, later: Bank, *, size: int) -> Bank:
    of_width(later.rows, earlier.rows.shape[1], "embedding")
    return Bank(torch.cat([earlier.hashes, later.hashes]), torch.cat([earlier.rows, later.rows])).smallest(size)


def _finish(bank: Bank, _: None, *, k: int) -> KNN:
    if len(bank.rows) < k:
        raise InputError(f"k is {k} and the bank has {len(bank.rows)} rows; fit on more images or pass a smaller k")
    return KNN(bank.rows.contiguous(), k)


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
    size = between("bank", bank, 1, 2**31)
    nearest = between("k", k, 1, size)
    collect = partial(_collect, size=size, seed=between("seed", seed, 0, 2**63 - 1))
    return (Round(collect, partial(_merge, size=size), partial(_finish, k=nearest)),)
