"""Pictures small enough to travel inside the page."""

import base64
import io
from collections.abc import Sequence
from typing import Any

import numpy as np
from PIL import Image

from mood.core.score_vector import score_vector
from mood.report.results import Thumbnail

SIDES = (192, 144, 96, 64, 48, 32)
"""Longest sides in pixels to try, the largest first."""

BUDGET = 3_000_000
"""Bytes that all pictures of a page may take, as text."""

SHARP = 64
"""Up to this side a picture is kept without loss; every pixel of it is seen."""


def extremes(scores: Any, count: int = 8) -> tuple[np.ndarray, np.ndarray]:
    """Which images to show: the positions of the highest and of the lowest scores.

    Args:
        scores: (N,) higher = more OOD.
        count: how many on each side. No image is on both: of fewer than 2 · count images each side shows half.

    Returns:
        Positions of the most unusual images, the highest first, and of the least unusual, the lowest first; images
        that tie stay in their order.

    Raises:
        InputError: a score is NaN.
    """
    vector = score_vector(scores, "scores")
    upwards, downwards = np.argsort(vector, kind="stable"), np.argsort(-vector, kind="stable")
    most = downwards[: min(count, (len(vector) + 1) // 2)]
    return most, upwards[~np.isin(upwards, most)][:count]


def data_uris(thumbnails: Sequence[Thumbnail]) -> list[str]:
    """Pictures as data URIs, as large as the budget of a page allows."""
    for side in SIDES:
        uris = [_data_uri(thumbnail.pixels, side) for thumbnail in thumbnails]
        if sum(map(len, uris)) <= BUDGET:
            break
    return uris


def _data_uri(pixels: np.ndarray, side: int) -> str:
    image = Image.fromarray(pixels).convert("RGB")
    if max(image.size) > side:
        image.thumbnail((side, side), Image.Resampling.LANCZOS)
    file = io.BytesIO()
    if max(image.size) <= SHARP:
        image.save(file, "PNG", optimize=True)
        kind = "png"
    else:
        image.save(file, "JPEG", quality=85)
        kind = "jpeg"
    return f"data:image/{kind};base64,{base64.b64encode(file.getvalue()).decode()}"
