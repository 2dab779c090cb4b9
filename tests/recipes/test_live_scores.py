"""Scores that want more of the network than one stored pass: inner layers, tokens, moved images, the decoder."""

from dataclasses import replace

import numpy as np
import pytest
import torch

import mood
from mood.core.errors import InputError, ModelError
from mood.core.features import Features
from mood.data import batches, held_out
from mood.detector import LiveFeatures, View, seen_by
from mood.models import Beside, Embedder, Views, load_model, make_pretext, open_model, save_model
from mood.recipes.controls import Control
from mood.recipes.evaluate import examine
from mood.recipes.extract import extract_features
from mood.recipes.fit import FitConfig, fit

LIVE = ["gram", "lee_mahalanobis", "odin"]


def config(network, score, *options, **changes):
    settings = {
        "data": "clothing",
        "limit": 200,
        "model": str(network),
        "alpha": 0.1,
        "workers": 0,
        "precision": "fp32",
    }
    return FitConfig(**{**settings, "score": score, "options": options, **changes})


@pytest.fixture(scope="module")
def pretrained(tmp_path_factory, network):
    """`pretrained(pretext)`: the same network without its classifier, with a decoder beside it."""

    def make(name):
        folder = tmp_path_factory.mktemp("networks") / "pretrained"
        model = load_model(network)
        options = {**model.architecture.options, "num_classes": 0}
        architecture = replace(model.architecture, options=options)
        settings = {"decoder_width": 16, "decoder_heads": 2} if name == "mae" else {}
        torch.manual_seed(0)
        pretext = make_pretext(name, architecture.build(), settings)
        own = {key: value for key, value in pretext.state_dict().items() if not key.startswith("encoder.")}
        save_model(
            folder,
            replace(model, module=pretext.release(), architecture=architecture, beside=Beside(name, settings, own)),
        )
        return folder

    return make


def pixels_of(source, embedder):
    return next(iter(batches(source, embedder.model.transform, batch_size=len(source), workers=0)))


@pytest.mark.parametrize("score", LIVE)
def test_calibration_images_go_through_the_network_as_new_ones_do(score, network, clothes, tmp_path):
    detector = fit(config(network, score)).detector
    assert detector.view.live
    cut = held_out(clothes.manifest.hashes)
    again = detector(clothes.select(cut))["score"].to_numpy()
    np.testing.assert_allclose(np.sort(again), detector.calibration.scores, rtol=1e-6)
    detector.save(tmp_path / "d")
    assert mood.load(tmp_path / "d").fingerprint() == detector.fingerprint()
    with pytest.raises(InputError, match=f"{score} looks at the images themselves"):
        detector(Features(np.zeros((2, 32))))


def test_odin_moves_each_pixel_by_epsilon_against_the_gradient(network, clothes):
    detector = fit(config(network, "odin", "epsilon=0.01", "temperature=10")).detector
    few = clothes.select(range(6))
    batch = pixels_of(few, detector.embedder)
    model = detector.embedder.model
    images = torch.from_numpy(model.transform.normalise(batch.pixels)).requires_grad_()
    log_p = (model.module(images) / 10).log_softmax(1).amax(1)
    (gradient,) = torch.autograd.grad(log_p.sum(), images)
    std = torch.tensor(model.transform.std)[:, None, None]
    with torch.no_grad():
        moved = model.module(images - 0.01 / std * (-gradient).sign())
    expected = -(moved / 10).softmax(1).amax(1)
    np.testing.assert_allclose(detector(few)["score"].to_numpy(), expected.numpy(), rtol=1e-5)


def test_lee_moves_the_image_for_each_layer(network, clothes):
    detector = fit(config(network, "lee_mahalanobis", "epsilon=0.01", "shrinkage=oas")).detector
    assert detector.embedder.inner == (0, 1)
    few = clothes.select(range(4))
    batch = pixels_of(few, detector.embedder)
    model, score = detector.embedder.model, detector.score
    std = torch.tensor(model.transform.std)[:, None, None]

    def distance(images, index):
        _, maps = model.module.forward_intermediates(images, indices=[0, 1], output_fmt="NLC")
        origin, whitener, means = (part.float() for part in score._layer(index))
        whitened = (maps[index].mean(1) - origin) @ whitener
        return (whitened[:, None] - means).square().sum(2).amin(1)

    expected = 0
    for index in range(2):
        images = torch.from_numpy(model.transform.normalise(batch.pixels)).requires_grad_()
        (gradient,) = torch.autograd.grad(distance(images, index).sum(), images)
        with torch.no_grad():
            expected = expected + distance(images - 0.01 / std * gradient.sign(), index)
    np.testing.assert_allclose(detector(few)["score"].to_numpy(), expected.numpy(), rtol=1e-2)


def test_without_a_step_features_from_the_cache_are_enough(network, clothes):
    detector = fit(config(network, "odin", "epsilon=0")).detector
    assert not detector.view.live
    assert detector(clothes.select(range(5)))["score"].to_numpy().max() < 0


def test_tokens_are_those_of_the_blocks(network, clothes):
    embedder = Embedder(load_model(network), device="cpu", precision="fp32", inner="1")
    batch = pixels_of(clothes.select(range(3)), embedder)
    seen = embedder.look(batch.pixels, tokens=True)
    images = torch.from_numpy(embedder.model.transform.normalise(batch.pixels))
    with torch.no_grad():
        (tokens,) = embedder.model.module.forward_intermediates(
            images, indices=[1], output_fmt="NLC", intermediates_only=True
        )
    torch.testing.assert_close(seen.tokens[0], tokens)
    torch.testing.assert_close(seen.layers[0], tokens.mean(1))
    assert embedder.look(batch.pixels).tokens == ()


@pytest.mark.parametrize("score", LIVE)
def test_evaluation_and_its_controls_look_live_as_well(score, network, clothes, stripes):
    detector = fit(config(network, score)).detector
    known, other = stripes(30), clothes.select(range(30, 60))
    found = examine(detector, known, {"other": other}, fitted_on=clothes.select(range(60, 200)), replicates=10)
    assert found.tables["id"].equals(detector(known, batch_size=64))
    assert set(found.report.ood[0].controls) == {"six numbers", "random weights"}


@pytest.mark.parametrize(
    ("pretext", "changes", "numbers"),
    [
        ("mae", {}, range(8)),
        ("mae", {"masks": 3, "mask_seed": 2}, range(6, 9)),
        ("simmim", {"masks": 2}, range(2)),
    ],
)
def test_the_reconstruction_error_is_that_of_the_decoder(
    pretext, changes, numbers, pretrained, clothes, stripes, tmp_path
):
    detector = fit(config(pretrained(pretext), "mim_reconstruction", **changes)).detector
    assert not detector.view.live
    few = clothes.select(range(5))
    embedder = detector.embedder
    decoder = embedder.decoder
    images = torch.from_numpy(embedder.model.transform.normalise(pixels_of(few, embedder).pixels))
    expected = torch.zeros(5)
    with torch.no_grad():
        for index in range(5):
            for number in numbers:
                draws = torch.rand(1, decoder.draws, generator=torch.Generator().manual_seed(number))
                loss, _ = decoder(Views((images[index : index + 1],), draws, mask=decoder.hide(draws)))
                expected[index] += loss / len(numbers)
    np.testing.assert_allclose(detector(few)["score"].to_numpy(), expected.numpy(), rtol=1e-5)
    detector.save(tmp_path / "d")
    again = mood.load(tmp_path / "d")
    assert again(few).equals(detector(few))
    assert again.fingerprint() == detector.fingerprint()
    others = clothes.select(range(5, 10))
    examined = examine(
        detector, stripes(5), {"others": others}, fitted_on=clothes.select(range(60, 120)), replicates=10
    )
    assert "random weights" in examined.report.ood[0].controls
    control = Control("random weights", detector, few, batch_size=8, workers=0).embedder
    assert (control.masks, control.mask_seed) == (embedder.masks, embedder.mask_seed)


def test_other_masks_are_other_detectors_and_other_features(pretrained, clothes):
    folder, few = pretrained("mae"), clothes.select(range(5))
    changes = ({}, {"mask_seed": 1}, {"masks": 4})
    detectors = [fit(config(folder, "mim_reconstruction", **change)).detector for change in changes]
    assert len({detector.fingerprint() for detector in detectors}) == 3
    for detector in detectors:
        (found,) = extract_features(few, detector.embedder).store
        np.testing.assert_allclose(found.reconstruction.numpy(), detector(few)["score"].to_numpy(), rtol=1e-5)


def test_a_network_without_a_decoder_is_refused(network):
    with pytest.raises(ModelError, match="no decoder of pixels beside it"):
        fit(config(network, "mim_reconstruction"))


def test_inner_layers_that_are_not_there_are_refused(network):
    with pytest.raises(InputError, match="inner must be 'auto' or block numbers from 0 to 1"):
        fit(config(network, "gram", inner="2"))
    with pytest.raises(InputError, match="networks of timm that are a sequence of blocks"):
        Embedder(open_model("resnet18", random_weights=True), inner="auto")


def test_live_features_come_again_at_each_iteration(network, clothes):
    embedder = Embedder(load_model(network), device="cpu", precision="fp32", inner="auto")
    live = View(embedder, "gram").of(clothes.select(range(20)), batch_size=8, workers=0)
    assert isinstance(live, LiveFeatures)
    first, second = list(live), list(live)
    assert [len(part) for part in first] == [8, 8, 4]
    assert all(torch.equal(one.tokens[0], other.tokens[0]) for one, other in zip(first, second, strict=True))


def test_a_network_that_passes_no_gradient_is_refused(network, clothes):
    embedder = Embedder(load_model(network), device="cpu", precision="fp32")
    batch = pixels_of(clothes.select(range(2)), embedder)
    with pytest.raises(ModelError, match="passes no gradient to its input"):
        embedder.look_moved(batch.pixels, lambda columns: [columns["logits"].detach().sum(1)], 0.01)


def test_scores_that_look_at_the_same_images_share_passes_and_see_what_each_would_alone(network, clothes, monkeypatch):
    embedder = Embedder(load_model(network), precision="fp32", inner="auto", device="cpu")
    rows = View(embedder, "gram").of(clothes, batch_size=64, workers=0)
    views = [View(embedder, name, mood.scores.fit(name, rows)) for name in LIVE]
    batch = pixels_of(clothes.select(range(12)), embedder)
    alone = [view.score(view(batch.ids, batch.pixels)) for view in views]
    passes = []
    look, moved = Embedder.look, Embedder.look_moved
    monkeypatch.setattr(Embedder, "look", lambda self, *a, **k: passes.append("look") or look(self, *a, **k))
    monkeypatch.setattr(Embedder, "look_moved", lambda self, *a, **k: passes.append("moved") or moved(self, *a, **k))
    together = [
        view.score(features) for view, features in zip(views, seen_by(views, batch.ids, batch.pixels), strict=True)
    ]
    for one, other in zip(alone, together, strict=True):
        torch.testing.assert_close(other, one, rtol=1e-5, atol=1e-6)
    assert sorted(passes) == ["look", "moved"], "ODIN and Lee move by the same step: one gradient pass for both"
