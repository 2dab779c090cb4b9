"""Metrics against their definitions, counted by hand, and against scikit-learn."""

import math
from typing import Any, Literal

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, roc_auc_score
from sklearn.metrics import roc_curve as sklearn_roc_curve

from mood.core.errors import InputError
from mood.evaluation import aupr, auroc, detection_error, fpr_at_tpr, roc_curve
from mood.evaluation.metrics import enough
from mood.evaluation.protocols import accepted_confusion

Side = Literal["id", "ood"]
TIED = st.lists(st.integers(-3, 3).map(float), min_size=1, max_size=30)
FREE = st.lists(st.floats(allow_nan=False), min_size=1, max_size=30)
SCORES = st.one_of(TIED, FREE)
TPR = st.one_of(st.sampled_from([0.95, 0.9, 0.8, 0.7, 0.6, 0.5, 0.3, 1.0]), st.floats(0.01, 1.0))


def fpr_by_hand(id_scores: list[float], ood_scores: list[float], tpr: float, positive: Side) -> float:
    """Try every threshold there is."""
    shares = []
    for threshold in {*id_scores, *ood_scores}:
        if positive == "id":
            right = [score <= threshold for score in id_scores]
            wrong = [score <= threshold for score in ood_scores]
        else:
            right = [score >= threshold for score in ood_scores]
            wrong = [score >= threshold for score in id_scores]
        if sum(right) / len(right) >= tpr:
            shares.append(sum(wrong) / len(wrong))
    return min(shares)


@given(SCORES, SCORES)
def test_auroc_counts_pairs(id_scores: list[float], ood_scores: list[float]) -> None:
    pairs = [(low < high) + (low == high) / 2 for low in id_scores for high in ood_scores]
    assert auroc(id_scores, ood_scores) == pytest.approx(sum(pairs) / len(pairs), abs=1e-14)


@given(SCORES, SCORES, TPR, st.sampled_from(["id", "ood"]))
def test_fpr_tries_every_threshold(id_scores: list[float], ood_scores: list[float], tpr: float, positive: Side) -> None:
    assert fpr_at_tpr(id_scores, ood_scores, tpr, positive=positive) == fpr_by_hand(
        id_scores, ood_scores, tpr, positive
    )


@pytest.mark.parametrize("n", [20, 40, 60, 100, 140, 1000])
def test_95_of_100_are_95_percent(n: int) -> None:
    """The threshold is the 0.95 n-th order statistic, not the one after it."""
    id_scores = np.arange(n)
    ood_scores = np.arange(n) + 0.5
    assert fpr_at_tpr(id_scores, ood_scores) == (0.95 * n - 1) / n
    assert fpr_at_tpr(id_scores, ood_scores, positive="ood") == (0.95 * n - 1) / n


@pytest.mark.parametrize(
    ("tpr", "n", "k"),
    # 0.07 · 100 is a little more than 7; and the number after 1/3 is more than one of 3, though times 3 it is 1.
    [(0.07, 100, 7), (0.035, 200, 7), (math.nextafter(1 / 3, 1), 3, 2), (0.95, 100, 95), (1.0, 3, 3), (1e-9, 3, 1)],
)
def test_so_many_are_enough_whatever_the_product_rounds_to(tpr: float, n: int, k: int) -> None:
    assert enough(tpr, np.asarray(n)) == k
    assert fpr_at_tpr(np.arange(n), np.arange(n), tpr) == k / n
    assert accepted_confusion(np.arange(n), np.arange(n), *np.zeros((2, n), int), shape=(1, 1), tpr=tpr) == k


def test_no_detector_is_worse_than_a_half() -> None:
    """7 · (29 / 7) is a little more than 29."""
    assert detection_error(np.arange(29) + 100.0, np.arange(7.0)) == 0.5


def test_the_two_definitions_differ() -> None:
    id_scores = [0.0] * 90 + [10.0] * 10
    ood_scores = [5.0] * 100
    assert fpr_at_tpr(id_scores, ood_scores, positive="id") == 1.0
    assert fpr_at_tpr(id_scores, ood_scores, positive="ood") == 0.1
    assert fpr_at_tpr(id_scores, ood_scores) == 1.0


@pytest.mark.parametrize("seed", range(20))
def test_scikit_learn_agrees(seed: int) -> None:
    rng = np.random.default_rng(seed)
    n_id, n_ood = rng.integers(1, 200, 2)
    digits = int(rng.integers(0, 4))
    known, unknown = rng.normal(size=n_id).round(digits), rng.normal(rng.normal(), size=n_ood).round(digits)
    scores = np.concatenate((known, unknown))
    is_ood = np.arange(len(scores)) >= n_id
    assert auroc(known, unknown) == pytest.approx(roc_auc_score(is_ood, scores), abs=1e-12)
    assert aupr(known, unknown) == pytest.approx(average_precision_score(is_ood, scores), abs=1e-12)
    assert aupr(known, unknown, positive="id") == pytest.approx(average_precision_score(~is_ood, -scores), abs=1e-12)
    fpr, tpr, _ = sklearn_roc_curve(is_ood, scores, drop_intermediate=False)
    found = roc_curve(known, unknown)
    np.testing.assert_allclose(found[0], fpr, atol=1e-15)
    np.testing.assert_allclose(found[1], tpr, atol=1e-15)
    assert fpr_at_tpr(known, unknown, positive="ood") == pytest.approx(fpr[np.argmax(tpr >= 0.95)])


@given(SCORES, SCORES)
def test_the_curve_holds_the_area(id_scores: list[float], ood_scores: list[float]) -> None:
    fpr, tpr = roc_curve(id_scores, ood_scores)
    assert (fpr[0], tpr[0], fpr[-1], tpr[-1]) == (0, 0, 1, 1)
    area = (np.diff(fpr) * (tpr[1:] + tpr[:-1]) / 2).sum()
    assert area == pytest.approx(auroc(id_scores, ood_scores), abs=1e-12)


@given(TIED, TIED)
def test_only_the_order_counts(id_scores: list[float], ood_scores: list[float]) -> None:
    def all_of(known: Any, unknown: Any) -> list[float]:
        return [auroc(known, unknown)] + [
            metric(known, unknown, positive=side) for metric in (fpr_at_tpr, aupr) for side in ("id", "ood")
        ]

    plain = all_of(id_scores, ood_scores)
    assert all_of(np.exp(id_scores), np.exp(ood_scores)) == plain
    assert all_of(id_scores[::-1], sorted(ood_scores)) == plain
    assert all_of(torch.tensor(id_scores), torch.tensor(ood_scores)) == plain


@pytest.mark.parametrize("n", [1, 2, 50])
def test_constant_scores_say_nothing(n: int) -> None:
    assert auroc([3.0] * n, [3.0] * 7) == 0.5
    assert fpr_at_tpr([3.0] * n, [3.0] * 7) == 1.0
    assert fpr_at_tpr([3.0] * n, [3.0] * 7, positive="ood") == 1.0
    assert aupr([3.0] * n, [3.0] * 7) == pytest.approx(7 / (n + 7))
    assert aupr([3.0] * n, [3.0] * 7, positive="id") == pytest.approx(n / (n + 7))


def test_higher_is_more_ood() -> None:
    known, unknown = [-math.inf, 0.0, 1.0], [2.0, math.inf]
    assert auroc(known, unknown) == 1.0
    assert fpr_at_tpr(known, unknown) == fpr_at_tpr(known, unknown, positive="ood") == 0.0
    assert aupr(known, unknown) == aupr(known, unknown, positive="id") == 1.0
    assert auroc(unknown, known) == 0.0
    assert auroc([math.inf], [math.inf]) == 0.5


@pytest.mark.parametrize("metric", [auroc, fpr_at_tpr, aupr, roc_curve])
def test_what_cannot_be_measured_is_told(metric: Any) -> None:
    with pytest.raises(InputError, match="id_scores is empty"):
        metric([], [1.0])
    with pytest.raises(InputError, match="ood_scores is empty"):
        metric([1.0], [])
    with pytest.raises(InputError, match=r"ood_scores\[1\] is nan"):
        metric([1.0], [1.0, math.nan])


def test_other_words_are_refused() -> None:
    with pytest.raises(InputError, match='positive is \'OOD\'; it must be "id" or "ood"'):
        aupr([1.0], [1.0], positive="OOD")  # type: ignore[arg-type]
    for tpr in (0.0, 1.01, 95.0, math.nan):
        with pytest.raises(InputError, match="tpr is"):
            fpr_at_tpr([1.0], [1.0], tpr)
