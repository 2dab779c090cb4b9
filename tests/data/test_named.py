"""Sets by name: Parquet under the data roots, and torchvision's own layouts."""

import hashlib
import pickle
from urllib.error import URLError

import numpy as np
import pytest
import scipy.io
from torchvision import datasets

from mood.core.errors import DataError, MissingExtraError
from mood.data import check_data, named, open_source
from mood.data.named import SAMPLES, data_cache


def md5(path):
    return hashlib.md5(path.read_bytes()).hexdigest()


def dump(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(pickle.dumps(content))
    return md5(path)


PIXELS = np.random.default_rng(0).integers(0, 256, (10, 32, 32, 3), dtype=np.uint8)
ROWS = PIXELS.transpose(0, 3, 1, 2).reshape(10, -1)


def lay_out_cifar10(root, monkeypatch):
    folder = root / "cifar-10-batches-py"
    train = [f"data_batch_{number}" for number in range(1, 6)]
    sums = {
        name: dump(folder / name, {"data": ROWS[number : number + 1], "labels": [number % 3]})
        for number, name in enumerate([*train, "test_batch"])
    }
    meta = dump(folder / "batches.meta", {"label_names": ["airplane", "automobile", "bird"]})
    monkeypatch.setattr(datasets.CIFAR10, "train_list", [[name, sums[name]] for name in train])
    monkeypatch.setattr(datasets.CIFAR10, "test_list", [["test_batch", sums["test_batch"]]])
    monkeypatch.setattr(datasets.CIFAR10, "meta", {**datasets.CIFAR10.meta, "md5": meta})


def lay_out_cifar100(root, monkeypatch):
    folder = root / "cifar-100-python"
    sums = {name: dump(folder / name, {"data": ROWS[:4], "fine_labels": [1, 0, 1, 0]}) for name in ("train", "test")}
    meta = dump(folder / "meta", {"fine_label_names": ["apple", "baby"]})
    monkeypatch.setattr(datasets.CIFAR100, "train_list", [["train", sums["train"]]])
    monkeypatch.setattr(datasets.CIFAR100, "test_list", [["test", sums["test"]]])
    monkeypatch.setattr(datasets.CIFAR100, "meta", {**datasets.CIFAR100.meta, "md5": meta})


def lay_out_svhn(root, monkeypatch):
    file = root / "test_32x32.mat"
    scipy.io.savemat(file, {"X": PIXELS[:3].transpose(1, 2, 3, 0), "y": np.array([[10], [1], [9]], np.uint8)})
    splits = {**datasets.SVHN.split_list, "test": ["http://localhost/", file.name, md5(file)]}
    monkeypatch.setattr(datasets.SVHN, "split_list", splits)


def lay_out_dtd(root, png):
    folder = root / "dtd" / "dtd"
    listed = ["banded/banded_0002.jpg", "zigzagged/zigzagged_0001.jpg"]
    for number, name in enumerate(listed):
        (folder / "images" / name).parent.mkdir(parents=True)
        (folder / "images" / name).write_bytes(png(number))
    (folder / "labels").mkdir()
    (folder / "labels" / "val1.txt").write_text("\n".join(listed) + "\n")


def test_parquet_files_under_the_roots(roots, tmp_path, monkeypatch, png, write_table):
    write_table(roots / "textures.parquet", [png(0)])
    write_table(roots / "pets-test.parquet", [png(1)])
    assert open_source("textures", roots=[roots]).read(0) == png(0)
    by_split = open_source("pets:test", roots=[str(roots)])
    assert by_split.read(0) == png(1)
    assert by_split.name == "pets:test"
    assert str(roots / "pets-test.parquet") in by_split.description
    # A file's whole name is a name too.
    assert open_source("pets-test", roots=[roots]).manifest.fingerprint == by_split.manifest.fingerprint


def test_the_order_of_the_roots(roots, tmp_path, monkeypatch, png, write_table):
    environment = [tmp_path / "one", tmp_path / "two"]
    for number, root in enumerate([data_cache(), *reversed(environment), roots]):
        root.mkdir(exist_ok=True, parents=True)
        write_table(root / "pets.parquet", [png(number)])
        assert open_source("pets", roots=[roots]).read(0) == png(number)
        monkeypatch.setenv("MOOD_DATA", ":".join(map(str, environment)))


def test_a_path_comes_before_a_name(roots, pets, monkeypatch, png, write_table):
    write_table(roots / "pets.parquet", [png(0)])
    monkeypatch.chdir(pets.parent)
    assert len(open_source("pets", roots=[roots])) == 5


def test_names_that_lead_nowhere(roots, tmp_path, png, write_table):
    write_table(roots / "pets-train.parquet", [png(0)])
    write_table(roots / "pets-test.parquet", [png(0)])
    for name, message in (
        ("pets", "pets has splits, and one must be named: pets:test, pets:train"),
        ("pets:val", "pets has no split 'val': pets:test, pets:train"),
        ("cifar10", "cifar10 has splits, and one must be named: cifar10:test, cifar10:train"),
        ("dtd:extra", "dtd has no split 'extra': dtd:test, dtd:train, dtd:val"),
        ("cifar1O", "no file, folder or set 'cifar1O'. The nearest known: cifar10, cifar100"),
        ("pest-test", "The nearest known: pets-test"),
        (
            "zzzzzz",
            rf"Searched for zzzzzz.parquet in {roots}, {SAMPLES}, {data_cache()} \(absent\); torchvision brings",
        ),
        ("../pets", "no file or folder '../pets'"),
    ):
        with pytest.raises(DataError, match=message):
            open_source(name, roots=[roots])
    for data in ("pets", roots):
        with pytest.raises(DataError, match=r"data root .*absent is not a folder"):
            open_source(data, roots=[tmp_path / "absent"])


def test_what_lies_beside_a_name_that_leads_nowhere_is_named(pets, roots, monkeypatch):
    monkeypatch.chdir(pets.parent)
    (pets.parent / ".peds").mkdir()
    (pets.parent / "chosen.txt").write_text("")
    for name, message in (
        ("peds", r"There is no file, folder or set 'peds' \(there is pets\)\. Th"),
        ("pet", r"'pet' \(there is pets\)\."),
        (f"{pets}/dogs", rf"\(there is {pets}/dog\), and the name of a set looks otherwise"),
        (pets / "dogs", rf"There is no file or folder {pets}/dogs \(there is {pets}/dog\)\."),
        ("peds/cat", r"'peds/cat' \(there is pets\), and"),
        ("choosen.txt", r"neither here \(there is chosen.txt\) nor under"),
        ("zzzzzz", r"set 'zzzzzz'\. Searched"),
    ):
        with pytest.raises(DataError, match=message):
            open_source(name, roots=[roots])
    monkeypatch.setattr(named, "BESIDE", 0)
    with pytest.raises(DataError, match=r"set 'pet'\."):
        open_source("pet", roots=[roots])


def test_whether_data_is_here_is_told_without_opening_it(pets, roots, png, write_table, monkeypatch):
    (roots / "cifar-10-batches-py").mkdir()
    (roots / "list.txt").write_text("")
    write_table(roots / "birds-test.parquet", [png(0)])
    for data in (str(pets), f"{pets}/*/a.png", "cifar10:test", "list.txt", "birds:test", "birds-test", "clothing"):
        check_data(data, roots=[roots])
    for data, message in (
        ("cifar100:train", r"is under none of .* It would be downloaded into the last of them. Download https"),
        ("cub200:train", rf"is under none of .*\(absent\). Download https.* and unpack it to {data_cache()}"),
        ("cifar10", "has splits, and one must be named"),
        ("birds:train", "has no split 'train': birds:test"),
        ("other.txt", "There is no file other.txt"),
        (f"{pets}/*.gif", "No file matches"),
        (f"{pets}/none", "There is no file or folder"),
    ):
        with pytest.raises(DataError, match=message):
            check_data(data, roots=[roots])


def test_cifar_in_torchvisions_layout(roots, monkeypatch):
    lay_out_cifar10(roots, monkeypatch)
    train, test = (open_source(f"cifar10:{split}", roots=[roots]) for split in ("train", "test"))
    assert train.manifest.labels.tolist() == [0, 1, 2, 0, 1]
    assert train.manifest.class_names == ("airplane", "automobile", "bird")
    assert np.array_equal(train.read(3), PIXELS[3])
    assert np.array_equal(test.read(0), PIXELS[5])
    assert (train.name, train.manifest.ids[3]) == ("cifar10:train", "3")
    assert str(roots) in train.description
    lay_out_cifar100(data_cache(), monkeypatch)
    assert open_source("cifar100:test", roots=[roots]).manifest.labels.tolist() == [1, 0, 1, 0]


def test_svhn_in_torchvisions_layout(roots, monkeypatch):
    lay_out_svhn(roots, monkeypatch)
    source = open_source("svhn:test", roots=[roots])
    assert source.manifest.labels.tolist() == [0, 1, 9]
    assert source.manifest.class_names == tuple("0123456789")
    assert np.array_equal(source.read(2), PIXELS[2])


def test_svhn_needs_scipy(roots, monkeypatch):
    lay_out_svhn(roots, monkeypatch)
    monkeypatch.setitem(__import__("sys").modules, "scipy.io", None)
    with pytest.raises(MissingExtraError, match="SciPy"):
        open_source("svhn:test", roots=[roots])


def test_dtd_in_torchvisions_layout(roots, png):
    lay_out_dtd(roots, png)
    source = open_source("dtd:val", roots=[roots])
    assert source.manifest.ids == ("banded/banded_0002.jpg", "zigzagged/zigzagged_0001.jpg")
    assert source.manifest.class_names == ("banded", "zigzagged")
    assert source.manifest.labels.tolist() == [0, 1]
    assert source.read(1) == png(1)


def test_a_download_that_fails_says_where_to_put_it(roots, monkeypatch):
    def unreachable(self):
        raise URLError("no route to host")

    monkeypatch.setattr(datasets.CIFAR10, "download", unreachable)
    archive = data_cache() / "cifar-10-python.tar.gz"
    with pytest.raises(DataError, match=r"its download failed .*no route to host") as raised:
        open_source("cifar10:train", roots=[roots])
    for part in ("https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz", str(archive), "cifar10-train.parquet"):
        assert part in str(raised.value)


def test_files_of_torchvision_that_are_damaged(roots):
    (roots / "cifar-10-batches-py").mkdir()
    with pytest.raises(DataError, match=f"cifar10:train in {roots} is damaged or not complete"):
        open_source("cifar10:train", roots=[roots])
