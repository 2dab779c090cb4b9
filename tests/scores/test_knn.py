"""k nearest neighbours against scikit-learn's brute force, and the bank that does not depend on order."""

from hashlib import blake2b

import numpy as np
import pytest
import torch
from sklearn.neighbors import NearestNeighbors

from mood import scores
from mood.core.errors import InputError
from mood.core.features import Features


def made(rows: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(0.5, 1, (rows, 6))


@pytest.mark.parametrize("k", [1, 7, 80])
def test_formula(k):
    """Sun et al. 2022, equation 2: the k-th smallest ‖h̃ − h̃_i‖₂, the query itself not left out."""
    fit_rows, queries = made(80), made(30, seed=1)
    unit = [rows / (np.linalg.norm(rows, axis=1, keepdims=True) + 1e-10) for rows in (fit_rows, queries)]
    expected = NearestNeighbors(n_neighbors=k, algorithm="brute").fit(unit[0]).kneighbors(unit[1])[0][:, -1]
    found = scores.fit("knn", Features(fit_rows), k=k)(Features(queries))
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-7)
    by_hand = np.sort(np.linalg.norm(unit[1][:, None] - unit[0], axis=2), axis=1)[:, k - 1]
    np.testing.assert_allclose(found.numpy(), by_hand, rtol=1e-10)


def test_an_image_of_the_bank_is_at_distance_zero():
    rows = made(60)
    found = scores.fit("knn", Features(rows.astype(np.float32)), k=1)(Features(rows.astype(np.float32)))
    assert found.tolist() == [0.0] * 60


def test_a_capped_bank_is_the_smallest_hashes_of_seed_and_id():
    rows = made(200)
    names = [f"image-{index}.png" for index in range(200)]
    for seed in (0, 3):
        key = seed.to_bytes(8, "little")
        ranks = [
            int.from_bytes(blake2b(n.encode(), digest_size=8, key=key).digest(), "little", signed=True) for n in names
        ]
        kept = np.argsort(ranks)[:40]
        score = scores.fit("knn", Features(rows, ids=names), k=5, bank=40, seed=seed)
        expected = scores.fit("knn", Features(rows[kept]), k=5)
        queries = Features(made(20, seed=1))
        torch.testing.assert_close(score(queries), expected(queries), rtol=1e-12, atol=0)


def test_a_capped_bank_does_not_depend_on_order_or_shards():
    features = Features(made(200), ids=[f"image-{index}.png" for index in range(200)])
    expected = scores.state(scores.fit("knn", features, k=5, bank=40))[0]["bank"]
    order = torch.randperm(200, generator=torch.Generator().manual_seed(0))
    moved = features[order]
    for shards in (moved, [moved[:3], moved[3:150], moved[150:]]):
        assert torch.equal(scores.state(scores.fit("knn", shards, k=5, bank=40))[0]["bank"], expected)


def test_the_bank_keeps_the_dtype_of_the_embeddings():
    score = scores.fit("knn", Features(made(60).astype(np.float16)))
    assert scores.state(score)[0]["bank"].dtype == torch.float16


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"k": 0}, "k is 0; a whole number from 1 to 50000"),
        ({"k": 2.0}, "k is 2.0; int was expected"),
        ({"k": True}, "k is True; int was expected"),
        ({"k": 9, "bank": 8}, "k is 9; a whole number from 1 to 8"),
        ({"bank": 0}, "bank is 0; a whole number from 1"),
        ({"seed": 2**63}, "seed is 9223372036854775808; a whole number from 0"),
        ({"seed": -1}, "seed is -1; a whole number from 0"),
        ({"k": 61}, "k is 61 and the bank has 60 rows"),
    ],
)
def test_options_out_of_range_are_refused(options, message):
    with pytest.raises(InputError, match=message):
        scores.fit("knn", Features(made(60)), **options)
