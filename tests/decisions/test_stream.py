"""LORD++ on a stream: against its formula, and what it refuses."""

import sys

import numpy as np
import pytest

from mood.core.errors import InputError, MissingExtraError
from mood.decisions import StreamFdr


def lord_plus_plus(p_values, level):
    """Ramdas et al. (2017), with γ_j ∝ log(max(j, 2)) / (j exp √log j) and W₀ = level/2, in plain float64."""
    wealth, flags = level / 2, []

    def gamma(j):
        return 0.07720838 * np.log(max(j, 2)) / (j * np.exp(np.sqrt(np.log(j))))

    for t, p in enumerate(p_values, 1):
        threshold = gamma(t) * wealth
        if flags:
            threshold += (level - wealth) * gamma(t - flags[0])
        threshold += level * sum(gamma(t - flag) for flag in flags[1:])
        if p <= threshold:
            flags.append(t)
    return flags


def test_flags_are_those_of_the_formula_however_the_stream_is_cut():
    random = np.random.default_rng(0)
    p_values = np.where(random.random(600) < 0.2, random.random(600) ** 12, random.random(600))
    expected = lord_plus_plus(p_values, 0.1)
    assert len(expected) > 20
    for cuts in ([], [1, 50, 51]):
        stream = StreamFdr(0.1)
        found = np.concatenate([stream(part) for part in np.split(p_values, cuts)])
        assert (np.flatnonzero(found) + 1).tolist() == expected


def test_the_rate_is_kept_on_independent_p_values():
    shares = []
    for seed in range(100):
        random = np.random.default_rng(seed)
        strange = random.random(400) < 0.2
        p_values = np.where(strange, random.random(400) ** 15, random.random(400))
        flagged = StreamFdr(0.1)(p_values)
        shares.append((flagged & ~strange).sum() / max(1, flagged.sum()))
    assert np.mean(shares) <= 0.1


def test_what_is_refused():
    for level in (0, 1, -0.1, float("nan")):
        with pytest.raises(InputError, match="level is"):
            StreamFdr(level)
    stream = StreamFdr(0.1)
    with pytest.raises(InputError, match="must lie between 0 and 1"):
        stream([0.5, 1.5])
    with pytest.raises(InputError, match=r"p_values\[0\] is nan"):
        stream([float("nan")])
    assert stream([]).shape == (0,)


def test_without_the_package_it_says_which_one_is_wanted(monkeypatch):
    monkeypatch.setitem(sys.modules, "online_fdr.p_values", None)
    with pytest.raises(MissingExtraError, match="need the package online-fdr"):
        StreamFdr(0.1)
