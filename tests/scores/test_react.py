"""ReAct: the energy of the head on activations cut off at one quantile of all of them."""

import numpy as np
import pytest
from scipy.special import logsumexp

from mood import scores
from mood.core.errors import InputError
from mood.core.features import Features


@pytest.mark.parametrize("percentile", [0.9, 0.5, 0.99])
def test_formula(world, percentile):
    clip = np.percentile(world.rows, 100 * percentile)
    expected = -logsumexp(np.minimum(world.queries, clip) @ world.weight.T + world.bias, axis=1)
    score = scores.fit("react", world.fit, head=world.head, percentile=percentile)
    np.testing.assert_allclose(float(score.clip), clip, rtol=1e-12)
    np.testing.assert_allclose(score(world.test).numpy(), expected, rtol=1e-10)


def test_a_capped_bank_decides_the_cut_whatever_the_order(world):
    ids = [f"{row}.png" for row in range(len(world.rows))]
    features = Features(world.rows, ids=ids)
    one = scores.fit("react", features, head=world.head, bank=50)
    other = scores.fit("react", [features[200:], features[:200][::-1]], head=world.head, bank=50)
    assert one.clip == other.clip
    assert one.clip != scores.fit("react", features, head=world.head).clip


@pytest.mark.parametrize(
    ("options", "message"),
    [({"percentile": 1.0}, "percentile is 1.0"), ({"bank": 0}, "bank is 0"), ({"seed": -1}, "seed is -1")],
)
def test_options_out_of_range_are_refused(world, options, message):
    with pytest.raises(InputError, match=message):
        scores.fit("react", world.fit, head=world.head, **options)


def test_a_head_of_another_width_is_refused(world):
    with pytest.raises(InputError, match="embedding has 3 values per row; 10 were expected"):
        scores.fit("react", Features(np.zeros((5, 3))), head=world.head)
