"""What a calibration promises, in numbers and in one sentence; and what every kind of calibration can do."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np


@dataclass(frozen=True, slots=True)
class Guarantee:
    """The promise at one alpha, with its size.

    Attributes:
        rate: at most this share of ID images is flagged …
        confidence: … with this probability over calibration sets; None where the rate holds on average over them.
        realised: where the rate of this very calibration set lies, with 90 % probability; None where nothing is known.
        smallest: the smallest p-value that can be reached.
        sentence: the same in words, to follow "is flagged:".
    """

    rate: float
    confidence: float | None
    realised: tuple[float, float] | None
    smallest: float
    sentence: str


class Calibration(Protocol):
    """From the scores of ID images that nothing was fitted on to p-values.

    Attributes:
        scores: (n,) finite float64, the scores of the calibration images.
        ties: what becomes of equal scores, one of `ranks.TIES`.
    """

    @property
    def scores(self) -> np.ndarray: ...  # noqa: D102  told above

    @property
    def ties(self) -> str: ...  # noqa: D102

    def __len__(self) -> int: ...

    def p_values(self, scores: Any, *, classes: Any = None, ids: Sequence[str] | None = None) -> np.ndarray:
        """(N,) float64 in (0, 1], small = OOD.

        Args:
            scores: (N,), higher = more OOD; (N, K) for `Cross`.
            classes: (N,) predicted classes, which `Mondrian` reads.
            ids: names of the images, which randomised ties read.
        """

    def threshold(self, alpha: float) -> float | None:
        """An image is flagged exactly where its score is above this; None where no one number says so."""

    def check(self, alpha: float) -> None:
        """Refuse an alpha that these images cannot keep."""

    def guarantee(self, alpha: float) -> Guarantee:
        """What is promised at alpha."""

    def allowed(self, alpha: float, n_test: int, confidence: float = 0.99) -> tuple[float, float]:
        """Where the share of flagged images among n_test unseen ID images lies if the promise holds."""
