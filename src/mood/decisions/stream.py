"""Flags on a stream of p-values with a bounded false discovery rate: LORD++, by the package online-fdr.

Ramdas, Yang, Wainwright, Jordan: Online Control of the False Discovery Rate with Decaying Memory, NeurIPS 2017. It
assumes p-values of ID images that are independent of each other and of all before; conformal p-values that share one
calibration set are not (they depend on each other positively), so that with them the rate is not promised exactly.
"""

import importlib
from typing import Any

import numpy as np

from mood.core.errors import InputError, MissingExtraError
from mood.core.score_vector import score_vector


class StreamFdr:
    """LORD++ with half of the level as its first wealth: each flag is final, before the next image comes.

    Its thresholds fall between discoveries, and no conformal p-value is below 1/(n+1): with few calibration images it
    will flag nothing. It keeps the positions of its flags, and each p-value takes time in proportion to their number.
    """

    def __init__(self, level: float) -> None:
        """Begin a stream.

        Args:
            level: the false discovery rate, inside (0, 1).

        Raises:
            InputError: level is not inside (0, 1).
            MissingExtraError: online-fdr is not installed.
        """
        if not 0 < level < 1:
            raise InputError(f"level is {level}; it must lie between 0 and 1")
        try:
            procedures = importlib.import_module("online_fdr.p_values")
        except ModuleNotFoundError as error:
            raise MissingExtraError(
                "flags on a stream with a bounded false discovery rate need the package online-fdr: add it, or the "
                "extra `stream` of mood-ood"
            ) from error
        self._procedure = procedures.LordPlusPlus(alpha=level, wealth=level / 2)

    def __call__(self, p_values: Any) -> np.ndarray:
        """Flag the next p-values.

        Args:
            p_values: (N,) in [0, 1], in the order in which they came; small = OOD.

        Returns:
            (N,) bool.

        Raises:
            InputError: a p-value is NaN or outside of [0, 1]; nothing has been flagged then.
        """
        values = score_vector(p_values, "p_values")
        if len(values) and not (values.min() >= 0 and values.max() <= 1):
            raise InputError("p_values must lie between 0 and 1")
        return np.array([self._procedure.test_one(float(value)) for value in values], bool)
