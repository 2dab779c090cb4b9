"""Free energy against scipy."""

import numpy as np
import pytest
from scipy.special import logsumexp

from mood import scores
from mood.core.features import Features


@pytest.mark.parametrize("temperature", [1, 0.3, 1000.0])
def test_formula(temperature):
    logits = np.random.default_rng(0).normal(0, 50, (100, 7))
    features = Features(np.zeros((100, 1)), logits=logits)
    found = scores.fit("energy", features, temperature=temperature)(features)
    np.testing.assert_allclose(found.numpy(), -temperature * logsumexp(logits / temperature, axis=1), rtol=1e-12)


def test_large_logits_do_not_overflow():
    features = Features(np.zeros((2, 1)), logits=[[1e4, 0.0], [-1e4, -1e4]])
    np.testing.assert_allclose(scores.fit("energy", features)(features).numpy(), [-1e4, 1e4 - np.log(2)])
