"""Nearest-neighbour guidance against a loop over the bank."""

import numpy as np
import pytest
from scipy.special import logsumexp

from mood import scores
from mood.core.errors import InputError
from mood.core.features import Features


def reference(bank_rows, bank_logits, queries, query_logits, k):
    def unit(rows):
        return rows / np.linalg.norm(rows, axis=1, keepdims=True)

    guided = unit(bank_rows) * logsumexp(bank_logits, axis=1)[:, None]
    similar = np.sort(unit(queries) @ guided.T, axis=1)[:, -k:].mean(1)
    return -logsumexp(query_logits, axis=1) * similar


def test_formula(world):
    expected = reference(world.rows, world.logits, world.queries, world.query_logits, 7)
    found = scores.fit("nnguide", world.fit, k=7, fraction=1.0)(world.test)
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-9)


def test_the_bank_is_a_random_share_and_not_the_first_rows(world):
    """Sorted by class, the first rows would be one class."""
    order = np.argsort(world.labels)
    features = world.fit[order]
    score = scores.fit("nnguide", features, k=2, fraction=0.1)
    assert len(score.bank) == 30
    units = world.rows / np.linalg.norm(world.rows, axis=1, keepdims=True)
    bank = score.bank.numpy() / np.linalg.norm(score.bank.numpy(), axis=1, keepdims=True)
    rows = np.abs(bank @ units.T).argmax(1)
    assert set(world.labels[rows]) == {0, 1, 2, 3}


def test_few_images_give_at_least_ten_times_k_rows(world):
    assert len(scores.fit("nnguide", world.fit, k=3).bank) == 30
    assert len(scores.fit("nnguide", world.fit, k=3, bank=20).bank) == 20


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"k": 0}, "k is 0"),
        ({"k": 9, "bank": 8}, "k is 9; a whole number from 1 to 8"),
        ({"fraction": 0.0}, "fraction is 0.0"),
        ({"fraction": 1.1}, "fraction is 1.1"),
        ({"k": 301}, "k is 301 and there are 300 rows"),
    ],
)
def test_options_out_of_range_are_refused(world, options, message):
    with pytest.raises(InputError, match=message):
        scores.fit("nnguide", world.fit, **options)


def test_shards_of_other_widths_are_refused():
    wide, narrow = (Features(np.ones((9, width)), logits=np.ones((9, 2))) for width in (3, 2))
    with pytest.raises(InputError, match="embedding has 2 values per row; 3 were expected"):
        scores.fit("nnguide", [wide, narrow], k=1)
