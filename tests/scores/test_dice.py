"""DICE: the energy of a head with the weights of small contribution taken out."""

import numpy as np
import pytest
from scipy.special import logsumexp

from mood import scores
from mood.core.errors import InputError


@pytest.mark.parametrize("sparsity", [0.9, 0.7, 0.05])
def test_formula(world, sparsity):
    contribution = world.rows.mean(0) * world.weight
    kept = np.where(contribution > np.percentile(contribution, 100 * sparsity), world.weight, 0)
    expected = -logsumexp(world.queries @ kept.T + world.bias, axis=1)
    found = scores.fit("dice", world.fit, head=world.head, sparsity=sparsity)(world.test)
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-10)


@pytest.mark.parametrize("sparsity", [0.0, 1.0])
def test_a_sparsity_out_of_range_is_refused(world, sparsity):
    with pytest.raises(InputError, match="sparsity is"):
        scores.fit("dice", world.fit, head=world.head, sparsity=sparsity)
