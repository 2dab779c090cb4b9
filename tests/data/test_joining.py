"""Several sources as one."""

import pickle

import numpy as np
import pytest

from mood.core.errors import InputError
from mood.data import join, open_source


def source(count, seed):
    return open_source(np.random.default_rng(seed).integers(0, 256, (count, 4, 4, 3), dtype=np.uint8))


def test_every_image_of_every_source_in_order():
    first, second = source(3, 0), source(2, 1).select([1, 0])
    both = join([first, second])
    assert len(both) == 5
    assert both.manifest.hashes == first.manifest.hashes + second.manifest.hashes
    assert both.manifest.labels is None
    assert len(set(both.manifest.ids)) == 5 or first.name == second.name
    for position in range(5):
        part = first.read(position) if position < 3 else second.read(position - 3)
        assert np.array_equal(both.read(position), part)


def test_it_can_be_selected_from_and_pickled():
    both = join([source(3, 0), source(2, 1)])
    chosen = pickle.loads(pickle.dumps(both.select([4, 0])))
    assert np.array_equal(chosen.read(0), both.read(4))
    assert np.array_equal(chosen.read(1), both.read(0))


def test_nothing_to_join():
    with pytest.raises(InputError, match="at least one"):
        join([])
