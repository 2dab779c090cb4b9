"""ODIN: Liang, Li, Srikant: Enhancing The Reliability of Out-of-distribution Image Detection in Neural Networks.

ICLR 2018.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from mood.core.errors import InputError
from mood.core.features import Features
from mood.scores._one_class import compared_logits
from mood.scores._registry import fitted, positive
from mood.scores._round import Round
from mood.scores._rows import of_width, row_by_row


@dataclass(frozen=True, slots=True, eq=False)
class ODIN:
    """−max softmax(z(x̃) / T), x̃ = x − (ε / std)·sign(−∇ₓ log p_ŷ(x; T)); in [−1, −1/K].

    Attributes:
        temperature: T.
        epsilon: ε, in units of pixels from 0 to 1.
        classes: K.
    """

    temperature: float
    epsilon: float
    classes: int

    def __call__(self, features: Features) -> Tensor:
        """(N,) float64, higher = more OOD, of images that were moved; of others it is `msp` at this temperature.

        Raises:
            InputError: no logits, or another number of them than in the fit.
        """
        logits = of_width(features.need("logits"), self.classes, "logits")
        return row_by_row(lambda rows: -(rows / self.temperature).softmax(1).amax(1), logits)

    def objectives(self, columns: Mapping[str, Tensor]) -> Sequence[Tensor]:
        """−log p_ŷ: the image moves to where the network is surer of what it says."""
        return [-(columns["logits"].cpu().double() / self.temperature).log_softmax(1).amax(1)]

    def of_moved(self, moved: Sequence[Features]) -> Features:
        """Those of the one moved image."""
        return moved[0]


@fitted("odin", ODIN, needs=("logits",), source="Liang et al., ICLR 2018 (ODIN), equations 1 and 2")
def odin(*, temperature: float = 1000.0, epsilon: float = 0.0014) -> tuple[Round[Any, Any, Any], ...]:
    """Minus the largest softmax probability at a high temperature, of an image moved to where it is larger.

    Learns nothing from ID images. A detector moves the images, which takes one pass back and one more forward; on
    features that come from elsewhere it is `msp` at this temperature.

    For 1000 classes × 1M images: nothing is kept.

    Args:
        temperature: T > 0, 1000 in the paper.
        epsilon: ε ≥ 0, in units of pixels from 0 to 1; the paper chooses 0.0014 on OOD images.

    Raises:
        InputError: an option out of range, no logits, one logit alone, or no rows.
    """
    t, step = positive("temperature", temperature), step_of(epsilon)

    def collect(features: Features, _: None) -> tuple[int, int]:
        logits = compared_logits(features)
        return logits.shape[1], len(logits)

    def merge(earlier: tuple[int, int], later: tuple[int, int]) -> tuple[int, int]:
        if earlier[0] != later[0]:
            raise InputError(f"logits has {later[0]} values per row in one shard and {earlier[0]} before it")
        return earlier[0], earlier[1] + later[1]

    def finish(seen: tuple[int, int], _: None) -> ODIN:
        if not seen[1]:
            raise InputError("there are no rows to fit on: this score learns nothing from them, but counts the logits")
        return ODIN(t, step, seen[0])

    return (Round(collect, merge, finish),)


def step_of(epsilon: float) -> float:
    """The value itself.

    Raises:
        InputError: it is negative or not finite.
    """
    if not 0 <= epsilon < float("inf"):
        raise InputError(f"epsilon is {epsilon!r}; a number from 0 on was expected, in units of pixels from 0 to 1")
    return epsilon
