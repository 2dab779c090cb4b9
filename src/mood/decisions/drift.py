"""How far the mean embedding has moved from that of known images."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from mood.core.errors import InputError


@dataclass(frozen=True, slots=True, eq=False)
class Usual:
    """Where the embeddings of known images lie: the calibration images, which the network has not seen either.

    Each dimension is measured by its own standard deviation. Whitening by the whole covariance would need many more
    calibration images than dimensions, and n may be 200.

    Attributes:
        mean: (D,) float64.
        variance: (D,) float64, divided by n.
        images: n.
    """

    mean: np.ndarray
    variance: np.ndarray
    images: int

    @classmethod
    def of(cls, embeddings: Iterable[Any]) -> "Usual":
        """From (n_i, D) embeddings, batch after batch.

        Raises:
            InputError: there are none.
        """
        images, mean, squares = 0, np.zeros(1), np.zeros(1)
        for batch in embeddings:
            rows = np.asarray(batch, np.float64)
            if not len(rows):
                continue
            # Chan, Golub, LeVeque (1979): sums of squares around a mean that moves.
            moved = rows.mean(0) - mean
            total = images + len(rows)
            squares = squares + ((rows - rows.mean(0)) ** 2).sum(0) + moved**2 * (images * len(rows) / total)
            mean = mean + moved * (len(rows) / total)
            images = total
        if not images:
            raise InputError("there are no embeddings; at least one is needed")
        return cls(mean, squares / images, images)

    def drift(self, total: np.ndarray, images: int) -> tuple[float, float]:
        """How far a mean embedding lies from the usual one, and how far it would by chance.

        The square of the first is the mean, over the dimensions that vary, of (difference / standard deviation)²; of
        images like the known ones it is 1/m + 1/n on average, whatever the dimensions have to do with each other.

        Args:
            total: (D,) sum of the embeddings.
            images: how many they are, m ≥ 1.

        Returns:
            (drift, by chance), in standard deviations.
        """
        varies = self.variance > 0
        if not varies.any():
            return 0.0, 0.0
        moved = (total / images - self.mean)[varies]
        return float(np.sqrt((moved**2 / self.variance[varies]).mean())), float(np.sqrt(1 / images + 1 / self.images))
