"""The reconstruction error is the column as it is."""

import numpy as np

from mood import scores
from mood.core.features import Features


def test_formula():
    error = np.random.default_rng(0).random(9).astype(np.float32)
    features = Features(np.zeros((9, 1)), reconstruction=error)
    np.testing.assert_array_equal(scores.fit("mim_reconstruction", features)(features).numpy(), error.astype(float))
