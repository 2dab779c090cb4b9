"""NCI against its formula in numpy."""

import numpy as np
import pytest

from mood import scores
from mood.core.errors import InputError
from mood.core.features import Features


@pytest.mark.parametrize("norm_weight", [1e-4, 0, 0.1])
def test_formula(world, norm_weight):
    centred = world.queries - world.rows.mean(0)
    said = world.weight[world.query_logits.argmax(1)]
    proximity = np.einsum("nd,nd->n", said, centred) / np.linalg.norm(centred, axis=1)
    expected = -(proximity + norm_weight * np.abs(world.queries).sum(1))
    found = scores.fit("nci", world.fit, head=world.head, norm_weight=norm_weight)(world.test)
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-10)


def test_an_image_on_the_mean_is_finite(world):
    score = scores.fit("nci", world.fit, head=world.head)
    assert score(Features(score.mean[None], logits=world.query_logits[:1])).isfinite().all()


@pytest.mark.parametrize("norm_weight", [-0.1, float("inf")])
def test_a_weight_out_of_range_is_refused(world, norm_weight):
    with pytest.raises(InputError, match="norm_weight is"):
        scores.fit("nci", world.fit, head=world.head, norm_weight=norm_weight)
