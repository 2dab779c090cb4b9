"""Mondrian p-values against their definition, the pooling of small classes against enumeration, and the promise."""

import itertools
import math
from typing import Any

import numpy as np
import pytest

from mood.core.errors import InputError, PromiseError
from mood.decisions import Conformal, Mondrian
from mood.decisions.mondrian import Group


def test_a_class_with_enough_images_is_ranked_by_itself() -> None:
    rng = np.random.default_rng(0)
    scores, classes = rng.normal(size=90), np.arange(90) % 3
    made = Mondrian(scores, classes, alpha=0.05)
    assert made.groups == (Group((0,), 30), Group((1,), 30), Group((2,), 30))
    new, of = rng.normal(size=200), rng.integers(0, 3, 200)
    found = made.p_values(new, classes=of)
    for label in range(3):
        own = Conformal(scores[classes == label])
        assert np.array_equal(found[of == label], own.p_values(new[of == label]))
    assert made.alone == (0, 1, 2)
    assert made.guarantee(0.05).smallest == 1 / 31 == made.p_values([math.inf], classes=[0])[0]
    assert made.together == ()
    assert "all 3 classes each for itself, with 30 images or more" in made.guarantee(0.05).sentence


def test_classes_too_small_are_ranked_together() -> None:
    # 19 images are needed for 5 %.
    classes = np.repeat([0, 1, 2, 3], [40, 12, 9, 25])
    made = Mondrian(np.arange(86.0), classes, alpha=0.05)
    assert (made.alone, made.together) == ((0, 3), (1, 2))
    assert made.group(1) == Group((1, 2), 21)
    found = made.p_values([1000.0, 1000.0], classes=[1, 3])
    assert found.tolist() == [1 / 22, 1 / 26]
    assert "2 classes each for itself, 2 only together, with 21 images" in made.guarantee(0.05).sentence
    assert "needs 19 of a class" in made.guarantee(0.05).sentence


def test_where_even_they_are_too_few_the_next_smallest_joins() -> None:
    classes = np.repeat([0, 1, 2], [40, 5, 25])
    made = Mondrian(np.arange(70.0), classes, alpha=0.05)
    assert made.group(1) == made.group(2) == Group((1, 2), 30)
    assert made.alone == (0,)
    made.check(0.05)


def test_a_class_without_calibration_images_is_ranked_with_the_small_ones() -> None:
    made = Mondrian(np.arange(60.0), np.repeat([0, 1], [40, 20]), alpha=0.05)
    # Alone it has nobody: the smaller of the two joins it.
    assert made.group(7) == Group((1, 7), 20)
    assert made.p_values([99.0], classes=[7]).tolist() == [1 / 21]


def test_an_alpha_that_not_even_all_together_keep_is_refused() -> None:
    made = Mondrian(np.arange(10.0), np.arange(10) % 2, alpha=0.05)
    assert made.groups == (Group((0, 1), 10),)
    with pytest.raises(PromiseError, match="0.05 cannot be promised with 10 .* at least 19"):
        made.check(0.05)


@pytest.mark.parametrize("bag", [(9, 3, 2), (5, 5, 5, 1), (1, 1, 1), (4, 2, 2, 9), (6, 3), (12,), (3, 4, 5, 6)])
def test_given_the_bag_every_image_of_a_group_is_as_likely_to_be_the_new_one(bag: tuple[int, ...]) -> None:
    """The exactness that pooling by counts of the calibration images alone would not have, by enumeration.

    Each image of the bag is the new one in turn. Over these turns the p-values of each group must be super-uniform.
    """
    classes = np.repeat(np.arange(len(bag)), bag)
    scores = np.random.default_rng(0).permutation(len(classes)).astype(float)
    by_group: dict[tuple[int, ...], list[float]] = {}
    for new in range(len(classes)):
        others = np.arange(len(classes)) != new
        made = Mondrian(scores[others], classes[others], alpha=0.2)
        group = made.group(int(classes[new]))
        by_group.setdefault(group.classes, []).append(float(made.p_values(scores[[new]], classes=classes[[new]])[0]))
    members = list(itertools.chain(*by_group))
    assert sorted(members) == list(range(len(bag)))  # the same partition, whoever is new
    for p_values in by_group.values():
        n = len(p_values)
        assert sorted(p_values) == pytest.approx([rank / n for rank in range(1, n + 1)])


@pytest.mark.parametrize("shares", [(0.6, 0.3, 0.1), (0.9, 0.06, 0.04)])
def test_the_promise_holds_for_each_class(shares: tuple[float, ...]) -> None:
    """Classes of different spread: one threshold for all would flag the widest far too often."""
    rng, spread = np.random.default_rng(1), np.array([1.0, 2.0, 5.0])
    by_class: list[list[float]] = [[], [], []]
    pooled, plain = [], []
    for _ in range(1500):
        classes = rng.choice(3, 260, p=shares)
        scores = rng.normal(size=260) * spread[classes]
        made = Mondrian(scores[:200], classes[:200], alpha=0.1)
        flagged = made.p_values(scores[200:], classes=classes[200:]) <= 0.1
        own = classes[200:]
        for label in made.alone:
            if (own == label).any():
                by_class[label].append(flagged[own == label].mean())
        if (rest := ~np.isin(own, made.alone)).any():
            pooled.append(flagged[rest].mean())
        if (own == 2).any():
            plain.append((Conformal(scores[:200]).p_values(scores[200:]) <= 0.1)[own == 2].mean())
    for rates in (*by_class, pooled):
        if len(rates) > 100:
            assert np.mean(rates) <= 0.1 + 4 * np.std(rates) / math.sqrt(len(rates))
    assert np.mean(plain) > 0.2


def test_the_range_of_what_is_seen() -> None:
    rng = np.random.default_rng(2)
    made = Mondrian(rng.random(300), np.arange(300) % 3, alpha=0.1)
    low, high = made.allowed(0.1, 500, confidence=0.9)
    inside = []
    for _ in range(400):
        drawn = Mondrian(rng.random(300), np.arange(300) % 3, alpha=0.1)
        rate = (drawn.p_values(rng.random(500), classes=rng.integers(0, 3, 500)) <= 0.1).mean()
        inside.append(low <= rate <= high)
    assert np.mean(inside) == pytest.approx(0.9, abs=0.06)
    assert made.allowed(0.1, 500) == made.allowed(0.1, 500)
    with pytest.raises(InputError, match="n_test is 0"):
        made.allowed(0.1, 0)


@pytest.mark.parametrize("classes", [[0], [0, -1], [0.0, 1.0], [[0, 1]], ["a", "b"]])
def test_classes_that_are_none(classes: Any) -> None:
    with pytest.raises(InputError, match="classes must be a whole number from 0 for each of 2 images"):
        Mondrian([1.0, 2.0], classes, alpha=0.5)
    with pytest.raises(InputError, match="classes must be"):
        Mondrian([1.0], [0], alpha=0.5).p_values([1.0, 2.0], classes=classes)


def test_what_else_is_refused() -> None:
    made = Mondrian([1.0], [0], alpha=0.5)
    with pytest.raises(InputError, match="by class: it needs the predicted class of every image"):
        made.p_values([1.0])
    with pytest.raises(InputError, match="is nan"):
        made.p_values([math.nan], classes=[0])
    with pytest.raises(InputError, match="alpha is 1"):
        Mondrian([1.0], [0], alpha=1.0)
    with pytest.raises(InputError, match="there are no calibration scores"):
        Mondrian([], [], alpha=0.5)
    assert made.threshold(0.5) is None
    assert made.p_values([], classes=np.empty(0, int)).shape == (0,)
