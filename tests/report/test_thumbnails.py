"""Pictures in the page: the right ones, in small, within a budget."""

import base64
import io

import numpy as np
import pytest
from PIL import Image

from mood.core.errors import InputError
from mood.report import Thumbnail, extremes
from mood.report.thumbnails import BUDGET, data_uris


def opened(uri: str) -> Image.Image:
    return Image.open(io.BytesIO(base64.b64decode(uri.split("base64,")[1])))


def test_extremes_are_the_ends_and_never_both() -> None:
    most, least = extremes([3.0, 1.0, np.inf, 2.0, 1.0, -np.inf], 2)
    assert most.tolist() == [2, 0]
    assert least.tolist() == [5, 1]
    most, least = extremes([1.0, 1.0, 1.0], 8)
    assert (most.tolist(), least.tolist()) == ([0, 1], [2])
    most, least = extremes([], 8)
    assert (most.tolist(), least.tolist()) == ([], [])
    with pytest.raises(InputError, match="nan"):
        extremes([float("nan")])


def test_small_pictures_keep_every_pixel() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (32, 28, 3), np.uint8)
    grey = pixels[..., 0]
    found = [np.asarray(opened(uri)) for uri in data_uris([Thumbnail("a", pixels, 0, 1), Thumbnail("b", grey, 0, 1)])]
    np.testing.assert_array_equal(found[0], pixels)
    np.testing.assert_array_equal(found[1], np.stack([grey] * 3, -1))


def test_large_pictures_keep_their_shape() -> None:
    (uri,) = data_uris([Thumbnail("a", np.zeros((600, 300, 3), np.uint8), 0, 1)])
    assert uri.startswith("data:image/jpeg;base64,")
    assert opened(uri).size == (96, 192)
    (uri,) = data_uris([Thumbnail("a", np.zeros((1, 5000), np.uint8), 0, 1)])
    assert opened(uri).size == (192, 1)


def test_many_pictures_share_a_budget() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (200, 200, 3), np.uint8)
    uris = data_uris([Thumbnail("a", noise, 0, 1)] * 200)
    assert sum(map(len, uris)) <= BUDGET
    assert data_uris([]) == []
