"""fDBD: each boundary by itself."""

import numpy as np
import pytest

from mood import scores
from mood.core.errors import InputError
from mood.core.features import Features, Head


def test_formula(world):
    mean = world.rows.mean(0)
    expected = []
    for h, z in zip(world.queries, world.query_logits, strict=True):
        said = z.argmax()
        distances = [
            abs(z[said] - z[c]) / np.linalg.norm(world.weight[said] - world.weight[c]) for c in range(4) if c != said
        ]
        expected.append(-np.mean(distances) / np.linalg.norm(h - mean))
    found = scores.fit("fdbd", world.fit, head=world.head)(world.test)
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-10)


def test_an_image_on_the_mean_is_finite(world):
    score = scores.fit("fdbd", world.fit, head=world.head)
    found = score(Features(score.mean[None], logits=world.query_logits[:1]))
    assert found.isfinite().all()
    assert found < score(world.test).min()


def test_heads_without_boundaries_are_refused(world):
    with pytest.raises(InputError, match="the network has one class"):
        scores.fit("fdbd", world.fit, head=Head(world.weight[:1]))
    with pytest.raises(InputError, match="classes 1 and 3 of the head have the same weights"):
        scores.fit("fdbd", world.fit, head=Head(world.weight[[0, 1, 2, 1]]))


def test_logits_of_another_head_are_refused(world):
    with pytest.raises(InputError, match="logits has 3 values per row; 4 were expected"):
        scores.fit("fdbd", Features(world.rows, logits=world.logits[:, :3]), head=world.head)
