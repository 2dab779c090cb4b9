"""SCALE: nothing is pruned, all of the embedding is scaled."""

import numpy as np
import pytest
from scipy.special import logsumexp

from mood import scores


@pytest.mark.parametrize("percentile", [0.85, 0.65])
def test_formula(world, percentile):
    keep = 10 - int(np.round(10 * percentile))
    largest = np.sort(world.queries, axis=1)[:, -keep:]
    factor = np.exp(world.queries.sum(1) / largest.sum(1))
    expected = -logsumexp((world.queries * factor[:, None]) @ world.weight.T + world.bias, axis=1)
    found = scores.fit("scale", world.fit, head=world.head, percentile=percentile)(world.test)
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-10)
