"""A detector on features: which ones it takes, what it makes of them, and what is refused."""

from pathlib import Path

import numpy as np
import pytest
import torch

import mood
from mood.core.errors import DataError, InputError, OutputError, PromiseError
from mood.core.features import Features, Head
from mood.data import held_out, open_source
from mood.recipes.fit import FEATURES_IN_MEMORY, IN_MEMORY, FitConfig, fit
from mood.recipes.recognition import check_head


@pytest.fixture
def write(tmp_path):
    def write(name, *, rows=slice(None), labels=0):
        draws = np.random.default_rng(0)
        embedding, classes = draws.normal(size=(300, 5)), draws.integers(0, 3, 300)
        np.savez(tmp_path / name, embedding=embedding[rows], labels=(classes[rows] + labels) % 3)
        return str(tmp_path / name)

    return write


def test_a_fit_on_changed_features_is_not_the_finished_one(write, tmp_path):
    settings = {"data": write("f.npz", rows=slice(0, 200)), "score": "mahalanobis", "output": tmp_path / "d"}
    apart = {"calibration": write("c.npz", rows=slice(200, 300))}
    fit(FitConfig(**settings, **apart))
    assert fit(FitConfig(**settings, **apart)).reused
    write("c.npz", rows=slice(210, 300))
    with pytest.raises(OutputError, match="calibration_features"):
        fit(FitConfig(**settings, **apart))
    write("c.npz", rows=slice(200, 300))
    write("f.npz", rows=slice(0, 200), labels=1)
    with pytest.raises(OutputError, match="features"):
        fit(FitConfig(**settings, **apart))


def test_a_file_without_a_row_is_refused(tmp_path):
    np.savez(tmp_path / "empty.npz", embedding=np.empty((0, 8)))
    np.savez(tmp_path / "some.npz", embedding=np.random.default_rng(0).normal(size=(200, 8)))
    empty, some = str(tmp_path / "empty.npz"), str(tmp_path / "some.npz")
    for given in ({"data": empty}, {"data": some, "calibration": empty}):
        with pytest.raises(DataError, match="there is no row in .*empty.npz: features of at least one image"):
            fit(FitConfig(**given, alpha=0.1))


def test_calibration_rows_that_were_fitted_on_are_refused(write):
    with pytest.raises(PromiseError, match="50 calibration rows are among the 200"):
        fit(
            FitConfig(
                data=write("f.npz", rows=slice(0, 200)),
                calibration=write("c.npz", rows=slice(150, 300)),
                score="mahalanobis",
            )
        )


@pytest.mark.parametrize("change", [{"classes": ("a",)}, {"limit": 10}, {"coarse": True}])
def test_what_chooses_among_images_is_refused_for_features(write, change):
    with pytest.raises(InputError, match="coarse, classes and limit are of images"):
        fit(FitConfig(data=write("f.npz"), score="mahalanobis", **change))


@pytest.mark.parametrize(
    "change",
    [
        {"model": "resnet50"},
        {"checkpoint": Path("weights.pth")},
        {"transform_options": ("crop_pct=1",)},
        {"random_weights": True},
        {"pool": "avg"},
        {"layer": "3"},
        {"inner": "1+2"},
        {"masks": 9},
        {"mask_seed": 1},
        {"precision": "bf16"},
        {"other_classes": True},
    ],
)
def test_what_is_said_of_a_network_is_refused_for_features(write, change):
    ((name, _),) = change.items()
    with pytest.raises(InputError, match=f"^{name}: of a network, and features have none any more"):
        fit(FitConfig(data=write("f.npz"), score="mahalanobis", **change))


def rows(count=300, seed=0, dtype=np.float64):
    """Features of three classes that the logits name rightly."""
    draws = np.random.default_rng(seed)
    labels = draws.integers(0, 3, count)
    logits = 4 * np.eye(3)[labels] + draws.normal(size=(count, 3))
    embedding = draws.normal(size=(count, 5)) + np.eye(5)[labels]
    return Features(embedding.astype(dtype), logits=logits, labels=labels)


@pytest.mark.parametrize("ending", [".npz", ".safetensors"])
@pytest.mark.parametrize("conformal", ["split", "cross", "by-class"])
def test_features_in_memory_and_in_a_file_make_the_same_detector(ending, conformal, tmp_path):
    known, new = rows(600), rows(40, seed=1)
    for name, part in (("known", known), ("new", new)):
        path = tmp_path / (name + ending)
        np.savez(path, **part.columns, ids=part.ids) if ending == ".npz" else part.save(path)
    settings = {"score": "mahalanobis", "alpha": 0.2, "conformal": conformal}
    own = mood.fit(known, **settings)
    read = mood.fit(tmp_path / f"known{ending}", **settings)
    assert own.card["data"] == FEATURES_IN_MEMORY
    assert own.fingerprint() == read.fingerprint()
    table = own(new)
    # A path, its name, and the rows themselves are one and the same to a detector.
    for given in (new, tmp_path / f"new{ending}", str(tmp_path / f"new{ending}")):
        assert read(given).equals(table)


def test_calibration_features_come_in_memory_too_and_outputs_are_told_apart(tmp_path):
    known, apart = rows(200), rows(100, seed=1)
    detector = mood.fit(known, calibration=apart, score="knn", output=tmp_path / "d")
    assert len(detector.calibration) == 100
    assert detector.card["config"]["calibration"] == FEATURES_IN_MEMORY
    assert (
        mood.fit(known, calibration=apart, score="knn", output=tmp_path / "d").fingerprint() == detector.fingerprint()
    )
    with pytest.raises(OutputError, match="calibration_features"):
        mood.fit(known, calibration=apart[:90], score="knn", output=tmp_path / "d")
    with pytest.raises(PromiseError, match="10 calibration rows are among the 200"):
        mood.fit(known, calibration=Features.concat([apart, known[:10]]), score="knn")
    mood.calibrate(detector, apart[:80], alpha=0.1)


def test_a_row_is_known_again_whatever_its_precision():
    """Of numbers that single precision can hold: those of a network, written as double by whoever saved them."""
    known = rows(200, dtype=np.float32)
    detector = mood.fit(known, score="mahalanobis", alpha=0.1)
    with pytest.raises(PromiseError, match="rows are among"):
        mood.calibrate(detector, Features(known.embedding.double(), labels=known.labels, logits=known.logits))


def test_a_score_that_reads_the_head_takes_it_beside_the_features(tmp_path):
    weight, bias = torch.randn(3, 5, generator=torch.Generator().manual_seed(0)).double(), torch.ones(3).double()
    known = rows(300)
    known = Features(known.embedding, logits=known.embedding @ weight.T + bias, labels=known.labels)
    with pytest.raises(InputError, match=r"needs the linear head; pass head=Head\(weight, bias\)"):
        mood.fit(known, score="vim")
    settings = {"score": "vim", "alpha": 0.1, "output": tmp_path / "d"}
    detector = mood.fit(known, head=Head(weight, bias), **settings)
    cut = held_out(known.hashes(), seed=0, fraction=0.1)
    score = mood.scores.fit("vim", known[~cut], head=Head(weight, bias))
    assert np.array_equal(mood.load(tmp_path / "d")(known)["score"].to_numpy(), score(known).numpy())
    assert mood.fit(known, head=Head(weight, bias), **settings).fingerprint() == detector.fingerprint()
    bare = Features(known.embedding, labels=known.labels)
    mood.fit(bare, score="residual", head=Head(weight, bias), alpha=0.1, output=tmp_path / "r")
    with pytest.raises(OutputError, match="head"):
        mood.fit(bare, score="residual", head=Head(weight + 1, bias), alpha=0.1, output=tmp_path / "r")


@pytest.mark.parametrize("rounded", [torch.bfloat16, torch.float16])
def test_a_head_must_make_the_logits_up_to_rounding(rounded):
    draws = torch.Generator().manual_seed(0)
    embedding = torch.randn(200, 6, generator=draws).double()
    weight, bias = torch.randn(6, 6, generator=draws).double(), torch.randn(6, generator=draws).double()
    logits = embedding @ weight.T + bias
    check_head(Features(embedding, logits=logits.to(rounded).double()), Head(weight, bias), reads_logits=True)
    for others in (logits + 0.5, logits * 1.1, logits.flip(1), embedding @ weight + bias):
        with pytest.raises(InputError, match="head makes other logits of these embeddings than the features have"):
            check_head(Features(embedding, logits=others), Head(weight, bias), reads_logits=True)
    with pytest.raises(InputError, match="head gives 6 logits, and these features have 5"):
        check_head(Features(embedding, logits=logits[:, :5]), Head(weight, bias), reads_logits=True)
    with pytest.raises(InputError, match="head reads 5 values, and these embeddings have 6"):
        check_head(Features(embedding), Head(weight[:, :5], bias), reads_logits=False)
    with pytest.raises(
        InputError, match=r"these features have none: the head makes them, Features\(embedding, logits="
    ):
        mood.fit(Features(embedding), score="vim", head=Head(weight, bias), alpha=0.2)


def test_what_is_no_head_is_told_what_one_is():
    for given in ((torch.ones(3, 5), torch.ones(3)), torch.nn.Linear(5, 3)):
        with pytest.raises(InputError, match=rf"head is a {type(given).__name__}; .* mood.Head\(weight, bias\)"):
            mood.fit(rows(), head=given)
    with pytest.raises(InputError, match=r"head weight is a Linear; .* Head\(layer.weight, layer.bias\)"):
        Head(torch.nn.Linear(5, 3))


def test_an_array_is_told_what_features_are():
    with pytest.raises(InputError, match=r"features are mood.Features\(embedding=…\)"):
        mood.fit(rows().embedding.numpy())
    with pytest.raises(InputError, match=r"features are mood.Features\(embedding=…\)"):
        mood.fit(rows(), score="mood", alpha=0.2)(rows().embedding)


def test_images_and_features_are_not_mixed(stripes, tiny_network, write):
    images = stripes(60)
    with pytest.raises(InputError, match="data is features and the other is images"):
        mood.fit(rows(), calibration=images)
    with pytest.raises(InputError, match="calibration is features and the other is images"):
        mood.fit(images, calibration=rows())
    with pytest.raises(InputError, match="calibration is features and the other is images"):
        fit(FitConfig(data=IN_MEMORY, calibration=write("c.npz")), data=images)
    with pytest.raises(InputError, match="head is of the network that features come from"):
        mood.fit(images, model=str(tiny_network), head=Head(torch.ones(2, 3)))
    with pytest.raises(InputError, match="model is a network, and features have passed theirs already"):
        mood.fit(rows(), model=mood.models.open_model(str(tiny_network)))
    with pytest.raises(InputError, match="model: of a network, and features have none any more"):
        mood.fit(rows(), model=str(tiny_network))
    with pytest.raises(InputError, match="of features take the rows before you bring them"):
        mood.fit(rows(), limit=10)
    with pytest.raises(DataError, match="there is no row in features in memory"):
        mood.fit(rows()[:0])


def test_a_detector_on_features_says_what_it_takes(tmp_path, stripes_folder):
    detector = mood.fit(rows(), score="mahalanobis", alpha=0.2)
    with pytest.raises(InputError, match="this detector was fitted on features: give it features"):
        detector(open_source(stripes_folder(tmp_path / "images", 4)))
