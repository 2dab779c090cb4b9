"""Shifts: what they do to pixels, that strengths are stated and checked, and that nothing depends on the order."""

import numpy as np
import pytest

from mood.core.errors import InputError
from mood.data import open_source
from mood.data.shifts import SHIFTS, parse_shift, shifted

STRENGTHS = {"blur": 1, "noise": 0.1, "brightness": 0.5, "contrast": 0.5, "saturation": 0, "rotation": 30, "jpeg": 10}


@pytest.fixture(scope="module")
def pictures():
    return open_source(np.random.default_rng(0).integers(0, 256, (4, 20, 28, 3), dtype=np.uint8))


@pytest.mark.parametrize("name", SHIFTS)
def test_a_shift_changes_pixels_and_hashes_and_nothing_else(name, pictures):
    moved = shifted(pictures, f"{name}={STRENGTHS[name]}")
    assert moved.manifest.ids == pictures.manifest.ids
    assert not {*moved.manifest.hashes} & {*pictures.manifest.hashes}
    pixels = moved.read(2)
    assert pixels.shape == (20, 28, 3)
    assert pixels.dtype == np.uint8
    assert (pixels != pictures.read(2)).mean() > 0.5
    assert (pixels == moved.select([2]).read(0)).all(), "it does not depend on the order"
    assert f"{STRENGTHS[name]:g}" in moved.description


def test_what_they_do(pictures):
    before = pictures.read(0).astype(float)
    assert shifted(pictures, "brightness=0.5").read(0) == pytest.approx(before / 2, abs=1)
    noise = shifted(pictures, "noise=0.05").read(0).astype(float) - before
    assert noise[(before > 60) & (before < 195)].std() == pytest.approx(0.05 * 255, rel=0.1)
    assert shifted(pictures, "blur=2").read(0).std() < before.std() / 3
    assert np.ptp(shifted(pictures, "saturation=0").read(0), axis=2).max() <= 1
    assert shifted(pictures, "blur=40").read(0).shape == before.shape, "wider than the image"


@pytest.mark.parametrize("text", ["fog=1", "blur", "blur=", "blur=x", "blur=nan", "jpeg=0", "noise=2"])
def test_strengths_are_stated_and_in_range(text):
    with pytest.raises(InputError, match="shift"):
        parse_shift(text)
