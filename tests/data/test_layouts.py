"""Every named set on a few files in exactly its layout: what is listed, in which order, of which class."""

import hashlib
import json
import pickle

import lmdb
import numpy as np
import pytest
import scipy.io
import torch
from torchvision import datasets

from mood.core.errors import DataError, MissingExtraError
from mood.data import cards, find, open_source
from mood.data.folder_sets import IMAGENET30
from mood.data.named import SETS


def put(root, png, *paths):
    """A picture of its own at each path."""
    for number, path in enumerate(paths):
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(png(number))


def text(root, path, content):
    (root / path).parent.mkdir(parents=True, exist_ok=True)
    (root / path).write_text(content)
    return hashlib.md5((root / path).read_bytes()).hexdigest()


def matlab(root, path, **content):
    (root / path).parent.mkdir(parents=True, exist_ok=True)
    scipy.io.savemat(root / path, content)
    return hashlib.md5((root / path).read_bytes()).hexdigest()


def flowers102(root, png, patch):
    put(root, png, *(f"flowers-102/jpg/image_{number:05d}.jpg" for number in (1, 2, 3)))
    label = matlab(root, "flowers-102/imagelabels.mat", labels=np.array([[77, 1, 102]], np.uint8))
    setid = matlab(root, "flowers-102/setid.mat", trnid=[[2]], valid=[[2]], tstid=[[3, 1]])
    files = datasets.Flowers102._file_dict
    made = {"label": ("imagelabels.mat", label), "setid": ("setid.mat", setid)}
    patch.setattr(datasets.Flowers102, "_file_dict", {**files, **made})
    return "flowers102:test", ["image_00003.jpg", "image_00001.jpg"], [101, 76], 102


def food101(root, png, patch):
    put(root, png, "food-101/images/waffles/2.jpg", "food-101/images/apple_pie/1.jpg")
    text(root, "food-101/meta/test.json", json.dumps({"apple_pie": ["apple_pie/1"], "waffles": ["waffles/2"]}))
    return "food101:test", ["apple_pie/1.jpg", "waffles/2.jpg"], [0, 1], ("apple_pie", "waffles")


def pets(root, png, patch):
    put(root, png, "oxford-iiit-pet/images/Abyssinian_2.jpg", "oxford-iiit-pet/images/american_bulldog_10.jpg")
    text(root, "oxford-iiit-pet/annotations/test.txt", "Abyssinian_2 1 1 1\namerican_bulldog_10 2 2 1\n")
    names = ("Abyssinian", "American Bulldog")
    return "pets:test", ["Abyssinian_2.jpg", "american_bulldog_10.jpg"], [0, 1], names


def places365(root, png, patch):
    put(root, png, "places365/val_256/Places365_val_00000001.jpg", "places365/val_256/Places365_val_00000002.jpg")
    # Not in the order of the alphabet.
    categories = text(root, "places365/categories_places365.txt", "/b/barn 0\n/a/airfield 1\n")
    listed = text(root, "places365/places365_val.txt", "Places365_val_00000001.jpg 1\nPlaces365_val_00000002.jpg 0\n")
    patch.setattr(datasets.Places365, "_CATEGORIES_META", ("categories_places365.txt", categories))
    meta = {**datasets.Places365._FILE_LIST_META, "val": ("places365_val.txt", listed)}
    patch.setattr(datasets.Places365, "_FILE_LIST_META", meta)
    files = ["Places365_val_00000001.jpg", "Places365_val_00000002.jpg"]
    return "places365:val", files, [1, 0], ("/b/barn", "/a/airfield")


def caltech256(root, png, patch):
    files = ["001.ak47/001_0001.jpg", "001.ak47/001_0002.jpg", "002.yo-yo/002_0001.jpg"]
    put(root, png, *(f"caltech256/256_ObjectCategories/{file}" for file in files))
    return "caltech256", files, [0, 0, 1], ("ak47", "yo-yo")


def sun397(root, png, patch):
    put(root, png, "SUN397/z/zoo/sun_a.jpg", "SUN397/a/abbey/sun_b.jpg", "SUN397/a/apse/indoor/sun_c.jpg")
    text(root, "SUN397/ClassName.txt", "/a/abbey\n/a/apse/indoor\n/z/zoo\n")
    files = ["a/abbey/sun_b.jpg", "a/apse/indoor/sun_c.jpg", "z/zoo/sun_a.jpg"]
    return "sun397", files, [0, 1, 2], ("abbey", "apse/indoor", "zoo")


def database(folder, images):
    folder.mkdir(parents=True)
    with lmdb.open(str(folder), map_size=2**20) as opened, opened.begin(write=True) as writing:
        for key, image in images.items():
            writing.put(key, image)


def lsun(root, png, patch):
    database(root / "lsun" / "tower_val_lmdb", {b"b": png(2), b"a": png(1)})
    database(root / "lsun" / "bedroom_val_lmdb", {b"c": png(0)})
    files = ["bedroom_val_lmdb#c", "tower_val_lmdb#a", "tower_val_lmdb#b"]
    return "lsun:val", files, [0, 1, 1], ("bedroom", "tower")


def lsun_test(root, png, patch):
    database(root / "lsun" / "test_lmdb", {b"b": png(1), b"a": png(0)})
    return "lsun:test", ["test_lmdb#a", "test_lmdb#b"], None, None


def inaturalist(root, png, patch):
    kinds = [f"{number:05d}_Animalia_Chordata_Aves_O_F_G_s{number}" for number in (0, 1)]
    put(root, png, *(f"inaturalist/2021_valid/{kind}/{file}" for kind in kinds for file in ("b.jpg", "a.jpg")))
    files = [f"{kind}/{file}" for kind in kinds for file in ("a.jpg", "b.jpg")]
    return "inaturalist:2021_valid", files, [0, 0, 1, 1], tuple(kinds)


def imagenet(root, png, patch):
    files = ["n02012849/v_1.JPEG", "n03126707/v_2.JPEG", "n01440764/v_3.JPEG"]
    put(root, png, *(f"imagenet/val/{file}" for file in files))
    named = {"n02012849": ("crane",), "n03126707": ("crane",), "n01440764": ("tench", "Tinca tinca")}
    torch.save((named, list(named)), root / "imagenet" / "meta.bin")
    return "imagenet:val", sorted(files), [0, 1, 2], ("tench", "crane (n02012849)", "crane (n03126707)")


def imagenet30(root, png, patch):
    # Some archives have each class twice on the way.
    files = [f"{name}/{name}/1.JPEG" for name in IMAGENET30]
    put(root, png, *(f"imagenet30/one_class_test/{file}" for file in files))
    return "imagenet30:test", files, list(range(30)), IMAGENET30


def stanford_dogs(root, png, patch):
    files = ["n02085620-Chihuahua/n02085620_7.jpg", "n02115641-dingo/n02115641_1.jpg"]
    put(root, png, *(f"stanford-dogs/Images/{file}" for file in files))
    cells = np.array([[file] for file in files], object)
    matlab(root, "stanford-dogs/test_list.mat", file_list=cells, annotation_list=cells, labels=[[1], [2]])
    return "stanford-dogs:test", files, [0, 1], ("Chihuahua", "dingo")


def cub200(root, png, patch):
    files = ["001.Albatross/A_1.jpg", "001.Albatross/A_2.jpg", "002.Wren/W_1.jpg"]
    put(root, png, *(f"CUB_200_2011/images/{file}" for file in files))
    for name, column in (
        ("images", files),
        ("image_class_labels", [1, 1, 2]),
        ("train_test_split", [1, 0, 0]),
        ("classes", ["001.Albatross", "002.Wren"]),
    ):
        text(root, f"CUB_200_2011/{name}.txt", "".join(f"{row} {value}\n" for row, value in enumerate(column, 1)))
    return "cub200:test", files[1:], [0, 1], ("Albatross", "Wren")


def tiny_words(root):
    text(root, "tiny-imagenet-200/wnids.txt", "n02\nn01\n")
    text(root, "tiny-imagenet-200/words.txt", "n01\tgoldfish, Carassius\nn02\tfrog\nn99\tother\n")


def tiny_imagenet(root, png, patch):
    tiny_words(root)
    put(root, png, *(f"tiny-imagenet-200/val/images/val_{number}.JPEG" for number in (0, 1)))
    text(
        root, "tiny-imagenet-200/val/val_annotations.txt", "val_1.JPEG\tn01\t0\t0\t9\t9\nval_0.JPEG\tn02\t0\t0\t9\t9\n"
    )
    files = ["val/images/val_0.JPEG", "val/images/val_1.JPEG"]
    return "tiny-imagenet:val", files, [1, 0], ("goldfish, Carassius", "frog")


def tiny_imagenet_train(root, png, patch):
    tiny_words(root)
    files = ["train/n01/images/n01_0.JPEG", "train/n02/images/n02_0.JPEG", "train/n02/images/n02_1.JPEG"]
    put(root, png, *(f"tiny-imagenet-200/{file}" for file in files))
    return "tiny-imagenet:train", files, [0, 1, 1], ("goldfish, Carassius", "frog")


def mos_textures(root, png, patch):
    put(root, png, "dtd/dtd/images/banded/banded_1.jpg", "dtd/dtd/images/zigzagged/zigzagged_1.jpg")
    return "mos-textures", ["banded/banded_1.jpg", "zigzagged/zigzagged_1.jpg"], [0, 1], ("banded", "zigzagged")


def ninco(root, png, patch):
    files = ["amphiuma_means/a_1.jpeg", "caracal/c_1.jpeg"]
    put(root, png, *(f"images_largescale/ninco/{file}" for file in files))
    return "ninco", files, [0, 1], ("amphiuma_means", "caracal")


def flat(name, folder):
    def lay_out(root, png, patch):
        put(root, png, f"{folder}/images/b.jpg", f"{folder}/images/a.jpg")
        return name, ["images/a.jpg", "images/b.jpg"], None, None

    lay_out.__name__ = name.replace("-", "_")
    return lay_out


LAYOUTS = [
    flowers102,
    food101,
    pets,
    places365,
    caltech256,
    sun397,
    lsun,
    lsun_test,
    inaturalist,
    imagenet,
    imagenet30,
    stanford_dogs,
    cub200,
    tiny_imagenet,
    tiny_imagenet_train,
    mos_textures,
    ninco,
    flat("mos-inaturalist", "mos/iNaturalist"),
    flat("mos-sun", "mos/SUN"),
    flat("mos-places", "mos/Places"),
    flat("lsun-resize", "LSUN_resize"),
    flat("lsun-crop", "LSUN"),
    flat("lsun-fix", "LSUN_fix"),
    flat("imagenet-resize", "Imagenet_resize"),
    flat("imagenet-fix", "Imagenet_fix"),
    flat("ssb-hard", "images_largescale/ssb_hard"),
    flat("openimage-o", "images_largescale/openimage_o"),
]
ELSEWHERE = {"cifar10", "cifar100", "svhn", "dtd"}  # in test_named.py


@pytest.mark.parametrize("lay_out", LAYOUTS, ids=lambda lay_out: lay_out.__name__)
def test_a_set_in_its_layout(lay_out, roots, png, monkeypatch):
    name, ids, labels, names = lay_out(roots, png, monkeypatch)
    source = open_source(name, roots=[roots])
    assert source.name == name
    assert str(roots) in source.description
    assert source.manifest.ids == tuple(ids)
    if labels is None:
        assert source.manifest.labels is None
    else:
        assert source.manifest.labels.tolist() == labels
        found = source.manifest.class_names
        assert (len(found) if isinstance(names, int) else found) == names
    # Bytes as they lie there, and each image its own.
    assert all(source.read(position)[:4] == b"\x89PNG" for position in range(len(source)))
    assert len(set(source.manifest.hashes)) == len(source)
    assert open_source(name, roots=[roots]).manifest.fingerprint == source.manifest.fingerprint
    set_name, _, split = name.partition(":")
    assert find(set_name, roots=[roots])[split].is_relative_to(roots)


def test_no_set_is_without_a_test():
    tested = {lay_out.__name__.replace("_", "-").removesuffix("-test").removesuffix("-train") for lay_out in LAYOUTS}
    assert tested | ELSEWHERE == set(SETS)


def test_every_set_has_a_card():
    assert set(SETS) | {"clothing", "omniglot", "bccd"} == set(cards())


@pytest.mark.parametrize("name", sorted(set(SETS) - ELSEWHERE))
def test_a_set_that_is_nowhere_says_where_to_get_it(name, roots, monkeypatch):
    """Without a connection, as far as torchvision would use one."""
    from urllib.error import URLError

    def unreachable(*arguments, **options):
        raise URLError("no route to host")

    monkeypatch.setattr("urllib.request.urlopen", unreachable)
    layout = SETS[name]
    split = layout.splits[-1] if layout.splits else ""
    with pytest.raises(DataError, match="is under none of") as raised:
        open_source(f"{name}:{split}" if split else name, roots=[roots])
    message = str(raised.value)
    assert ("no route to host" in message) == layout.downloads
    assert layout.url.format(split=split) in message
    assert layout.archive.format(split=split) in message
    assert f"{name}-{split}.parquet" in message or (not split and f"{name}.parquet" in message)


def test_a_file_beside_the_classes_is_named(roots, png, monkeypatch):
    name, *_ = imagenet30(roots, png, monkeypatch)
    put(roots, png, "imagenet30/one_class_test/stray.jpg")
    with pytest.raises(DataError, match=r"one_class_test has no labels: stray.jpg lies in .* itself"):
        open_source(name, roots=[roots])


@pytest.mark.parametrize("lay_out", [cub200, tiny_imagenet, stanford_dogs, food101, imagenet30])
def test_a_layout_that_is_not_complete(lay_out, roots, png, monkeypatch):
    name, *_ = lay_out(roots, png, monkeypatch)
    for path in sorted(roots.rglob("*")):
        if path.exists() and (path.suffix in (".txt", ".mat", ".json") or path.name == "volcano"):
            path.rename(path.with_name(f".{path.name}"))
    with pytest.raises(DataError, match=f"{name} in {roots} is damaged or not complete"):
        open_source(name, roots=[roots])


def test_a_list_that_leads_out_of_its_folder(roots, png, monkeypatch):
    cub200(roots, png, monkeypatch)
    text(roots, "CUB_200_2011/images.txt", "1 a/b.jpg\n2 ../../secret.jpg\n3 c.jpg\n")
    with pytest.raises(DataError, match=r"\.\./\.\./secret.jpg leads out of the folder"):
        open_source("cub200:test", roots=[roots])


def test_labels_that_no_class_has(roots, png, monkeypatch):
    cub200(roots, png, monkeypatch)
    text(roots, "CUB_200_2011/image_class_labels.txt", "1 1\n2 7\n3 2\n")
    with pytest.raises(DataError, match="go from 1 to 6; there are 2 classes"):
        open_source("cub200:test", roots=[roots])


def test_a_tiny_imagenet_image_of_no_class(roots, png, monkeypatch):
    tiny_imagenet(roots, png, monkeypatch)
    text(roots, "tiny-imagenet-200/val/val_annotations.txt", "val_0.JPEG\tn77\n")
    with pytest.raises(DataError, match="wnids.txt lacks n77"):
        open_source("tiny-imagenet:val", roots=[roots])


def test_places_without_their_images(roots, png, monkeypatch):
    places365(roots, png, monkeypatch)
    (roots / "places365" / "val_256").rename(roots / "elsewhere")
    with pytest.raises(DataError, match="the images are not: there is no folder .*val_256"):
        open_source("places365:val", roots=[roots])


def test_a_set_without_splits_is_not_asked_for_one(roots):
    with pytest.raises(DataError, match="The set caltech256 has no splits; ask for caltech256 alone"):
        open_source("caltech256:train", roots=[roots])


@pytest.mark.parametrize(
    ("lay_out", "module", "told"),
    [
        (lsun, "lmdb", "LSUN comes as LMDB databases, which needs lmdb"),
        (stanford_dogs, "scipy.io", "Stanford Dogs comes with MATLAB files, which needs SciPy"),
        (flowers102, "scipy.io", "Flowers102 comes with MATLAB files, which needs SciPy"),
    ],
)
def test_what_a_set_needs(lay_out, module, told, roots, png, monkeypatch):
    name, *_ = lay_out(roots, png, monkeypatch)
    monkeypatch.setitem(__import__("sys").modules, module, None)
    with pytest.raises(MissingExtraError, match=told):
        open_source(name, roots=[roots])


class TestLsun:
    def test_a_store_can_be_pickled(self, roots, png, monkeypatch):
        lsun(roots, png, monkeypatch)
        source = open_source("lsun:val", roots=[roots])
        again = pickle.loads(pickle.dumps(source))
        assert [again.read(position) for position in range(3)] == [png(0), png(1), png(2)]

    def test_nothing_is_left_in_the_working_folder(self, roots, png, monkeypatch, tmp_path):
        """torchvision's reader would leave a pickle there, and load one."""
        lsun(roots, png, monkeypatch)
        (tmp_path / "work").mkdir()
        monkeypatch.chdir(tmp_path / "work")
        open_source("lsun:val", roots=[roots])
        assert not list((tmp_path / "work").iterdir())

    def test_a_database_that_is_none(self, roots):
        (roots / "lsun" / "tower_val_lmdb").mkdir(parents=True)
        with pytest.raises(DataError, match="tower_val_lmdb holds no LMDB database"):
            open_source("lsun:val", roots=[roots])

    def test_none_of_the_ten(self, roots):
        (roots / "lsun").mkdir()
        with pytest.raises(DataError, match="none of the folders bedroom_train_lmdb to tower_train_lmdb"):
            open_source("lsun:train", roots=[roots])
