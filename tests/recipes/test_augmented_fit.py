"""The parity option: a score fitted on augmented views, as the official code does, and calibrated on clean ones."""

import numpy as np
import pytest
import torch

from mood import scores
from mood.core.errors import InputError
from mood.core.features import Features
from mood.data import Augment, TrainingImages, augmented, held_out
from mood.models import Embedder, open_model
from mood.recipes.fit import FitConfig, fit


def settings(network, **changes):
    return FitConfig(
        **{
            "data": "clothing", "limit": 200, "model": str(network), "alpha": 0.1, "workers": 0,
            "fit_on": "augmented", "precision": "fp32", **changes,
        }
    )  # fmt: skip


def views_of(source, transform, seed):
    return TrainingImages(
        source, (Augment.finetune(),), size=transform.size, mean=transform.mean, std=transform.std, seed=seed
    )


def test_it_augments_as_the_official_code_does():
    official = Augment.finetune()
    assert official == Augment(
        scale=(0.08, 1.0), ratio=(3 / 4, 4 / 3), flip=0.5, rand_augment="rand-m9-mstd0.5-inc1", erase=0.25
    )


def test_the_gaussian_is_that_of_one_view_of_each_image_and_calibration_is_clean(network, clothes):
    detector = fit(settings(network), data=clothes).detector
    cut = held_out(clothes.manifest.hashes, seed=0)
    kept, embedder = clothes.select(~cut), Embedder(open_model(str(network)), precision="fp32")
    transform = embedder.model.transform
    draws = views_of(kept, transform, 0)
    with torch.inference_mode():
        views = torch.stack([draws.draw(0, position)[0] for position in range(len(kept))])
        h = embedder.module.forward_head(embedder.module.forward_features(views), pre_logits=True).double()
    h = h / (h.norm(dim=1, keepdim=True) + 1e-10)
    centred = h - h.mean(0)
    covariance = centred.T @ centred / len(h)
    clean = Features.concat(list(fit_features(clothes.select(cut), embedder)))
    at = clean.embedding.double()
    at = at / (at.norm(dim=1, keepdim=True) + 1e-10) - h.mean(0)
    expected = (at @ torch.linalg.pinv(covariance) * at).sum(1)
    got = torch.from_numpy(np.asarray(detector.calibration.scores))
    torch.testing.assert_close(got, expected.sort().values, rtol=2e-3, atol=1e-3)
    assert detector.card["fit_images"] == len(kept)


def fit_features(source, embedder):
    from mood.recipes.extract import extract_features

    return extract_features(source, embedder).store


def test_the_seed_decides_it_and_the_workers_do_not(network, clothes):
    first = fit(settings(network), data=clothes).detector.fingerprint()
    assert fit(settings(network), data=clothes).detector.fingerprint() == first
    assert fit(settings(network, fit_on="clean"), data=clothes).detector.fingerprint() != first
    few = clothes.select(range(20))
    transform = open_model(str(network)).transform
    one, two = (
        torch.cat([b.views[0] for b in augmented(views_of(few, transform, 0), batch_size=8, workers=workers)])
        for workers in (0, 2)
    )
    assert torch.equal(one, two)
    assert torch.equal(one[5], views_of(few, transform, 0).draw(0, 5)[0])
    other = torch.cat([b.views[0] for b in augmented(views_of(few, transform, 1), batch_size=8)])
    assert not torch.equal(one, other)
    tail = torch.cat([b.views[0] for b in augmented(views_of(few, transform, 0), batch_size=8, start=16, stop=18)])
    assert torch.equal(tail, one[16:18])


def test_images_that_cannot_be_read_are_counted_there_too(network, stripes_folder, tmp_path):
    folder = stripes_folder(tmp_path / "data", 60)
    (folder / "class 0" / "broken.png").write_bytes(b"no image")
    worn = fit(settings(network, data=str(folder), held_out=0.4, seed=1, limit=None))
    card = worn.detector.card
    assert card["rejected"] == 1
    assert card["fit_images"] + card["calibration_images"] == 60


def test_what_cannot_be_augmented_is_refused(network, tmp_path):
    np.savez(tmp_path / "f.npz", embedding=np.zeros((40, 4)))
    with pytest.raises(InputError, match="fit_on is augmented, and features are of images"):
        fit(settings(network, data=str(tmp_path / "f.npz")))
    with pytest.raises(InputError, match="gram looks at tokens.*set fit_on to clean"):
        fit(settings(network, score="gram"))
    with pytest.raises(InputError, match="fit_on"):
        settings(network, fit_on="agumented")


def test_every_other_score_of_features_can_be_fitted_so(network, clothes):
    for name in ("mahalanobis++", "energy", "knn"):
        assert "tokens" not in scores.info(name).needs
        assert fit(settings(network, score=name), data=clothes).detector.card["config"]["fit_on"] == "augmented"
