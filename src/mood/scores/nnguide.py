"""Nearest-neighbour guidance.

Park, Jung, Teoh: Nearest Neighbor Guidance for Out-of-Distribution Detection, ICCV 2023.
"""

from dataclasses import dataclass
from math import ceil
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
class NNGuide:
    """−E(x) · mean of the k largest E_i·⟨h̃, h̃_i⟩ with E = logsumexp z; of either sign.

    Attributes:
        bank: (M, D) float64, E_i·h̃_i of ID images.
        k: how many of the largest.
    """

    bank: Tensor
    k: int

    def __call__(self, features: Features) -> Tensor:
        """(N,) float64, higher = more OOD.

        Raises:
            InputError: no logits, or embeddings of another width than in the fit.
        """
        embedding = of_width(features.embedding, self.bank.shape[1], "embedding")
        return row_by_row(self._guided, embedding, features.need("logits"), width=max(self.bank.shape))

    def _guided(self, rows: Tensor, logits: Tensor) -> Tensor:
        guidance = (l2_normalised(rows) @ self.bank.T).topk(self.k, dim=1).values.mean(1)
        return -logits.logsumexp(1) * guidance


def _columns(features: Features) -> tuple[Tensor, ...]:
    parts = [block.logsumexp(1) for (block,) in blocks(features.need("logits"), width=1)]
    return features.embedding, torch.cat(parts) if parts else torch.zeros(0, dtype=torch.float64)


@fitted("nnguide", NNGuide, needs=("embedding", "logits"), source="Park et al., ICCV 2023 (NNGuide)")
def nnguide(
    *, k: int = 10, fraction: float = 0.01, bank: int = 20_000, seed: int = 0
) -> tuple[Round[Any, Any, Any], ...]:
    """Energy times the similarity to the nearest ID images, each weighted by its own energy.

    For 1000 classes × 1M images of 768 values: 20 000 candidate rows, 60 MB in float32, three times that while they are
    gathered, of which 10 000 stay, 60 MB in float64.

    Args:
        k: how many of the most similar ID images, 10 in the paper.
        fraction: share of the ID images that is looked at, in (0, 1], but never fewer than 10·k of them where there are
            as many: those with the smallest hash of (seed, id). 0.01 is the paper's choice for ImageNet.
        bank: at most this many of them.
        seed: of that hash.

    Raises:
        InputError: an option out of range, no logits, or fewer rows than k.
    """
    if not 0 < fraction <= 1:
        raise InputError(f"fraction is {fraction!r}; a number above 0 and up to 1 was expected")
    between("k", k, 1, between("bank", bank, 1, 2**31))

    def build(kept: Bank) -> NNGuide:
        size = min(len(kept.hashes), max(10 * k, ceil(fraction * kept.count)))
        if size < k:
            raise InputError(f"k is {k} and there are {size} rows; fit on more images or pass a smaller k")
        rows, energy = (column[:size].to(torch.float64) for column in kept.columns)
        return NNGuide(l2_normalised(rows) * energy[:, None], k)

    return (bank_round(build, size=bank, seed=seed, names=("embedding", "logits"), columns=_columns),)
