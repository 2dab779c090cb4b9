"""Virtual-logit matching against the paper's equations in numpy."""

import numpy as np
import pytest
from scipy.special import logsumexp

from mood import scores
from mood.core.errors import InputError
from mood.core.features import Features, Head


def made(rows: int = 200, width: int = 10, classes: int = 4):
    rng = np.random.default_rng(0)
    fit_rows = rng.normal(1, 1, (rows, width)) * np.linspace(0.3, 3, width)
    return fit_rows, rng.normal(1, 2, (30, width)), rng.normal(size=(classes, width)), rng.normal(size=classes)


def test_formula():
    """Equations 5 to 7: origin, uncentred principal space, alpha on the fit rows, virtual logit minus energy."""
    fit_rows, queries, weight, bias = made()
    origin = -np.linalg.lstsq(weight, bias, rcond=None)[0]
    null_space = np.linalg.svd(fit_rows - origin, full_matrices=True)[2][6:].T
    logits, query_logits = fit_rows @ weight.T + bias, queries @ weight.T + bias
    alpha = logits.max(1).sum() / np.linalg.norm((fit_rows - origin) @ null_space, axis=1).sum()
    expected = alpha * np.linalg.norm((queries - origin) @ null_space, axis=1) - logsumexp(query_logits, axis=1)

    score = scores.fit("vim", Features(fit_rows, logits=logits), head=Head(weight, bias), dim=6)
    np.testing.assert_allclose(score(Features(queries, logits=query_logits)).numpy(), expected, rtol=1e-9)


def test_the_second_moment_is_not_centred():
    """Rows that all lie far off in one direction: a covariance would not see it, the principal space must hold it."""
    fit_rows, _, weight, _ = made()
    fit_rows[:, 0] = 100 + 1e-3 * fit_rows[:, 0]
    features = Features(fit_rows, logits=np.ones((200, 4)))
    score = scores.fit("vim", features, head=Head(weight), dim=1)
    off = np.zeros((1, 10))
    off[0, 0] = 50
    # The origin lies in the principal direction as nearly as makes no difference, so half of the way leaves little.
    assert float(score.alpha) > 0
    assert np.abs(score.complement.numpy().T @ off[0]).max() < 5


def test_a_space_without_residual_is_refused():
    fit_rows, _, weight, bias = made(rows=5)
    with pytest.raises(InputError, match="no residual sets alpha; pass a smaller dim"):
        scores.fit("vim", Features(fit_rows, logits=np.ones((5, 4))), head=Head(weight, bias), dim=5)


def test_logits_below_zero_are_refused():
    fit_rows, _, weight, bias = made()
    with pytest.raises(InputError, match="mean of the largest logit is not positive"):
        scores.fit("vim", Features(fit_rows, logits=-np.ones((200, 4))), head=Head(weight, bias))


def test_logits_of_another_head_are_refused():
    fit_rows, _, weight, bias = made()
    with pytest.raises(InputError, match="logits has 3 values per row; 4 were expected"):
        scores.fit("vim", Features(fit_rows, logits=np.ones((200, 3))), head=Head(weight, bias))
