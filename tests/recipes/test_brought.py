"""Features in place of images: which DATA they are, and what tells them from others."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mood.core.errors import DataError, InputError, OutputError, PromiseError
from mood.core.features import Features
from mood.recipes.brought import features_fingerprint, is_features, opened
from mood.recipes.fit import FitConfig, fit
from mood.recipes.inputs import fingerprint_of


def test_which_data_is_features(tmp_path):
    pq.write_table(pa.table({"embedding": pa.array([[1.0, 2.0]])}), tmp_path / "features.parquet")
    pq.write_table(pa.table({"image": pa.array([b""])}), tmp_path / "images.parquet")
    (tmp_path / "damaged.parquet").write_bytes(b"PAR1")
    assert is_features("anything.npz")
    assert is_features(str(tmp_path / "features.parquet"))
    for name in ("images.parquet", "damaged.parquet", "absent.parquet", "."):
        assert not is_features(str(tmp_path / name))
    assert not is_features("cifar10")


def test_features_with_anything_changed_have_another_fingerprint():
    draws = np.random.default_rng(0)
    columns = {
        "embedding": draws.normal(size=(6, 4)),
        "logits": draws.normal(size=(6, 3)),
        "labels": draws.integers(0, 3, 6),
        "ids": [f"image {index}" for index in range(6)],
        "reconstruction": draws.normal(size=6),
    }
    prints = {features_fingerprint(Features(**columns))}
    assert features_fingerprint(Features(**columns)) in prints
    for name in columns:
        changed = dict(columns)
        changed[name] = columns[name][::-1] if name == "ids" else columns[name] + 1
        prints.add(features_fingerprint(Features(**changed)))
    prints.add(features_fingerprint(Features(columns["embedding"])))
    prints.add(features_fingerprint(Features(columns["embedding"].astype(np.float32))))
    assert len(prints) == 8


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


def test_data_is_opened_as_what_it_is_and_what_is_open_stays(write, stripes, stripes_folder, tmp_path):
    found = opened(write("f.npz"))
    assert isinstance(found, Features)
    assert fingerprint_of(found) == features_fingerprint(found)
    assert opened(found) is found
    assert len(opened(stripes_folder(tmp_path / "images", 8), classes=("class 1",), limit=3)) == 3
    source = stripes(10)
    assert opened(source) is source
    assert fingerprint_of(source) == source.manifest.fingerprint
    for change in ({"classes": ("a",)}, {"limit": 10}, {"coarse": True}):
        with pytest.raises(InputError, match="coarse, classes and limit are of images"):
            opened(write("f.npz"), **change)
