"""Where pytorch-ood 0.4.0 has the paper's definition, mood gives its numbers; docs/guide/scores.md has the rest."""

import warnings

import numpy as np
import pytest
import torch

from mood import scores
from mood.core.features import Features

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from pytorch_ood import detector as peers


def tensors(world):
    """Float32 as the peer computes: rows, labels, queries, and the head as a module."""
    linear = torch.nn.Linear(world.weight.shape[1], len(world.weight))
    with torch.no_grad():
        linear.weight.copy_(torch.from_numpy(world.weight))
        linear.bias.copy_(torch.from_numpy(world.bias))
    return (
        torch.from_numpy(world.rows).float(),
        torch.from_numpy(world.labels),
        torch.from_numpy(world.queries).float(),
        linear,
    )


def same(found, expected, rtol=1e-4):
    """The same order, and the same values to float32."""
    found, expected = found.numpy(), expected.detach().double().numpy()
    np.testing.assert_allclose(found, expected, rtol=rtol, atol=1e-5)
    # What float32 cannot tell apart it cannot put in order.
    apart = np.diff(expected[np.argsort(found)])
    assert apart.min() > -rtol * np.abs(expected).max()


def test_gen(world):
    """The peer takes the mean over the classes, and probabilities from 1e-7 to 1 − 1e-7 only."""
    logits = 0.3 * world.query_logits
    mean = peers.GEN(None, gamma=0.1).predict_logits(torch.from_numpy(logits).float())
    same(scores.fit("gen", world.fit)(Features(world.queries, logits=logits)), mean * 4)


def test_react(world):
    rows, labels, queries, linear = tensors(world)
    peer = peers.ReAct(torch.nn.Identity(), linear).fit_feature_maps(rows, labels)
    same(scores.fit("react", world.fit, head=world.head)(world.test), peer.predict_feature_maps(queries))


def test_dice(world):
    rows, labels, queries, linear = tensors(world)
    peer = peers.DICE(None, linear.weight, linear.bias, p=0.9).fit_features(rows, labels)
    same(scores.fit("dice", world.fit, head=world.head)(world.test), peer.predict_features(queries))


@pytest.mark.parametrize("variant", ["s", "b", "p"])
def test_ash(world, variant):
    *_, queries, linear = tensors(world)
    peer = peers.ASH(None, lambda maps: linear(maps.flatten(1)), variant=f"ash-{variant}", percentile=0.65)
    found = scores.fit(f"ash_{variant}", world.fit, head=world.head, percentile=0.65)(world.test)
    same(found, peer.predict_feature_maps(queries[:, :, None, None]), rtol=1e-3)


def test_scale(world):
    *_, queries, linear = tensors(world)
    peer = peers.SCALE(None, lambda maps: linear(maps.flatten(1)), percentile=0.85)
    found = scores.fit("scale", world.fit, head=world.head)(world.test)
    same(found, peer.predict_feature_maps(queries[:, :, None, None]), rtol=1e-3)


def test_she(world):
    rows, labels, queries, linear = tensors(world)
    peer = peers.SHE(None, linear).fit_features(rows, labels)
    same(scores.fit("she", world.fit)(world.test), peer.predict_features(queries))


def test_kl_matching(world):
    peer = peers.KLMatching(None).fit_logits(torch.from_numpy(world.logits).float())
    expected = peer.predict_logits(torch.from_numpy(world.query_logits).float())
    same(scores.fit("kl_matching", world.fit, held_out=1.0)(world.test), expected)


def test_nnguide(world):
    rows, labels, queries, linear = tensors(world)
    peer = peers.NNGuide(None, linear).fit_features(rows, labels)
    same(scores.fit("nnguide", world.fit, fraction=1.0)(world.test), peer.predict_features(queries))


def test_fdbd(world):
    rows, _, queries, linear = tensors(world)
    peer = peers.fDBD(None, linear).fit_features(rows)
    same(scores.fit("fdbd", world.fit, head=world.head)(world.test), peer.predict_features(queries))


@pytest.mark.parametrize("norm_weight", [0, 0.1])
def test_nci(world, norm_weight):
    rows, _, queries, linear = tensors(world)
    peer = peers.NCI(None, linear, alpha=norm_weight).fit_features(rows)
    found = scores.fit("nci", world.fit, head=world.head, norm_weight=norm_weight)(world.test)
    same(found, peer.predict_features(queries))


def test_knn(world):
    rows, labels, queries, _ = tensors(world)
    same(
        scores.fit("knn", world.fit)(world.test),
        peers.KNN(None, k=50).fit_features(rows, labels).predict_features(queries),
    )


def test_vim(world):
    rows, labels, queries, linear = tensors(world)
    peer = peers.ViM(None, 6, linear.weight, linear.bias).fit_features(rows, labels)
    same(scores.fit("vim", world.fit, head=world.head, dim=6)(world.test), peer.predict_features(queries))


def test_mahalanobis(world):
    """The peer leaves out the 1/N of the covariance and halves the distance."""
    rows, labels, queries, _ = tensors(world)
    peer = peers.Mahalanobis(None).fit_features(rows, labels)
    same(scores.fit("mahalanobis", world.fit)(world.test), peer.predict_features(queries) * 2 * len(rows))


def test_relative_mahalanobis(world):
    """The peer leaves out the 1/N of both covariances."""
    rows, labels, queries, _ = tensors(world)
    peer = peers.RMD(None).fit_features(rows, labels)
    same(
        scores.fit("relative_mahalanobis", world.fit)(world.test), peer.predict_features(queries) * len(rows), rtol=1e-3
    )
