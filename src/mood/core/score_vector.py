"""One number per image, from wherever it comes: the form in which scores meet decisions and evaluation."""

from typing import Any

import numpy as np

from mood.core.errors import InputError


def score_vector(values: Any, name: str, *, infinite: bool = True) -> np.ndarray:
    """Scores as a checked (N,) float64 array.

    Args:
        values: a list, an array or a tensor (any device, any floating or integer type) of shape (N,).
        name: what to call it in an error.
        infinite: whether +inf and -inf are welcome, as the most and the least unusual of all.

    Returns:
        (N,) float64; the same memory where nothing had to be converted.

    Raises:
        InputError: not numbers, not one axis, NaN, or infinite where that is not welcome. A NaN compares as "not
            unusual" with everything, so it is never let in.
    """
    if hasattr(values, "detach"):
        values = values.detach().cpu().double()
    try:
        raw = np.asarray(values)
    except ValueError as error:
        raise InputError(f"{name} must be one number per image, shape (N,): {error}") from None
    if raw.ndim != 1:
        raise InputError(f"{name} must be one number per image, shape (N,), not {raw.shape}")
    if len(raw) and raw.dtype.kind not in "biuf":
        raise InputError(f"{name} must be numbers, not {raw.dtype}")
    vector = raw.astype(np.float64, copy=False)
    wrong = np.isnan(vector) if infinite else ~np.isfinite(vector)
    if wrong.any():
        first = int(wrong.argmax())
        raise InputError(
            f"{name}[{first}] is {vector[first]} ({int(wrong.sum())} of {len(vector)} are not "
            f"{'numbers' if infinite else 'finite'}); find out which image gives that before anything is decided on it"
        )
    return vector
