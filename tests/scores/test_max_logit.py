"""Maximum logit against numpy."""

import numpy as np

from mood import scores
from mood.core.features import Features


def test_formula():
    logits = np.random.default_rng(0).normal(0, 5, (100, 7))
    features = Features(np.zeros((100, 1)), logits=logits)
    np.testing.assert_array_equal(scores.fit("max_logit", features)(features).numpy(), -logits.max(1))
