"""A new promise for an old fit: every kind of calibration, from fit to disk to verdicts, and what is refused."""

import json
import math
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

import mood
from mood.cli import app
from mood.core.errors import InputError, OutputError, PromiseError
from mood.data import held_out, open_source
from mood.decisions import Conditional, Conformal, Cross, Mondrian
from mood.detector import predicted_classes
from mood.models import image_keys
from mood.recipes.calibrate import CalibrateConfig, calibrate
from mood.recipes.evaluate import examine
from mood.recipes.fit import FitConfig, fit
from mood.recipes.score import ScoreConfig, score


@pytest.fixture(scope="module")
def stage(tmp_path_factory):
    """Features of three classes with logits, on disk: to fit on, to calibrate on, to test on, and strange ones."""
    folder, rng = tmp_path_factory.mktemp("features"), np.random.default_rng(0)
    head = rng.normal(size=(3, 8))
    made = {}
    # Where no class lies.
    across = 9 * np.linalg.svd(head)[2][-1]
    for name, count in (("fit", 400), ("held", 300), ("test", 400), ("strange", 60)):
        labels = np.arange(count) % 3
        centre = across if name == "strange" else 2 * head[labels]
        rows = centre + rng.normal(size=(count, 8))
        made[name] = folder / f"{name}.npz"
        np.savez(made[name], embedding=rows, logits=rows @ head.T, labels=labels)
    return made


def fitted(stage, **changes):
    return fit(FitConfig(**{"data": str(stage["fit"]), "held_out": 0.4, "alpha": 0.1, **changes})).detector


def anew(detector, data, **changes):
    return calibrate(CalibrateConfig(detector="-", data=str(data), **changes), detector=detector).detector


KINDS = {
    "split": ({}, Conformal),
    "randomised": ({"ties": "randomised"}, Conformal),
    "conditional": ({"guarantee": "conditional", "confidence": 0.8, "bound": "monte-carlo"}, Conditional),
    "by-class": ({"conformal": "by-class"}, Mondrian),
    "cross": ({"conformal": "cross", "folds": 5}, Cross),
}


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_from_fit_to_disk_to_verdicts(stage, tmp_path, kind):
    settings, expected = KINDS[kind]
    detector = fitted(stage, output=tmp_path / "d", **settings)
    assert isinstance(detector.calibration, expected)
    loaded = mood.load(tmp_path / "d")
    assert loaded.fingerprint() == detector.fingerprint() != fitted(stage).fingerprint() or kind == "split"
    test, strange = mood.Features.load(stage["test"]), mood.Features.load(stage["strange"])
    table = loaded(test)
    assert table.equals(detector(test))
    assert table["is_ood"].to_pylist() == [p <= 0.1 for p in table["p_value"].to_pylist()]
    assert 0 < np.mean(table["is_ood"].to_pylist()) < 0.25
    assert np.mean(loaded(strange)["is_ood"].to_pylist()) > 0.9
    assert loaded.guarantee == detector.guarantee
    evaluation = examine(loaded, test, {"strange": strange}, replicates=20)
    assert evaluation.kept
    assert loaded.guarantee.sentence in evaluation.summary()
    assert evaluation.to_dict()["promised"] == loaded.guarantee.sentence
    low, high = evaluation.to_dict()["false_alarms_interval"]
    assert low < evaluation.false_alarms < high


def test_a_class_is_judged_among_its_own(stage):
    detector = fitted(stage, conformal="by-class")
    test = mood.Features.load(stage["test"])
    classes, table = predicted_classes(test), detector(test)
    for label in range(3):
        own = Conformal(detector.calibration.scores[detector.calibration.classes == label])
        rows = classes == label
        assert np.array_equal(table["p_value"].to_numpy()[rows], own.p_values(table["score"].to_numpy()[rows]))
    assert detector.threshold is None
    assert (
        "a p-value up to 0.1 is flagged: at most 10.0% of the known images of each"
        in fit(FitConfig(data=str(stage["fit"]), conformal="by-class", alpha=0.1, held_out=0.4)).summary()
    )


def test_cross_uses_every_row_for_both(stage):
    detector = fitted(stage, conformal="cross", folds=5)
    rows = mood.Features.load(stage["fit"])
    assert len(detector.calibration) == len(rows) == detector.card["fit_images"]
    assert len(detector.folds) == 5
    whole = mood.scores.fit("mood", rows)
    np.testing.assert_allclose(detector.score(rows).numpy(), whole(rows).numpy(), rtol=1e-7)
    assert detector.guarantee.rate > 0.2
    summary = fit(FitConfig(data=str(stage["fit"]), conformal="cross", folds=5, alpha=0.1)).summary()
    assert "calibrated on the same, fold by fold" in summary
    assert "proven, for any score, is at most" in summary


def test_cross_of_a_score_without_a_fit_is_exact(stage):
    detector = fitted(stage, conformal="cross", score="msp")
    assert isinstance(detector.calibration, Conformal)
    assert len(detector.calibration) == 400
    assert detector.guarantee.rate == 0.1


def test_cross_is_refused_for_a_network_that_was_trained_on_these_images(network, clothes):
    with pytest.raises(PromiseError, match="images were seen in the training of small: folds keep an image out of the"):
        fit(FitConfig(data="clothing", limit=200, model=str(network), conformal="cross", alpha=0.1, workers=0))


def test_cross_on_images_that_the_network_has_not_seen(network, clothes, tmp_path):
    new = clothes.select(held_out(clothes.manifest.hashes))
    detector = mood.fit(
        new, model=str(network), conformal="cross", folds=4, alpha=0.1, workers=0, options={"shrinkage": "oas"}
    )
    assert detector.promise.verified
    assert len(detector.calibration) == len(new) == len(detector.fitted_on)
    detector.save(tmp_path / "d")
    assert mood.load(tmp_path / "d")(new).equals(detector(new))


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ({"conformal": "cross", "folds": 1}, InputError, "'folds' is 1"),
        ({"conformal": "cross", "folds": 401}, InputError, "folds is 401"),
        ({"conformal": "cross", "guarantee": "conditional"}, InputError, "needs images that are held out"),
        ({"conformal": "by-class", "guarantee": "conditional"}, InputError, "for each class is not offered"),
        ({"guarantee": "conditional", "alpha": 0.01}, PromiseError, "0.01 needs at least 460 calibration images"),
        ({"guarantee": "conditional", "confidence": 1.5}, InputError, "'confidence' is 1.5"),
        ({"conformal": "cross", "alpha": 0.001}, PromiseError, "needs at least 999"),
        ({"alpha": 1.0}, InputError, "'alpha' is 1.0"),
    ],
)
def test_what_cannot_be_promised(stage, settings, error, message):
    with pytest.raises(error, match=message):
        fitted(stage, **settings)


def test_cross_takes_no_other_calibration(stage):
    with pytest.raises(InputError, match="every image calibrates: leave calibration out"):
        fitted(stage, conformal="cross", calibration=str(stage["held"]))


def test_by_class_wants_logits(tmp_path):
    np.savez(tmp_path / "f.npz", embedding=np.random.default_rng(0).normal(size=(300, 4)))
    with pytest.raises(InputError, match="'logits' is missing"):
        fit(FitConfig(data=str(tmp_path / "f.npz"), conformal="by-class", held_out=0.3))


def test_calibrated_anew_the_score_stays_and_the_promise_is_new(stage, tmp_path):
    old = fitted(stage, output=tmp_path / "old")
    made = mood.calibrate(tmp_path / "old", stage["held"], alpha=0.05, output=tmp_path / "new")
    test = mood.Features.load(stage["test"])
    assert made(test)["score"].equals(old(test)["score"])
    assert (len(made.calibration), made.alpha) == (300, 0.05)
    assert np.array_equal(made.calibration.scores, np.sort(old.score(mood.Features.load(stage["held"])).numpy()))
    assert mood.load(tmp_path / "new").fingerprint() == made.fingerprint()
    assert mood.load(tmp_path / "old").fingerprint() == old.fingerprint()
    assert made.card["calibration"]["data"] == "features"
    again = mood.calibrate(old, mood.Features.load(stage["held"]))
    assert (again.alpha, len(again.calibration)) == (0.1, 300)
    with pytest.raises(OutputError, match="overwrite"):
        mood.calibrate(tmp_path / "old", stage["held"], alpha=0.2, output=tmp_path / "new")
    assert mood.calibrate(tmp_path / "old", stage["held"], alpha=0.05, output=tmp_path / "new").alpha == 0.05


def test_every_kind_of_promise_for_an_old_fit(stage):
    old = fitted(stage, conformal="cross", folds=4)
    for kind in ("split", "randomised", "conditional", "by-class"):
        settings, expected = KINDS[kind]
        made = anew(old, stage["held"], **settings)
        assert isinstance(made.calibration, expected)
        assert made.folds == ()


def test_a_detector_knows_what_calibrated_it(stage, network, clothes, tmp_path):
    rows = mood.Features.load(stage["held"])
    made = mood.calibrate(fitted(stage), stage["held"], output=tmp_path / "d")
    keys = image_keys(rows.hashes()).unique()
    assert torch.equal(made.calibrated_on, keys)
    assert torch.equal(mood.load(tmp_path / "d").calibrated_on, keys)
    cross = fitted(stage, conformal="cross")
    assert torch.equal(cross.calibrated_on, cross.fitted_on)
    cut = held_out(clothes.manifest.hashes)
    on_images = mood.fit("clothing", limit=200, model=str(network), alpha=0.1)
    assert torch.equal(on_images.calibrated_on, image_keys(clothes.select(cut).manifest.hashes).unique())
    images = clothes.select(np.flatnonzero(cut)[:12])
    again = mood.calibrate(on_images, images, alpha=0.2)
    assert torch.equal(again.calibrated_on, image_keys(images.manifest.hashes).unique())
    assert mood.calibrate(on_images, mood.extract(images, model=str(network)), alpha=0.2).calibrated_on is None


def test_rows_that_the_score_was_fitted_on_are_refused(stage):
    with pytest.raises(PromiseError, match="calibration rows are among the .* that the score is fitted on"):
        anew(fitted(stage), stage["fit"])


def test_images_that_score_or_network_have_seen_are_refused(network, clothes, network_that_saw, tmp_path):
    cut = held_out(clothes.manifest.hashes)
    detector = fit(FitConfig(data="clothing", limit=200, model=str(network), alpha=0.1, workers=0)).detector
    with pytest.raises(PromiseError, match="images of clothing that the score is fitted on"):
        mood.calibrate(detector, clothes, workers=0)
    # Not in the fit, but in the training of the network.
    few = clothes.select(np.flatnonzero(~cut)[:50])
    other = fit(
        FitConfig(data="clothing", model=str(network), alpha=0.1, workers=0),
        data=few,
        calibration=clothes.select(cut),
    ).detector
    with pytest.raises(PromiseError, match="were seen in the training of small"):
        mood.calibrate(other, clothes.select(np.flatnonzero(~cut)[50:100]), workers=0)
    # What was held out may serve once more, with another promise.
    made = mood.calibrate(detector, clothes.select(cut), alpha=0.2, workers=0)
    assert made.promise.verified
    assert np.array_equal(made.calibration.scores, detector.calibration.scores)
    assert made.card["calibration"]["data"] == "clothing"
    with pytest.raises(PromiseError, match="does not say which images it was fitted on"):
        mood.calibrate(replace(detector, fitted_on=None), clothes.select(cut), workers=0)
    features = mood.extract(clothes.select(cut), model=str(network), layer="last")
    assert not mood.calibrate(detector, features, alpha=0.2).promise.verified


def test_features_and_images_are_not_mixed_up(stage):
    with pytest.raises(InputError, match="give it features"):
        mood.calibrate(fitted(stage), "clothing", workers=0)


def test_nan_scores_never_calibrate(stage):
    detector = fitted(stage)
    wrong = replace(detector, score=lambda rows: rows.embedding[:, 0].double() * float("nan"))
    with pytest.raises(InputError, match=r"calibration scores\[0\] is nan"):
        anew(wrong, stage["held"])


def test_constant_scores_flag_nothing_or_by_lot(stage):
    constant = replace(fitted(stage), score=lambda rows: rows.embedding[:, 0].double() * 0)
    test = mood.Features.load(stage["test"])
    assert not any(anew(constant, stage["held"])(test)["is_ood"].to_pylist())
    by_lot = np.mean(anew(constant, stage["held"], ties="randomised")(test)["is_ood"].to_pylist())
    assert 0.04 < by_lot < 0.18


def test_detectors_of_the_first_versions_load(stage, tmp_path):
    """They said nothing of their calibration, which was the split one."""
    detector = fitted(stage, output=tmp_path / "d")
    from mood.core import artifact

    tensors, meta = artifact.read(tmp_path / "d", kind="detector")
    del meta["calibration"]
    shutil.rmtree(tmp_path / "d")
    artifact.write(tmp_path / "d", kind="detector", tensors=tensors, meta=meta)
    loaded = mood.load(tmp_path / "d")
    assert loaded.fingerprint() == detector.fingerprint()
    assert isinstance(loaded.calibration, Conformal)


def test_from_the_command_line(stage, tmp_path):
    run = CliRunner().invoke
    done = run(app, ["fit", str(stage["fit"]), "-o", str(tmp_path / "d"), "--held-out", "0.4"])
    assert done.exit_code == 0, done.output
    done = run(
        app,
        [
            "calibrate",
            str(tmp_path / "d"),
            str(stage["held"]),
            "-o",
            str(tmp_path / "n"),
            "--guarantee",
            "conditional",
            "--confidence",
            "0.8",
            "--alpha",
            "0.1",
        ],
    )
    assert done.exit_code == 0, done.output
    assert "calibrated on 300 images" in done.output
    assert "at most 10.0% of all future known images, with 80 % confidence" in done.output
    assert run(app, ["calibrate", str(tmp_path / "d"), str(stage["fit"])]).exit_code == 7


@pytest.mark.parametrize("method", ["bh", "storey"])
@pytest.mark.parametrize("parts", [7, 2048])
def test_a_batch_is_decided_as_a_whole(stage, tmp_path, monkeypatch, method, parts):
    monkeypatch.setattr("mood.recipes.score.PART", parts)
    fitted(stage, output=tmp_path / "d")
    images = tmp_path / "mixed.npz"
    with np.load(stage["test"]) as known, np.load(stage["strange"]) as strange:
        np.savez(images, **{key: np.concatenate([known[key][:90], strange[key][:30]]) for key in known})
    result = score(
        ScoreConfig(
            detector=tmp_path / "d", images=str(images), output=tmp_path / "t.jsonl", fdr=0.2, fdr_method=method
        )
    )
    rows = [json.loads(line) for line in (tmp_path / "t.jsonl").read_text().splitlines()]
    expected = mood.decisions.discoveries([row["p_value"] for row in rows], 0.2, method=method)
    assert [row["is_ood"] for row in rows] == expected.tolist()
    assert result.flagged == expected.sum() >= 25
    assert "of those flagged at most 20.0% are known images, on average over batches" in result.summary()
    assert str(result.fewest) in result.summary()
    smallest = mood.load(tmp_path / "d").guarantee.smallest
    p_values = np.array([row["p_value"] for row in rows])
    share = 1.0 if method == "bh" else (1 + (p_values >= 0.5).sum()) / 60
    assert result.fewest == max(1, math.ceil(smallest * 120 * share / 0.2 - 1e-9))
    # Alone each image is judged by alpha, and the table is the same otherwise.
    plain = score(ScoreConfig(detector=tmp_path / "d", images=str(images), output=tmp_path / "p.jsonl"))
    alone = [json.loads(line) for line in (tmp_path / "p.jsonl").read_text().splitlines()]
    assert [{**row, "is_ood": None} for row in alone] == [{**row, "is_ood": None} for row in rows]
    assert plain.fdr is None
    told = CliRunner().invoke(
        app, ["score", str(tmp_path / "d"), str(images), "--format", "jsonl", "--fdr", "0.2", "--fdr-method", method]
    )
    assert [json.loads(line) for line in told.stdout.splitlines()] == rows


def test_rejected_images_have_no_verdict_in_a_batch(network, tmp_path, stripes_folder):
    folder = stripes_folder(tmp_path / "known", 60)
    detector = fit(
        FitConfig(data="clothing", limit=200, model=str(network), alpha=0.1, workers=0, output=tmp_path / "d")
    )
    (folder / "class 0" / "broken.png").write_bytes(b"no image")
    score(ScoreConfig(detector=detector.output, images=str(folder), output=tmp_path / "t.jsonl", fdr=0.5, workers=0))
    rows = [json.loads(line) for line in (tmp_path / "t.jsonl").read_text().splitlines()]
    lost = [row for row in rows if row["error"]]
    assert [row["is_ood"] for row in lost] == [None]
    scored = [row for row in rows if not row["error"]]
    assert [row["is_ood"] for row in scored] == mood.decisions.discoveries(
        [row["p_value"] for row in scored], 0.5
    ).tolist()


@pytest.mark.parametrize(("level", "message"), [(0.0, "'fdr' is 0.0"), (1.5, "'fdr' is 1.5")])
def test_a_level_that_is_no_share(stage, tmp_path, level, message):
    fitted(stage, output=tmp_path / "d")
    with pytest.raises(InputError, match=message):
        score(ScoreConfig(detector=tmp_path / "d", images=str(stage["test"]), fdr=level))


@pytest.mark.parametrize("kind", ["cross", "by-class"])
def test_a_rate_of_discoveries_that_is_not_proven_is_refused(stage, tmp_path, kind):
    fitted(stage, output=tmp_path / "d", conformal=kind)
    with pytest.raises(InputError, match=f"those of this detector are {kind}"):
        score(ScoreConfig(detector=tmp_path / "d", images=str(stage["test"]), fdr=0.1))


def test_several_scores_as_one_detector(network, tmp_path):
    detector = mood.fit(
        open_source("clothing", limit=200),
        model=str(network),
        score=["mood", "msp"],
        combine="max",
        alpha=0.1,
        workers=0,
    )
    assert detector.score_name == "mood,msp"
    assert detector.score.rule == "max"
    detector.save(tmp_path / "d")
    few = open_source("clothing", limit=20)
    assert mood.load(tmp_path / "d")(few).equals(detector(few))
    assert len(detector.calibration) == 200 - detector.card["fit_images"]


def test_few_images_are_told_with_the_measured_gap(tmp_path):
    """60 rows of 40 dimensions: a threshold from the fit would flag nearly all new images, ours keeps its promise."""
    rng = np.random.default_rng(0)
    np.savez(tmp_path / "f.npz", embedding=rng.normal(size=(150, 40)), labels=np.arange(150) % 2)
    config = {"data": str(tmp_path / "f.npz"), "held_out": 0.6, "alpha": 0.1}
    plain = fit(FitConfig(**config))
    found = plain.detector.card["few_images"]
    assert found["shrinkage"] == {"mood": "none"}
    assert found["flagged_by_fit_threshold"] > 0.5
    assert found["mean_score_held_out"] > 1.5 * found["mean_score_of_fit"]
    assert "mood does not shrink its covariance" in plain.summary()
    assert "try shrinkage=oas for mood" in plain.summary()
    new = mood.Features(rng.normal(size=(2000, 40)))
    low, high = plain.detector.calibration.realised_range(0.1, confidence=0.9999)
    assert low < np.mean(plain.detector(new)["is_ood"].to_pylist()) < high + 0.02
    shrunk = fit(FitConfig(**config, score="mahalanobis"))
    found = shrunk.detector.card["few_images"]
    assert found["shrinkage"] == {"mahalanobis": "oas"}
    assert "mahalanobis shrinks its covariance (oas)" in shrunk.summary()
    with pytest.warns(UserWarning, match="few images: .* a threshold from the images of the fit would flag"):
        mood.fit(str(tmp_path / "f.npz"), held_out=0.6, alpha=0.1)


def test_enough_images_or_no_covariance_is_no_word_worth(stage):
    assert fitted(stage).card["few_images"] is None
    assert fitted(stage, score="knn", options=("k=5",)).card["few_images"] is None
    # 200 rows of 8 dimensions are enough for one covariance, and not for one of each of three classes.
    found = fitted(stage, score="mahalanobis_per_class", held_out=0.5).card["few_images"]
    assert found["covariances"] == 3
