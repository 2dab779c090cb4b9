"""Sums of rows by class: what a mean needs, and what merges."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

import torch
from torch import Tensor

from mood.core.errors import InputError
from mood.core.features import Features
from mood.scores._round import Round
from mood.scores._rows import blocks, of_width

Fitted = TypeVar("Fitted")


@dataclass(frozen=True, slots=True, eq=False)
class ClassSums:
    """Count and sum of the rows of each class.

    Attributes:
        counts: (C,) float64, 0 where a class does not occur.
        sums: (C, D) float64.
    """

    counts: Tensor
    sums: Tensor

    def merge(self, later: "ClassSums", *, name: str = "embedding") -> "ClassSums":
        """Of both stretches of data together."""
        of_width(later.sums, self.sums.shape[1], name)
        if len(later.counts) != len(self.counts):
            raise InputError(
                f"logits has {len(later.counts)} values per row in one shard and {len(self.counts)} before it"
            )
        return ClassSums(self.counts + later.counts, self.sums + later.sums)

    @property
    def present(self) -> Tensor:
        """(C',) int64, the classes that occur."""
        return self.counts.nonzero()[:, 0]

    @property
    def means(self) -> Tensor:
        """(C', D) float64, of the classes that occur."""
        kept = self.present
        return self.sums[kept] / self.counts[kept, None]


def class_sums(
    rows: Tensor, classes: Tensor, count: int, read: Callable[[Tensor], Tensor] = lambda rows: rows
) -> ClassSums:
    """Sums of the rows of each class.

    Args:
        rows: (N, D) floating.
        classes: (N,) int64 in [0, count).
        count: C.
        read: (n, D) float64 rows → (n, D), what is added up of them.
    """
    sums, start = torch.zeros(count, rows.shape[1], dtype=torch.float64), 0
    for (block,) in blocks(rows, width=rows.shape[1]):
        sums.index_add_(0, classes[start : start + len(block)], read(block))
        start += len(block)
    return ClassSums(torch.bincount(classes, minlength=count).to(torch.float64), sums)


def mean_round(build: Callable[[Tensor], Fitted], *, width: int, classes: int | None = None) -> Round[Any, Any, Any]:
    """The round that ends in `build(mean)`, the (D,) mean embedding.

    Args:
        build: makes the score.
        width: D.
        classes: how many logits there must be; None where the score does not read them.
    """
    return Round(partial(_collect, width=width, classes=classes), ClassSums.merge, partial(_finish, build=build))


def _collect(features: Features, _: Any, *, width: int, classes: int | None) -> ClassSums:
    embedding = of_width(features.embedding, width, "embedding")
    if classes is not None:
        of_width(features.need("logits"), classes, "logits")
    return class_sums(embedding, torch.zeros(len(embedding), dtype=torch.int64), 1)


def _finish(sums: ClassSums, _: Any, *, build: Callable[[Tensor], Fitted]) -> Fitted:
    if not sums.counts[0]:
        raise InputError("there are no rows to fit on")
    return build(sums.means[0])
