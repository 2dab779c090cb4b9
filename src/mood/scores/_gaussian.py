"""Gaussians that share one covariance: moments that merge, shrinkage, whitening and the nearest class.

Everything is float64. A covariance is divided by N. Moments are kept about their own means and merged pairwise (Chan,
Golub & LeVeque, 1979), so a mean that is large against the spread costs no digits.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

import torch
from torch import Tensor

from mood.core.errors import InputError
from mood.core.features import Features
from mood.scores._labels import class_labels
from mood.scores._round import Round
from mood.scores._rows import blocks, l2_normalised

SHRINKAGES = ("auto", "none", "ledoit-wolf", "oas")

SMALL = 10
"""Rows for each dimension under which `auto` shrinks. An unshrunk covariance of D dimensions from N Gaussian rows puts
new rows at 1 / (1 − D/N) times the squared distance of its own rows: 1.1 at ten rows for a dimension, 4.7 at 1300 rows
for 1024 dimensions."""

Fitted = TypeVar("Fitted")


@dataclass(frozen=True, slots=True, eq=False)
class Moments:
    """Count and mean of each class, and the scatter of all rows about the mean of their class.

    Attributes:
        labels: (C,) int64, ascending: the classes that occur.
        counts: (C,) float64, all ≥ 1.
        means: (C, D) float64.
        scatter: (D, D) float64, Σ_n (h_n − μ_{c(n)})(h_n − μ_{c(n)})ᵀ.
    """

    labels: Tensor
    counts: Tensor
    means: Tensor
    scatter: Tensor

    @property
    def total(self) -> float:
        """N."""
        return float(self.counts.sum())

    @property
    def rank(self) -> int:
        """The largest rank that the scatter can have: one degree of freedom goes to each mean."""
        return min(self.means.shape[1], int(self.total) - len(self.labels))

    def check_spread(self) -> None:
        """Raises `InputError` where the scatter is zero, or too small to be told from rounding."""
        # A mean of N equal rows is off by up to N · eps of their length, which leaves a scatter where there is none.
        length = self.counts @ self.means.square().sum(1) / self.total
        if self.scatter.trace() / self.total <= (self.total * torch.finfo(torch.float64).eps) ** 2 * length:
            raise InputError("all rows lie on the mean of their class, so no direction has a spread to measure with")

    def merge(self, later: "Moments") -> "Moments":
        """The moments of both stretches of data together."""
        if self.means.shape[1] != later.means.shape[1]:
            raise InputError(
                f"embedding has {later.means.shape[1]} values per row in one shard and {self.means.shape[1]} before it"
            )
        labels, place = torch.unique(torch.cat([self.labels, later.labels]), return_inverse=True)
        ours, theirs = place[: len(self.labels)], place[len(self.labels) :]
        first, second = (counts.new_zeros(len(labels)) for counts in (self.counts, later.counts))
        first[ours], second[theirs] = self.counts, later.counts
        means, offsets = (m.new_zeros(len(labels), m.shape[1]) for m in (self.means, later.means))
        means[ours], offsets[theirs] = self.means, later.means
        counts = first + second
        # Where a class is new, its weight below is 0 and its mean is the later one as it is.
        offsets[theirs] -= means[theirs]
        spread = offsets * (first * second / counts).sqrt()[:, None]
        return Moments(
            labels,
            counts,
            means + offsets * (second / counts)[:, None],
            self.scatter + later.scatter + spread.T @ spread,
        )

    def pooled(self) -> "Moments":
        """The same rows as one class: the scatter within classes plus the scatter between them."""
        mean = (self.counts / self.total) @ self.means
        spread = (self.means - mean) * self.counts.sqrt()[:, None]
        return Moments(
            torch.zeros(1, dtype=torch.int64), self.counts.sum()[None], mean[None], self.scatter + spread.T @ spread
        )


@dataclass(frozen=True, slots=True, eq=False)
class Gaussian:
    """What a round of moments leaves: the moments, and Σ‖h − μ‖⁴ once a second round has collected it.

    Attributes:
        moments: about the class means.
        fourth: (2,) float64, about the class means and about the mean of all rows; None before the second round.
    """

    moments: Moments
    fourth: Tensor | None = None

    def whitener(self, shrinkage: str | float, *, pooled: bool = False) -> Tensor:
        """(D, R) with whitener · whitenerᵀ = Σ⁺, of the covariance within classes or of all rows.

        Raises:
            InputError: the covariance is zero, or too small to be told from rounding.
        """
        moments = self.moments.pooled() if pooled else self.moments
        covariance = moments.scatter / moments.total
        moments.check_spread()
        fourth = None if self.fourth is None else self.fourth[int(pooled)]
        return shrunk_whitener(covariance, shrinkage, moments.total, moments.rank, fourth)


def rounds(
    build: Callable[[Gaussian], Fitted], *, classes: bool, normalise: bool, shrinkage: str | float
) -> tuple[Round[Any, Any, Any], ...]:
    """The passes that end in `build(gaussian)`: one, or two where Ledoit–Wolf asks for fourth moments.

    Args:
        build: makes the score.
        classes: one mean per label, or one for all rows.
        normalise: divide every embedding by its length first.
        shrinkage: "auto", "none", "ledoit-wolf", "oas" or a number in [0, 1].

    Raises:
        InputError: another shrinkage.
    """
    check_shrinkage(shrinkage)
    first = partial(collect_moments, classes=classes, normalise=normalise)
    if shrinkage != "ledoit-wolf":
        return (Round(first, Moments.merge, lambda moments, _: build(ready(moments))),)
    second = partial(collect_fourth, classes=classes, normalise=normalise)
    return (
        Round(first, Moments.merge, lambda moments, _: ready(moments)),
        Round(second, torch.add, lambda fourth, gaussian: build(Gaussian(gaussian.moments, fourth))),
    )


def is_small(total: float, width: int) -> bool:
    """Whether N rows are few for a covariance of D dimensions."""
    return total < SMALL * width


def check_shrinkage(shrinkage: str | float, known: tuple[str, ...] = SHRINKAGES) -> None:
    """Raises `InputError` where it is none of the known ones and no number in [0, 1]."""
    if shrinkage not in known if isinstance(shrinkage, str) else not 0 <= shrinkage <= 1:
        raise InputError(f"shrinkage is {shrinkage!r}; {', '.join(known)} or a number in [0, 1] was expected")


def ready(moments: Moments) -> Gaussian:
    """What one round of moments leaves; raises `InputError` where there were no rows."""
    if moments.total == 0:
        raise InputError("there are no rows to fit on; at least two were expected")
    return Gaussian(moments)


def labels_of(features: Features, classes: bool) -> Tensor:
    """(N,) int64; zeros where classes do not count."""
    if not classes:
        return torch.zeros(len(features), dtype=torch.int64)
    return class_labels(features)


def collect_moments(features: Features, _: None, *, classes: bool, normalise: bool) -> Moments:
    embedding = features.embedding
    return moments_of(
        embedding, labels_of(features, classes), embedding.shape[1], lambda rows: embedded(rows, normalise)
    )


def moments_of(embedding: Tensor, classes: Tensor, width: int, read: Callable[[Tensor], Tensor]) -> Moments:
    """The moments of what is read of the rows of a shard.

    Args:
        embedding: (N, D) floating.
        classes: (N,) int64.
        width: W, of what is read.
        read: (n, D) float64 rows → (n, W).
    """
    labels, place, counts = torch.unique(classes, return_inverse=True, return_counts=True)
    means = torch.zeros(len(labels), width, dtype=torch.float64)
    scatter = torch.zeros(width, width, dtype=torch.float64)
    start = 0
    for (rows,) in blocks(embedding, width=width):
        means.index_add_(0, place[start : start + len(rows)], read(rows))
        start += len(rows)
    means /= counts[:, None]
    start = 0
    for (rows,) in blocks(embedding, width=width):
        centred = read(rows) - means[place[start : start + len(rows)]]
        scatter.addmm_(centred.T, centred)
        start += len(rows)
    return Moments(labels, counts.to(torch.float64), means, scatter)


def collect_fourth(features: Features, gaussian: Gaussian, *, classes: bool, normalise: bool) -> Tensor:
    """(2,) Σ‖h − μ‖⁴ about the class means and about the mean of all rows."""
    moments = gaussian.moments
    place = torch.searchsorted(moments.labels, labels_of(features, classes))
    mean = moments.pooled().means
    fourth = torch.zeros(2, dtype=torch.float64)
    start = 0
    for (rows,) in blocks(features.embedding, width=features.embedding.shape[1]):
        own = moments.means[place[start : start + len(rows)]]
        for index, centre in enumerate((own, mean)):
            fourth[index] += (embedded(rows, normalise) - centre).square_().sum(1).square_().sum()
        start += len(rows)
    return fourth


def shrunk_whitener(
    covariance: Tensor, shrinkage: str | float, total: float, rank: int, fourth: Tensor | None = None
) -> Tensor:
    """(D, R) whitener of a covariance that was shrunk first.

    Args:
        covariance: (D, D) float64, ÷ N, not zero.
        shrinkage: "auto", "none", "ledoit-wolf", "oas" or a number in [0, 1].
        total: N.
        rank: that the covariance can have at most, ≥ 1.
        fourth: () Σ‖h − μ‖⁴; where it is missing, a name other than "none" means "oas".
    """
    amount = _amount(shrinkage, covariance, total, fourth)
    if amount == 0:
        return whitener(covariance, rank)
    width, scale = len(covariance), covariance.trace() / len(covariance)
    return whitener((1 - amount) * covariance + amount * scale * torch.eye(width, dtype=torch.float64), width)


def _amount(shrinkage: str | float, covariance: Tensor, total: float, fourth: Tensor | None) -> float:
    """How much of the covariance gives way to the sphere of the same trace: (1 − a)·Σ + a·(tr Σ / D)·I."""
    width = len(covariance)
    if shrinkage == "none" or (shrinkage == "auto" and not is_small(total, width)):
        return 0.0
    if not isinstance(shrinkage, str):
        return float(shrinkage)
    scale = covariance.trace() / width
    square = covariance.square().sum()
    # ‖Σ − scale·I‖²_F, without the cancellation of its expanded form.
    distance = (covariance - scale * torch.eye(width, dtype=torch.float64)).square().sum()
    if distance == 0:
        return 1.0
    if fourth is None:
        # Chen, Wiesel, Eldar & Hero 2010, as in scikit-learn, whose numerator leaves out the factor 1 − 2/D.
        return min(1.0, float((square / width**2 + scale**2) / ((total + 1) * distance / width**2)))
    # Ledoit & Wolf 2004, lemma 3.4: the mean squared distance of hhᵀ from Σ, over N.
    error = (fourth / total - square).clamp_min(0) / total
    return min(1.0, float(error / distance))


def whitener(covariance: Tensor, rank: int) -> Tensor:
    """(D, R) with whitener · whitenerᵀ = Σ⁺, contiguous.

    Eigenvalues up to D · eps · λ_max (eps = 2⁻⁵²) count as zero, and so do all beyond the `rank` largest. Where a bound
    shows that none is that small, the inverse of the Cholesky factor gives the same Σ⁻¹ sooner.

    Args:
        covariance: (D, D) float64, not zero.
        rank: that the covariance can have at most, ≥ 1.
    """
    width = len(covariance)
    cut = width * torch.finfo(torch.float64).eps
    factor, failed = torch.linalg.cholesky_ex(covariance)
    if rank >= width and not failed:
        inverse = torch.linalg.solve_triangular(factor, torch.eye(width, dtype=torch.float64), upper=False)
        # 1 / tr Σ⁻¹ ≤ λ_min and λ_max ≤ ‖Σ‖_F.
        if 1 / inverse.square().sum() > cut * torch.linalg.matrix_norm(covariance):
            upper: Tensor = inverse.T.contiguous()
            return upper
    values, vectors = torch.linalg.eigh(covariance)
    kept = values > cut * values[-1]
    kept[: width - rank] = False
    scaled: Tensor = vectors[:, kept] / values[kept].sqrt()
    return scaled.contiguous()


PANEL = 192
"""Columns of a whitener that are multiplied at a time. Of 96 to 384, this took the least time on two cores."""


def whitened(rows: Tensor, whitener: Tensor) -> Tensor:
    """(n, R) rows · whitener.

    A whitener from a Cholesky factor is zero below its diagonal, and those zeros are nearly half of the product. Panel
    by panel of columns, rows of it that hold nothing but zeros are left out.

    Args:
        rows: (n, D) float64.
        whitener: (D, R) float64.
    """
    out = rows.new_empty(len(rows), whitener.shape[1])
    for start in range(0, whitener.shape[1], PANEL):
        panel = whitener[:, start : start + PANEL]
        depth = start + PANEL
        if panel[depth:].any():
            return rows @ whitener
        torch.mm(rows[:, :depth], panel[:depth], out=out[:, start : start + PANEL])
    return out


def nearest(rows: Tensor, means: Tensor) -> Tensor:
    """(n,) int64, the row of `means` nearest to each row, exactly as float64 would choose it.

    float32 halves the cost of the one product over all classes. Where its two best classes are closer to each other
    than its rounding (D · eps · ‖row‖ · ‖mean‖, twice), the row is looked up again in float64.

    Args:
        rows: (n, R) float64.
        means: (C, R) float64.
    """
    half = means.square().sum(1) / 2
    if len(means) == 1:
        return torch.zeros(len(rows), dtype=torch.int64)
    rough = torch.addmm(half.float(), rows.float(), means.T.float(), alpha=-1)
    best = rough.topk(2, dim=1, largest=False)
    norms = torch.linalg.vector_norm(rows, dim=1)
    rounding = (
        2 * (means.shape[1] + 2) * torch.finfo(torch.float32).eps * (norms * (2 * half.max()).sqrt() + half.max())
    )
    index = best.indices[:, 0].clone()
    # Not (gap > rounding) is also true where float32 overflowed to NaN.
    doubtful = (~(best.values[:, 1].double() - best.values[:, 0].double() > rounding)).nonzero()[:, 0]
    index[doubtful] = torch.addmm(half, rows[doubtful], means.T, alpha=-1).argmin(1)
    return index


def embedded(rows: Tensor, normalise: bool) -> Tensor:
    """(n, D) rows, divided by their lengths where asked for."""
    return l2_normalised(rows) if normalise else rows
