"""The monitor: alarms, windows, drift, state, and what it refuses."""

import math

import numpy as np
import pytest

from mood.core.errors import ArtifactError, InputError
from mood.decisions import Conformal, Jumper, Monitor, OnlineReference, Usual, linear_bets, power_bets

RANDOM = np.random.default_rng(0)
CALIBRATION = RANDOM.normal(size=300)


def see(monitor, scores, **more):
    return monitor.see(scores, Conformal(CALIBRATION).p_values(scores), **more)


def test_a_stream_that_turns_alarms_and_stays_alarmed():
    monitor = Monitor.start(CALIBRATION, window=100)
    random = np.random.default_rng(1)
    windows = see(monitor, random.normal(size=1000))
    assert len(windows) == 10
    assert not monitor.alarmed
    see(monitor, random.normal(size=300) + 4 * (random.random(300) < 0.3))
    assert monitor.alarmed
    assert 1000 <= monitor.alarm < 1200
    alarm, peak = monitor.alarm, monitor.log_peak
    assert peak >= math.log(100)
    see(monitor, random.normal(size=20_000))
    assert monitor.alarm == alarm
    assert monitor.log_peak >= peak
    assert monitor.log_evidence < monitor.log_peak
    assert len(monitor.reference.scores) == monitor.reference.cap == 10_000


def test_a_stream_that_becomes_more_ordinary_alarms_too():
    monitor = Monitor.start(CALIBRATION)
    see(monitor, 0.3 * np.random.default_rng(2).normal(size=500) - 1)
    assert monitor.alarmed


@pytest.mark.parametrize("level", [0.01, 0.1])
def test_the_alarm_is_where_the_capital_reaches_one_over_level(level):
    monitor = Monitor.start(CALIBRATION, level=level)
    paths = []
    for score in np.random.default_rng(3).normal(size=150) + 1:
        see(monitor, [score])
        paths.append(monitor.log_evidence)
    assert monitor.alarm == next(k for k, log in enumerate(paths) if log >= -math.log(level))


def test_known_streams_alarm_no_more_than_ville_allows():
    """200 streams of 1500 images at level 10 %, with ties, a reference that is full after 100 images, three errors."""
    alarms = 0
    for seed in range(200):
        scores = np.random.default_rng(seed).integers(0, 30, 1600).astype(float)
        monitor = Monitor.start(scores[:100], level=0.1, cap=200, seed=seed)
        monitor.see(scores[100:], np.full(1500, 0.5))
        alarms += monitor.alarmed
    assert alarms / 200 <= 0.1 + 3 * math.sqrt(0.09 / 200)


def test_a_stream_that_turns_one_tenth_strange_is_caught_within_500_images_where_the_auroc_is_90():
    """The small version of benchmarks/monitor.py: normal scores, 1000 calibration images, a turn after 1000 others."""
    shift, delays = 1.8124, []
    for seed in range(15):
        random = np.random.default_rng(seed)
        scores = random.normal(size=3500)
        scores[2000:] += shift * (random.random(1500) < 0.1)
        monitor = Monitor.start(scores[:1000], seed=seed)
        monitor.see(scores[1000:], np.full(2500, 0.5))
        delays.append(math.inf if monitor.alarm is None else monitor.alarm - 1000 + 1)
    assert min(delays) > 0
    assert np.median(delays) <= 500


def test_against_a_fixed_calibration_set_known_streams_would_alarm():
    """Why p-values are online: 100 calibration images, 4000 watched, 60 streams, level 1 %."""
    rates = []
    for judge in ("fixed", "online"):
        p_values = []
        for seed in range(60):
            random = np.random.default_rng(seed)
            scores = random.normal(size=4100)
            if judge == "fixed":
                higher = 101 * Conformal(scores[:100]).p_values(scores[100:]) - 1
                p_values.append((higher + random.random(4000)) / 101)
            else:
                p_values.append(OnlineReference.start(scores[:100], seed=seed).judge(scores[100:]))
        logs = [Jumper.start(bets, streams=(60,)).play(np.stack(p_values)) for bets in (power_bets, linear_bets)]
        rates.append((np.logaddexp(*logs).max(1) - math.log(2) >= math.log(100)).mean())
    assert rates[0] > 0.1
    assert rates[1] <= 0.01 + 3 * math.sqrt(0.0099 / 60)


def test_constant_scores_do_not_alarm():
    monitor = Monitor.start(np.zeros(50))
    see(monitor, np.zeros(5000))
    assert not monitor.alarmed


def test_windows_count_what_came():
    monitor = Monitor.start(CALIBRATION, window=4, alpha=0.2)
    p_values = [0.05, 0.1, 0.2, 0.21, 1.0, 0.0]
    (window,) = monitor.see(np.arange(6.0), p_values, unreadable=2)
    assert (window.first, window.images, window.unreadable, window.flagged) == (0, 4, 2, 0.75)
    assert window.p_values == (2, 1, 1, 0, 0, 0, 0, 0, 0, 0)
    assert window.drift is None
    rest = monitor.so_far()
    assert (rest.first, rest.images, rest.unreadable, rest.flagged) == (4, 2, 0, 0.5)
    assert rest.p_values == (1, 0, 0, 0, 0, 0, 0, 0, 0, 1)
    assert monitor.see([], [], unreadable=3) == []
    assert monitor.so_far().unreadable == 3
    assert list(monitor.windows) == [window]


def test_the_usual_is_mean_and_variance_whatever_the_batches():
    rows = RANDOM.normal(3, 2, (70, 5)).astype(np.float32)
    usual = Usual.of([rows[:1], rows[:0], rows[1:60], rows[60:]])
    assert usual.mean == pytest.approx(rows.astype(float).mean(0), rel=1e-12)
    assert usual.variance == pytest.approx(rows.astype(float).var(0), rel=1e-12)
    assert usual.images == 70
    with pytest.raises(InputError, match="no embeddings"):
        Usual.of([])


def test_drift_is_what_chance_gives_until_the_mean_moves():
    factors = RANDOM.normal(size=(6, 6))
    draw = lambda size: np.concatenate((RANDOM.normal(size=(size, 6)) @ factors, np.ones((size, 1))), 1)  # noqa: E731
    squares, chances = [], []
    for _ in range(300):
        drift, chance = Usual.of([draw(400)]).drift(draw(100).sum(0), 100)
        squares.append(drift**2)
        chances.append(chance**2)
    assert np.mean(chances) == pytest.approx(1 / 100 + 1 / 400)
    assert np.mean(squares) == pytest.approx(np.mean(chances), rel=0.2)
    usual = Usual.of([draw(4000)])
    moved = draw(100)
    moved[:, :6] += 2 * np.sqrt(usual.variance[:6])
    assert usual.drift(moved.sum(0), 100)[0] == pytest.approx(2, rel=0.2)
    assert Usual.of([np.ones((3, 2))]).drift(np.ones(2), 1) == (0.0, 0.0)


def test_windows_tell_the_drift():
    rows = RANDOM.normal(size=(300, 4))
    monitor = Monitor.start(CALIBRATION, window=50, usual=Usual.of([rows]))
    (window,) = see(monitor, CALIBRATION[:50], embedding=rows[:50] + 1)
    expected = (rows[:50].mean(0) + 1 - rows.mean(0)) / rows.std(0)
    assert window.drift == pytest.approx(np.sqrt((expected**2).mean()))
    assert window.drift_by_chance == pytest.approx(math.sqrt(1 / 50 + 1 / 300))


def test_a_state_goes_on_as_if_it_had_never_stopped():
    random = np.random.default_rng(5)
    scores, rows = random.normal(size=700), random.normal(size=(700, 3))
    scores[600:] += 2
    scores[10] = math.inf
    usual = Usual.of([random.normal(size=(40, 3))])

    def fresh():
        return Monitor.start(CALIBRATION, window=60, cap=350, usual=usual)

    whole, part = fresh(), fresh()
    see(whole, scores, embedding=rows, unreadable=1)
    for start in range(0, 700, 70):
        see(part, scores[start : start + 70], embedding=rows[start : start + 70], unreadable=int(not start))
        part = Monitor.restore(*part.state())
    assert part.so_far() == whole.so_far()
    assert list(part.windows) == list(whole.windows)
    arrays, meta = whole.state()
    others, same = part.state()
    assert meta == same
    assert all(arrays[name].tobytes() == others[name].tobytes() for name in arrays)


def test_what_is_no_state_is_refused():
    arrays, meta = Monitor.start(CALIBRATION).state()
    without = {name: array for name, array in arrays.items() if name != "power.logs"}
    for held, about in (
        (without, meta),
        (arrays, {**meta, "level": 2}),
        (arrays, {**meta, "window": "long"}),
        ({**arrays, "linear.shares": np.ones((2, 2))}, meta),
        (arrays, {**meta, "windows": [{}]}),
    ):
        with pytest.raises(ArtifactError, match="not the state of a monitor"):
            Monitor.restore(held, about)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"level": 0}, "level is 0"),
        ({"level": 1.0}, "level is 1"),
        ({"level": math.nan}, "level is nan"),
        ({"alpha": 1.5}, "alpha is 1.5"),
        ({"window": 0}, "window is 0"),
        ({"cap": 10}, "cap is 10, below the 300"),
    ],
)
def test_settings_outside_are_refused(settings, message):
    with pytest.raises(InputError, match=message):
        Monitor.start(CALIBRATION, **settings)


def test_no_calibration_scores_are_refused():
    with pytest.raises(InputError, match="no calibration scores"):
        Monitor.start([])


def test_bad_input_leaves_a_monitor_as_it_was():
    monitor = Monitor.start(CALIBRATION, usual=Usual.of([np.eye(3)]))
    before = monitor.state()[1]
    for arguments, more, message in (
        (([1.0, math.nan], [0.5, 0.5]), {}, r"scores\[1\] is nan"),
        (([1.0], [math.nan]), {}, r"p_values\[0\] is nan"),
        (([1.0], [0.5, 0.5]), {}, "1 scores and 2 p_values"),
        (([1.0], [1.5]), {}, "between 0 and 1"),
        (([1.0], [0.5]), {"embedding": np.ones((1, 2))}, r"shape \(1, 2\); \(1, 3\) was expected"),
        (([1.0], [0.5]), {"embedding": np.full((1, 3), np.nan)}, "not finite"),
        (([1.0], [0.5]), {"unreadable": -1}, "unreadable is -1"),
    ):
        with pytest.raises(InputError, match=message):
            monitor.see(*arguments, **more)
    assert monitor.state()[1] == before
