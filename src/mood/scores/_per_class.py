"""A covariance for each class: moments that merge, and the distance from the nearest.

C × D × D numbers cannot be merged for every small shard: rows wait until there are `PENDING` of them.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from mood.core.errors import InputError
from mood.scores._gaussian import shrunk_whitener, whitened
from mood.scores._rows import of_width

PENDING = 2**16
"""Rows that wait to be added up: 200 MB at 768 float32 values."""


@dataclass(frozen=True, slots=True, eq=False)
class ClassMoments:
    """Count, mean and scatter of each class, and rows that are not in them yet.

    Attributes:
        labels: (C,) int64, ascending.
        counts: (C,) float64.
        means: (C, D) float64.
        scatters: (C, D, D) float64, about the mean of the class.
        rows: (n, D) floating each.
        classes: (n,) int64 each.
    """

    labels: Tensor
    counts: Tensor
    means: Tensor
    scatters: Tensor
    rows: tuple[Tensor, ...] = ()
    classes: tuple[Tensor, ...] = ()

    @staticmethod
    def of(rows: Tensor, classes: Tensor) -> "ClassMoments":
        """Of one shard."""
        width = rows.shape[1]
        empty = torch.zeros(0, width, width, dtype=torch.float64)
        return ClassMoments(classes[:0], empty[:, 0, 0], empty[:, 0], empty, (rows,), (classes,))

    def merge(self, later: "ClassMoments") -> "ClassMoments":
        """Of both stretches of data together."""
        of_width(later.means, self.means.shape[1], "embedding")
        base = self._plus(later) if len(later.labels) else self
        rows, classes = (*self.rows, *later.rows), (*self.classes, *later.classes)
        both = ClassMoments(base.labels, base.counts, base.means, base.scatters, rows, classes)
        return both.folded() if sum(map(len, rows)) > PENDING else both

    def folded(self) -> "ClassMoments":
        """The same, with no row waiting."""
        if not self.rows:
            return self
        rows, classes = torch.cat(self.rows), torch.cat(self.classes)
        labels, counts = torch.unique(classes, return_counts=True)
        width = rows.shape[1]
        means = torch.zeros(len(labels), width, dtype=torch.float64)
        scatters = torch.zeros(len(labels), width, width, dtype=torch.float64)
        by_class = torch.split(classes.argsort(stable=True), counts.tolist())
        # One product for each class, so that no more than the rows of one are held in float64.
        for place, own in enumerate(by_class):
            part = rows[own].to(torch.float64)
            means[place] = part.mean(0)
            part -= means[place]
            torch.mm(part.T, part, out=scatters[place])
        return self._plus(ClassMoments(labels, counts.to(torch.float64), means, scatters))

    def _plus(self, later: "ClassMoments") -> "ClassMoments":
        """Without the rows that wait (Chan, Golub & LeVeque, 1979)."""
        labels, place = torch.unique(torch.cat([self.labels, later.labels]), return_inverse=True)
        ours, theirs = place[: len(self.labels)], place[len(self.labels) :]
        width = later.means.shape[1]
        first, second = torch.zeros(2, len(labels), dtype=torch.float64)
        first[ours], second[theirs] = self.counts, later.counts
        means = torch.zeros(len(labels), width, dtype=torch.float64)
        means[ours] = self.means
        new = torch.ones(len(labels), dtype=torch.bool)
        new[ours] = False
        means[theirs] = torch.where(new[theirs, None], later.means, means[theirs])
        offsets = torch.zeros_like(means)
        offsets[theirs] = later.means - means[theirs]
        counts = first + second
        scatters = torch.zeros(len(labels), width, width, dtype=torch.float64)
        scatters[ours] = self.scatters
        for index, scatter in zip(theirs.tolist(), later.scatters, strict=True):
            scatters[index] += scatter
            spread = offsets[index] * (first[index] * second[index] / counts[index]).sqrt()
            scatters[index].addr_(spread, spread)
        return ClassMoments(labels, counts, means + offsets * (second / counts)[:, None], scatters)

    def whiteners(self, shrinkage: str | float, what: str) -> Tensor:
        """(C, D, D) float64, each whitener filled up with columns of zeros; no row may wait.

        Args:
            shrinkage: "none", "oas" or a number in [0, 1].
            what: what a class is, for messages.

        Raises:
            InputError: a class without spread.
        """
        result = torch.zeros_like(self.scatters)
        width = self.means.shape[1]
        for place, (label, count) in enumerate(zip(self.labels.tolist(), self.counts.tolist(), strict=True)):
            covariance = self.scatters[place] / count
            floor = (count * torch.finfo(torch.float64).eps) ** 2 * self.means[place].square().sum()
            if covariance.trace() <= floor:
                raise InputError(
                    f"{what} {label} has {int(count)} rows without any spread, so nothing says how far is far; leave "
                    "it out, or fit on more images"
                )
            part = shrunk_whitener(covariance, shrinkage, count, min(width, int(count) - 1))
            result[place, :, : part.shape[1]] = part
        return result


def nearest_distance(rows: Tensor, means: Tensor, whiteners: Tensor) -> Tensor:
    """(n,) min_c ‖(row − μ_c)·W_c‖², a class at a time: all at once would be n × C × D numbers."""
    best = torch.full((len(rows),), torch.inf, dtype=torch.float64)
    for mean, whitener in zip(means, whiteners, strict=True):
        distance = whitened(rows - mean, whitener).square_().sum(1)
        best = torch.minimum(best, distance)
    return best
