"""False discoveries: the procedures against their definitions, scipy, and simulation with one calibration set."""

import math
from typing import Any

import numpy as np
import pytest
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st

from mood.core.errors import InputError
from mood.decisions import Conditional, Conformal, discoveries, fewest_discoveries, id_share
from mood.decisions.fdr import LAMBDA

P_VALUES = st.lists(st.integers(1, 40).map(lambda k: k / 40), max_size=60)
LEVEL = st.sampled_from([0.05, 0.1, 0.25, 0.5])


@given(P_VALUES, LEVEL)
def test_it_is_what_scipy_finds(p_values: list[float], level: float) -> None:
    found = discoveries(p_values, level)
    if p_values:
        adjusted = scipy.stats.false_discovery_control(p_values, method="bh")
        assert found.tolist() == (adjusted <= level * (1 + 1e-9)).tolist()
    else:
        assert found.shape == (0,)


@given(P_VALUES, LEVEL)
def test_storey_is_its_definition(p_values: list[float], level: float) -> None:
    values, n = np.asarray(p_values), len(p_values)
    share = (1 + (values >= LAMBDA).sum()) / (max(n, 1) * (1 - LAMBDA))
    lines = [k for k in range(1, n + 1) if np.sort(values)[k - 1] <= min(level / share * k / n * (1 + 1e-9), LAMBDA)]
    cut = np.sort(values)[lines[-1] - 1] if lines else -1.0
    assert discoveries(p_values, level, method="storey").tolist() == (values <= cut).tolist()


@pytest.mark.parametrize("method", ["bh", "storey"])
@pytest.mark.parametrize("share", [0.0, 0.01, 0.1, 0.5])
def test_the_rate_is_kept_with_one_calibration_set_for_all(method: str, share: float) -> None:
    rng, wrong = np.random.default_rng(0), []
    unknown = int(share * 300)
    for _ in range(600):
        p = Conformal(rng.normal(size=2000)).p_values(
            np.concatenate([rng.normal(size=300 - unknown), rng.normal(4, size=unknown)])
        )
        flagged = discoveries(p, 0.1, method=method)
        wrong.append(flagged[: 300 - unknown].sum() / max(1, flagged.sum()))
    assert np.mean(wrong) <= 0.1 + 4 * np.std(wrong) / math.sqrt(len(wrong))
    if share == 0.5 and method == "storey":
        # About the level, where plain BH is at half of it: the estimate is worth its name.
        assert np.mean(wrong) > 0.07


def test_storey_counts_p_values_at_lambda_as_the_proof_needs() -> None:
    """With p > λ alone the rate exceeds the level: 19 calibration images, nearly all of a large batch known to be odd.

    The batch is so large that its shares are its probabilities given the calibration set.
    """
    rng, n, level, odd, repeats = np.random.default_rng(0), 19, 0.01, 0.97, 100_000
    rates = np.concatenate([np.sort(rng.random((repeats, n)), axis=1), np.ones((repeats, 1))], axis=1)
    share = odd + (1 - odd) * rates  # of the batch with p ≤ k/20
    grid = np.arange(1, n + 2) / (n + 1)

    def rate(id_share: np.ndarray) -> np.ndarray:
        below = (grid <= (level / id_share)[:, None] * share) & (grid <= LAMBDA)
        last = np.where(below.any(1), n - below[:, ::-1].argmax(1), -1)
        wrong = (1 - odd) * rates[np.arange(repeats), last]
        return np.where(last >= 0, wrong / (wrong + odd), 0.0)

    above, from_on = ((1 - share[:, k]) / (1 - LAMBDA) for k in (9, 8))  # p > 10/20, p ≥ 10/20
    error = rate(above).std() / math.sqrt(repeats)
    assert rate(above).mean() > level + 4 * error
    assert rate(from_on).mean() < level - 4 * error
    # … and the second is what is done.
    assert discoveries([0.05] * 9 + [0.45], 0.015, method="storey").sum() == 9
    assert not discoveries([0.05] * 9 + [0.5], 0.015, method="storey").any()


def test_storey_finds_more_where_much_is_unknown() -> None:
    rng = np.random.default_rng(1)
    p = Conformal(rng.normal(size=2000)).p_values(np.concatenate([rng.normal(size=100), rng.normal(2.5, size=400)]))
    assert discoveries(p, 0.05, method="storey").sum() > discoveries(p, 0.05).sum() > 0


def test_conditional_p_values_keep_it_for_nine_sets_in_ten() -> None:
    rng, per_set = np.random.default_rng(2), []
    for _ in range(150):
        made = Conditional(rng.random(500))
        shares = []
        for _ in range(30):
            p = made.p_values(np.concatenate([rng.random(80), np.full(20, 2.0)]))
            flagged = discoveries(p, 0.2)
            shares.append(flagged[:80].sum() / max(1, flagged.sum()))
        per_set.append(np.mean(shares))
    assert np.mean(np.array(per_set) <= 0.2 * 1.15) >= 0.9


@pytest.mark.parametrize(("n", "images", "level"), [(99, 1000, 0.05), (999, 100, 0.1), (19, 5, 0.5), (200, 1, 0.05)])
def test_how_many_must_be_flagged_together(n: int, images: int, level: float) -> None:
    fewest = fewest_discoveries(level, 1 / (n + 1), images)
    p = np.ones(images)
    if fewest <= images:
        p[:fewest] = 1 / (n + 1)
        assert discoveries(p, level).sum() == fewest
    if fewest > 1:
        p = np.ones(images)
        p[: min(fewest - 1, images)] = 1 / (n + 1)
        assert not discoveries(p, level).any()


def test_how_many_with_storey_depends_on_the_batch() -> None:
    p = np.repeat([0.46, 1.0], [900, 100])
    fewest = fewest_discoveries(0.1, 0.01, 1000, known=id_share(100, 1000))
    assert fewest == 21 < fewest_discoveries(0.1, 0.01, 1000)
    for count, found in ((fewest, fewest), (fewest - 1, 0)):
        p[:900] = np.repeat([0.01, 0.46], [count, 900 - count])
        assert discoveries(p, 0.1, method="storey").sum() == found


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (([0.5], 0.0), "level is 0.0"),
        (([0.5], 1.0), "level is 1.0"),
        (([1.5], 0.1), "p_values lie between"),
        (([math.nan], 0.1), r"p_values\[0\] is nan"),
        (([-0.1], 0.1), "p_values lie between"),
    ],
)
def test_bad_input(arguments: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        discoveries(*arguments)
    with pytest.raises(InputError, match="method is 'by'; bh or storey was expected"):
        discoveries([0.5], 0.1, method="by")
