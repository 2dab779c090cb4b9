"""Sets that torchvision reads and, but for LSUN and ImageNet, downloads: in its layout, below a data root.

Its readers say which files there are, in which order and of which class; what is in them is read here, later.
"""

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np

from mood.core.errors import DataError
from mood.data.layout import Layout, listed, needs
from mood.data.lmdb_store import list_lsun
from mood.data.memory import MemoryStore
from mood.data.source import Listing


def _from_arrays(pixels: np.ndarray, labels: np.ndarray, class_names: tuple[str, ...]) -> Listing:
    return Listing("", "", MemoryStore(pixels), labels.astype(np.int64), class_names)


def _cifar(kind: str) -> Callable[[Path, str, bool], Listing]:
    def read(root: Path, split: str, download: bool) -> Listing:
        from torchvision import datasets

        found = getattr(datasets, kind)(root, train=split == "train", download=download)
        return _from_arrays(found.data, np.asarray(found.targets), tuple(found.classes))

    return read


def _svhn(root: Path, split: str, download: bool) -> Listing:
    from torchvision import datasets

    try:
        found = datasets.SVHN(root, split=split, download=download)
    except ImportError as error:
        raise needs("SciPy", "SVHN comes as MATLAB files, which") from error
    return _from_arrays(found.data.transpose(0, 2, 3, 1), found.labels, tuple("0123456789"))


def _through_loader(kind: str, folder: str) -> Callable[[Path, str, bool], Listing]:
    """A reader whose loader sees each path, so that the files stay files."""

    def read(root: Path, split: str, download: bool) -> Listing:
        from torchvision import datasets

        try:
            found = getattr(datasets, kind)(root, split=split, download=download, loader=os.fspath)
        except ImportError as error:
            raise needs("SciPy", f"{kind} comes with MATLAB files, which") from error
        pairs = [found[index] for index in range(len(found))]
        return listed(root / folder, [path for path, _ in pairs], [label for _, label in pairs], found.classes)

    return read


def _pets(root: Path, split: str, download: bool) -> Listing:
    from torchvision import datasets

    # Asked for an image it decodes it, and it takes no loader.
    found = datasets.OxfordIIITPet(root, split=split, download=download)
    return listed(root / "oxford-iiit-pet" / "images", found._images, found._labels, found.classes)


def _places365(root: Path, split: str, download: bool) -> Listing:
    from torchvision import datasets

    folder = root / "places365"
    folder.mkdir(exist_ok=True)
    kept = {"train": "train-standard", "val": "val"}[split]
    found = datasets.Places365(folder, split=kept, small=True, download=download, loader=os.fspath)
    if not Path(found.images_dir).is_dir():
        raise DataError(f"the lists of files are there, and the images are not: there is no folder {found.images_dir}")
    names = sorted(found.class_to_idx, key=found.class_to_idx.__getitem__)
    return listed(Path(found.images_dir), [path for path, _ in found.imgs], found.targets, names)


def _caltech256(root: Path, split: str, download: bool) -> Listing:
    from torchvision import datasets

    found = datasets.Caltech256(root, download=download)
    folder = Path(found.root, "256_ObjectCategories")
    paths = [
        Path(found.categories[label], f"{label + 1:03d}_{number:04d}.jpg")
        for label, number in zip(found.y, found.index, strict=True)
    ]
    return listed(folder, paths, found.y, [name.partition(".")[2] for name in found.categories])


def _sun397(root: Path, split: str, download: bool) -> Listing:
    from torchvision import datasets

    found = datasets.SUN397(root, download=download, loader=os.fspath)
    # Its order is that of the file system.
    pairs = sorted(found[index] for index in range(len(found)))
    return listed(root / "SUN397", [path for path, _ in pairs], [label for _, label in pairs], found.classes)


def _inaturalist(root: Path, split: str, download: bool) -> Listing:
    from torchvision import datasets

    found = datasets.INaturalist(root / "inaturalist", version=split, download=download, loader=os.fspath)
    pairs = sorted(found[index] for index in range(len(found)))
    return listed(Path(found.root), [path for path, _ in pairs], [label for _, label in pairs], found.all_categories)


def _imagenet(root: Path, split: str, download: bool) -> Listing:
    from torchvision import datasets

    try:
        found = datasets.ImageNet(root / "imagenet", split=split, loader=os.fspath)
    except ImportError as error:
        raise needs("SciPy", "ImageNet's development kit holds MATLAB files, which") from error
    first = [names[0] for names in found.classes]
    # Two kinds of crane and two of maillot there are.
    names = [
        name if first.count(name) == 1 else f"{name} ({wnid})" for name, wnid in zip(first, found.wnids, strict=True)
    ]
    return listed(Path(found.split_folder), [path for path, _ in found.samples], found.targets, names)


SETS = {
    "cifar10": Layout(
        splits=("train", "test"),
        present="cifar-10-batches-py",
        archive="cifar-10-python.tar.gz",
        url="https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz",
        list=_cifar("CIFAR10"),
    ),
    "cifar100": Layout(
        splits=("train", "test"),
        present="cifar-100-python",
        archive="cifar-100-python.tar.gz",
        url="https://www.cs.toronto.edu/~kriz/cifar-100-python.tar.gz",
        list=_cifar("CIFAR100"),
    ),
    "svhn": Layout(
        splits=("train", "test", "extra"),
        present="{split}_32x32.mat",
        archive="{split}_32x32.mat",
        url="http://ufldl.stanford.edu/housenumbers/{split}_32x32.mat",
        list=_svhn,
    ),
    "dtd": Layout(
        splits=("train", "val", "test"),
        present="dtd/dtd",
        archive="dtd/dtd-r1.0.1.tar.gz",
        url="https://www.robots.ox.ac.uk/~vgg/data/dtd/download/dtd-r1.0.1.tar.gz",
        list=_through_loader("DTD", "dtd/dtd/images"),
    ),
    "flowers102": Layout(
        splits=("train", "val", "test"),
        present="flowers-102/jpg",
        archive="flowers-102/102flowers.tgz",
        url="https://www.robots.ox.ac.uk/~vgg/data/flowers/102/102flowers.tgz (and imagelabels.mat, setid.mat there)",
        list=_through_loader("Flowers102", "flowers-102/jpg"),
    ),
    "food101": Layout(
        splits=("train", "test"),
        present="food-101/images",
        archive="food-101.tar.gz",
        url="http://data.vision.ee.ethz.ch/cvl/food-101.tar.gz",
        list=_through_loader("Food101", "food-101/images"),
    ),
    "pets": Layout(
        splits=("trainval", "test"),
        present="oxford-iiit-pet/images",
        archive="oxford-iiit-pet/images.tar.gz",
        url="https://www.robots.ox.ac.uk/~vgg/data/pets/data/images.tar.gz (and annotations.tar.gz there)",
        list=_pets,
    ),
    "places365": Layout(
        splits=("train", "val"),
        present="places365/categories_places365.txt",
        archive="places365/{split}_256.tar",
        url="http://data.csail.mit.edu/places/places365/ ({split}_256*.tar and filelist_places365-standard.tar)",
        list=_places365,
    ),
    "caltech256": Layout(
        splits=(),
        present="caltech256/256_ObjectCategories",
        archive="caltech256/256_ObjectCategories.tar",
        url="https://data.caltech.edu/records/nyy15-4j048/files/256_ObjectCategories.tar",
        list=_caltech256,
    ),
    "sun397": Layout(
        splits=(),
        present="SUN397",
        archive="SUN397.tar.gz",
        url="http://vision.princeton.edu/projects/2010/SUN/SUN397.tar.gz",
        list=_sun397,
    ),
    "lsun": Layout(
        splits=("train", "val", "test"),
        present="lsun",
        archive="lsun/bedroom_{split}_lmdb and the other nine, or lsun/test_lmdb",
        url="http://dl.yf.io/lsun/scenes/ (or the script download.py of https://github.com/fyu/lsun)",
        list=list_lsun,
        downloads=False,
        unpack=True,
    ),
    "inaturalist": Layout(
        splits=("2017", "2018", "2019", "2021_train", "2021_train_mini", "2021_valid"),
        present="inaturalist/{split}",
        archive="inaturalist/{split}.tgz",
        url="https://github.com/visipedia/inat_comp",
        list=_inaturalist,
    ),
    "imagenet": Layout(
        splits=("train", "val"),
        present="imagenet",
        archive="imagenet/ILSVRC2012_img_{split}.tar, with ILSVRC2012_devkit_t12.tar.gz beside it",
        url="https://image-net.org/challenges/LSVRC/2012/2012-downloads.php (after registration)",
        list=_imagenet,
        downloads=False,
    ),
}
"""By name."""
