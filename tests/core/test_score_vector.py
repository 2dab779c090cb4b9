"""One number per image, or a sentence that says what came instead."""

from typing import Any

import numpy as np
import pytest
import torch

from mood.core.errors import InputError
from mood.core.score_vector import score_vector


@pytest.mark.parametrize(
    "values",
    [
        [0, 1, 2],
        (0.0, 1.0, 2.0),
        np.arange(3, dtype=np.float16),
        np.arange(3, dtype=np.uint8),
        torch.arange(3.0, requires_grad=True),
        torch.arange(3.0).bfloat16(),
        torch.arange(3),
    ],
)
def test_numbers_of_any_kind_become_float64(values: Any) -> None:
    vector = score_vector(values, "scores")
    assert vector.dtype == np.float64
    assert vector.tolist() == [0.0, 1.0, 2.0]


def test_float64_is_not_copied() -> None:
    scores = np.array([1.0, np.inf])
    assert score_vector(scores, "scores") is scores
    assert score_vector([], "scores").shape == (0,)


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ([[1.0], [2.0]], r"shape \(N,\), not \(2, 1\)"),
        (1.0, r"not \(\)"),
        ([[1.0], [2.0, 3.0]], r"one number per image"),
        (["1", "2"], "must be numbers"),
        ([1.0, None], "must be numbers"),
        ([1j], "must be numbers"),
        ([0.0, float("nan"), float("nan")], r"scores\[1\] is nan \(2 of 3"),
    ],
)
def test_anything_else_is_told(values: Any, told: str) -> None:
    with pytest.raises(InputError, match=told):
        score_vector(values, "scores")


def test_infinite_is_refused_where_it_is_not_welcome() -> None:
    with pytest.raises(InputError, match=r"scores\[2\] is -inf \(1 of 3 are not finite"):
        score_vector([0.0, 1.0, -np.inf], "scores", infinite=False)
