"""Distances in several layers against the score of one layer, and the objective against differences."""

import numpy as np
import pytest
import torch

from mood import scores
from mood.core.errors import InputError
from mood.core.features import Features
from mood.scores import Moving


def made(rows: int = 150, seed: int = 0) -> Features:
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 3, rows)
    layers = [
        rng.normal(size=(3, width))[labels] + rng.normal(size=(rows, width)) * np.linspace(0.3, 2, width)
        for width in (4, 6)
    ]
    return Features(layers[-1], labels=labels, layers=layers)


def reference(fit, queries, weights=(1, 1)):
    """Class by class, layer by layer."""
    total, labels = 0, fit.labels.numpy()
    for weight, own, rows in zip(weights, fit.layers, queries.layers, strict=True):
        own, rows = own.numpy(), rows.numpy()
        means = [own[labels == label].mean(0) for label in range(3)]
        inside = np.concatenate([own[labels == label] - means[label] for label in range(3)])
        precision = np.linalg.inv(inside.T @ inside / len(own))
        far = [np.einsum("nd,de,ne->n", rows - mean, precision, rows - mean) for mean in means]
        total = total + weight * np.min(far, axis=0)
    return total


def test_formula():
    fit, queries = made(), made(30, seed=1)
    score = scores.fit("lee_mahalanobis", fit)
    np.testing.assert_allclose(score(queries).numpy(), reference(fit, queries), rtol=1e-9)


@pytest.mark.parametrize("weights", [[1, 1], (0.25, 3), [2, 0]])
def test_layers_weigh_as_told(weights):
    fit, queries = made(), made(30, seed=1)
    score = scores.fit("lee_mahalanobis", fit, weights=weights)
    np.testing.assert_allclose(score(queries).numpy(), reference(fit, queries, weights), rtol=1e-9)


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ([1.0], "there are 1 weights and 2 layers; give one for each layer"),
        ([1, 2, 3], "there are 3 weights and 2 layers"),
        ([1, -0.5], r"weights is \[1, -0.5\]; one number from 0 on for each layer"),
        ([1, float("nan")], "weights is .*; one number from 0 on"),
        ([1, float("inf")], "weights is .*; one number from 0 on"),
        ([1, True], "weights is .*; one number from 0 on"),
        ([1, "2"], "weights is .*; one number from 0 on"),
        ([0, 0], "not all of them 0"),
        ([], r"weights is \[\]; one number"),
        ("12", "weights is '12'; list or tuple or NoneType was expected"),
    ],
)
def test_weights_that_are_none_are_refused(weights, message):
    with pytest.raises(InputError, match=message):
        scores.fit("lee_mahalanobis", made(), weights=weights)


def test_each_layer_has_its_objective_and_its_moved_image():
    fit, queries = made(), made(5, seed=1)
    score = scores.fit("lee_mahalanobis", fit, epsilon=0.01)
    assert isinstance(score, Moving)
    layers = {f"layers.{index}": layer.clone().requires_grad_() for index, layer in enumerate(queries.layers)}
    objectives = score.objectives(layers)
    assert len(objectives) == 2
    np.testing.assert_allclose(sum(o.detach() for o in objectives).numpy(), score(queries).numpy(), rtol=1e-9)
    (gradient,) = torch.autograd.grad(objectives[1].sum(), layers["layers.1"])
    step = 1e-6 * torch.eye(6, dtype=torch.float64)[2]
    moved = Features(queries.embedding, layers=[queries.layers[0], queries.layers[1] + step])
    np.testing.assert_allclose((score(moved) - score(queries)).numpy() / 1e-6, gradient[:, 2].numpy(), rtol=1e-4)
    gathered = score.of_moved([made(5, seed=2), made(5, seed=3)])
    assert torch.equal(gathered.layers[0], made(5, seed=2).layers[0])
    assert torch.equal(gathered.layers[1], made(5, seed=3).layers[1])


@pytest.mark.parametrize(
    ("options", "message"), [({"epsilon": -1.0}, "epsilon is -1.0"), ({"shrinkage": "ledoit-wolf"}, "none, oas or")]
)
def test_what_is_out_of_range_is_refused(options, message):
    with pytest.raises(InputError, match=message):
        scores.fit("lee_mahalanobis", made(), **options)


def test_another_number_of_layers_is_refused():
    fit = made()
    fewer = Features(fit.embedding, labels=fit.labels, layers=fit.layers[:1])
    with pytest.raises(InputError, match="there are 1 layers; 2 were expected"):
        scores.fit("lee_mahalanobis", fit)(fewer)
    with pytest.raises(InputError, match="there are 1 layers in one shard and 2 before it"):
        scores.fit("lee_mahalanobis", [fit, fewer])
