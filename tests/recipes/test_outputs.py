"""Labels and outputs: mapped by name where a score compares them, and refused where they are other classes."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from timm.data import ImageNetInfo

from mood import scores
from mood.core.errors import InputError, ModelError
from mood.core.features import Features
from mood.data import held_out, open_source
from mood.detector import load
from mood.models import Embedder, load_model, save_model
from mood.recipes import extract as recipe
from mood.recipes.controls import RANDOM_WEIGHTS, Control
from mood.recipes.extract import extract_features
from mood.recipes.finetune import FinetuneConfig, finetune
from mood.recipes.fit import FitConfig, fit
from mood.recipes.inputs import score_options
from mood.recipes.outputs import outputs_of
from mood.scores import _temperature

TINY = ("embed_dim=32", "depth=1", "num_heads=2", "img_size=16")
FITTED = ("temperature=fitted",)

COMPARING = [
    ("she", (), "she compares"),
    ("openmax", ("tail=3",), "openmax compares"),
    ("msp", FITTED, "msp compares"),
    ("energy", FITTED, "energy compares"),
    ("mood,she", (), "she compares"),
    ("mahalanobis,msp", ("msp.temperature=fitted",), "msp compares"),
    ("she,openmax", (), "she and openmax compare"),
]


@pytest.fixture(scope="module")
def learned(stripes, tmp_path_factory):
    """A network that has learned to name four kinds of stripes, and is sometimes wrong."""
    settings = FinetuneConfig(
        data="", output=tmp_path_factory.mktemp("learned") / "network", model="mood_vit_patch4_32", model_options=TINY,
        random_weights=True, epochs=12, batch_size=32, lr=3e-3, layer_decay=1.0, drop_path=0.0, ema=0.0,
        warmup_epochs=1.0, workers=0, crop_scale=0.9, init_scale=1.0,
    )  # fmt: skip
    return finetune(settings, source=stripes(256, 4)).output


def settings(model, score, options=(), **changes):
    return FitConfig(
        **{"data": "", "model": str(model), "score": score, "options": options, "alpha": 0.2, "workers": 0, **changes}
    )


def renamed(source, *names):
    return replace(source, manifest=replace(source.manifest, class_names=names))


def part_of(source, *labels):
    """Images of some classes, numbered anew as `open_source` numbers them."""
    names = source.manifest.class_names
    kept = source.select(np.isin(source.manifest.labels, labels))
    numbers = np.searchsorted(labels, kept.manifest.labels)
    manifest = replace(kept.manifest, labels=numbers, class_names=tuple(names[label] for label in labels))
    return replace(kept, manifest=manifest)


def nameless(learned, folder, turn=0):
    """The network without the names of its outputs, and with these in another order."""
    model = load_model(learned)
    with torch.no_grad():
        model.module.head.weight.copy_(model.module.head.weight.roll(turn, 0))
        model.module.head.bias.copy_(model.module.head.bias.roll(turn, 0))
    save_model(folder, replace(model, class_names=()))
    return folder


@pytest.mark.parametrize(("score", "options", "said"), COMPARING)
def test_labels_of_other_classes_are_refused_before_an_image_is_looked_at(
    score, options, said, learned, stripes, monkeypatch
):
    monkeypatch.setattr(recipe, "_fill", lambda *_, **__: pytest.fail("an image was looked at"))
    other = renamed(stripes(200, 3, 5), "a", "b", "c")
    message = (
        rf"{said} labels with outputs. Those of network are 4 classes \(class 0, class 1, class 2, class 3\), and "
        rf"3 classes \(a, b, c\) are the images': choose a score .*mood finetune"
    )
    with pytest.raises(InputError, match=message) as error:
        fit(settings(learned, score, options), data=other)
    assert ("give a number as temperature of" in str(error.value)) == ("temperature=fitted" in str(options))
    partly = renamed(stripes(200, 3, 5), "class 0", "class 1", "dog")
    with pytest.raises(InputError, match=r"1 class \(dog\) of the images are not among them"):
        fit(settings(learned, score, options), data=partly)
    with pytest.raises(InputError, match="other_classes says that the images are of others"):
        fit(settings(learned, score, options, other_classes=True), data=stripes(200, 4, 5))


def test_a_head_without_names_and_long_lists_are_told_by_their_number(learned, stripes, tmp_path):
    bare = nameless(learned, tmp_path / "bare")
    with pytest.raises(InputError, match=r"Those of network are 4 classes \(without names\), and 3 classes"):
        fit(settings(bare, "she"), data=stripes(200, 3, 5))
    with pytest.raises(InputError, match=r"7 classes \(a, b, c, d, e, and 2 more\) are the images'"):
        fit(settings(learned, "she"), data=renamed(stripes(200, 7, 5), *"abcdefg"))


@pytest.mark.parametrize("score", ["mahalanobis", "lee_mahalanobis", "relative_mahalanobis++", "mahalanobis,msp"])
def test_scores_that_read_labels_alone_take_any(score, learned, stripes):
    assert fit(settings(learned, score), data=renamed(stripes(200, 3, 5), "a", "b", "c")).detector.score_name == score


@pytest.mark.parametrize(("score", "options", "said"), COMPARING)
@pytest.mark.parametrize("conformal", ["split", "cross"])
def test_classes_that_were_numbered_anew_are_found_by_their_names(
    score, options, said, conformal, learned, stripes, network_that_saw
):
    whole = stripes(600, 4, 5)
    subset = part_of(whole, 1, 3)
    model = load_model(learned)
    made = fit(settings(learned, score, options, conformal=conformal, precision="fp32"), data=subset).detector
    embedder = Embedder(model, precision="fp32")
    features = Features.concat(list(extract_features(subset, embedder).store))
    rows = features if conformal == "cross" else features[~held_out(subset.manifest.hashes)]
    right = Features(rows.embedding, ids=rows.ids, logits=rows.logits, labels=torch.tensor([1, 3])[rows.labels])
    expected = scores.fit(score, right, **score_options(score, options))
    tensors, meta = scores.state(made.score)
    theirs, same = scores.state(expected)
    assert meta.keys() == same.keys()
    torch.testing.assert_close(made.score(features), expected(features))
    for name, tensor in theirs.items():
        torch.testing.assert_close(tensors[name], tensor)
    if score == "she":
        assert made.score.classes.tolist() == [1, 3]


def test_outputs_without_names_are_taken_in_order_unless_chance_says_otherwise(learned, stripes, tmp_path):
    source = stripes(200, 4, 5)
    in_order = nameless(learned, tmp_path / "in order")
    assert fit(settings(in_order, "she"), data=source).detector.score.classes.tolist() == [0, 1, 2, 3]
    turned = nameless(learned, tmp_path / "turned", turn=1)
    with pytest.raises(
        ModelError, match="its outputs have no names, and in their order they are not these classes. she"
    ):
        fit(settings(turned, "she"), data=source)
    assert "CAUTION" in fit(settings(turned, "msp"), data=source).summary()


def test_a_network_whose_names_are_right_and_whose_answers_are_not_is_told_of_as_ever(learned, stripes, tmp_path):
    model = load_model(learned)
    # It says the same of every image.
    torch.nn.init.zeros_(model.module.head.weight)
    save_model(tmp_path / "blind", model)
    result = fit(settings(tmp_path / "blind", "she"), data=stripes(200, 4, 5))
    assert "CAUTION: its classifier is at chance" in result.summary()


def test_the_control_with_random_weights_maps_labels_as_the_detector_does(learned, stripes, monkeypatch):
    subset = part_of(stripes(600, 4, 5), 1, 3)
    detector = fit(settings(learned, "she"), data=subset).detector
    given = []
    monkeypatch.setattr(scores, "fit", lambda _, rows, **__: given.extend(rows))
    Control(RANDOM_WEIGHTS, detector, subset, batch_size=64, workers=0)
    assert {label for part in given for label in part.labels.tolist()} == {1, 3}


@pytest.mark.parametrize("changes", [{}, {"conformal": "cross"}, {"fit_on": "augmented"}])
@pytest.mark.parametrize(
    ("score", "options", "said"),
    [
        ("msp", FITTED, "temperature {:.4g}, fitted on {} held-out images"),
        (
            "mood,msp",
            ("msp.temperature=fitted",),
            "temperature of msp {:.4g}, fitted on {} held-out images",
        ),
    ],
)
def test_a_fitted_temperature_is_told_and_kept(score, options, said, changes, learned, stripes, tmp_path, monkeypatch):
    kept = []
    best = _temperature.best_temperature
    monkeypatch.setattr(_temperature, "best_temperature", lambda bank: kept.append(len(bank.hashes)) or best(bank))
    result = fit(settings(learned, score, options, output=tmp_path / "d", **changes), data=stripes(600, 4, 5))
    found = load(tmp_path / "d")
    fitted = found.score.parts[1] if "," in score else found.score
    temperature = fitted.options["temperature"]
    # Of folds, the score on all of them is the last one made.
    assert found.card["temperatures"] == {"msp": {"temperature": temperature, "images": kept[-1]}}
    assert said.format(temperature, kept[-1]) in result.summary().splitlines()
    plain = fit(settings(learned, "msp", ("temperature=2",)), data=stripes(600, 4, 5))
    assert plain.detector.card["temperatures"] == {}
    assert "temperature" not in plain.summary()


def test_a_fitted_temperature_needs_labels_and_says_so_before_an_image_is_looked_at(learned, stripes, monkeypatch):
    monkeypatch.setattr(recipe, "_fill", lambda *_, **__: pytest.fail("an image was looked at"))
    source = stripes(200, 4, 5)
    source = replace(source, manifest=replace(source.manifest, labels=None, class_names=None))
    with pytest.raises(InputError, match="msp reads labels, and stripes has none"):
        fit(settings(learned, "msp", FITTED), data=source)


def features_file(path, labels, classes=5):
    """Logits that are right for most of 400 rows of known classes, with these labels."""
    draws = np.random.default_rng(0)
    true = np.arange(400) % classes
    logits = draws.normal(0, 1, (400, classes)) + 2 * np.eye(classes)[true]
    np.savez(path, embedding=logits, logits=logits, labels=labels(true))
    return str(path)


@pytest.mark.parametrize(("score", "options"), [(name, options) for name, options, _ in COMPARING])
def test_features_whose_labels_are_not_of_their_logits_are_refused(score, options, tmp_path):
    right = features_file(tmp_path / "right.npz", lambda true: true)
    assert fit(FitConfig(data=right, score=score, options=options, alpha=0.2)).detector
    other = features_file(tmp_path / "other.npz", lambda true: (true + 1) % 5)
    with pytest.raises(
        InputError, match=r"labels with logits, label k with logit k, and these logits name .*by chance"
    ):
        fit(FitConfig(data=other, score=score, options=options, alpha=0.2))
    assert fit(FitConfig(data=other, score="mahalanobis", alpha=0.2)).detector


def test_features_of_some_classes_or_of_one(tmp_path):
    two = features_file(tmp_path / "two.npz", lambda true: np.where(true < 2, true, 4))
    assert fit(FitConfig(data=two, score="she", alpha=0.2)).detector.score.classes.tolist() == [0, 1, 4]
    one = features_file(tmp_path / "one.npz", lambda true: np.full_like(true, 3))
    assert fit(FitConfig(data=one, score="she", alpha=0.2)).detector.score.classes.tolist() == [3]


def test_outputs_are_found_by_name_by_wordnet_id_or_in_order(learned):
    own = load_model(learned)
    assert outputs_of(own, ("class 3", "class 1"), 4) == [3, 1]
    assert outputs_of(own, ("class 3", "another"), 4) is None
    foreign = replace(own, class_names=())
    assert outputs_of(foreign, ("a", "b", "c", "d"), 4) == [0, 1, 2, 3]
    assert outputs_of(foreign, ("a", "b", "c"), 4) is None
    ids = ImageNetInfo("imagenet-1k").label_names()
    assert outputs_of(foreign, (ids[900], ids[7]), 1000) == [900, 7]
    larger = ImageNetInfo("imagenet-22k").label_names()
    assert [larger[at] for at in outputs_of(foreign, (ids[900], ids[7]), 21841)] == [ids[900], ids[7]]
    assert outputs_of(foreign, ("cat", "dog"), 1000) is None


def test_classes_of_a_folder_are_found_by_their_names(learned, stripes_folder, tmp_path):
    folder = stripes_folder(tmp_path / "stripes", 400, 4, seed=5)
    config = settings(learned, "she", data=str(folder), classes=("class 1", "class 2"))
    assert open_source(str(folder), classes=config.classes).manifest.class_names == ("class 1", "class 2")
    assert fit(config).detector.score.classes.tolist() == [1, 2]
