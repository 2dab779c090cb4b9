"""NECO against scikit-learn's scaler and principal components."""

import numpy as np
import pytest
from sklearn.decomposition import PCA
from sklearn.preprocessing import StandardScaler

from mood import scores
from mood.core.errors import InputError
from mood.core.features import Features


@pytest.mark.parametrize("options", [{"dim": 3}, {"dim": 10}, {"variance": 0.6}, {}])
@pytest.mark.parametrize("times_logit", [True, False])
def test_formula(world, options, times_logit):
    scaler = StandardScaler().fit(world.rows)
    standard = scaler.transform(world.queries)
    pca = PCA(options.get("dim", options.get("variance", 0.9))).fit(scaler.transform(world.rows))
    ratio = np.linalg.norm(pca.transform(standard), axis=1) / np.linalg.norm(standard, axis=1)
    expected = -ratio * world.query_logits.max(1) if times_logit else -ratio
    found = scores.fit("neco", world.fit, times_logit=times_logit, **options)(world.test)
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-9)


def test_a_constant_dimension_counts_for_nothing(world):
    rows, queries = (np.concatenate([part, np.full((len(part), 1), 7.3)], 1) for part in (world.rows, world.queries))
    found = scores.fit("neco", Features(rows, logits=world.logits))(Features(queries, logits=world.query_logits))
    np.testing.assert_allclose(found.numpy(), scores.fit("neco", world.fit)(world.test).numpy(), rtol=1e-7)


def test_an_image_on_the_mean_is_finite(world):
    score = scores.fit("neco", world.fit)
    assert score(Features(score.mean[None], logits=world.query_logits[:1])).isfinite().all()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"dim": 0}, "dim is 0"),
        ({"dim": 11}, "dim is 11; a whole number from 1 to 10"),
        ({"variance": 1.0}, "variance"),
    ],
)
def test_options_out_of_range_are_refused(world, options, message):
    with pytest.raises(InputError, match=message):
        scores.fit("neco", world.fit, **options)


def test_rows_that_are_all_the_same_are_refused():
    with pytest.raises(InputError, match="no direction has a spread"):
        scores.fit("neco", Features(np.full((5, 3), 0.1), logits=np.ones((5, 2))))
