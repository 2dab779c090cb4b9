"""The k-th distance by rough products is the one that float64 finds, whatever the rows are."""

import numpy as np
import pytest
import torch
from scipy.spatial.distance import cdist

from mood.scores import _neighbours
from mood.scores._neighbours import kth_distance
from mood.scores._rows import l2_normalised

QUERIES, BANK, WIDTH = 150, 5000, 24


def reference(rows, bank, k):
    unit = [part / (np.linalg.norm(part, axis=1, keepdims=True) + 1e-10) for part in (rows, bank)]
    return np.sort(cdist(*unit), axis=1)[:, k - 1]


def made(kind: str) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    rows, bank = rng.normal(size=(QUERIES, WIDTH)), rng.normal(size=(BANK, WIDTH))
    if kind == "narrow":  # All in one direction, where bf16 sees one point.
        rows, bank = 1e-4 * rows + 1, 1e-4 * bank + 1
    elif kind == "clusters":
        centres = rng.normal(size=(20, WIDTH))
        rows, bank = (centres[rng.integers(0, 20, len(part))] + 0.01 * part for part in (rows, bank))
    elif kind == "repeated":
        bank = np.repeat(bank[:50], BANK // 50, axis=0)
    elif kind == "equal":
        bank = np.repeat(bank[:1], BANK, axis=0)
    elif kind == "in the bank":
        rows = bank[:QUERIES]
    elif kind == "zero":
        rows[0], bank[0] = 0, 0
    return rows, bank


KINDS = ["plain", "narrow", "clusters", "repeated", "equal", "in the bank", "zero"]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
@pytest.mark.parametrize("k", [1, 50, 1000])
@pytest.mark.parametrize("kind", KINDS)
def test_it_is_exact(kind, k, dtype, monkeypatch):
    monkeypatch.setattr(_neighbours, "_kind", lambda: dtype)
    rows, bank = made(kind)
    found = kth_distance(torch.from_numpy(rows), torch.from_numpy(bank), k, l2_normalised)
    np.testing.assert_allclose(found.numpy(), reference(rows, bank, k), rtol=1e-9, atol=3e-8)


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32])
def test_narrow_floats_are_the_numbers_that_they_are(dtype):
    rows, bank = (torch.from_numpy(part).to(dtype) for part in made("plain"))
    found = kth_distance(rows, bank, 50, l2_normalised)
    np.testing.assert_allclose(found.numpy(), reference(rows.double().numpy(), bank.double().numpy(), 50), rtol=1e-12)


def test_the_rough_way_is_taken_and_decides_nothing(monkeypatch):
    """Few of the bank's rows are looked up in float64, and a rough product without bounds would be wrong."""
    looked, rows, bank = [], *(torch.from_numpy(part) for part in made("clusters"))
    monkeypatch.setattr(_neighbours, "_kind", lambda: torch.bfloat16)
    monkeypatch.setattr(_neighbours, "_met", None)

    def read(block):
        looked.append(len(block))
        return l2_normalised(block)

    found = kth_distance(rows, bank, 50, read)
    # Once to round the bank, once for the queries, and then a few for each query.
    assert sum(looked) < BANK + QUERIES + 20 * QUERIES
    monkeypatch.setattr(_neighbours, "OPEN", -1)
    near, bank_near = (l2_normalised(part).bfloat16().double() for part in (rows, bank))
    rough = torch.cdist(near, bank_near).kthvalue(50, dim=1).values
    assert (rough - found).abs().max() > 1e-4


def test_queries_that_leave_too_much_open_meet_every_row(monkeypatch):
    monkeypatch.setattr(_neighbours, "OPEN", 0)
    rows, bank = made("equal")
    met = []
    whole = _neighbours._met
    monkeypatch.setattr(
        _neighbours, "_met", lambda queries, *rest: (met.append(len(queries)), whole(queries, *rest))[1]
    )
    found = kth_distance(torch.from_numpy(rows), torch.from_numpy(bank), 1, l2_normalised)
    np.testing.assert_allclose(found.numpy(), reference(rows, bank, 1), rtol=1e-9)
    assert sum(met) == QUERIES
