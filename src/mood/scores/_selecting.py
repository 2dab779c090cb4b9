"""Options chosen on known images alone: no OOD image has a say, and what was chosen says why.

* Shrinkage: the covariance under which held-out known images have the largest likelihood, each about the mean of its
  class. The held-out images are the second hash cut of the fit split (a fifth), which the covariance does not see.
* Raw or L2-normalised embeddings: Müller, Hein: Mahalanobis++, ICML 2025, trace what normalising gains to embeddings
  whose norms spread more than a Gaussian of their covariance has them. So both spreads are measured: of ‖h‖² within
  classes, and as that Gaussian has it, 2 tr Σ² + 4 μᵀΣμ. Above it by more than three standard errors, the norm is
  taken out.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial, reduce
from math import inf, log, pi
from typing import Any

import torch
from torch import Tensor

from mood.core.errors import InputError
from mood.core.features import Features
from mood.scores import _gaussian
from mood.scores._gaussian import Gaussian, Moments, embedded, ready
from mood.scores._given import checked, shards_of
from mood.scores._rows import blocks
from mood.scores._sampling import held_out

SHRINKAGES: tuple[str | float, ...] = ("none", "ledoit-wolf", "oas", 0.001, 0.01, 0.1, 0.5)
"""What is tried."""

BOTH = {"mahalanobis": "mahalanobis++", "relative_mahalanobis": "relative_mahalanobis++"}
"""Scores of raw embeddings, and the same of normalised ones."""


@dataclass(frozen=True, slots=True)
class Choice:
    """What was chosen for a score.

    Attributes:
        name: of the score; with "++" where normalised embeddings were chosen.
        options: for `fit`.
        why: sentences with the evidence.
        log_likelihood: shrinkage → mean log-likelihood of a held-out image, in nats; -inf where the covariance is
            singular.
        norm_dispersion: spread of ‖h‖² over that of the Gaussian, and its standard error; None where the score
            normalises anyway.
    """

    name: str
    options: Mapping[str, Any]
    why: str
    log_likelihood: Mapping[str, float]
    norm_dispersion: tuple[float, float] | None


def select(name: str, features: Features | Iterable[Features]) -> Choice:
    """Choose shrinkage, and raw or normalised embeddings, on known images.

    Args:
        name: `mood`, `mahalanobis` or `relative_mahalanobis`; with "++" normalised embeddings are taken as given.
        features: the fit split, whole or in shards that can be read several times.

    Raises:
        InputError: a score of which nothing is chosen here, something else than features, shards that can be read only
            once, a missing column, or too few images to hold some out.
    """
    check_choice(name)
    shards = shards_of(features)
    if isinstance(shards, Iterator):
        raise InputError("select reads the images several times; pass Features, a list of them, or a FeatureStore")
    classes = name != "mood"
    dispersion, normalise, words = None, name not in BOTH, []
    if name in BOTH:
        dispersion = norm_dispersion(shards)
        normalise = dispersion[0] > 1 + 3 * dispersion[1]
        name = BOTH[name] if normalise else name
        words.append(
            f"{'normalised' if normalise else 'raw'} embeddings, since their squared norms spread {dispersion[0]:.2f} "
            f"(± {dispersion[1]:.2f}) times as much as those of a Gaussian"
        )
    likelihood = _log_likelihoods(shards, classes=classes, normalise=normalise)
    best = max(likelihood, key=lambda option: likelihood[option])
    rivals = ", ".join(f"{option} {value:.2f}" for option, value in likelihood.items() if option != best)
    words.append(
        f"shrinkage={best}, with the largest log-likelihood of held-out known images: {likelihood[best]:.2f} nats "
        f"({rivals})"
    )
    return Choice(
        name=name,
        options={"shrinkage": best},
        why="; ".join(words),
        log_likelihood={str(option): value for option, value in likelihood.items()},
        norm_dispersion=dispersion,
    )


def check_choice(name: str) -> None:
    """Refuse a score of which `select` chooses nothing, before there are images.

    Raises:
        InputError: it is such a score; the message names the others.
    """
    if name not in (known := ("mood", *BOTH, *BOTH.values())):
        raise InputError(f"nothing is chosen on known images for {name!r}; it is for {', '.join(known)}")


def norm_dispersion(features: Features | Iterable[Features]) -> tuple[float, float]:
    """How much ‖h‖² spreads within classes over how much it would under N(μ_c, Σ), and the standard error of that.

    Args:
        features: known images with labels, whole or in shards that can be read twice.

    Raises:
        InputError: something else than features, no labels, no rows, or classes without any spread.
    """
    shards = list(shards_of(features))
    moments = _moments(shards, classes=True, normalise=False, held=None)
    moments.check_spread()
    covariance = moments.scatter / moments.total
    own = torch.einsum("cd,de,ce->c", moments.means, covariance, moments.means)
    expected = float(2 * covariance.square().sum() + 4 * (moments.counts / moments.total) @ own)
    usual = moments.means.square().sum(1) + covariance.trace()
    squares = torch.cat(
        [
            (rows.square().sum(1) - usual[place]).square()
            for part in shards
            for rows, place in _placed(part, moments, classes=True, normalise=False)
        ]
    )
    spread = squares.mean() / expected
    error = squares.std(correction=0) / len(squares) ** 0.5 / expected
    return float(spread), float(error)


def _log_likelihoods(shards: Iterable[Features], *, classes: bool, normalise: bool) -> dict[str | float, float]:
    """Shrinkage → mean log N(h; μ_c, Σ) of the held-out images."""
    moments = _moments(shards, classes=classes, normalise=normalise, held=False)
    gaussian = ready(moments)
    collect = partial(_gaussian.collect_fourth, gaussian=gaussian, classes=classes, normalise=normalise)
    gaussian = Gaussian(moments, torch.stack([collect(_part(shard, held=False)) for shard in shards]).sum(0))
    width = moments.means.shape[1]
    whiteners = {option: gaussian.whitener(option) for option in SHRINKAGES}
    sums = dict.fromkeys(SHRINKAGES, 0.0)
    count = 0
    for shard in shards:
        part = _part(shard, held=True)
        for rows, place in _placed(part, moments, classes=classes, normalise=normalise):
            centred = rows - moments.means[place]
            count += len(rows)
            for option, whitener in whiteners.items():
                sums[option] += float((centred @ whitener).square().sum())
    if not count:
        raise InputError("too few images to hold some out: nothing can be chosen on them")
    found: dict[str | float, float] = {}
    for option, whitener in whiteners.items():
        if whitener.shape[1] < width:
            found[option] = -inf
            continue
        volume = float(torch.linalg.slogdet(whitener).logabsdet)
        found[option] = volume - (sums[option] / count + width * log(2 * pi)) / 2
    return found


def _moments(shards: Iterable[Features], *, classes: bool, normalise: bool, held: bool | None) -> Moments:
    collect = partial(_gaussian.collect_moments, _=None, classes=classes, normalise=normalise)
    parts = [collect(checked(part) if held is None else _part(checked(part), held=held)) for part in shards]
    if not parts or not sum(part.total for part in parts):
        raise InputError("there are no rows to choose on")
    return reduce(Moments.merge, parts)


def _part(shard: Features, *, held: bool) -> Features:
    """The held-out rows of a shard, or the others."""
    cut = held_out(shard.ids)
    return shard[cut if held else ~cut]


def _placed(part: Features, moments: Moments, *, classes: bool, normalise: bool) -> Iterator[tuple[Tensor, Tensor]]:
    """Float64 rows and the place of their class among the moments, in blocks; rows of other classes are left out."""
    labels = _gaussian.labels_of(part, classes)
    place = torch.searchsorted(moments.labels, labels).clamp(max=len(moments.labels) - 1)
    known = moments.labels[place] == labels
    chosen, place = part.embedding[known], place[known]
    start = 0
    for (rows,) in blocks(chosen, width=chosen.shape[1]):
        yield embedded(rows, normalise), place[start : start + len(rows)]
        start += len(rows)
