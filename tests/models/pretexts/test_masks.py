"""Masks: never more than asked, the official distribution, a function of their numbers alone, and their guards."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mood.core.errors import ModelError
from mood.models.pretexts.masks import BlockMasks, UnitMasks
from mood.training import uniform

sides = st.integers(1, 20)


@st.composite
def blocks(draw):
    grid = draw(st.tuples(sides, sides).filter(lambda grid: grid[0] * grid[1] > 1))
    count = draw(st.integers(1, grid[0] * grid[1] - 1))
    return BlockMasks(grid, count, draw(st.integers(1, 40)), draw(st.floats(0.05, 1.0)), draw(st.integers(1, 12)))


@st.composite
def units(draw):
    unit, number = draw(st.tuples(*[st.integers(1, 4)] * 2)), draw(st.tuples(*[st.integers(2, 6)] * 2))
    ratio = draw(
        st.floats(0.05, 1.0).filter(lambda ratio: math.ceil(ratio * number[0] * number[1]) < math.prod(number))
    )
    return UnitMasks((unit[0] * number[0], unit[1] * number[1]), unit, ratio)


def numbers(masks, count, seed=0):
    return uniform(seed, 0, torch.arange(count), masks.draws)


@settings(max_examples=150)
@given(blocks(), st.integers(0, 2**32))
def test_blocks_never_hide_more_than_asked_and_exactly_it_on_demand(masks, seed):
    made = masks(numbers(masks, 8, seed))
    assert made.dtype == torch.bool
    assert made.shape == (8, masks.grid[0] * masks.grid[1])
    assert (made.sum(1) <= masks.count).all()
    full = BlockMasks(masks.grid, masks.count, masks.min_block, masks.aspect, masks.tries, exact=True)
    filled = full(numbers(masks, 8, seed))
    assert (filled.sum(1) == masks.count).all()
    assert (filled | made == filled).all(), "filling up changes nothing of the blocks"


@settings(max_examples=100)
@given(units(), st.integers(0, 2**32))
def test_units_are_hidden_as_a_whole_and_as_many_as_the_ratio_says(masks, seed):
    made = masks(numbers(masks, 6, seed))
    (rows, columns), (high, wide) = masks.units, masks.unit
    cut = made.reshape(6, rows, high, columns, wide).transpose(2, 3).flatten(3)
    assert (cut.all(3) == cut.any(3)).all()
    hidden = cut.all(3).sum((1, 2))
    assert (hidden == math.ceil(round(masks.ratio * rows * columns, 6))).all()
    assert (made.sum(1) == masks.most).all()


@pytest.mark.parametrize("masks", [BlockMasks((14, 14), 75), UnitMasks((14, 14), (2, 2))], ids=["blocks", "units"])
def test_a_mask_belongs_to_its_own_numbers(masks):
    draws = numbers(masks, 50)
    made = masks(draws)
    order = torch.randperm(50)
    assert torch.equal(masks(draws[order]), made[order])
    assert torch.equal(torch.cat([masks(draws[:20]), masks(draws[20:])]), made)
    assert len(made.unique(dim=0)) == 50
    assert not torch.equal(masks(numbers(masks, 50, seed=1)), made)


def test_masks_stay_for_ever():
    # These numbers are a promise: a checkpoint of today resumes with the same masks tomorrow.
    draws = torch.tensor([[0.25, 0.75], [0.5, 0.125]])
    shown = [[patch for patch in range(16) if row[patch]] for row in BlockMasks((4, 4), 6, 1, exact=True)(draws)]
    assert shown == [[0, 4, 5, 6, 10, 14], [0, 1, 2, 4, 5, 6]]


def reference(generator, rows, columns, count, smallest):
    """The published algorithm, cell by cell."""
    mask = np.zeros((rows, columns), bool)
    while mask.sum() < count:
        most, done = count - mask.sum(), False
        for _ in range(10):
            area = generator.uniform(min(smallest, most), max(smallest, most))
            ratio = math.exp(generator.uniform(math.log(0.3), math.log(1 / 0.3)))
            height, width = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
            if height >= rows or width >= columns:
                continue
            top, left = generator.integers(0, rows - height + 1), generator.integers(0, columns - width + 1)
            new = (~mask[top : top + height, left : left + width]).sum()
            if 0 < new <= most:
                mask[top : top + height, left : left + width] = done = True
                break
        if not done:
            break
    return mask


def test_counts_and_places_on_14_by_14_are_the_official_ones():
    masks = BlockMasks((14, 14), 75)
    made = masks(numbers(masks, 12000)).numpy()
    generator = np.random.default_rng(0)
    known = np.stack([reference(generator, 14, 14, 75, 16).ravel() for _ in range(2000)])
    counts, known_counts = made.sum(1), known.sum(1)
    assert counts.max() == 75
    assert (counts >= 65).mean() > 0.998
    assert counts.mean() == pytest.approx(74.5, abs=0.06)
    assert counts.mean() == pytest.approx(known_counts.mean(), abs=5 * known_counts.std() / math.sqrt(2000))
    for value in (73, 74, 75):
        assert (counts == value).mean() == pytest.approx((known_counts == value).mean(), abs=0.04)
    # How often each patch is hidden: more often in the middle of the grid, and alike in all four corners.
    often, known_often = made.mean(0).reshape(14, 14), known.mean(0).reshape(14, 14)
    assert np.abs(often - known_often).max() < 0.06
    assert np.abs(often - often[::-1, ::-1]).max() < 0.04
    # How large the pieces are: neighbours share their fate as often as in the published algorithm.
    alike = [(part.reshape(-1, 14, 14)[:, 1:] == part.reshape(-1, 14, 14)[:, :-1]).mean() for part in (made, known)]
    assert alike[0] == pytest.approx(alike[1], abs=0.005)


def test_a_grid_without_room_for_a_block_stays_as_it_is():
    row = BlockMasks((1, 16), 6)
    assert row(numbers(row, 10)).sum() == 0
    filled = BlockMasks((1, 16), 6, exact=True)
    assert (filled(numbers(filled, 10)).sum(1) == 6).all()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"grid": (0, 4)}, "grid is"),
        ({"count": 0}, "count is 0; it must be between 1 and 15"),
        ({"count": 16}, "count is 16"),
        ({"min_block": 0}, "min_block is 0"),
        ({"aspect": 0.0}, "aspect is"),
        ({"aspect": 1.5}, "aspect is"),
        ({"tries": 0}, "tries is 0"),
    ],
)
def test_blocks_that_cannot_be(change, message):
    with pytest.raises(ModelError, match=message):
        BlockMasks(**{"grid": (4, 4), "count": 6, **change})


@pytest.mark.parametrize(
    ("grid", "unit", "ratio", "message"),
    [
        ((7, 8), (2, 2), 0.6, r"units of \(2, 2\) patches do not fill a grid of \(7, 8\)"),
        ((8, 8), (0, 2), 0.6, "do not fill"),
        ((8, 8), (2, 2), 1.0, "ratio 1.0 hides 16 of 16"),
        ((8, 8), (2, 2), 0.99, "ratio 0.99 hides 16 of 16"),
        ((8, 8), (2, 2), 0.0, "ratio 0.0 hides 0 of 16"),
    ],
)
def test_units_that_cannot_be(grid, unit, ratio, message):
    with pytest.raises(ModelError, match=message):
        UnitMasks(grid, unit, ratio)
