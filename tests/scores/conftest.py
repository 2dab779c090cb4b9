"""Random features with a head, as plain arrays: what the references of the scores are computed from."""

from dataclasses import dataclass

import numpy as np
import pytest

from mood.core.features import Features, Head


@dataclass(frozen=True)
class World:
    """Fit rows in classes that the head tells apart mostly, and queries that stand anywhere."""

    rows: np.ndarray
    labels: np.ndarray
    queries: np.ndarray
    weight: np.ndarray
    bias: np.ndarray

    @property
    def logits(self) -> np.ndarray:
        return self.rows @ self.weight.T + self.bias

    @property
    def query_logits(self) -> np.ndarray:
        return self.queries @ self.weight.T + self.bias

    @property
    def fit(self) -> Features:
        return Features(self.rows, logits=self.logits, labels=self.labels)

    @property
    def test(self) -> Features:
        return Features(self.queries, logits=self.query_logits)

    @property
    def head(self) -> Head:
        return Head(self.weight, self.bias)


def made(rows: int = 300, width: int = 10, classes: int = 4, seed: int = 0) -> World:
    rng = np.random.default_rng(seed)
    weight, bias = rng.normal(size=(classes, width)), rng.normal(size=classes)
    labels = rng.integers(0, classes, rows)
    fit_rows = 0.6 * weight[labels] + rng.normal(0.4, 1, (rows, width)) * np.linspace(0.4, 1.6, width)
    return World(fit_rows, labels, rng.normal(0.2, 1.5, (40, width)), weight, bias)


@pytest.fixture
def world() -> World:
    return made()


@pytest.fixture
def worlds():
    return made
