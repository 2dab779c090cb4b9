"""Distance to the k-th nearest ID image: Sun, Ming, Zhu, Li: Out-of-Distribution Detection with Deep Nearest Neighbors.

ICML 2022. Exact, with no index to build: every query meets every row of the bank. A bank that is capped keeps the rows
with the smallest hash of (seed, id), so it does not depend on the order of the images or on how they were cut into
shards.
"""

from dataclasses import dataclass
from typing import Any

from torch import Tensor

from mood.core.errors import InputError
from mood.core.features import Features
from mood.scores._neighbours import kth_distance
from mood.scores._registry import between, fitted
from mood.scores._round import Round
from mood.scores._rows import l2_normalised, of_width
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
        return kth_distance(embedding, self.bank, self.k, l2_normalised)


@fitted("knn", KNN, needs=("embedding",), source="Sun et al., ICML 2022, equation 2")
def knn(*, k: int = 50, bank: int = 50_000, seed: int = 0) -> tuple[Round[Any, Any, Any], ...]:
    """Distance of the L2-normalised embedding from its k-th nearest ID image.

    For 1000 classes × 1M images of 768 float32 values: the bank, 154 MB, three times that while it fills; while scoring
    235 MB more, and blocks of at most 140 MB.

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
