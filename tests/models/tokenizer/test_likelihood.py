"""The logit-Laplace density against the paper's formula in float64, and against being a density at all."""

import math

import numpy as np
import pytest
import torch
from scipy.integrate import quad

from mood.models.tokenizer.likelihood import FLOOR, bounded_scale, logit_laplace, map_pixels, unmap_pixels


def density(x, mean, scale):
    """Equation 2 of Ramesh et al. (2021), as it stands there."""
    return math.exp(-abs(math.log(x / (1 - x)) - mean) / scale) / (2 * scale * x * (1 - x))


def test_is_minus_the_logarithm_of_the_density():
    generator = np.random.default_rng(0)
    x, mean, log_scale = generator.uniform(0.1, 0.9, 50), generator.normal(0, 2, 50), generator.normal(-1, 1, 50)
    wanted = [-math.log(density(a, b, math.exp(c))) for a, b, c in zip(x, mean, log_scale, strict=True)]
    given = logit_laplace(*(torch.from_numpy(part) for part in (x, mean, log_scale)))
    np.testing.assert_allclose(given.numpy(), wanted, rtol=1e-12)


def test_the_density_has_a_mass_of_one():
    def at(x):
        parts = (torch.tensor(value, dtype=torch.float64) for value in (x, 0.4, math.log(0.7)))
        return math.exp(-logit_laplace(*parts).item())

    middle = 1 / (1 + math.exp(-0.4))
    mass = quad(at, 1e-9, middle)[0] + quad(at, middle, 1 - 1e-9)[0]
    assert abs(mass - 1) < 1e-4


def test_pixels_stay_away_from_the_ends_and_come_back():
    pixels = torch.linspace(0, 1, 11)
    mapped = map_pixels(pixels)
    torch.testing.assert_close(mapped, 0.1 + 0.8 * pixels)
    torch.testing.assert_close(unmap_pixels(mapped), pixels)
    torch.testing.assert_close(unmap_pixels(torch.tensor([0.0, 1.0])), torch.tensor([0.0, 1.0]))


def test_the_scale_has_a_floor_that_gradients_pass():
    raw = torch.tensor([-50.0, FLOOR, 0.0, 3.0], dtype=torch.float64, requires_grad=True)
    given = bounded_scale(raw)
    assert given[0].item() > FLOOR - 1e-12
    np.testing.assert_allclose(given[2:].detach().numpy(), [0.0, 3.0], atol=0.01)
    given.sum().backward()
    assert (raw.grad > 0).all()
    # Half a step of 256 grey levels in [0.1, 0.9], where the logit has its smallest slope, 4.
    assert math.exp(FLOOR) == pytest.approx(4 * (0.8 / 255) / 2)
