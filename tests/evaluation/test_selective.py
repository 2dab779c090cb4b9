"""Risk over coverage, open-set classification and detection error against their definitions, counted by hand."""

from itertools import pairwise, permutations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mood.core.errors import InputError
from mood.evaluation import accuracy, aurc, detection_error, excess_aurc, oscr

TIED = st.lists(st.integers(-2, 2).map(float), min_size=1, max_size=12)


def aurc_by_hand(scores: list[float], wrong: list[bool]) -> float:
    """The mean over every order that ties allow."""
    areas = []
    for order in permutations(range(len(scores))):
        if all(scores[a] <= scores[b] for a, b in pairwise(order)):
            errors = [wrong[place] for place in order]
            areas.append(sum(sum(errors[:k]) / k for k in range(1, len(order) + 1)) / len(order))
    return sum(areas) / len(areas)


@given(st.lists(st.tuples(st.integers(0, 2).map(float), st.booleans()), min_size=1, max_size=6))
def test_aurc_is_the_mean_over_the_orders_that_ties_allow(rows: list[tuple[float, bool]]) -> None:
    scores, wrong = [list(part) for part in zip(*rows, strict=True)]
    assert aurc(scores, wrong) == pytest.approx(aurc_by_hand(scores, wrong), abs=1e-12)


def test_excess_is_zero_for_the_best_order_and_positive_for_any_other() -> None:
    wrong = np.array([False, False, True, True])
    assert excess_aurc([0.1, 0.2, 0.3, 0.4], wrong) == pytest.approx(0)
    assert excess_aurc([0.4, 0.2, 0.3, 0.1], wrong) > 0.3


@given(TIED, TIED, st.integers(0, 2**12 - 1))
def test_oscr_is_an_area(known: list[float], unknown: list[float], bits: int) -> None:
    right = [bool(bits >> place & 1) for place in range(len(known))]
    thresholds = [-np.inf, *sorted({*known, *unknown})]
    ccr = [sum(ok and s <= t for ok, s in zip(right, known, strict=True)) / len(known) for t in thresholds]
    fpr = [sum(s <= t for s in unknown) / len(unknown) for t in thresholds]
    assert oscr(known, right, unknown) == pytest.approx(float(np.trapezoid(ccr, fpr)), abs=1e-12)


@given(TIED, TIED)
def test_detection_error_tries_every_threshold(known: list[float], unknown: list[float]) -> None:
    tried = [
        (sum(s > t for s in known) / len(known) + sum(s <= t for s in unknown) / len(unknown)) / 2
        for t in [-np.inf, *known, *unknown]
    ]
    assert detection_error(known, unknown) == pytest.approx(min(tried), abs=1e-14)


def test_accuracy() -> None:
    assert accuracy([0, 1, 2, 2], [0, 1, 1, 2]) == 0.75


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: accuracy([], []), "N ≥ 1"),
        (lambda: accuracy([1], [1, 2]), "same"),
        (lambda: aurc([1.0, 2.0], [True]), "bool"),
        (lambda: aurc([1.0], [1]), "bool"),
        (lambda: aurc([], np.array([], bool)), "at least one"),
        (lambda: oscr([1.0], [True, False], [2.0]), "id_right"),
        (lambda: oscr([], np.array([], bool), [2.0]), "empty"),
        (lambda: oscr([1.0], [False], [float("nan")]), "nan"),
    ],
)
def test_what_is_wrong_is_told(call, message) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(InputError, match=message):
        call()
