"""Divergence from the typical softmax of a class.

Hendrycks, Basart, Mazeika, Zou, Kwon, Mostajabi, Steinhardt, Song: Scaling Out-of-Distribution Detection for Real-World
Settings, ICML 2022 (KL matching).
"""

from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from mood.core.errors import InputError
from mood.core.features import Features
from mood.scores._one_class import compared_logits
from mood.scores._registry import between, fitted
from mood.scores._round import Round
from mood.scores._rows import of_width, row_by_row
from mood.scores._sampling import HELD_OUT, held_out
from mood.scores._sums import ClassSums, class_sums


@dataclass(frozen=True, slots=True, eq=False)
class KLMatching:
    """min_k KL(p ‖ d_k); ≥ 0.

    Attributes:
        log_typical: (C', K) float64, log d_k: the mean softmax of the held-out ID images that are predicted k; only
            classes that are predicted at all.
    """

    log_typical: Tensor

    def __call__(self, features: Features) -> Tensor:
        """(N,) float64, higher = more OOD.

        Raises:
            InputError: no logits, or another number of them than in the fit.
        """
        logits = of_width(features.need("logits"), self.log_typical.shape[1], "logits")
        return row_by_row(self._divergence, logits, width=max(self.log_typical.shape))

    def _divergence(self, logits: Tensor) -> Tensor:
        log_p = logits.log_softmax(1)
        p = log_p.exp()
        # Σ p log p is the same for every class, so the nearest one has the largest Σ p log d.
        return ((p * log_p).sum(1) - (p @ self.log_typical.T).amax(1)).clamp_min(0)


def _collect(features: Features, _: None, *, seed: int, fraction: float) -> ClassSums:
    logits = compared_logits(features)
    chosen = logits[held_out(features.ids, seed=seed, fraction=fraction)]
    return class_sums(chosen, chosen.argmax(1), logits.shape[1], lambda rows: rows.softmax(1))


def _finish(sums: ClassSums, _: None) -> KLMatching:
    if not len(sums.present):
        raise InputError("the held-out cut took none of the fit rows; fit on more images, or raise held_out")
    # Where a probability underflowed in every image, its logarithm stays finite.
    return KLMatching(sums.means.clamp_min(torch.finfo(torch.float64).tiny).log())


@fitted("kl_matching", KLMatching, needs=("logits",), source="Hendrycks et al., ICML 2022 (KL matching)")
def kl_matching(*, held_out: float = HELD_OUT, seed: int = 0) -> tuple[Round[Any, Any, Any], ...]:
    """Kullback–Leibler divergence of the softmax from the nearest typical softmax of a predicted class.

    A class that is never predicted is left out. For 1000 classes × 1M images: one K × K matrix, 8 MB.

    Args:
        held_out: the typical softmax is taken over this share of the fit rows, a cut by the hash of (seed, id), in
            (0, 1]; the network should not have been trained on them.
        seed: of that hash.

    Raises:
        InputError: an option out of range, no logits, one logit alone, or no row in the cut.
    """
    if not 0 < held_out <= 1:
        raise InputError(f"held_out is {held_out!r}; a number above 0 and up to 1 was expected")
    collect = partial(_collect, seed=between("seed", seed, 0, 2**63 - 1), fraction=held_out)
    return (Round(collect, partial(ClassSums.merge, name="logits"), _finish),)
