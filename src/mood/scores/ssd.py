"""Clusters of L2-normalised embeddings, each with a covariance of its own.

Sehwag, Chiang, Mittal: SSD: A Unified Framework for Self-Supervised Outlier Detection, ICLR 2021. On a network that was
trained with labels by the supervised contrastive loss the same score is their SSD+.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from mood.core.errors import InputError
from mood.core.features import Features
from mood.scores import _gaussian
from mood.scores._gaussian import Moments, check_shrinkage
from mood.scores._per_class import ClassMoments, nearest_distance
from mood.scores._registry import between, fitted
from mood.scores._round import Round
from mood.scores._rows import blocks, l2_normalised, of_width, row_by_row
from mood.scores._sampling import Bank, bank_round

STARTS, STEPS = 10, 300
"""Of k-means: one start in a few ends in a poor cut; none takes more steps."""


@dataclass(frozen=True, slots=True, eq=False)
class SSD:
    """min over clusters of (x − μ_k)ᵀ Σ_k⁺ (x − μ_k) with x = (h̃ − m) / (s + 1e-10); ≥ 0.

    Attributes:
        mean: (D,) float64, m.
        deviation: (D,) float64, s + 1e-10, s² divided by N.
        means: (k, D) float64, μ_k.
        whiteners: (k, D, D) float64, whitener · whitenerᵀ = Σ_k⁺, the covariance divided by the rows of the cluster.
    """

    mean: Tensor
    deviation: Tensor
    means: Tensor
    whiteners: Tensor

    def __call__(self, features: Features) -> Tensor:
        """(N,) float64, higher = more OOD.

        Raises:
            InputError: embeddings of another width than in the fit.
        """
        embedding = of_width(features.embedding, len(self.mean), "embedding")
        return row_by_row(self._distance, embedding, width=len(self.mean))

    def _distance(self, rows: Tensor) -> Tensor:
        standard = (l2_normalised(rows) - self.mean) / self.deviation
        return nearest_distance(standard, self.means, self.whiteners)


@dataclass(frozen=True, slots=True, eq=False)
class _Seen:
    """Moments of all rows, and some of the rows."""

    moments: Moments
    bank: Bank


@dataclass(frozen=True, slots=True, eq=False)
class _Clusters:
    """How rows are standardised, and the (k, D) centres."""

    mean: Tensor
    deviation: Tensor
    centres: Tensor

    def standardised(self, rows: Tensor) -> Tensor:
        """(n, D) float64 of (n, D) float64 rows."""
        return (l2_normalised(rows) - self.mean) / self.deviation


def k_means(rows: Tensor, count: int, seed: int) -> Tensor:
    """(count, D) centres: the best of `STARTS` times k-means++ (Arthur & Vassilvitskii, 2007) with Lloyd's steps."""
    generator = torch.Generator().manual_seed(seed)
    tried = [_lloyd(rows, _seeds(rows, count, generator)) for _ in range(STARTS)]
    return min(tried, key=lambda result: result[1])[0]


def _seeds(rows: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """(count, D) rows, each drawn the more likely the farther it is from those before it."""
    centres = rows[torch.randint(len(rows), (1,), generator=generator)]
    far = (rows - centres).square().sum(1)
    for _ in range(1, count):
        if not far.sum() > 0:
            raise InputError(f"clusters is {count} and there are only {len(centres)} different rows")
        chosen = rows[torch.multinomial(far, 1, generator=generator)]
        centres = torch.cat([centres, chosen])
        far = torch.minimum(far, (rows - chosen).square().sum(1))
    return centres


def _lloyd(rows: Tensor, centres: Tensor) -> tuple[Tensor, float]:
    """Centres that no row moves any more, and the squared distances from them together."""
    count = len(centres)
    place = torch.full((len(rows),), -1)
    for _ in range(STEPS):
        moved = _gaussian.nearest(rows, centres)
        if torch.equal(moved, place):
            break
        place = moved
        counts = torch.bincount(place, minlength=count)
        sums = torch.zeros_like(centres).index_add_(0, place, rows)
        # A centre that lost all its rows stays where it is.
        centres = torch.where(counts[:, None] > 0, sums / counts.clamp_min(1)[:, None], centres)
    return centres, float((rows - centres[place]).square().sum())


@fitted("ssd", SSD, needs=("embedding",), source="Sehwag et al., ICLR 2021 (SSD), equation 3")
def ssd(
    *, clusters: int = 1, shrinkage: str | float = "auto", bank: int = 50_000, seed: int = 0
) -> tuple[Round[Any, Any, Any], ...]:
    """Squared Mahalanobis distance of the standardised L2-normalised embedding from the nearest cluster; no labels.

    With one cluster and no shrinkage it is `mood`, apart from directions without spread. For 1M images of 768 values: k
    matrices of 5 MB, and where there is more than one cluster 1.1 GB while fitting, the bank in float64.

    Args:
        clusters: k of k-means, 1 in the paper.
        shrinkage: of each covariance: "none" (pseudo-inverse), "oas", "auto" ("oas" under ten rows for a dimension,
            else "none"), or a number in [0, 1].
        bank: k-means sees at most this many ID rows, those with the smallest hash of (seed, id).
        seed: of that hash and of k-means.

    Raises:
        InputError: an option out of range, fewer different rows than clusters, or a cluster without spread.
    """
    count = between("clusters", clusters, 1, 10_000)
    check_shrinkage(shrinkage, ("auto", "none", "oas"))
    (moments,) = _gaussian.rounds(lambda gaussian: gaussian, classes=False, normalise=True, shrinkage="none")
    # One cluster has its centre in the mean: k-means has nothing to do.
    sample = bank_round(lambda kept: kept, size=bank if count > 1 else 1, seed=seed)
    between("bank", bank, count, 2**31)

    def collect(features: Features, _: None) -> _Seen:
        return _Seen(moments.collect(features, None), sample.collect(features, None))

    def merge(earlier: _Seen, later: _Seen) -> _Seen:
        return _Seen(moments.merge(earlier.moments, later.moments), sample.merge(earlier.bank, later.bank))

    def cluster(seen: _Seen, _: None) -> _Clusters:
        whole = moments.finish(seen.moments, None).moments
        whole.check_spread()
        deviation = (whole.scatter.diagonal() / whole.total).sqrt() + 1e-10
        fixed = _Clusters(whole.means[0], deviation, torch.zeros(1, len(deviation), dtype=torch.float64))
        if count == 1:
            return fixed
        (rows,) = sample.finish(seen.bank, None).columns
        standard = fixed.standardised(rows.to(torch.float64))
        return _Clusters(fixed.mean, fixed.deviation, k_means(standard, count, seed))

    def assign(features: Features, reached: _Clusters) -> ClassMoments:
        embedding = of_width(features.embedding, len(reached.mean), "embedding")
        rows = [reached.standardised(block) for (block,) in blocks(embedding, width=embedding.shape[1])]
        standard = torch.cat(rows) if rows else torch.zeros(0, len(reached.mean), dtype=torch.float64)
        return ClassMoments.of(standard, _gaussian.nearest(standard, reached.centres))

    def build(waiting: ClassMoments, reached: _Clusters) -> SSD:
        found = waiting.folded()
        return SSD(reached.mean, reached.deviation, found.means, found.whiteners(shrinkage, "cluster"))

    return (Round(collect, merge, cluster), Round(assign, ClassMoments.merge, build))
