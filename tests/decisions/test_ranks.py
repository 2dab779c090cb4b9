"""Ties: conservative as counted, randomised uniform whatever the scores are, and the same twice."""

import subprocess
import sys

import numpy as np
import pytest
import scipy.stats

from mood.core.errors import InputError
from mood.decisions import Conditional, Conformal, Cross, Mondrian
from mood.decisions.ranks import above_and_equal, lots, ranks

NAMES = [f"image {row}.png" for row in range(20_000)]


def test_counts_are_their_definition() -> None:
    rng = np.random.default_rng(0)
    known, scores = np.sort(rng.integers(0, 9, 40)).astype(float), rng.integers(-1, 11, 200).astype(float)
    above, equal = above_and_equal(known, scores, "randomised")
    assert above.tolist() == [int((known > score).sum()) for score in scores]
    assert equal.tolist() == [int((known == score).sum()) for score in scores]
    counted, left = above_and_equal(known, scores, "conservative")
    assert counted.tolist() == (above + equal).tolist()
    assert not left.any()


def test_conservative_ranks_count_equals_as_more_unusual() -> None:
    known = np.array([1.0, 2.0, 2.0, 3.0])
    assert ranks(*above_and_equal(known, np.array([2.0, 0.0]), "conservative"), "conservative", None).tolist() == [4, 5]


def test_randomised_ranks_of_constant_scores_are_uniform() -> None:
    """The rate is met, where the conservative one flags nothing."""
    made = Conformal(np.full(19, 7.0), ties="randomised")
    found = made.ranks(np.full(len(NAMES), 7.0), NAMES)
    counts = np.bincount(found, minlength=21)[1:]
    assert len(counts) == 20
    assert scipy.stats.chisquare(counts).pvalue > 1e-4
    assert (Conformal(np.full(19, 7.0)).p_values(np.full(9, 7.0)) == 1).all()


def test_the_lot_falls_among_equals_alone() -> None:
    above, equal = np.full(len(NAMES), 5), np.full(len(NAMES), 2)
    found = ranks(above, equal, "randomised", NAMES)
    assert {*found.tolist()} == {6, 7, 8}
    assert ranks(above, 0 * equal, "randomised", NAMES).tolist() == [6] * len(NAMES)


@pytest.mark.parametrize("alpha", [0.05, 0.1, 0.3])
def test_the_rate_of_half_tied_scores_is_met_with_lots_and_kept_without(alpha: float) -> None:
    """Scores as a network that is certain gives them: half of all are one number."""
    rng = np.random.default_rng(1)
    rates: dict[str, list[float]] = {"conservative": [], "randomised": []}
    for draw in range(300):
        scores = np.maximum(rng.normal(size=399), 0.0)
        for ties, kept in rates.items():
            made = Conformal(scores[:199], ties=ties)
            kept.append((made.p_values(scores[199:], ids=[f"{draw}/{row}" for row in range(200)]) <= alpha).mean())
    k = int(alpha * 200 + 1e-9)
    error = 4 * np.std(rates["randomised"]) / np.sqrt(300)
    assert np.mean(rates["randomised"]) == pytest.approx(k / 200, abs=error)
    assert np.mean(rates["conservative"]) <= alpha + error


def test_twice_gives_the_same_also_in_another_process() -> None:
    code = "from mood.decisions.ranks import lots; print(lots(['a', 'b']).tolist())"
    told = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout
    assert told == f"{lots(['a', 'b']).tolist()}\n"
    assert lots(["a"])[0] != lots(["b"])[0]
    assert ((lots(NAMES) >= 0) & (lots(NAMES) < 1)).all()


def test_every_kind_takes_lots() -> None:
    zeros, names = np.zeros(40), NAMES[:1000]
    scores, classes = np.zeros(1000), np.zeros(1000, int)
    for made, given in (
        (Conformal(zeros, ties="randomised"), scores),
        (Conditional(zeros, ties="randomised"), scores),
        (Mondrian(zeros, zeros.astype(int), alpha=0.1, ties="randomised"), scores),
        (Cross(zeros, np.arange(40) % 4, ties="randomised"), np.zeros((1000, 4))),
    ):
        found = made.p_values(given, classes=classes, ids=names)
        assert len({*found.tolist()}) > 20
        assert np.array_equal(found, made.p_values(given, classes=classes, ids=names))


@pytest.mark.parametrize("ids", [None, ["one"]])
def test_lots_without_names_are_refused(ids: list[str] | None) -> None:
    with pytest.raises(InputError, match="draw a lot from the id of each of 2 images; ids given: (none|1)"):
        Conformal([1.0], ties="randomised").p_values([1.0, 2.0], ids=ids)


def test_another_word_for_ties_is_refused() -> None:
    with pytest.raises(InputError, match="ties is 'random'; conservative or randomised was expected"):
        Conformal([1.0], ties="random")
