"""Temperature by maximum likelihood on the held-out cut, against scipy's optimiser."""

import numpy as np
import pytest
import torch
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax

from mood import scores
from mood.core.errors import InputError
from mood.core.features import Features
from mood.scores._sampling import held_out


def made(rows: int = 400, scale: float = 3.0) -> Features:
    rng = np.random.default_rng(0)
    logits = rng.normal(0, 1, (rows, 5))
    p = np.exp(log_softmax(logits, axis=1))
    labels = np.array([rng.choice(5, p=row) for row in p])
    return Features(logits, ids=[f"{row}.png" for row in range(rows)], logits=scale * logits, labels=labels)


@pytest.mark.parametrize("scale", [3.0, 0.2, 50.0])
@pytest.mark.parametrize("name", ["msp", "entropy", "energy", "gradnorm"])
def test_it_has_the_largest_likelihood_on_the_cut(name, scale):
    features = made(scale=scale)
    cut = held_out(features.ids).numpy()
    assert 0.1 < cut.mean() < 0.3
    logits, labels = features.logits.numpy()[cut], features.labels.numpy()[cut]

    def loss(log_t):
        return -log_softmax(logits / np.exp(log_t), axis=1)[np.arange(len(labels)), labels].mean()

    expected = np.exp(minimize_scalar(loss, bounds=(-9, 9), method="bounded", options={"xatol": 1e-9}).x)
    score = scores.fit(name, features, temperature="fitted")
    found = scores.state(score)[1]["temperature"]
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    assert torch.equal(score(features), scores.fit(name, features, temperature=found)(features))


def test_shards_saving_and_order_leave_it_as_it_is():
    features = made()
    score = scores.fit("energy", features, temperature="fitted")
    moved = [features[300:], features[:0], features[:300]]
    assert scores.state(scores.fit("energy", moved, temperature="fitted")) == scores.state(score)
    assert torch.equal(scores.restore("energy", *scores.state(score))(features), score(features))


def test_what_cannot_be_fitted_is_refused():
    features = made()
    with pytest.raises(InputError, match="'labels' is missing"):
        scores.fit("msp", Features(features.embedding, logits=features.logits), temperature="fitted")
    right = Features(features.embedding, logits=features.logits, labels=features.logits.argmax(1))
    with pytest.raises(InputError, match="no temperature fits the held-out images best"):
        scores.fit("msp", right, temperature="fitted")
    with pytest.raises(InputError, match="there are no rows to fit on"):
        scores.fit("msp", features[~held_out(features.ids)], temperature="fitted")
    with pytest.raises(InputError, match="label 7 in row 0 has no logit"):
        scores.fit("msp", Features(features.embedding, logits=features.logits, labels=[7] * 400), temperature="fitted")
    with pytest.raises(InputError, match="temperature is 'best'; a number above 0, or 'fitted', was expected"):
        scores.fit("msp", features, temperature="best")
