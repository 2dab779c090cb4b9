"""Draws that belong to an image, not to a moment."""

import random

import numpy as np
import torch

from mood.training import seed_everything, uniform


def test_a_row_belongs_to_its_item_alone():
    items = torch.tensor([5, 2**40, 7, 0])
    whole = uniform(3, 4, items, 10)
    assert torch.equal(whole[[2, 0]], uniform(3, 4, items[[2, 0]], 10))
    assert torch.equal(whole[:, :4], uniform(3, 4, items, 4))


def test_seed_epoch_and_item_all_matter():
    base = uniform(0, 0, torch.tensor([0]), 8)
    for other in (uniform(1, 0, torch.tensor([0]), 8), uniform(0, 1, torch.tensor([0]), 8)):
        assert not torch.equal(base, other)
    assert not torch.equal(base, uniform(0, 0, torch.tensor([1]), 8))


def test_values_are_uniform_and_independent():
    values = uniform(0, 0, torch.arange(4000), 64).double()
    assert values.min() >= 0
    assert values.max() < 1
    # 256,000 draws: the standard error of the mean is 0.0006, of the variance about 0.00015.
    assert abs(values.mean() - 0.5) < 0.003
    assert abs(values.var() - 1 / 12) < 0.001
    correlation = torch.corrcoef(values.T)
    assert (correlation - torch.eye(64)).abs().max() < 0.08
    neighbours = torch.corrcoef(torch.stack((values[:-1].flatten(), values[1:].flatten())))[0, 1]
    assert abs(neighbours) < 0.01
    counts = torch.histc(values, 20, 0, 1)
    assert ((counts - 12800) ** 2 / 12800).sum() < 50  # chi-squared with 19 degrees of freedom


def test_seeding_sets_all_three_generators():
    def draw():
        return random.random(), np.random.rand(), torch.rand(1).item()

    seed_everything(1, 2)
    first = draw()
    draw()
    seed_everything(1, 2)
    assert draw() == first
    seed_everything(2, 1)
    assert all(a != b for a, b in zip(draw(), first, strict=True))
