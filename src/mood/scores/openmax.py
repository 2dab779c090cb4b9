"""OpenMax: Bendale, Boult: Towards Open Set Deep Networks, CVPR 2016.

The tail of each class's distances follows a Weibull distribution, fitted by maximum likelihood to the distances as
libMR shifts them: so that the smallest one is 10 000.
"""

from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from mood.core.errors import InputError
from mood.core.features import Features
from mood.scores._labels import head_labels
from mood.scores._registry import between, fitted
from mood.scores._round import Round
from mood.scores._rows import blocks, of_width, row_by_row
from mood.scores._sums import ClassSums, class_sums

SHIFT = 10_000.0
EUCLIDEAN = 1 / 200
"""Weight of the Euclidean distance beside the cosine distance, in the authors' code."""


@dataclass(frozen=True, slots=True, eq=False)
class OpenMax:
    """P(unknown) = softmax([ẑ, ẑ₀])₀; in [0, 1].

    Attributes:
        means: (K, K) float64, mean logits of the ID images that are classified rightly.
        known: (K,) bool, whether the class has one; without, its logit stays as it is.
        smallest: (K,) float64, the smallest distance in the tail of each class.
        log_scale: (K,) float64, log λ of the Weibull distribution of the shifted distances.
        shape: (K,) float64, its κ.
        alpha: how many of the largest logits are revised.
    """

    means: Tensor
    known: Tensor
    smallest: Tensor
    log_scale: Tensor
    shape: Tensor
    alpha: int

    def __call__(self, features: Features) -> Tensor:
        """(N,) float64, higher = more OOD.

        Raises:
            InputError: no logits, or another number of them than in the fit.
        """
        logits = of_width(features.need("logits"), len(self.means), "logits")
        return row_by_row(self._unknown, logits, width=self.alpha * len(self.means))

    def _unknown(self, logits: Tensor) -> Tensor:
        best = logits.topk(self.alpha, dim=1)
        far = distances(logits[:, None], self.means[best.indices])  # (n, alpha)
        ranks = torch.arange(self.alpha, dtype=torch.float64)
        doubt = self._cdf(far, best.indices) * (self.alpha - ranks) / self.alpha
        taken = best.values * doubt
        revised = logits.scatter_add(1, best.indices, -taken)
        unknown = taken.sum(1, keepdim=True)
        return (unknown - torch.cat([revised, unknown], 1).logsumexp(1, keepdim=True)).exp()[:, 0]

    def _cdf(self, far: Tensor, classes: Tensor) -> Tensor:
        """(n, alpha) probability that the tail of the class lies below a distance; 0 where nothing is known of it."""
        # log of the shifted distance over 10 000: the logarithm itself would lose the digits that count.
        relative = torch.log1p(((far - self.smallest[classes]) / SHIFT).clamp_min(-1))
        power = (self.shape[classes] * (relative - self.log_scale[classes])).clamp(max=700).exp()
        return -torch.expm1(-power) * self.known[classes]


def distances(logits: Tensor, means: Tensor) -> Tensor:
    """(…) Euclidean distance over 200 plus cosine distance of (…, K) from (…, K); a zero vector is at cosine 0."""
    cosine = (logits * means).sum(-1)
    lengths = torch.linalg.vector_norm(logits, dim=-1) * torch.linalg.vector_norm(means, dim=-1)
    euclidean = torch.linalg.vector_norm(logits - means, dim=-1)
    # With the square root of eps, equal vectors would be apart.
    cosine = torch.where(lengths > 0, cosine / lengths.clamp_min(torch.finfo(torch.float64).tiny), 0)
    result: Tensor = EUCLIDEAN * euclidean + 1 - cosine
    return result


def weibull(tail: Tensor, counted: Tensor) -> tuple[Tensor, Tensor]:
    """Maximum likelihood for each class: (C,) log(λ / 10 000) and (C,) κ.

    Args:
        tail: (C, T) float64, log of the shifted distances over 10 000, 0 for the smallest.
        counted: (C, T) bool, which of them there are.
    """
    weight = counted.to(torch.float64)
    number = weight.sum(1).clamp_min(1)
    mean = (tail * weight).sum(1) / number

    def parts(shape: Tensor) -> tuple[Tensor, Tensor]:
        """Slope of the likelihood in κ, and log of the mean κ-th power."""
        powers = torch.where(counted, shape[:, None] * tail, -torch.inf)
        log_sum = powers.logsumexp(1)
        share = (powers - log_sum[:, None]).exp()
        return (share * tail).sum(1) - 1 / shape - mean, log_sum - number.log()

    # The slope grows with κ, so bisection on log κ finds its root; tails without a spread end at the upper bound, which
    # makes the distribution a step.
    low, high = torch.full_like(mean, -5.0), torch.full_like(mean, 30.0)
    for _ in range(100):
        middle = (low + high) / 2
        above = parts(middle.exp())[0] > 0
        low, high = torch.where(above, low, middle), torch.where(above, middle, high)
    shape = ((low + high) / 2).exp()
    return parts(shape)[1] / shape, shape


def _collect_means(features: Features, _: None) -> ClassSums:
    labels, logits = head_labels(features), features.need("logits")
    right = logits.argmax(1) == labels
    return class_sums(logits[right], labels[right], logits.shape[1])


def _collect_tails(features: Features, sums: ClassSums, *, tail: int) -> Tensor:
    """(K, tail) the largest distances of each class, descending, −1 where there are fewer."""
    labels, logits = head_labels(features), features.need("logits")
    classes = len(sums.counts)
    of_width(logits, classes, "logits")
    means = sums.sums / sums.counts.clamp_min(1)[:, None]
    right = logits.argmax(1) == labels
    labels, far = labels[right], []
    start = 0
    for (block,) in blocks(logits[right], width=classes):
        far.append(distances(block, means[labels[start : start + len(block)]]))
        start += len(block)
    found = torch.full((classes, tail), -1.0, dtype=torch.float64)
    if far:
        every = torch.cat(far)
        for label in labels.unique().tolist():
            largest = every[labels == label].sort(descending=True).values[:tail]
            found[label, : len(largest)] = largest
    return found


def _merge_tails(earlier: Tensor, later: Tensor) -> Tensor:
    return torch.cat([earlier, later], 1).sort(dim=1, descending=True).values[:, : earlier.shape[1]]


def _finish(tails: Tensor, sums: ClassSums, *, alpha: int) -> OpenMax:
    counted = tails >= 0
    known = counted.any(1)
    # The distances of a class without right images are nobody's.
    smallest = torch.where(known, torch.where(counted, tails, torch.inf).amin(1), 0)
    relative = torch.log1p((tails - smallest[:, None]).clamp_min(0) / SHIFT)
    log_scale, shape = weibull(relative, counted | ~known[:, None])
    means = sums.sums / sums.counts.clamp_min(1)[:, None]
    return OpenMax(means, known, smallest, log_scale, shape, min(alpha, len(means)))


@fitted(
    "openmax", OpenMax, needs=("logits", "labels"), source="Bendale & Boult, CVPR 2016 (OpenMax), algorithms 1 and 2"
)
def openmax(*, tail: int = 20, alpha: int = 10) -> tuple[Round[Any, Any, Any], ...]:
    """Probability of an unknown class that takes a part of each large logit, by how far its class's tail is passed.

    For 1000 classes × 1M images: a K × K matrix, 8 MB.

    Args:
        tail: how many of the largest distances of each class the Weibull distribution is fitted to.
        alpha: how many of the largest logits are revised; all where there are fewer.

    Raises:
        InputError: an option out of range, no logits or labels, a label without a logit, or not one row that is
            classified rightly.
    """

    def centre(sums: ClassSums, _: None) -> ClassSums:
        if not len(sums.present):
            raise InputError("none of the fit rows is classified rightly, so no class has a mean to be far from")
        return sums

    between("alpha", alpha, 1, 2**31)
    tails = partial(_collect_tails, tail=between("tail", tail, 2, 2**20))
    return (
        Round(_collect_means, partial(ClassSums.merge, name="logits"), centre),
        Round(tails, _merge_tails, partial(_finish, alpha=alpha)),
    )
