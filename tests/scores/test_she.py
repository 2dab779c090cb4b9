"""Simplified Hopfield energy: patterns of the images that are classified rightly."""

import numpy as np
import pytest

from mood import scores
from mood.core.errors import InputError
from mood.core.features import Features


def test_formula(world):
    said = world.logits.argmax(1)
    assert 0 < (said == world.labels).mean() < 1
    patterns = np.stack([world.rows[(said == c) & (world.labels == c)].mean(0) for c in range(4)])
    expected = -np.einsum("nd,nd->n", world.queries, patterns[world.query_logits.argmax(1)])
    np.testing.assert_allclose(scores.fit("she", world.fit)(world.test).numpy(), expected, rtol=1e-10)


def test_a_class_without_a_right_image_is_left_out_of_the_prediction(world):
    wrong = np.where(world.labels == 2, 3, world.labels)
    said = world.logits.argmax(1)
    known = [0, 1, 3]
    patterns = np.stack([world.rows[(said == c) & (wrong == c)].mean(0) for c in known])
    place = world.query_logits[:, known].argmax(1)
    expected = -np.einsum("nd,nd->n", world.queries, patterns[place])
    score = scores.fit("she", Features(world.rows, logits=world.logits, labels=wrong))
    np.testing.assert_allclose(score(world.test).numpy(), expected, rtol=1e-10)


def test_no_right_image_is_refused():
    with pytest.raises(InputError, match="none of the fit rows is classified rightly"):
        scores.fit("she", Features(np.ones((3, 2)), logits=[[1.0, 0.0]] * 3, labels=[1, 1, 1]))


def test_shards_with_other_heads_are_refused(world):
    fewer = Features(world.rows, logits=np.zeros((300, 3)), labels=np.zeros(300, int))
    with pytest.raises(InputError, match="logits has 3 values per row in one shard and 4 before it"):
        scores.fit("she", [world.fit, fewer])
