"""A small report with everything on it, and nothing that was really measured."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from mood.core.batch import Rejection
from mood.report import Card, Measured, Promise, Report, ScoredSet, Thumbnail

METRICS = {
    "auroc": Measured(0.9, 0.88, 0.92),
    "fpr95_id_positive": Measured(0.3, 0.25, 0.35),
    "fpr95_ood_positive": Measured(0.4, 0.35, 0.45),
    "aupr_id_positive": Measured(0.91),
    "aupr_ood_positive": Measured(0.89),
    "flagged": Measured(0.625, 0.6, 0.65),
}


def _scored_set(name: str, shift: float, seed: int = 0, size: int = 120, **changes: Any) -> ScoredSet:
    rng = np.random.default_rng(seed)
    scores = rng.normal(shift, size=size)
    p_values = np.clip(1 - rng.random(size) * (0.5 + shift), 0.01, 1)
    pictures = tuple(
        Thumbnail(f"{name}/{place}.png", rng.integers(0, 256, (40, 30, 3), np.uint8), float(scores[place]), 0.5 * place)
        for place in range(4)
    )
    given: dict[str, Any] = {"most_unusual": pictures[:2], "least_unusual": pictures[2:], **changes}
    return ScoredSet(name=name, scores=scores, p_values=p_values, **given)


def _promise(**changes: Any) -> Promise:
    given: dict[str, Any] = {
        "alpha": 0.05,
        "n_calibration": 412,
        "threshold": 1.6449,
        "verified": True,
        "reason": "Nothing has seen the calibration images.",
        "allowed": (0.0, 0.9),
        "sentence": "at most 5.0% of known images on average over calibration sets",
        "smallest": 1 / 413,
        "observed": Measured(0.05, 0.034, 0.068),
        **changes,
    }
    return Promise(**given)


def _report(**changes: Any) -> Report:
    curve = (np.linspace(0, 1, 2000), np.sqrt(np.linspace(0, 1, 2000)))
    controls = {"six numbers": {"auroc": Measured(0.95)}, "random weights": {"auroc": Measured(0.5, 0.4, 0.6)}}
    given: dict[str, Any] = {
        "title": "Shoes against the rest",
        "score": "mood",
        "model": "a small ViT",
        "promise": _promise(),
        "id": _scored_set("shoes", 0.0, rejections=(Rejection(3, "shoes/cut.jpg", "truncated file"),)),
        "ood": (
            _scored_set("letters", 3.0, 1, metrics=METRICS, controls=controls, roc=curve),
            _scored_set("cells", 2.0, 2, metrics=METRICS, controls=controls, roc=curve),
            _scored_set("known", 1.0, 3, metrics=METRICS, seen_by_weights=True),
        ),
        "seen": ("CIFAR-100 train: images and labels",),
        "notes": ("One seed.",),
        "cards": (Card("shoes", {"from": "folder shoes", "licence": "MIT"}), Card("known", {"role": "OOD"}, "† seen")),
        "config": {"score": "mood", "model": {"name": "vit", "layers": [1, 2]}, "limit": None},
        "versions": {"python": "3.11.2"},
        "hashes": {"weights": "9f86d081"},
        "command": "mood evaluate shoes.mood",
        "created": "2025-01-07",
        **changes,
    }
    return Report(**given)


@pytest.fixture
def made() -> SimpleNamespace:
    """Makers of a set, a promise and a report, and the metrics of one set."""
    return SimpleNamespace(scored_set=_scored_set, promise=_promise, report=_report, METRICS=METRICS)


@pytest.fixture
def full() -> Report:
    return _report()
