"""The controls: six numbers against an independent Mahalanobis, and the same network with other weights."""

import numpy as np
import pytest
import torch
from PIL import Image

from mood import scores
from mood.core.errors import ModelError
from mood.core.features import Features
from mood.core.transform import Transform
from mood.data import held_out, open_source
from mood.models import Embedder, open_model
from mood.recipes.controls import RANDOM_WEIGHTS, SIX_NUMBERS, Control
from mood.recipes.fit import FitConfig, fit, fitted_source


@pytest.fixture(scope="module")
def known(stripes):
    return stripes(200)


@pytest.fixture(scope="module")
def detector(known, tiny_network):
    config = FitConfig(
        data="stripes",
        model=str(tiny_network),
        held_out=0.3,
        alpha=0.1,
        score="mahalanobis",
        precision="fp32",
        options=("shrinkage=0.1",),
        workers=0,
    )
    return fit(config, data=known).detector


def six(source, transform):
    """(N, 6) float64 by the definition: mean and standard deviation of each channel of the normalised image."""
    rows = []
    for position in range(len(source)):
        image = Image.fromarray(source.read(position)).resize(transform.size[::-1], Image.Resampling.BICUBIC)
        values = (np.asarray(image, np.float64) / 255 - np.array(transform.mean)) / np.array(transform.std)
        rows.append(np.concatenate((values.mean((0, 1)), values.std((0, 1)))))
    return np.array(rows)


def test_six_numbers_are_a_mahalanobis_distance_on_channel_means_and_deviations(detector, known, stripes):
    fitted_on = known.select(~held_out(known.manifest.hashes, fraction=0.3))
    control = Control(SIX_NUMBERS, detector, fitted_on, batch_size=64, workers=0)
    transform = detector.embedder.model.transform
    fitted, new = six(fitted_on, transform), six(stripes(30, seed=3), transform)
    centred = fitted - fitted.mean(0)
    inverse = np.linalg.inv(centred.T @ centred / len(fitted))
    expected = np.einsum("nd,de,ne->n", new - fitted.mean(0), inverse, new - fitted.mean(0))
    found = control(stripes(30, seed=3))
    assert found.dtype == np.float64
    # The six numbers themselves are float32, and their covariance is nearly singular.
    np.testing.assert_allclose(found, expected, rtol=1e-3)


def test_random_weights_are_the_same_architecture_with_other_weights(detector, known, stripes):
    control = Control(RANDOM_WEIGHTS, detector, known, batch_size=64, workers=0, seed=11)
    own, other = detector.embedder, control.embedder
    assert other.model.architecture == own.model.architecture
    assert other.model.fingerprint() != own.model.fingerprint()
    assert (other.pool, other.layer, other.precision, other.device) == (own.pool, own.layer, own.precision, own.device)
    assert Control(RANDOM_WEIGHTS, detector, known, batch_size=64, workers=0, seed=12).embedder.model.fingerprint() != (
        other.model.fingerprint()
    )
    embedder = Embedder(
        open_model("mood_vit_patch4_32", options=dict(own.model.architecture.options), random_weights=True, seed=11),
        device="cpu",
        precision="fp32",
    )

    def features(source):
        pixels = np.stack([embedder.model.transform.pixels(source.read(index)) for index in range(len(source))])
        embedding, logits = embedder(pixels)
        return Features(embedding, logits=logits, labels=source.manifest.labels)

    score = scores.fit("mahalanobis", features(known), shrinkage=0.1)
    np.testing.assert_allclose(control(stripes(20, seed=4)), score(features(stripes(20, seed=4))).numpy(), rtol=1e-4)


def test_both_are_fitted_on_the_images_of_the_detector(tiny_network, tmp_path, stripes_folder):
    data = stripes_folder(tmp_path / "data", 120)
    (data / "class 0" / "broken.png").write_bytes(b"no image")
    detector = fit(
        FitConfig(data=str(data), model=str(tiny_network), held_out=0.3, alpha=0.1, score="mahalanobis", workers=0)
    ).detector
    found = fitted_source(detector)
    source = open_source(str(data))
    assert (
        found.manifest.fingerprint
        == source.select(~held_out(source.manifest.hashes, fraction=0.3)).manifest.fingerprint
    )
    readable = len(found) - ("class 0/broken.png" in found.manifest.ids)
    assert readable == detector.card["fit_images"]
    for name in (SIX_NUMBERS, RANDOM_WEIGHTS):
        control = Control(name, detector, found, batch_size=64, workers=0)
        assert np.isfinite(control(found)).all()
        assert len(control(found)) == readable


def test_other_calibration_images_leave_all_of_data_to_the_fit(tiny_network, tmp_path, stripes_folder):
    data, apart = stripes_folder(tmp_path / "data", 60), stripes_folder(tmp_path / "apart", 40, seed=8)
    detector = fit(
        FitConfig(data=str(data), calibration=str(apart), model=str(tiny_network), alpha=0.1, workers=0)
    ).detector
    assert len(fitted_source(detector)) == 60 == detector.card["fit_images"]
    assert len(detector.calibration) == 40


def test_a_detector_without_a_network_of_timms_has_fewer_controls(stripes, tmp_path):
    draws = np.random.default_rng(0)
    np.savez(tmp_path / "f.npz", embedding=draws.normal(size=(400, 8)), labels=draws.integers(0, 3, 400))
    on_features = fit(FitConfig(data=str(tmp_path / "f.npz"), score="mahalanobis", held_out=0.2)).detector
    with pytest.raises(ModelError, match="has no images to hold controls beside"):
        Control(SIX_NUMBERS, on_features, stripes(10), batch_size=8, workers=0)

    import mood

    module = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3 * 64, 12))
    transform = Transform(size=(8, 8), resize=8)
    own = mood.fit(stripes(200), model=module, transform=transform, score="knn", alpha=0.1, held_out=0.3, workers=0)
    with pytest.raises(ModelError, match="no random twin"):
        Control(RANDOM_WEIGHTS, own, stripes(100), batch_size=8, workers=0)

    from mood.recipes.evaluate import examine

    sets = {"other": stripes(20, classes=5, seed=1)}
    evaluation = examine(own, stripes(20, seed=2), sets, fitted_on=stripes(200), replicates=10)
    assert set(evaluation.report.ood[0].controls) == {SIX_NUMBERS}
