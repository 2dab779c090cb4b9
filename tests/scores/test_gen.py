"""Generalised entropy against high-precision arithmetic."""

from decimal import Decimal, getcontext

import numpy as np
import pytest
from scipy.special import softmax

from mood import scores
from mood.core.errors import InputError
from mood.core.features import Features


@pytest.mark.parametrize(("gamma", "top"), [(0.1, 100), (0.1, 3), (0.7, 7), (0.01, 1)])
def test_formula(gamma, top):
    logits = np.random.default_rng(0).normal(0, 2, (60, 7))
    p = -np.sort(-softmax(logits, axis=1), axis=1)[:, :top]
    found = scores.fit("gen", Features(logits, logits=logits), gamma=gamma, top=top)(Features(logits, logits=logits))
    np.testing.assert_allclose(found.numpy(), (p**gamma * (1 - p) ** gamma).sum(1), rtol=1e-10)


def test_a_probability_next_to_one_keeps_its_share():
    """float64 knows no 1 − p below 1e-16; its tenth power is still seen in the score."""
    getcontext().prec = 1000
    rows = [[0.0, -50.0, -52.0], [300.0, 0.0, 10.0], [1000.0, 0.0, -1000.0]]
    expected = []
    for row in rows:
        powers = [(Decimal(value) - Decimal(max(row))).exp() for value in row]
        p = [power / sum(powers) for power in powers]
        expected.append(float(sum((value * (1 - value)) ** Decimal("0.1") for value in p)))
    features = Features(np.zeros((3, 1)), logits=rows)
    found = scores.fit("gen", features)(features).numpy()
    np.testing.assert_allclose(found, expected, rtol=1e-12)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"gamma": 0.0}, "gamma is 0.0; a number between 0 and 1"),
        ({"gamma": 1}, "gamma is 1.0; a number between 0 and 1"),
        ({"top": 0}, "top is 0; a whole number from 1"),
    ],
)
def test_options_out_of_range_are_refused(options, message):
    with pytest.raises(InputError, match=message):
        scores.fit("gen", Features(np.zeros((2, 1)), logits=np.zeros((2, 3))), **options)
