"""A fit without each fold is the fit of the other rows, for every score."""

import numpy as np
import pytest

from mood import scores
from mood.core.errors import InputError
from mood.core.features import Features

OPTIONS = {
    "knn": {"k": 5},
    "openmax": {"tail": 3},
    "kpca_corp": {"width": 64},
    "gmm": {"components": 2},
    "isolation_forest": {"trees": 5},
}
# Inner layers, tokens and the decoder, which plain features lack.
NAMES = sorted(
    name for name, info in scores.available().items() if not {"layers", "tokens", "reconstruction"} & {*info.needs}
)


@pytest.mark.parametrize("name", [*NAMES, "mood,msp"])
def test_without_a_fold_it_is_a_fresh_fit_of_the_others(world, name):
    options = OPTIONS.get(name, {})
    folds = [world.fit[start : start + 75] for start in range(0, 300, 75)]
    # A fold may come in shards.
    given = [[fold[:30], fold[30:]] if place == 1 else fold for place, fold in enumerate(folds)]
    whole, without = scores.fit_folds(name, given, head=world.head, **options)
    assert len(without) == 4
    shards = [shard for fold in given for shard in (fold if isinstance(fold, list) else [fold])]
    fresh = scores.fit(name, shards, head=world.head, **options)(world.test)
    np.testing.assert_allclose(whole(world.test).numpy(), fresh.numpy(), rtol=1e-9, atol=1e-9)
    for out, score in enumerate(without):
        others = [fold for place, fold in enumerate(folds) if place != out]
        fresh = scores.fit(name, others, head=world.head, **options)(world.test)
        np.testing.assert_allclose(score(world.test).numpy(), fresh.numpy(), rtol=1e-9, atol=1e-9)


def test_two_folds_and_leave_one_out(world):
    rows = world.fit[:40]
    for size in (20, 1):
        folds = [rows[start : start + size] for start in range(0, 40, size)]
        _, without = scores.fit_folds("mood", folds)
        fresh = scores.fit("mood", rows[size:])
        np.testing.assert_allclose(without[0](world.test).numpy(), fresh(world.test).numpy(), rtol=1e-7)


def test_a_score_that_needs_no_fit_is_the_same_without_any_fold(world):
    whole, without = scores.fit_folds("msp", [world.fit[:100], world.fit[100:]])
    assert all(score is whole for score in without)


def test_one_fold_is_none(world):
    with pytest.raises(InputError, match="there are 1 folds; at least two were expected"):
        scores.fit_folds("mood", [world.fit])
    with pytest.raises(InputError, match="labels"):
        scores.fit_folds("mahalanobis", [Features(world.rows[:9]), Features(world.rows[9:])])
