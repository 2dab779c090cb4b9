"""Evaluation: figures that agree with their parts, marks on what the weights have seen, files, and refusals."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

import mood
from mood.cli import app
from mood.core.errors import DataError, InputError, OutputError
from mood.data import held_out, join, open_source
from mood.evaluation import auroc
from mood.models import load_model, save_model
from mood.models.model import Stage, image_keys
from mood.recipes.evaluate import EvaluateConfig, evaluate, examine, write_evaluation
from mood.recipes.fit import FitConfig, fit


@pytest.fixture(scope="module")
def place(tmp_path_factory, tiny_network, stripes_folder):
    """A detector, and folders of known and unknown images."""
    folder = tmp_path_factory.mktemp("evaluate")
    stripes_folder(folder / "known", 300)
    stripes_folder(folder / "test", 60, seed=1)
    stripes_folder(folder / "other", 40, classes=5, seed=2)
    fit(
        FitConfig(
            data=str(folder / "known"),
            model=str(tiny_network),
            output=folder / "d",
            held_out=0.3,
            alpha=0.1,
            score="mahalanobis",
            workers=0,
        )
    )
    return folder


def config(place, **changes):
    settings = {
        "detector": place / "d",
        "id": str(place / "test"),
        "ood": (f"other={place / 'other'}",),
        "replicates": 50,
        "workers": 0,
    }
    return EvaluateConfig(**{**settings, **changes})


def test_the_figures_are_those_of_the_detectors_own_scores(place):
    evaluation = evaluate(config(place)).evaluation
    detector = mood.load(place / "d")
    known, unknown = (detector(str(place / name)) for name in ("test", "other"))
    figures = evaluation.to_dict()
    metrics = figures["sets"]["other"]["metrics"]
    assert metrics["auroc"]["value"] == auroc(known["score"].to_numpy(), unknown["score"].to_numpy())
    assert metrics["auroc"]["low"] <= metrics["auroc"]["value"] <= metrics["auroc"]["high"]
    assert set(metrics) == {
        "auroc",
        "fpr95_id_positive",
        "fpr95_ood_positive",
        "aupr_id_positive",
        "aupr_ood_positive",
        "flagged",
    }
    flagged = [table["is_ood"].to_numpy(zero_copy_only=False).mean() for table in (known, unknown)]
    assert evaluation.false_alarms == flagged[0] == figures["false_alarms"]
    assert metrics["flagged"]["value"] == flagged[1]
    assert evaluation.tables["id"].equals(known)
    assert evaluation.tables["other"].equals(unknown)
    low, high = figures["allowed"]
    assert evaluation.kept == (low <= flagged[0] <= high)
    assert f"false alarms on 60 unseen known images: {flagged[0]:.1%}" in evaluation.summary()
    assert ("inside" if evaluation.kept else "OUTSIDE") in evaluation.summary()


def test_what_it_writes_is_reused_and_kept_from_other_settings(place, tmp_path):
    first = evaluate(config(place, output=tmp_path / "e"))
    names = sorted(path.name for path in first.output.iterdir())
    assert names == ["config.json", "report.html", "results.json", "results.md", "scores.parquet"]
    assert json.loads((tmp_path / "e" / "results.json").read_text()) == first.evaluation.to_dict()
    assert "other" in (tmp_path / "e" / "results.md").read_text()
    rows = pq.read_table(tmp_path / "e" / "scores.parquet")
    assert rows.column_names == ["set", "id", "score", "p_value", "is_ood", "error"]
    assert rows["set"].value_counts().to_pylist() == [
        {"values": "id", "counts": 60},
        {"values": "other", "counts": 40},
    ]
    before = (tmp_path / "e" / "report.html").stat().st_mtime_ns
    again = evaluate(config(place, output=tmp_path / "e"))
    assert again.evaluation.to_dict() == first.evaluation.to_dict()
    assert (tmp_path / "e" / "report.html").stat().st_mtime_ns == before
    assert "report.html" in again.summary()
    with pytest.raises(OutputError, match="seed: 0 → 1"):
        evaluate(config(place, output=tmp_path / "e", seed=1))
    assert evaluate(config(place, output=tmp_path / "e", seed=1, overwrite=True)).output


def test_a_control_that_cannot_be_fitted_is_left_out_with_its_reason(place, monkeypatch):
    """Such as of `she`, where the twin with random weights names no image rightly."""
    import mood.recipes.controls as controls_module

    def none_right(*_, **__):
        raise InputError("not one image is named rightly")

    monkeypatch.setattr(controls_module, "compared_outputs", none_right)
    evaluation = evaluate(config(place, controls=True)).evaluation
    assert set(evaluation.to_dict()["sets"]["other"]["controls"]) == {"six numbers"}
    assert "the control random weights is left out: not one image is named rightly" in evaluation.report.notes


def test_controls_stand_beside_every_set(place):
    figures = evaluate(config(place, controls=True)).evaluation.to_dict()
    controls = figures["sets"]["other"]["controls"]
    assert set(controls) == {"six numbers", "random weights"}
    assert set(controls["six numbers"]) == set(figures["sets"]["other"]["metrics"]) - {"flagged"}
    # The detector's own network has random weights from the same seed.
    assert controls["random weights"]["auroc"] == figures["sets"]["other"]["metrics"]["auroc"]
    assert evaluate(config(place)).evaluation.to_dict()["sets"]["other"]["controls"] == {}


def test_unreadable_images_are_counted_and_told(place, tmp_path, stripes_folder):
    folder = stripes_folder(tmp_path / "worn", 20, seed=5)
    (folder / "class 0" / "broken.png").write_bytes(b"no image")
    result = evaluate(config(place, ood=(f"worn={folder}",), output=tmp_path / "e"))
    assert result.evaluation.to_dict()["sets"]["worn"] | {"metrics": 0} == {
        "images": 20,
        "rejected": 1,
        "seen_by_weights": False,
        "metrics": 0,
        "controls": {},
    }
    errors = [row for row in result.evaluation.tables["worn"].to_pylist() if row["error"]]
    assert [row["id"] for row in errors] == ["class 0/broken.png"]
    assert "broken.png" in (tmp_path / "e" / "report.html").read_text()


def test_several_sets_and_a_part_of_each(place):
    result = evaluate(config(place, ood=(f"a={place / 'other'}", f"b={place / 'known'}"), limit=30))
    sets = result.evaluation.to_dict()["sets"]
    assert {name: item["images"] for name, item in sets.items()} == {"a": 30, "b": 30}
    result = evaluate(config(place, classes=("class 1",)))
    assert result.evaluation.to_dict()["n_id"] == 30


@pytest.mark.parametrize(
    ("ood", "message"),
    [
        (("other",), "NAME=DATA"),
        (("=other",), "NAME=DATA"),
        (("other=",), "NAME=DATA"),
        (("id=clothing",), "NAME=DATA"),
        (("a=bccd", "a=omniglot"), "new NAME for each"),
        ((), "at least one set"),
    ],
)
def test_sets_must_have_names_of_their_own(place, ood, message):
    with pytest.raises(InputError, match=message):
        evaluate(config(place, ood=ood, limit=10))


@pytest.mark.parametrize("limit", [None, 20])
def test_an_ood_set_that_is_the_known_one_is_refused(place, tmp_path, limit):
    shutil.copytree(place / "test", tmp_path / "copy")
    ood = (f"same={place / 'test'}", f"copy={tmp_path / 'copy'}")
    message = (
        rf"nothing to tell the known images from: same is left out: all of its {limit or 60} images are, byte for "
        rf"byte, known images; copy is left out: all of its {limit or 60} images are"
    )
    with pytest.raises(DataError, match=message):
        evaluate(config(place, ood=ood, output=tmp_path / "e", limit=limit))
    assert not (tmp_path / "e").exists()


def test_images_that_are_known_ones_are_counted_and_told_everywhere(place, tmp_path, stripes_folder):
    mixed = stripes_folder(tmp_path / "mixed", 30, classes=3, seed=4)
    for number, file in enumerate(sorted((place / "test" / "class 0").iterdir())[:10]):
        shutil.copy(file, mixed / "class 0" / f"known {number}.png")
    # An empty file is nobody's image.
    for folder in (mixed, place / "test"):
        (folder / "class 0" / "empty.png").touch()
    ood = (f"mixed={mixed}", f"same={place / 'test' / 'class 0'}", f"other={place / 'other'}")
    result = evaluate(config(place, ood=ood, output=tmp_path / "e"))
    (place / "test" / "class 0" / "empty.png").unlink()
    told = [
        "mixed: 10 of the 41 images are, byte for byte, known images; they are counted as OOD all the same",
        "same is left out: all of its 30 images are, byte for byte, known images",
    ]
    assert result.evaluation.to_dict()["notes"] == told
    assert set(result.evaluation.to_dict()["sets"]) == {"mixed", "other"}
    assert set(result.evaluation.tables) == {"id", "mixed", "other"}
    page = (tmp_path / "e" / "report.html").read_text()
    for sentence in told:
        assert sentence in page
        assert sentence in result.summary()


def test_sets_without_a_readable_image_are_refused_by_name(place, tmp_path):
    (tmp_path / "dark").mkdir()
    (tmp_path / "dark" / "a.png").touch()
    with pytest.raises(DataError, match="not one image of dark could be read; a.png"):
        evaluate(config(place, ood=(f"dark={tmp_path / 'dark'}",)))


def saved_features(folder, name, shift=0.0, width=8):
    draws = np.random.default_rng(len(name))
    path = folder / f"{name}.npz"
    np.savez(path, embedding=draws.normal(size=(400, width)) + shift, labels=draws.integers(0, 3, 400))
    return str(path)


@pytest.fixture
def on_features(tmp_path):
    config = FitConfig(
        data=saved_features(tmp_path, "f"), score="mahalanobis", output=tmp_path / "d", held_out=0.2, alpha=0.1
    )
    return fit(config).detector


def test_a_detector_on_features_cannot_look_at_images(on_features, place, tmp_path):
    for source in (place / "test", saved_features(tmp_path, "narrow", width=4)):
        with pytest.raises(InputError, match=r"fitted on features|wide|width|4"):
            evaluate(config(place, detector=tmp_path / "d", id=str(source)))
    with pytest.raises(InputError, match="cannot look at the images of test"):
        examine(on_features, open_source(str(place / "test")), {})


def test_features_stand_where_images_do(on_features, tmp_path):
    known, strange = saved_features(tmp_path, "known"), saved_features(tmp_path, "strange", shift=3.0)
    settings = {"detector": tmp_path / "d", "id": known, "ood": (f"far={strange}",)}
    made = evaluate(EvaluateConfig(**settings, output=tmp_path / "report"))
    assert made.evaluation.report.ood[0].metrics["auroc"].value > 0.95
    assert made.evaluation.kept
    assert made.evaluation.report.ood[0].most_unusual == ()
    assert "features" in (tmp_path / "report" / "report.html").read_text()
    again = evaluate(EvaluateConfig(**settings, output=tmp_path / "report"))
    assert again.evaluation.to_dict() == made.evaluation.to_dict()
    with pytest.raises(InputError, match="there are no images to find again"):
        evaluate(EvaluateConfig(**settings, controls=True))
    with pytest.raises(InputError, match="of features take the rows before you bring them"):
        evaluate(EvaluateConfig(**settings, limit=5))


def test_features_that_are_known_rows_are_refused_or_told(on_features, tmp_path):
    known, strange = saved_features(tmp_path, "known"), saved_features(tmp_path, "strange", shift=3.0)
    rows, others = np.load(known)["embedding"], np.load(strange)["embedding"]
    np.savez(tmp_path / "mixed.npz", embedding=np.concatenate([others[:90], rows[:10]]))
    # The ids of rows that have none are their numbers: they say nothing.
    np.savez(tmp_path / "copy.npz", embedding=rows[::-1])
    settings = {"detector": tmp_path / "d", "id": known}
    with pytest.raises(
        DataError, match="copy is left out: all of its 400 rows are rows of the known set. Name sets of"
    ):
        evaluate(EvaluateConfig(**settings, ood=(f"copy={tmp_path / 'copy.npz'}",)))
    ood = (f"mixed={tmp_path / 'mixed.npz'}", f"copy={tmp_path / 'copy.npz'}", f"far={strange}")
    assert evaluate(EvaluateConfig(**settings, ood=ood)).evaluation.report.notes == (
        "mixed: 10 of the 100 rows are rows of the known set; they are counted as OOD all the same",
        "copy is left out: all of its 400 rows are rows of the known set",
    )


def test_features_of_a_networks_images_give_what_the_images_give(place, tmp_path):
    from mood.recipes.extract import ExtractConfig, extract

    images = evaluate(config(place))
    made = config(place)
    pairs = dict(pair.split("=", 1) for pair in made.ood)
    network = str(made.detector / "model")
    files = {
        name: extract(ExtractConfig(data=data, model=network, output=tmp_path / f"{name}.parquet", workers=0)).output
        for name, data in {"id": made.id, **pairs}.items()
    }
    ood = tuple(f"{name}={files[name]}" for name in pairs)
    features = evaluate(EvaluateConfig(detector=made.detector, id=str(files["id"]), ood=ood, replicates=50))
    for ours, theirs in zip(images.evaluation.report.ood, features.evaluation.report.ood, strict=True):
        assert ours.metrics == theirs.metrics
    with pytest.raises(InputError, match="controls look at images"):
        evaluate(EvaluateConfig(detector=made.detector, id=str(files["id"]), ood=ood, controls=True))


def test_the_images_of_a_fit_in_memory_must_be_named(stripes, tiny_network, place, tmp_path):
    pixels = [stripes(100).read(index) for index in range(100)]
    detector = mood.fit(pixels, model=str(tiny_network), alpha=0.1, held_out=0.3, score="knn", workers=0)
    detector.save(tmp_path / "d")
    with pytest.raises(InputError, match="fitted on images in memory: say with fit_data"):
        evaluate(config(place, detector=tmp_path / "d", controls=True))
    with pytest.raises(InputError, match="images that the detector was fitted on are not in"):
        evaluate(config(place, detector=tmp_path / "d", controls=True, fit_data=str(place / "known")))


def trained_on(folder, network, source, data, names=(), hashes=()):
    """The network, with a card that says what it was trained on."""
    stage = Stage(
        stage="pretrain", data=data, images=10, class_names=names, labelled=False, manifest="", seed=0, held_out=0.3
    )
    model = replace(load_model(network), history=(stage,), seen=image_keys(hashes).sort().values)
    save_model(folder, model)
    return folder


def marks(place, network, tmp_path, **sets):
    detector = fit(
        FitConfig(
            data=str(place / "known"),
            model=str(network),
            held_out=0.3,
            alpha=0.1,
            score="mahalanobis",
            workers=0,
            # An untrained network whose maker nobody knows would be refused for its classifier.
            other_classes=True,
        )
    ).detector
    known = open_source(str(place / "test"))
    return examine(detector, known, sets, replicates=10).report


def test_images_trained_on_are_marked_by_their_bytes_whatever_their_set_is_called(
    place, tiny_network, tmp_path, stripes_folder
):
    other = open_source(str(place / "other"))
    network = trained_on(tmp_path / "n", tiny_network, other, "elsewhere", hashes=other.manifest.hashes[:7])
    more = open_source(str(stripes_folder(tmp_path / "more", 20, seed=3)))
    report = marks(place, network, tmp_path, other=other, more=more)
    assert [item.seen_by_weights for item in report.ood] == [True, False]
    assert report.notes == (
        f"other: 7 of the {len(other)} images are not new to the detector (7 trained its network): their scores and "
        "p-values are not those of new images",
    )
    assert report.seen == ("pretrain: 10 images of elsewhere",)


def test_known_images_that_were_trained_on_are_told(place, tiny_network, tmp_path):
    test = open_source(str(place / "test"))
    network = trained_on(tmp_path / "n", tiny_network, test, "elsewhere", hashes=test.manifest.hashes[:3])
    report = marks(place, network, tmp_path, other=open_source(str(place / "other")))
    assert len(report.notes) == 1
    assert report.notes == (
        f"id: 3 of the {len(test)} images are left out: they are not new to the detector (3 trained its network)",
    )
    assert len(report.id.scores) == len(test) - 3


def test_images_that_the_detector_was_made_of_are_told(place):
    known = open_source(str(place / "known"))
    cut = held_out(known.manifest.hashes, fraction=0.3)
    detector, other = mood.load(place / "d"), open_source(str(place / "other"))
    test, calibrated = open_source(str(place / "test")), int(cut.sum())
    evaluation = examine(detector, test, {"held": known.select(cut), "other": other}, replicates=10)
    assert evaluation.report.notes == (
        f"held: {calibrated} of the {calibrated} images are not new to the detector ({calibrated} calibrated it): "
        "their scores and p-values are not those of new images",
    )
    assert evaluation.to_dict()["notes"] == list(evaluation.report.notes)
    assert evaluation.summary().endswith(evaluation.report.notes[0])


def test_python_has_it_too_for_whatever_is_in_memory(place, tmp_path):
    detector = mood.load(place / "d")
    test, other = (open_source(str(place / name)) for name in ("test", "other"))
    settings = {"replicates": 50, "workers": 0}
    written = mood.evaluate(place / "d", place / "test", {"other": str(place / "other")}, **settings)
    features = [mood.extract(each, model=detector.embedder.model) for each in (test, other)]
    for made in (
        mood.evaluate(detector, test, {"other": other}, **settings),
        mood.evaluate(str(place / "d"), features[0], {"other": features[1]}, **settings),
        mood.evaluate(detector, test, {"other": str(place / "other")}, output=tmp_path / "e", **settings),
    ):
        assert made.false_alarms == written.false_alarms
        assert made.to_dict()["sets"]["other"]["metrics"] == written.to_dict()["sets"]["other"]["metrics"]
    assert (tmp_path / "e" / "report.html").is_file()
    with pytest.raises(OutputError, match="another configuration"):
        mood.evaluate(detector, test.select(range(50)), {"other": other}, output=tmp_path / "e", **settings)
    with pytest.raises(InputError, match="unknown option 'replicate'"):
        mood.evaluate(detector, test, {"other": other}, replicate=3)
    with pytest.raises(InputError, match="at least one set"):
        mood.evaluate(detector, test, {})
    for wrong in ([other], {"a=b": other}, {1: other}):
        with pytest.raises(InputError, match=r"ood is \{name: images\} of each unknown set"):
            mood.evaluate(detector, test, wrong)


@pytest.mark.parametrize("features", [False, True])
def test_known_images_that_are_not_new_are_left_out_of_every_figure(place, tmp_path, features):
    """The images of the fit are far more ordinary than others: among them any detector and any promise would shine."""
    detector = mood.load(place / "d")
    test, known = open_source(str(place / "test")), open_source(str(place / "known"))
    fitted = known.select(~held_out(known.manifest.hashes, fraction=0.3))
    mixed, other = join([known, test]), open_source(str(place / "other"))
    if features:
        mixed, test, other, known, fitted = (
            mood.extract(each, model=detector.embedder.model) for each in (mixed, test, other, known, fitted)
        )
        detector = mood.fit(known, score="mood", held_out=0.3, alpha=0.1)
        fitted = known[~held_out(known.hashes(), fraction=0.3)]
    mix, alone = (examine(detector, each, {"other": other}, replicates=10) for each in (mixed, test))
    for figures in (mix.to_dict(), alone.to_dict()):
        assert figures["n_id"] == 60
    assert mix.to_dict()["sets"] == alone.to_dict()["sets"]
    assert mix.false_alarms == alone.false_alarms
    what = "rows" if features else "images"
    assert mix.report.notes[0].startswith(f"id: 300 of the 360 {what} are left out: they are not new to the detector (")
    assert mix.tables["id"].num_rows == 60
    (tmp_path / "e").mkdir()
    write_evaluation(mix, tmp_path / "e")
    written = (tmp_path / "e" / "results.md").read_text()
    assert written.endswith(f"\n{mix.report.notes[0]}\n")
    assert "false alarms on 60 unseen known images" in written
    with pytest.raises(
        DataError, match=rf"not one of the \d+ known {what} is new to the detector \(\d+ fitted its score"
    ):
        examine(detector, fitted, {"other": other}, replicates=10)


def test_another_part_of_a_set_trained_on_is_marked_and_its_held_out_classes_are_not(place, tiny_network, tmp_path):
    folder = place / "other"
    part = replace(open_source(str(folder)), name="other:test")
    same = open_source(str(folder), classes=["class 0", "class 3"])
    held = open_source(str(folder), classes=["class 4"])
    unlabelled = replace(held, manifest=replace(held.manifest, labels=None, class_names=None))
    names = ("class 0", "class 1", "class 2", "class 3")
    network = trained_on(tmp_path / "n", tiny_network, part, "other:train", names)
    report = marks(place, network, tmp_path, part=part, same=same, held=held, unlabelled=unlabelled)
    assert {item.name: item.seen_by_weights for item in report.ood} == {
        "part": True,
        "same": True,
        "held": False,
        "unlabelled": True,
    }
    assert "part: pretrain on other:train" in report.notes
    blind = trained_on(tmp_path / "blind", tiny_network, part, "other:train")
    assert marks(place, blind, tmp_path, held=held).ood[0].seen_by_weights


def test_nothing_is_marked_where_nobody_knows(place, tiny_network, tmp_path):
    save_model(tmp_path / "n", replace(load_model(tiny_network), history=None, seen=None))
    report = marks(place, tmp_path / "n", tmp_path, other=open_source(str(place / "other")))
    assert not report.ood[0].seen_by_weights
    assert report.notes == ()
    assert report.seen == ("what these weights were trained on is not known",)
    assert not report.promise.verified


def test_each_set_has_a_card(place, tiny_network, tmp_path):
    other, test = open_source(str(place / "other")), open_source(str(place / "test"))
    network = trained_on(tmp_path / "n", tiny_network, other, "elsewhere", hashes=other.manifest.hashes[:7])
    fitted, known, unknown = marks(place, network, tmp_path, other=other).cards
    assert (fitted.name, known.name, unknown.name) == ("known", "test", "other")
    assert fitted.facts["role"].startswith("known: ")
    assert fitted.facts["hash"] == open_source(str(place / "known")).manifest.fingerprint[:16]
    assert known.facts == {
        "from": test.description,
        "images": "60",
        "classes": "2",
        "role": "known, unseen",
        "hash": test.manifest.fingerprint[:16],
    }
    assert (unknown.facts["role"], unknown.facts["classes"]) == ("OOD", "5")
    assert [fitted.warning, known.warning] == ["", ""]
    assert unknown.warning == "† seen by the weights: 7 of these images were trained on"
    named = evaluate(config(place, ood=("letters=omniglot",), limit=20)).evaluation.report.cards[-1]
    assert (named.name, named.facts["licence"]) == ("letters", "MIT")


def test_images_of_the_fit_are_for_the_controls(place):
    with pytest.raises(InputError, match="fit_data is for the controls: leave it out, or say --controls"):
        evaluate(config(place, fit_data=str(place / "known")))


def test_the_command_prints_the_table(place, tmp_path):
    done = CliRunner().invoke(
        app,
        [
            "evaluate",
            str(place / "d"),
            "--id",
            str(place / "test"),
            "--ood",
            f"other={place / 'other'}",
            "--replicates",
            "20",
            "--workers",
            "0",
            "-o",
            str(tmp_path / "e"),
        ],
    )
    assert done.exit_code == 0, done.output
    assert "other" in done.stdout
    assert "false alarms on 60 unseen known images" in done.stdout
    assert "report:" in done.stdout
    assert done.stderr == ""
