"""Every kind of calibration comes back from plain data, and nothing else does."""

import json
from typing import Any

import numpy as np
import pytest

from mood.core.errors import ArtifactError
from mood.decisions import Calibration, Conditional, Conformal, Cross, Mondrian, kind_of, restore, state

SCORES = np.random.default_rng(0).normal(size=60)
MADE: dict[str, Calibration] = {
    "split": Conformal(SCORES, ties="randomised"),
    "conditional": Conditional(SCORES, confidence=0.8, bound="dkwm"),
    "by-class": Mondrian(SCORES, np.arange(60) % 3, alpha=0.1),
    "cross": Cross(SCORES, np.arange(60) % 4),
}


@pytest.mark.parametrize("kind", MADE)
def test_it_comes_back(kind: str) -> None:
    made = MADE[kind]
    arrays, meta = state(made)
    assert kind_of(made) == meta["kind"] == kind
    back = restore(arrays, json.loads(json.dumps(meta)))
    table = np.random.default_rng(1).normal(size=(30, 4))
    given: Any = table if kind == "cross" else table[:, 0]
    asked = {"classes": np.arange(30) % 3, "ids": [str(row) for row in range(30)]}
    assert np.array_equal(back.p_values(given, **asked), made.p_values(given, **asked))
    assert back.guarantee(0.1) == made.guarantee(0.1)
    assert back.threshold(0.1) == made.threshold(0.1)
    assert back.allowed(0.1, 50) == made.allowed(0.1, 50)
    assert len(back) == 60


@pytest.mark.parametrize(
    ("arrays", "meta", "message"),
    [
        ({"scores": SCORES}, {"kind": "oracle"}, "kind 'oracle'; this mood knows split, conditional, by-class, cross"),
        ({"scores": SCORES}, {}, "kind None"),
        ({"scores": SCORES}, {"kind": "split"}, "consists of scores, ties; found scores"),
        ({}, {"kind": "split", "ties": "conservative"}, "consists of scores, ties; found ties"),
        ({"scores": SCORES}, {"kind": "split", "ties": "x"}, "no calibration of kind 'split': ties is 'x'"),
        ({"scores": SCORES[:0]}, {"kind": "split", "ties": "conservative"}, "there are no calibration scores"),
        ({"scores": SCORES, "folds": SCORES}, {"kind": "cross", "ties": "conservative"}, "folds must be"),
        (
            {"scores": SCORES},
            {"kind": "conditional", "ties": "conservative", "bound": "simes", "confidence": "much"},
            "no calibration of kind 'conditional'",
        ),
    ],
)
def test_what_it_does_not_consist_of_is_refused(arrays: Any, meta: Any, message: str) -> None:
    with pytest.raises(ArtifactError, match=message):
        restore(arrays, meta)
