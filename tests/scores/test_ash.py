"""Activation shaping, one image and one entry at a time."""

import numpy as np
import pytest
from scipy.special import logsumexp

from mood import scores
from mood.core.errors import InputError
from mood.core.features import Features


def shaped(row, percentile, variant):
    keep = max(1, len(row) - int(np.round(len(row) * percentile)))
    largest = np.argsort(-row)[:keep]
    before, after = row.sum(), row[largest].sum()
    result = np.zeros_like(row)
    result[largest] = before / keep if variant == "ash_b" else row[largest]
    return result * np.exp(before / after) if variant == "ash_s" else result


@pytest.mark.parametrize("name", ["ash_s", "ash_b", "ash_p"])
@pytest.mark.parametrize("percentile", [0.65, 0.9, 0.05, 0.999])
def test_formula(world, name, percentile):
    rows = np.stack([shaped(row, percentile, name) for row in world.queries])
    expected = -logsumexp(rows @ world.weight.T + world.bias, axis=1)
    found = scores.fit(name, world.fit, head=world.head, percentile=percentile)(world.test)
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-10)


@pytest.mark.parametrize("name", ["ash_s", "scale"])
def test_sums_that_vanish_or_nearly_do_stay_finite(world, name):
    tiny = np.full(10, -1.0)
    tiny[:2] = 1e-9
    rows = np.stack([np.zeros(10), tiny, -tiny, np.where(np.arange(10) < 5, 1.0, -1.0)])
    found = scores.fit(name, world.fit, head=world.head)(Features(rows)).numpy()
    assert np.isfinite(found).all()
    np.testing.assert_allclose(found[0], -logsumexp(world.bias), rtol=1e-12)


@pytest.mark.parametrize("name", ["ash_s", "ash_b", "ash_p", "scale"])
def test_a_percentile_out_of_range_is_refused(world, name):
    with pytest.raises(InputError, match="percentile is 1.0; a number between 0 and 1"):
        scores.fit(name, world.fit, head=world.head, percentile=1.0)
