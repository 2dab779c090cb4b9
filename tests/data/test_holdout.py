"""The cut of calibration images."""

import hashlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mood.core.errors import InputError
from mood.data import held_out

hashes = st.lists(st.binary(max_size=8).map(lambda data: hashlib.sha256(data).hexdigest()), max_size=30)
fractions = st.floats(0, 1)


@given(hashes, st.integers(0, 2**31), fractions, st.randoms())
def test_it_depends_on_the_image_alone(digests, seed, fraction, random):
    cut = dict(zip(digests, held_out(digests, seed=seed, fraction=fraction), strict=True))
    shuffled = random.sample(digests, random.randint(0, len(digests)))
    assert held_out(shuffled, seed=seed, fraction=fraction).tolist() == [cut[digest] for digest in shuffled]


@given(hashes, st.integers(0, 2**31), fractions, fractions)
def test_a_larger_fraction_holds_out_the_same_and_more(digests, seed, one, other):
    small, large = (held_out(digests, seed=seed, fraction=fraction) for fraction in sorted((one, other)))
    assert not (small & ~large).any()


@given(hashes)
def test_none_and_all(digests):
    assert not held_out(digests, fraction=0).any()
    assert held_out(digests, fraction=1).all()


def test_its_share_and_its_seeds():
    digests = [hashlib.sha256(str(number).encode()).hexdigest() for number in range(20_000)]
    first, second = held_out(digests), held_out(digests, seed=1)
    assert abs(first.mean() - 0.1) < 4 * np.sqrt(0.09 / 20_000)
    assert abs((first & second).mean() - 0.01) < 0.003


def test_it_is_the_cut_of_the_design():
    digest = hashlib.sha256(b"image").hexdigest()
    number = int(hashlib.sha256(f"5:{digest}".encode()).hexdigest(), 16) / 2**256
    assert held_out([digest], seed=5, fraction=number + 1e-9).tolist() == [True]
    assert held_out([digest], seed=5, fraction=number - 1e-9).tolist() == [False]


@pytest.mark.parametrize("fraction", [-0.1, 1.1, float("nan")])
def test_a_fraction_is_between_0_and_1(fraction):
    with pytest.raises(InputError, match="fraction is"):
        held_out([], fraction=fraction)
