"""The relaxation against its definition in float64, and what it tends to."""

import math

import numpy as np
import pytest
import torch

from mood.models.tokenizer.relaxation import codebook_usage, gumbel_softmax, imbalance, kl_to_uniform


def draws(*shape, seed=0):
    generator = np.random.default_rng(seed)
    return generator.normal(0, 2, shape), generator.exponential(1, shape)


@pytest.mark.parametrize("temperature", [2.0, 1.0, 0.0625])
def test_is_the_softmax_of_disturbed_logits(temperature):
    logits, noise = draws(3, 5, 2, 4)
    disturbed = (logits - np.log(noise)) / temperature
    powers = np.exp(disturbed - disturbed.max(axis=1, keepdims=True))
    wanted = powers / powers.sum(axis=1, keepdims=True)
    given = gumbel_softmax(torch.from_numpy(logits), torch.from_numpy(noise), temperature, False)
    np.testing.assert_allclose(given.numpy(), wanted, rtol=1e-12, atol=1e-300)


def test_its_largest_code_is_drawn_as_often_as_the_softmax_says():
    logits = torch.tensor([1.0, 0.0, -1.0, 2.0], dtype=torch.float64).reshape(1, 4, 1).expand(1, 4, 200_000)
    noise = torch.from_numpy(np.random.default_rng(0).exponential(1, logits.shape))
    came = gumbel_softmax(logits, noise, 0.5, False).argmax(dim=1).flatten().bincount(minlength=4) / logits.shape[-1]
    wanted = np.exp([1.0, 0.0, -1.0, 2.0]) / np.exp([1.0, 0.0, -1.0, 2.0]).sum()
    # Five standard deviations of a share of 200,000 draws are below 0.0056.
    np.testing.assert_allclose(came.numpy(), wanted, atol=0.0056)


def test_straight_through_gives_one_code_and_the_gradients_of_the_mixture():
    logits, noise = (torch.from_numpy(part) for part in draws(2, 6, 3))
    weight = torch.from_numpy(np.random.default_rng(1).normal(size=(2, 6, 3)))
    gradients, given = [], []
    for hard in (False, True):
        asked = logits.clone().requires_grad_()
        codes = gumbel_softmax(asked, noise, 0.7, hard)
        (codes * weight).sum().backward()
        gradients.append(asked.grad)
        given.append(codes.detach())
    torch.testing.assert_close(gradients[0], gradients[1])
    assert gradients[0].abs().max() > 0.01
    assert set(given[1].round(decimals=12).unique().tolist()) == {0.0, 1.0}
    assert torch.equal(given[1].argmax(dim=1), given[0].argmax(dim=1))


def test_distance_from_using_all_codes_alike():
    logits, _ = draws(3, 7, 2)
    shares = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    wanted = (shares * np.log(shares * 7)).sum(axis=1)
    np.testing.assert_allclose(kl_to_uniform(torch.from_numpy(logits)).numpy(), wanted, rtol=1e-12)
    assert kl_to_uniform(torch.zeros(1, 9, 1)).item() == pytest.approx(0, abs=1e-6)
    one = torch.full((1, 9, 1), -1e4)
    one[:, 3] = 1e4
    assert kl_to_uniform(one).item() == pytest.approx(math.log(9))


def test_imbalance_is_of_the_batch_and_not_of_a_cell():
    mixture = np.random.default_rng(0).dirichlet([0.3] * 5, (4, 2, 3)).transpose(0, 3, 1, 2)
    shares = mixture.mean(axis=(0, 2, 3))
    wanted = (shares * np.log(shares * 5)).sum()
    assert imbalance(torch.from_numpy(mixture)).item() == pytest.approx(wanted, rel=1e-12)
    # Each cell is decided, and all codes come alike.
    decided = torch.eye(4, requires_grad=True).reshape(1, 4, 2, 2)
    assert imbalance(decided).item() == pytest.approx(0, abs=1e-6)
    one = torch.zeros(1, 4, 2, 2, requires_grad=True)
    alone = one + torch.eye(4)[0].reshape(1, 4, 1, 1)
    imbalance(alone).backward()
    assert imbalance(alone).item() == pytest.approx(math.log(4), abs=1e-5)
    assert torch.isfinite(one.grad).all()


@pytest.mark.parametrize(
    ("counts", "used", "perplexity"),
    [
        ([5, 5, 5, 5], 1.0, 4.0),
        ([9, 0, 0, 0], 0.25, 1.0),
        ([0, 0, 0, 0], 0.0, 1.0),
        ([1, 3, 0, 0], 0.5, math.exp(0.25 * math.log(4) + 0.75 * math.log(4 / 3))),
    ],
)
def test_how_a_codebook_is_used(counts, used, perplexity):
    assert codebook_usage(torch.tensor(counts)) == pytest.approx((used, perplexity))
