"""Where pytorch-ood 0.4.0 has the paper's definition, mood gives its numbers; docs/guide/scores.md has the rest."""

import warnings

import numpy as np
import pytest
import torch

from mood import scores
from mood.core.features import Features
from mood.core.transform import Transform
from mood.models import Embedder, own_model
from mood.scores import _sampling, _temperature

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


@pytest.mark.parametrize("temperature", [1.0, 5.0])
@pytest.mark.parametrize(("name", "peer"), [("energy", peers.EnergyBased), ("msp", peers.MaxSoftmax)])
def test_with_a_temperature(world, name, peer, temperature):
    expected = peer(None, t=temperature).predict_logits(torch.from_numpy(world.query_logits).float())
    same(scores.fit(name, world.fit, temperature=temperature)(world.test), expected)


@pytest.mark.parametrize(("name", "peer"), [("max_logit", peers.MaxLogit), ("entropy", peers.Entropy)])
def test_of_logits_alone(world, name, peer):
    """The peer's entropy raises probabilities to 1e-7 first."""
    expected = peer(None).predict_logits(torch.from_numpy(world.query_logits).float())
    same(scores.fit(name, world.fit)(world.test), expected)


@pytest.mark.parametrize("temperature", [1.0, 3.0])
def test_gradnorm(world, temperature):
    *_, queries, linear = tensors(world)
    peer = peers.GradNorm(linear, param_filter=lambda name: name == "weight", temperature=temperature)
    same(scores.fit("gradnorm", world.fit, temperature=temperature)(world.test), peer.predict(queries))


def test_the_temperature_is_at_least_as_likely(world):
    """The peer stops after 50 small steps; on the same held-out rows ours is never less likely, wherever that was."""
    apart = _sampling.held_out(world.fit.ids)
    logits, labels = torch.from_numpy(world.logits)[apart], torch.from_numpy(world.labels)[apart]
    peer = peers.TemperatureScaling(None).fit_logits(logits.float(), labels)
    found = scores.fit("msp", world.fit, temperature="fitted").options["temperature"]
    assert _temperature.nll(logits, labels, found) <= _temperature.nll(logits, labels, float(peer.t.detach())) + 1e-9


def test_openmax(world):
    """The peer fits on the images that it is given, takes w·Euclidean + (1 − w)·cosine, and looks at its batch."""
    right = world.logits.argmax(1) == world.labels
    assert set(world.query_logits.argmax(1)) == {0, 1, 2, 3}
    peer = peers.OpenMax(None, tailsize=20, euclid_weight=1 / 201)
    peer.fit_logits(torch.from_numpy(world.logits[right]), torch.from_numpy(world.labels[right]))
    found = scores.fit("openmax", world.fit)(world.test)
    # Weibull's parameters come from a search there; the distances are 200/201 of ours, beside a shift of 10 000.
    same(found, peer.predict_logits(torch.from_numpy(world.query_logits)), rtol=1e-2)


def test_gram(world):
    """One layer, and classes so small that the peer holds none out: its scale stays 1, and ours is divided out."""
    rng = np.random.default_rng(0)
    tokens, query_tokens = rng.normal(size=(40, 6, 5)), 1.5 * rng.normal(size=(30, 6, 5))
    logits, query_logits = rng.normal(size=(40, 6)), rng.normal(size=(30, 6))
    logits[np.arange(40), np.arange(40) % 6] += 9
    fit_rows = Features(np.zeros((40, 1)), logits=logits, tokens=[tokens])
    kept = ~_sampling.held_out(fit_rows.ids, seed=0, fraction=0.1)
    assert 0 < kept.sum() < 40
    maps = [torch.from_numpy(part).float().transpose(1, 2) for part in (tokens, query_tokens)]
    peer = peers.Gram(lambda _: torch.zeros(len(_), 6), [torch.nn.Identity()], 6, num_poles_list=list(range(1, 11)))
    peer.fit([(maps[0][kept], torch.from_numpy(logits[kept.numpy()]).argmax(1))])
    expected = peer.predict_structured(torch.from_numpy(query_logits), [maps[1]])
    score = scores.fit("gram", fit_rows)
    queries = Features(np.zeros((30, 1)), logits=query_logits, tokens=[query_tokens])
    sure = torch.from_numpy(query_logits).softmax(1).amax(1)
    same(score(queries) * score.scale * sure, expected, rtol=1e-3)


def test_lee_mahalanobis_where_nothing_moves(world):
    """The peer moves no image, leaves out the 1/N of its covariances and halves the distances."""
    rows, labels, queries, _ = tensors(world)
    cut = [rows[:, :4], rows], [queries[:, :4], queries]
    peer = peers.MultiMahalanobis([torch.nn.Identity()] * 2).fit_structured(list(cut[0]), labels)
    # Its score takes the pixels of a map, of which there is one here.
    expected = peer.predict_structured([part[:, :, None, None] for part in cut[1]])
    fit_rows = Features(world.rows, labels=world.labels, layers=[world.rows[:, :4], world.rows])
    found = scores.fit("lee_mahalanobis", fit_rows, epsilon=0.0)(
        Features(world.queries, layers=[world.queries[:, :4], world.queries])
    )
    same(found, expected * 2 * len(rows))


def test_odin():
    """Images moved by both, through one network; the peer is told the input's spread, so that ε means the same."""
    torch.manual_seed(0)
    module = torch.nn.Sequential(
        torch.nn.Conv2d(3, 6, 3),
        torch.nn.Tanh(),
        torch.nn.AdaptiveAvgPool2d(1),
        torch.nn.Flatten(),
        torch.nn.Linear(6, 4),
    )
    transform = Transform(size=(8, 8), resize=8, mean=(0.4, 0.5, 0.6), std=(0.2, 0.3, 0.4))
    embedder = Embedder(own_model(module, transform, head="4"), device="cpu", precision="fp32")
    pixels = np.random.default_rng(0).integers(0, 256, (12, 8, 8, 3), dtype=np.uint8)
    score = scores.fit("odin", Features(np.zeros((1, 1)), logits=np.zeros((1, 4))), temperature=10.0, epsilon=0.01)
    (moved,) = embedder.look_moved(pixels, score.objectives, score.epsilon)
    found = score(Features(moved.embedding, logits=moved.logits))
    peer = peers.ODIN(module.eval(), eps=0.01, temperature=10.0, norm_std=list(transform.std))
    same(found, peer.predict(torch.from_numpy(transform.normalise(pixels))), rtol=1e-5)


COMPARED = {
    "ASH", "DICE", "EnergyBased", "Entropy", "GEN", "GradNorm", "Gram", "KLMatching", "KNN", "Mahalanobis", "MaxLogit",
    "MaxSoftmax", "MultiMahalanobis", "NCI", "NNGuide", "ODIN", "OpenMax", "RMD", "ReAct", "SCALE", "SHE",
    "TemperatureScaling", "ViM", "fDBD",
}  # fmt: skip
OTHERS = {
    "GMM": "one Gaussian a class, by labels, where `gmm` is a mixture without labels",
    "MahalanobisODIN": "one layer, moved; `lee_mahalanobis` moves all of them",
    "GradUncertainty": "not in mood",
    "LTS": "not in mood",
    "MCD": "not in mood",
    "MCM": "not in mood",
    "NACUE": "not in mood",
    "PNML": "not in mood",
    "RankFeat": "not in mood",
    "VRA": "not in mood",
    "WeightedEBO": "not in mood",
}


def test_every_detector_of_the_peer_is_accounted_for():
    assert {name for name in dir(peers) if name[0].isupper()} | {"fDBD"} == COMPARED | set(OTHERS)
