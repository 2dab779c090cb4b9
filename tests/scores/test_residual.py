"""The residual outside the principal space against a singular value decomposition."""

import numpy as np
import pytest

from mood import scores
from mood.core.errors import InputError
from mood.core.features import Features, Head


def made(rows: int = 200, width: int = 10, classes: int = 4, seed: int = 0):
    rng = np.random.default_rng(seed)
    fit_rows = rng.normal(1, 1, (rows, width)) * np.linspace(0.3, 3, width)
    return fit_rows, rng.normal(1, 2, (30, width)), rng.normal(size=(classes, width)), rng.normal(size=classes)


def reference(fit_rows, queries, weight, bias, dim) -> np.ndarray:
    """Wang et al. 2022, section 4.1, through the right singular vectors of H − o instead of eigenvectors."""
    origin = -np.linalg.lstsq(weight, bias, rcond=None)[0]
    directions = np.linalg.svd(fit_rows - origin, full_matrices=True)[2]
    return np.linalg.norm((queries - origin) @ directions[dim:].T, axis=1)


@pytest.mark.parametrize("dim", [0, 3, 9])
@pytest.mark.parametrize("classes", [4, 10, 25])
def test_formula(dim, classes):
    fit_rows, queries, weight, bias = made(classes=classes)
    found = scores.fit("residual", Features(fit_rows), head=Head(weight, bias), dim=dim)(Features(queries))
    np.testing.assert_allclose(found.numpy(), reference(fit_rows, queries, weight, bias, dim), rtol=1e-9)


@pytest.mark.parametrize("classes", [2, 5, 30])
def test_a_head_whose_outputs_repeat_each_other(classes):
    """Its rank is 2, and among all origins that fit it best the shortest is wanted."""
    fit_rows, queries, weight, bias = made(classes=classes)
    weight = np.resize(weight[:2], weight.shape)
    found = scores.fit("residual", Features(fit_rows), head=Head(weight, bias), dim=3)(Features(queries))
    np.testing.assert_allclose(found.numpy(), reference(fit_rows, queries, weight, bias, 3), rtol=1e-9)


@pytest.mark.parametrize(("width", "dim"), [(2048, 1000), (768, 512), (767, 383), (1, 0)])
def test_default_dimension(width, dim):
    _, _, weight, bias = made(1, width)
    step = scores.rounds("residual", Head(weight, bias))[0]
    assert step.finish.keywords["dim"] == dim


def test_as_many_rows_as_dimensions_are_enough_and_fewer_are_refused():
    fit_rows, queries, weight, bias = made(rows=5)
    found = scores.fit("residual", Features(fit_rows), head=Head(weight, bias), dim=5)(Features(queries))
    np.testing.assert_allclose(found.numpy(), reference(fit_rows, queries, weight, bias, 5), rtol=1e-9)
    with pytest.raises(InputError, match="dim is 6 and the fit rows span 5 dimensions"):
        scores.fit("residual", Features(fit_rows), head=Head(weight, bias), dim=6)


@pytest.mark.parametrize("dim", [-1, 10])
def test_a_dimension_out_of_range_is_refused(dim):
    fit_rows, _, weight, bias = made()
    with pytest.raises(InputError, match=r"dim is .*; a whole number from 0 to 9"):
        scores.fit("residual", Features(fit_rows), head=Head(weight, bias), dim=dim)


def test_a_dimension_that_is_no_whole_number_is_refused():
    fit_rows, _, weight, bias = made()
    with pytest.raises(InputError, match=r"dim is 2\.0; int or NoneType was expected"):
        scores.fit("residual", Features(fit_rows), head=Head(weight, bias), dim=2.0)


def test_a_head_of_another_width_is_refused():
    fit_rows, _, weight, bias = made()
    with pytest.raises(InputError, match="embedding has 10 values per row; 9 were expected"):
        scores.fit("residual", Features(fit_rows), head=Head(weight[:, :9], bias))
