"""From images to a detector: the cut, the promise, what is refused, and the same bytes twice."""

import io
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import mood
from mood.core.errors import DataError, InputError, OutputError, PromiseError
from mood.core.transform import Transform
from mood.data import held_out, open_source
from mood.models import open_model, save_model
from mood.recipes import extract as recipe
from mood.recipes.extract import cache_folder
from mood.recipes.fit import FitConfig, fit, fitted_source


def config(network, **changes):
    settings = {"data": "clothing", "limit": 200, "model": str(network), "alpha": 0.1, "workers": 0}
    return FitConfig(**{**settings, **changes})


@pytest.fixture(scope="module")
def detector(network):
    return fit(config(network)).detector


def test_calibration_images_are_the_cut_and_no_others(detector, clothes):
    cut = held_out(clothes.manifest.hashes)
    assert len(detector.calibration) == cut.sum()
    assert detector.card["fit_images"] == (~cut).sum()
    table = detector(clothes.select(cut))
    assert np.array_equal(np.sort(table["score"].to_numpy()), detector.calibration.scores)


def test_the_verdict_is_the_p_value_and_the_threshold(detector, clothes):
    table = detector(clothes)
    p_values, scores = table["p_value"].to_numpy(), table["score"].to_numpy()
    assert np.array_equal(table["is_ood"].to_numpy(zero_copy_only=False), p_values <= detector.alpha)
    assert np.array_equal(p_values <= detector.alpha, scores > detector.threshold)


def test_twice_and_through_disk_gives_the_same_bytes(detector, network, clothes, tmp_path, monkeypatch):
    monkeypatch.setenv("MOOD_CACHE", str(tmp_path / "another-cache"))
    again = fit(config(network)).detector
    assert again.fingerprint() == detector.fingerprint()
    detector.save(tmp_path / "d")
    loaded = mood.load(tmp_path / "d")
    assert loaded.fingerprint() == detector.fingerprint()
    assert loaded(clothes).equals(detector(clothes))
    assert (loaded.promise, loaded.alpha, loaded.card) == (detector.promise, detector.alpha, detector.card)


def test_scores_do_not_depend_on_workers(detector, clothes):
    few = clothes.select(range(70))
    assert detector(few, workers=2).equals(detector(few, workers=0))


# The reconstruction wants a network with its decoder: see test_live_scores.py.
@pytest.mark.parametrize("name", sorted(set(mood.scores.available()) - {"mim_reconstruction"}))
def test_every_score_becomes_a_detector_and_comes_back(name, network, clothes, tmp_path):
    options = {"knn": ("k=5",), "kpca_corp": ("width=64",), "gmm": ("components=1",)}.get(name, ())
    made = fit(config(network, score=name, options=options)).detector
    made.save(tmp_path / "d")
    assert mood.load(tmp_path / "d")(clothes.select(range(20))).equals(made(clothes.select(range(20))))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"score": "knn", "options": ("k=0",)}, "k is 0"),
        ({"score": "knn", "options": ("neighbours=5",)}, "has no option 'neighbours'"),
        # Not that there are too few images for this rate.
        ({"score": "knn", "options": ("neighbours=5",), "alpha": 0.001}, "has no option 'neighbours'"),
        ({"options": ("shrinkage=2",)}, "shrinkage is 2"),
        ({"score": "gen", "options": ("gamma=-1.0",)}, "gamma is -1.0"),
        ({"score": "energy", "options": ("temperature=0",)}, "temperature is 0"),
        ({"score": "residual", "options": ("dim=32",)}, "dim is 32"),
        ({"score": "mood,knn", "options": ("knn.bank=0",)}, "bank is 0"),
        ({"score": "mood,mood"}, "different names"),
        ({"score": "odin", "conformal": "cross", "model": "fresh"}, "looks at the images themselves"),
        ({"conformal": "cross", "folds": 1, "model": "fresh"}, "'folds' is 1"),
        ({"score": "msp", "model": "headless"}, "msp reads logits, and .* has no head"),
        ({"conformal": "by-class", "model": "headless"}, "by-class reads logits"),
        ({"score": "vim", "model": "headless"}, "needs the linear head"),
        ({"inner": "nonsense"}, "inner is 'nonsense', and mood looks at no inner layer"),
        ({"masks": 4}, "masks is 4, and mood looks at no masked image: leave masks out"),
        ({"mask_seed": 1}, "mask_seed is 1, and mood looks at no masked image"),
        ({"layer": ""}, "layer must be 'last'"),
        ({"score": "relative_mahalanobis", "data": "unlabelled"}, "relative_mahalanobis reads labels, and .* has none"),
        ({"score": "mahalanobis", "data": "astray"}, "astray has none: 0.png lies in .* itself"),
    ],
)
def test_what_a_score_refuses_is_refused_before_an_image_is_looked_at(
    change, message, network, network_that_saw, clothes, tmp_path, monkeypatch
):
    (tmp_path / "unlabelled").mkdir()
    for position in range(60):
        (tmp_path / "unlabelled" / f"{position}.png").write_bytes(clothes.read(position))
    shutil.copytree(tmp_path / "unlabelled", tmp_path / "astray" / "hat")
    (tmp_path / "astray" / "0.png").write_bytes(clothes.read(0))
    headless = open_model(
        "mood_vit_patch4_32",
        options={"embed_dim": 32, "depth": 1, "num_classes": 0, "num_heads": 2},
        random_weights=True,
    )
    save_model(tmp_path / "headless", headless)
    network_that_saw(tmp_path / "fresh", [])
    folders = {
        key: str(tmp_path / value)
        for key, value in change.items()
        if value in ("headless", "fresh", "unlabelled", "astray")
    }

    def looked_at(*_, **__):
        pytest.fail("an image was looked at")

    monkeypatch.setattr(recipe, "_fill", looked_at)
    monkeypatch.setattr("mood.detector.LiveFeatures.__iter__", looked_at)
    with pytest.raises(InputError, match=message):
        fit(config(network, **{"limit": None, "alpha": 0.3, **change, **folders}))


def test_the_promise_is_verified_where_the_network_has_not_seen_the_calibration_images(detector):
    assert detector.promise.verified


def test_calibration_images_that_the_network_has_seen_are_refused(clothes, network_that_saw, tmp_path):
    greedy = network_that_saw(tmp_path / "greedy", clothes.manifest.hashes)
    with pytest.raises(PromiseError, match=r"calibration images were seen in the training of greedy.*as `calibration`"):
        fit(config(greedy))


def test_another_cut_than_that_of_training_is_refused(network):
    with pytest.raises(PromiseError, match="trained with seed 0 and held_out 0.1"):
        fit(config(network, seed=7))


def test_an_unknown_history_leaves_the_promise_unverified(clothes, network_that_saw, tmp_path):
    stranger = network_that_saw(tmp_path / "stranger", clothes.manifest.hashes, history=False)
    result = fit(config(stranger))
    assert not result.detector.promise.verified
    assert "UNVERIFIED" in result.summary()
    assert "as `calibration`" in result.detector.promise.reason


def test_an_alpha_that_cannot_be_kept_is_refused_with_the_number_of_images_it_needs(network):
    with pytest.raises(PromiseError, match="needs at least 999"):
        fit(config(network, alpha=0.001))


@pytest.mark.parametrize("alpha", [0.0, 1.0, -0.5])
def test_an_alpha_that_is_no_share(network, alpha):
    with pytest.raises(InputError, match="'alpha' is .*; it should be (greater|less) than"):
        fit(config(network, alpha=alpha))


def test_calibration_images_apart(network, clothes):
    cut = held_out(clothes.manifest.hashes)
    result = fit(config(network), data=clothes.select(~cut), calibration=clothes.select(cut))
    assert len(result.detector.calibration) == cut.sum()
    assert result.detector.promise.verified
    whole = fit(config(network)).detector
    assert np.array_equal(result.detector.calibration.scores, whole.calibration.scores)


def test_calibration_images_among_the_fitted_ones_are_refused(network, clothes):
    with pytest.raises(PromiseError, match="that the score is fitted on: calibrate on images that nothing else uses"):
        fit(config(network), data=clothes, calibration=clothes.select(range(60)))


def test_calibration_images_apart_that_the_network_has_seen_are_refused(clothes, network_that_saw, tmp_path):
    greedy = network_that_saw(tmp_path / "greedy", clothes.manifest.hashes)
    with pytest.raises(PromiseError, match="seen in the training of greedy"):
        fit(config(greedy), data=clothes.select(range(100)), calibration=clothes.select(range(100, 160)))


def test_output_is_written_once_reused_and_kept_from_other_settings(network, tmp_path):
    first = fit(config(network, output=tmp_path / "d"))
    again = fit(config(network, output=tmp_path / "d"))
    assert (first.reused, again.reused) == (False, True)
    assert again.detector.fingerprint() == first.detector.fingerprint()
    with pytest.raises(OutputError, match="overwrite"):
        fit(config(network, output=tmp_path / "d", alpha=0.2))
    assert fit(config(network, output=tmp_path / "d", alpha=0.2, overwrite=True)).detector.alpha == 0.2


def test_the_images_of_the_fit_are_found_again(detector, clothes):
    assert len(fitted_source(detector)) == detector.card["fit_images"]
    with pytest.raises(InputError, match="of the .* images that the detector was fitted on are not in bccd"):
        fitted_source(detector, data="bccd")


def test_the_summary_says_what_was_made_and_what_it_promises(network, tmp_path, stripes_folder):
    made = fit(config(network, output=tmp_path / "d"))
    first, flagged, caution, promise, few, where = made.summary().splitlines()
    fitted, held = made.detector.card["fit_images"], made.detector.card["calibration_images"]
    assert first == f"mood on small: fitted on {fitted} images, calibrated on {held} others"
    assert flagged.startswith(f"a score above {made.detector.threshold:.6g} is flagged: at most 10.0% of known images")
    assert caution.startswith("network: CAUTION: its classifier is at chance")
    assert promise.startswith("promise verified: none of the calibration images was seen")
    assert few.startswith(f"few images: {fitted} for 32 dimensions, under 10 for each; mood does not shrink")
    assert where == f"the detector is in {tmp_path / 'd'}"
    assert "already finished" in fit(config(network, output=tmp_path / "d")).summary()
    assert "name a folder with -o" in fit(config(network)).summary()
    folder = stripes_folder(tmp_path / "data", 60)
    (folder / "class 0" / "broken.png").write_bytes(b"no image")
    worn = fit(config(network, data=str(folder), held_out=0.4))
    assert worn.summary().splitlines()[0].endswith("others; 1 could not be read")


def test_a_cut_that_leaves_nothing_to_fit_or_nothing_to_calibrate_is_told(tiny_network, stripes):
    source = stripes(30)
    with pytest.raises(PromiseError, match="cannot be promised with 0 calibration images.*raise held_out"):
        fit(config(tiny_network, held_out=0.0), data=source)
    with pytest.raises(InputError, match="nothing is left to fit on: held_out is 0.99999"):
        fit(config(tiny_network, held_out=0.99999), data=source)
    with pytest.raises(InputError, match="'held_out' is 1.0; it should be less than 1"):
        fit(config(tiny_network, held_out=1.0), data=source)


@pytest.mark.parametrize("count", [1, 3, 40])
@pytest.mark.parametrize("settings", [{}, {"conformal": "cross", "folds": 2}])
def test_a_folder_in_which_nothing_can_be_read_is_told_with_the_first_reason(tiny_network, tmp_path, count, settings):
    for number in range(count):
        (tmp_path / f"{number:02d}.png").write_bytes(f"no image {number}".encode())
    with pytest.raises(DataError, match=f"not one image of {tmp_path.name} could be read; 00.png: It is not an image"):
        fit(config(tiny_network, data=str(tmp_path), limit=None, **settings))


def test_a_calibration_set_too_small_of_which_nothing_can_be_read_is_told(tiny_network, stripes_folder, tmp_path):
    folder = stripes_folder(tmp_path / "data", 60)
    (tmp_path / "dark").mkdir()
    (tmp_path / "dark" / "a.png").write_bytes(b"no image")
    with pytest.raises(DataError, match="not one image of dark could be read; a.png"):
        fit(config(tiny_network, data=str(folder), calibration=str(tmp_path / "dark"), limit=None))


def test_few_images_of_which_one_can_be_read_are_too_few(tiny_network, stripes_folder, tmp_path, monkeypatch):
    monkeypatch.setattr(recipe, "_fill", lambda *_, **__: pytest.fail("the network looked at an image"))
    folder = stripes_folder(tmp_path / "data", 4)
    (folder / "class 0" / "0.png").write_bytes(b"no image")
    with pytest.raises(PromiseError, match="cannot be promised"):
        fit(config(tiny_network, data=str(folder), limit=None))


def test_calibration_images_none_of_which_can_be_read_are_told(tiny_network, stripes_folder, tmp_path):
    folder = stripes_folder(tmp_path / "data", 60)
    source = open_source(str(folder))
    cut = held_out(source.manifest.hashes, fraction=0.3)
    dark = Path(tmp_path / "dark")
    dark.mkdir()
    for number in range(20):
        (dark / f"{number}.png").write_bytes(f"no image {number}".encode())
    with pytest.raises(DataError, match="not one image of dark could be read"):
        fit(config(tiny_network, data=str(folder), calibration=str(dark), limit=None))
    # An empty file is in both, and is nobody's image.
    (dark / "empty.png").touch()
    (folder / "class 0" / "empty.png").touch()
    for position in np.flatnonzero(cut).tolist():
        (dark / f"seen {position}.png").write_bytes(source.read(position) + b" ")
    detector = fit(config(tiny_network, data=str(folder), calibration=str(dark), limit=None)).detector
    assert len(detector.calibration) == cut.sum()


def test_features_that_the_user_has(tmp_path):
    draws = np.random.default_rng(0)
    np.savez(tmp_path / "f.npz", embedding=draws.normal(size=(400, 8)), labels=draws.integers(0, 3, 400))
    result = fit(FitConfig(data=str(tmp_path / "f.npz"), score="mahalanobis", output=tmp_path / "d", held_out=0.2))
    assert not result.detector.promise.verified
    loaded = mood.load(tmp_path / "d")
    features = mood.Features(draws.normal(size=(5, 8)) + np.array([[0], [0], [0], [0], [9]]))
    table = loaded(features)
    assert table["is_ood"].to_pylist()[-1] is True
    with pytest.raises(InputError, match="fitted on features"):
        loaded("clothing")
    cut = held_out([f"{i:064x}" for i in range(10)])
    assert cut.shape == (10,)


def test_killed_anywhere_it_ends_with_the_bytes_of_an_unbroken_run(tiny_network, tmp_path, kill_when, monkeypatch):
    draws = np.random.default_rng()
    for number in range(4500):
        folder = tmp_path / "data" / f"class {number % 2}"
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(draws.integers(0, 256, (16, 16, 3), dtype=np.uint8)).save(folder / f"{number:04d}.bmp")
    settings = {"data": str(tmp_path / "data"), "model": str(tiny_network), "workers": 0, "batch_size": 16}
    before = set(cache_folder().glob("*/shard-*"))
    at = int(draws.integers(1, 3))

    def reached():
        return len(set(cache_folder().glob("*/shard-*")) - before) >= at

    kill_when(reached, fit, FitConfig(**settings, output=tmp_path / "broken" / "d"))
    assert not (tmp_path / "broken" / "d").exists()
    fit(FitConfig(**settings, output=tmp_path / "broken" / "d"))
    monkeypatch.setenv("MOOD_CACHE", str(tmp_path / "another cache"))
    fit(FitConfig(**settings, output=tmp_path / "whole" / "d"))
    contents = [
        {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
        for folder in (tmp_path / "broken", tmp_path / "whole")
    ]
    assert contents[0] == contents[1]
    assert "d/score.safetensors" in contents[0]


class Own(torch.nn.Module):
    def __init__(self, seed=0):
        super().__init__()
        torch.manual_seed(seed)
        self.body = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 8, 8), torch.nn.GELU(), torch.nn.Flatten())
        self.fc = torch.nn.Linear(8 * 16, 10)

    def forward(self, images):
        return self.fc(self.body(images))


def test_the_users_own_network_from_fit_to_load(clothes, tmp_path):
    transform = Transform.from_pretrained_cfg({"input_size": (3, 32, 32)})
    own = {"model": Own(), "transform": transform, "head": "fc", "score": "energy", "alpha": 0.1, "workers": 0}
    with pytest.raises(mood.ModelError, match="rightly: its weights or its input transform were not read as"):
        mood.fit(clothes, **own)
    detector = mood.fit(clothes, **own, other_classes=True)
    assert not detector.promise.verified
    detector.save(tmp_path / "d")
    with pytest.raises(mood.ArtifactError, match="pass it"):
        mood.load(tmp_path / "d")
    few = clothes.select(range(9))
    assert mood.load(tmp_path / "d", model=Own())(few).equals(detector(few))
    with pytest.raises(mood.ArtifactError, match="weights differ"):
        mood.load(tmp_path / "d", model=Own(seed=1))
    changed = Own()
    changed.body[1] = torch.nn.ReLU()
    with pytest.raises(mood.ArtifactError, match="makes something else of them"):
        mood.load(tmp_path / "d", model=changed)


def test_two_modules_of_the_same_weights_have_features_of_their_own(clothes, tmp_path, monkeypatch):
    """Whoever repairs a forward(), or names another head, does not get what the cache has of before."""
    monkeypatch.setenv("MOOD_CACHE", str(tmp_path))
    transform = Transform.from_pretrained_cfg({"input_size": (3, 32, 32)})
    few = clothes.select(range(20))

    def embeddings(activation, head):
        module = Own()
        module.body[1] = activation
        return mood.extract(few, model=module, transform=transform, head=head).embedding

    first = embeddings(torch.nn.GELU(), "fc")
    assert not torch.equal(embeddings(torch.nn.ReLU(), "fc"), first)
    assert embeddings(torch.nn.GELU(), None).shape == (20, 10), "without a head the module gives the embedding"
    assert torch.equal(embeddings(torch.nn.GELU(), "fc"), first)
    assert len([path for path in tmp_path.rglob("*") if path.name == "shard-00000.safetensors"]) == 3


def test_a_detector_is_not_saved_over_what_is_there(detector, tmp_path):
    photos = tmp_path / "photos"
    photos.mkdir()
    (photos / "artifact.json").write_text("mine")
    with pytest.raises(mood.OutputError, match="was not written by mood and is left alone"):
        detector.save(photos, overwrite=True)
    assert (photos / "artifact.json").read_text() == "mine"
    assert [path.name for path in tmp_path.iterdir()] == ["photos"]
    (tmp_path / "scores.csv").write_text("id")
    with pytest.raises(mood.OutputError, match="was not written by mood"):
        detector.save(tmp_path / "scores.csv")
    with pytest.raises(mood.OutputError, match="nothing can be written"):
        detector.save(tmp_path / "scores.csv" / "d")
    detector.save(tmp_path / "d")
    with pytest.raises(mood.OutputError, match="holds a detector already: choose another place, or pass overwrite"):
        detector.save(tmp_path / "d")
    (tmp_path / "d" / "old").touch()
    detector.save(tmp_path / "d", overwrite=True)
    assert not (tmp_path / "d" / "old").exists()
    assert mood.load(tmp_path / "d").fingerprint() == detector.fingerprint()
    with pytest.raises(mood.OutputError, match="holds a model already: choose another place$"):
        detector.save(tmp_path / "d" / "model", overwrite=True)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["d", "photos", "scores.csv"]


def test_a_replacement_that_fails_at_its_last_step_leaves_what_was_there(detector, tmp_path, monkeypatch):
    detector.save(tmp_path / "d")
    rename = Path.rename

    def refused(path, target):
        if path.name == ".d.new":
            raise OSError(28, "full")
        return rename(path, target)

    with monkeypatch.context() as patched:
        patched.setattr(Path, "rename", refused)
        with pytest.raises(mood.OutputError, match="full"):
            detector.save(tmp_path / "d", overwrite=True)
    assert mood.load(tmp_path / "d").fingerprint() == detector.fingerprint()
    assert [path.name for path in tmp_path.iterdir()] == ["d"]
    # A kill between its two last steps.
    (tmp_path / "d").rename(tmp_path / ".d.old")
    with pytest.raises(mood.OutputError, match="holds a detector already"):
        detector.save(tmp_path / "d")
    assert mood.load(tmp_path / "d").fingerprint() == detector.fingerprint()


def test_a_save_that_fails_leaves_what_was_there(detector, tmp_path, monkeypatch):
    detector.save(tmp_path / "d")
    monkeypatch.setattr(
        "mood.detector.files.artifact.write", lambda *_, **__: (_ for _ in ()).throw(OSError(28, "full"))
    )
    with pytest.raises(mood.OutputError, match="full"):
        detector.save(tmp_path / "d", overwrite=True)
    monkeypatch.undo()
    assert mood.load(tmp_path / "d").fingerprint() == detector.fingerprint()
    assert [path.name for path in tmp_path.iterdir()] == ["d"]


def test_what_the_python_face_takes(network, clothes):
    detector = mood.fit("clothing", model=str(network), alpha=0.1, limit=200, workers=0)
    source = open_source("clothing", limit=200).select(range(3))
    images = [Image.open(io.BytesIO(source.read(i))).convert("RGB") for i in range(3)]
    expected = detector(source)["score"].to_pylist()
    assert detector(images)["score"].to_pylist() == expected
    assert detector([np.asarray(image) for image in images])["score"].to_pylist() == expected
    tensors = [torch.from_numpy(np.array(image)).permute(2, 0, 1) for image in images]
    assert detector(tensors)["score"].to_pylist() == expected
    with pytest.raises(InputError, match="value_range"):
        detector([tensor / 255 for tensor in tensors])
