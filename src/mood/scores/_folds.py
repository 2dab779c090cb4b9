"""A fit without each fold of the ID features, at the cost of little more than one fit."""

from collections.abc import Iterable, Sequence
from itertools import accumulate
from typing import Any

from mood.core.errors import InputError
from mood.core.features import Features, Head
from mood.scores._fitting import Score, fit, merged, rounds
from mood.scores._given import checked, shards_of
from mood.scores._round import Round


def fit_folds(
    name: str, folds: Sequence[Features | Iterable[Features]], *, head: Head | None = None, **options: Any
) -> tuple[Score, tuple[Score, ...]]:
    """Fits a score on all folds, and one without each.

    The statistics of a first round depend on the rows alone: each fold's are collected once, and merged without one
    fold from both sides. So nothing is subtracted, which would cost digits and which minima and banks cannot bear. A
    later round sees the state that its own fit has reached, and is collected for each fit.

    Args:
        name: a name from `available()`, or several with commas between them.
        folds: K ≥ 2 parts of the fit split, each whole or in shards that can be read again.
        head: as in `fit`.
        options: as in `fit`.

    Returns:
        The score of all folds, and K scores, the k-th without fold k; a score that needs no fit is all of them.

    Raises:
        InputError: fewer than two folds, or as in `fit`.
    """
    if len(folds) < 2:
        raise InputError(f"there are {len(folds)} folds; at least two were expected")
    parts = [[checked(shard) for shard in shards_of(fold)] for fold in folds]
    passes = rounds(name, head, **options)
    if not passes:
        ready = fit(name, [shard for part in parts for shard in part], head=head, **options)
        return ready, (ready,) * len(parts)
    # Who is left out; nobody in the last one.
    states: list[Any] = [None] * (len(parts) + 1)
    for place, step in enumerate(passes):
        found = (
            _first(step, parts) if place == 0 else [_without(step, parts, k, state) for k, state in enumerate(states)]
        )
        states = [step.finish(statistics, before) for statistics, before in zip(found, states, strict=True)]
    return states[-1], tuple(states[:-1])


def _first(step: Round[Any, Any, Any], parts: Sequence[Sequence[Features]]) -> list[Any]:
    """Statistics without each fold, and of all, from one look at every row."""
    each = [merged(step, (step.collect(shard, None) for shard in part)) for part in parts]
    before = list(accumulate(each, step.merge))
    after = list(accumulate(reversed(each), lambda later, earlier: step.merge(earlier, later)))[::-1]
    inside = [step.merge(before[k - 1], after[k + 1]) for k in range(1, len(each) - 1)]
    return [after[1], *inside, before[-2], before[-1]]


def _without(step: Round[Any, Any, Any], parts: Sequence[Sequence[Features]], out: int, state: Any) -> Any:
    shards = (shard for place, part in enumerate(parts) if place != out for shard in part)
    return merged(step, (step.collect(shard, state) for shard in shards))
