"""DATA that is either images or features: which it is, and that what is open stays as it is."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mood.core.errors import InputError
from mood.core.features import Features
from mood.data import is_features, open_data, open_source


def test_which_data_is_features(tmp_path):
    pq.write_table(pa.table({"embedding": pa.array([[1.0, 2.0]])}), tmp_path / "features.parquet")
    pq.write_table(pa.table({"image": pa.array([b""])}), tmp_path / "images.parquet")
    (tmp_path / "damaged.parquet").write_bytes(b"PAR1")
    assert is_features("anything.npz")
    assert is_features("anything.safetensors")
    assert is_features(tmp_path / "features.parquet")
    for name in ("images.parquet", "damaged.parquet", "absent.parquet", "."):
        assert not is_features(str(tmp_path / name))
    assert not is_features("cifar10")


def test_data_is_opened_as_what_it_is_and_what_is_open_stays(tmp_path, pets):
    rows = Features(np.random.default_rng(0).normal(size=(6, 4)))
    rows.save(tmp_path / "rows.safetensors")
    np.savez(tmp_path / "rows.npz", embedding=rows.embedding)
    for name in ("rows.safetensors", "rows.npz"):
        for path in (tmp_path / name, str(tmp_path / name)):
            found = open_data(path)
            assert isinstance(found, Features)
            assert found.fingerprint() == rows.fingerprint()
    assert open_data(rows) is rows
    assert open_data(pets, limit=2).manifest.ids == open_source(pets, limit=2).manifest.ids
    source = open_source(pets)
    assert open_data(source) is source
    images = np.full((2, 4, 4, 3), 0.5)
    assert np.array_equal(
        open_data(images, value_range=(0, 1)).read(0), open_source(images, value_range=(0, 1)).read(0)
    )


@pytest.mark.parametrize("change", [{"classes": ("a",)}, {"limit": 10}, {"coarse": True}])
def test_what_chooses_among_images_is_refused_for_features(change, tmp_path):
    rows = Features(np.ones((6, 4)))
    rows.save(tmp_path / "rows.safetensors")
    for given in (rows, tmp_path / "rows.safetensors"):
        with pytest.raises(InputError, match="coarse, classes and limit are of images"):
            open_data(given, **change)
