"""KL matching against scipy's relative entropy."""

from hashlib import blake2b

import numpy as np
import pytest
from scipy.special import softmax
from scipy.stats import entropy

from mood import scores
from mood.core.errors import InputError
from mood.core.features import Features


def in_cut(ids, seed, fraction):
    key = seed.to_bytes(8, "little")
    digests = [blake2b(name.encode(), digest_size=8, key=key, person=b"held out").digest() for name in ids]
    return np.array([int.from_bytes(d, "little", signed=True) / 2**64 + 0.5 < fraction for d in digests])


@pytest.mark.parametrize(("fraction", "seed"), [(0.2, 0), (0.5, 3), (1.0, 0)])
def test_formula(world, fraction, seed):
    ids = [f"{row}.png" for row in range(300)]
    cut = in_cut(ids, seed, fraction)
    assert abs(cut.mean() - fraction) < 0.1
    p = softmax(world.logits, axis=1)[cut]
    typical = [p[p.argmax(1) == k].mean(0) for k in range(4)]
    queries = softmax(world.query_logits, axis=1)
    expected = np.min([[entropy(row, d) for d in typical] for row in queries], axis=1)
    fit_rows = Features(world.rows, ids=ids, logits=world.logits)
    found = scores.fit("kl_matching", fit_rows, held_out=fraction, seed=seed)(world.test)
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-9, atol=1e-12)


def test_a_class_that_is_never_predicted_is_left_out(world):
    logits = world.logits.copy()
    logits[:, 1] = -100
    found = scores.fit("kl_matching", Features(world.rows, logits=logits), held_out=1.0)
    assert found.log_typical.shape == (3, 4)
    assert found(world.test).isfinite().all()


def test_probabilities_that_underflow_stay_finite():
    logits = np.array([[0.0, 2000.0, -2000.0]] * 5)
    score = scores.fit("kl_matching", Features(logits, logits=logits), held_out=1.0)
    assert score(Features(np.zeros((1, 3)), logits=[[2000.0, 0.0, 0.0]])).isfinite().all()


def test_a_cut_without_rows_and_a_share_out_of_range_are_refused(world):
    with pytest.raises(InputError, match="held-out cut took none of the fit rows"):
        scores.fit("kl_matching", world.fit, held_out=1e-9)
    for share in (0.0, 1.5):
        with pytest.raises(InputError, match="held_out is .*above 0 and up to 1"):
            scores.fit("kl_matching", world.fit, held_out=share)
