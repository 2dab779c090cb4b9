"""ODIN's objective and its score on moved images; the moving itself is tested with the networks."""

import numpy as np
import pytest
import torch
from scipy.special import log_softmax, softmax

from mood import scores
from mood.core.errors import InputError
from mood.core.features import Features
from mood.scores import Moving


def test_formula(world):
    score = scores.fit("odin", world.fit, temperature=50.0)
    expected = -softmax(world.query_logits / 50, axis=1).max(1)
    np.testing.assert_allclose(score(world.test).numpy(), expected, rtol=1e-12)
    moved = world.test
    assert score.of_moved([moved]) is moved


def test_the_objective_is_the_surprise_of_the_network_at_itself(world):
    score = scores.fit("odin", world.fit)
    assert isinstance(score, Moving)
    assert score.epsilon == 0.0014
    logits = torch.tensor(world.query_logits, dtype=torch.float32, requires_grad=True)
    (objective,) = score.objectives({"logits": logits})
    expected = -log_softmax(world.query_logits / 1000, axis=1).max(1)
    np.testing.assert_allclose(objective.detach().numpy(), expected, rtol=1e-6)
    assert torch.autograd.grad(objective.sum(), logits)[0].abs().sum() > 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"epsilon": -0.1}, "epsilon is -0.1; a number from 0 on"),
        ({"epsilon": float("inf")}, "epsilon is inf"),
        ({"temperature": 0.0}, "temperature is 0.0; a number above 0"),
    ],
)
def test_what_is_out_of_range_is_refused(world, options, message):
    with pytest.raises(InputError, match=message):
        scores.fit("odin", world.fit, **options)


def test_shards_with_other_heads_are_refused(world):
    with pytest.raises(InputError, match="logits has 3 values per row in one shard and 4 before it"):
        scores.fit("odin", [world.fit, Features(world.rows, logits=world.logits[:, :3])])
