"""Online p-values: against their definition one by one, even and independent also where the reference is capped."""

import math

import numpy as np
import pytest
import scipy.stats

from mood.core.errors import InputError
from mood.decisions import Jumper, OnlineReference, power_bets
from mood.decisions.online import CAP, _draws


def one_by_one(calibration, scores, cap, seed):
    """The definition in plain Python, with slots."""
    held, found = list(calibration), []
    for position, score in enumerate(scores):
        theta, who = _draws(seed, position, 1)[0]
        higher = sum(other > score for other in held)
        equal = sum(other == score for other in held) + 1
        found.append((higher + theta * equal) / (len(held) + 1))
        if len(held) < cap:
            held.append(score)
        elif (slot := int(who * (cap + 1))) < cap:
            held[slot] = score
    return found, held


@pytest.mark.parametrize(("n", "cap"), [(0, 400), (30, 1000), (30, 30), (100, 150), (1, 1)])
@pytest.mark.parametrize("tied", [False, True])
def test_p_values_are_their_definition_however_the_stream_is_cut(n, cap, tied):
    random = np.random.default_rng([n, cap])
    draw = (lambda size: random.integers(0, 4, size).astype(float)) if tied else random.normal
    calibration, scores = draw(size=n), draw(size=310)
    scores[[5, 200]] = math.inf, -math.inf
    expected, held = one_by_one(calibration, scores, cap, 7)
    for cuts in ([], [1, 2, 150], [128, 256]):
        reference = OnlineReference.start(calibration, cap=cap, seed=7)
        found = np.concatenate([reference.judge(part) for part in np.split(scores, cuts)])
        assert found == pytest.approx(expected, rel=1e-14)
        assert reference.scores.tolist() == held
        assert (reference.seen, len(reference.scores)) == (310, min(cap, n + 310))


def test_draws_belong_to_positions():
    assert _draws(3, 40, 5).tolist() == _draws(3, 0, 45)[40:].tolist()
    assert (_draws(0, 0, 5) != _draws(1, 0, 5)).all()
    # The bits of PCG64 with seed 0 are promised; so are these.
    assert _draws(0, 0, 1)[0].tolist() == pytest.approx([0.6369616873, 0.2697867138], abs=1e-9)


@pytest.mark.parametrize(("n", "cap"), [(20, 1000), (20, 20), (5, 5)])
@pytest.mark.parametrize("tied", [False, True])
def test_p_values_of_exchangeable_scores_are_even_and_independent(n, cap, tied):
    random = np.random.default_rng(n + cap)
    pooled = []
    for seed in range(3000):
        scores = random.integers(0, 3, n + 12).astype(float) if tied else random.random(n + 12)
        pooled.append(OnlineReference.start(scores[:n], cap=cap, seed=seed).judge(scores[n:]))
    p = np.stack(pooled)
    for column in p.T:
        assert scipy.stats.kstest(column, "uniform").pvalue > 1e-4
    assert np.abs(np.corrcoef(p.T) - np.eye(12)).max() < 4.5 / math.sqrt(3000)
    # In pairs, on a grid of thirds: correlation alone would not see everything.
    for later in range(1, 12):
        counts = np.histogram2d(p[:, 0], p[:, later], 3, [[0, 1], [0, 1]])[0]
        assert scipy.stats.chisquare(counts.ravel()).pvalue > 1e-4


def reservoir(calibration, scores, cap, random):
    """What one would do first: keep an even sample of all the past."""
    held, found = list(calibration), []
    for position, score in enumerate(scores):
        found.append((sum(other > score for other in held) + random.random()) / (len(held) + 1))
        if (slot := int(random.integers(0, len(calibration) + position + 1))) < cap:
            held[slot] = score
    return np.array(found)


def test_an_even_sample_of_all_the_past_would_alarm_and_this_does_not():
    """Level 5 %, a reference of 20 scores, 2000 images, 150 streams: the reason for how scores leave."""
    random = np.random.default_rng(0)
    ours, theirs = [], []
    for seed in range(150):
        scores = random.random(2020)
        ours.append(OnlineReference.start(scores[:20], cap=20, seed=seed).judge(scores[20:]))
        theirs.append(reservoir(scores[:20], scores[20:], 20, random))
    rates = [
        (Jumper.start(power_bets, streams=(150,)).play(np.stack(p)).max(1) >= math.log(20)).mean()
        for p in (ours, theirs)
    ]
    assert rates[0] <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / 150)
    assert rates[1] > 0.2


def test_what_cannot_be_a_reference_is_refused():
    with pytest.raises(InputError, match=r"calibration scores\[0\] is nan"):
        OnlineReference.start(np.array([math.nan]))
    with pytest.raises(InputError, match="cap is 2, below the 3 calibration scores"):
        OnlineReference.start(np.arange(3.0), cap=2)
    with pytest.raises(InputError, match="cap is 0"):
        OnlineReference.start(np.empty(0), cap=0)
    with pytest.raises(InputError, match="seed is -1"):
        OnlineReference.start(np.arange(3.0), seed=-1)
    assert OnlineReference.start(np.arange(3.0)).cap == CAP
    assert OnlineReference.start(np.arange(CAP + 5.0)).cap == CAP + 5


def test_a_nan_leaves_everything_as_it_was():
    reference = OnlineReference.start(np.arange(5.0))
    with pytest.raises(InputError, match=r"scores\[1\] is nan"):
        reference.judge(np.array([1.0, math.nan]))
    assert (reference.seen, reference.scores.tolist()) == (0, [0, 1, 2, 3, 4])
    assert reference.judge(np.empty(0)).shape == (0,)


def test_all_ties_are_even_too():
    p_values = OnlineReference.start(np.zeros(50)).judge(np.zeros(5000))
    assert scipy.stats.kstest(p_values, "uniform").pvalue > 1e-3
