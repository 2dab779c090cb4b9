"""Sets that nobody downloads for you: each in the layout in which its authors give it, below a data root."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from mood.core.errors import DataError
from mood.data.files import list_folder
from mood.data.imglist import OPENOOD
from mood.data.layout import Layout, lines, listed, needs
from mood.data.source import Listing

IMAGENET30 = (
    "acorn",
    "airliner",
    "ambulance",
    "american_alligator",
    "banjo",
    "barn",
    "bikini",
    "digital_clock",
    "dragonfly",
    "dumbbell",
    "forklift",
    "goblet",
    "grand_piano",
    "hotdog",
    "hourglass",
    "manhole_cover",
    "mosque",
    "nail",
    "parking_meter",
    "pillow",
    "revolver",
    "rotary_dial_telephone",
    "schooner",
    "snowmobile",
    "soccer_ball",
    "stingray",
    "strawberry",
    "tank",
    "toaster",
    "volcano",
)
"""The classes of Hendrycks et al., NeurIPS 2019, as their folders are called."""


def _whole(folder: str, *, labelled: bool) -> Callable[[Path, str, bool], Listing]:
    """All that lies below a folder, labelled by the first sub-folder where these are classes."""

    def read(root: Path, split: str, _: bool) -> Listing:
        found = list_folder(root / folder.format(split=split))
        return found if labelled else Listing("", "", found.store)

    return read


def _imagenet30(root: Path, split: str, _: bool) -> Listing:
    folder = root / "imagenet30" / f"one_class_{split}"
    found = list_folder(folder)
    if found.class_names is None:
        raise DataError(f"{folder} has no labels: {found.unlabelled}.")
    if found.class_names != IMAGENET30:
        other = sorted(set(found.class_names) ^ set(IMAGENET30))
        raise DataError(
            f"{folder} does not hold the 30 classes of ImageNet-30, each in its folder: see {', '.join(other)}."
        )
    return found


def _stanford_dogs(root: Path, split: str, _: bool) -> Listing:
    try:
        from scipy.io import loadmat
    except ImportError as error:
        raise needs("SciPy", "Stanford Dogs comes with MATLAB files, which") from error
    content: dict[str, Any] = loadmat(root / "stanford-dogs" / f"{split}_list.mat", squeeze_me=True)
    paths = [str(path) for path in content["file_list"]]
    labels = [int(label) - 1 for label in content["labels"]]
    # n02085620-Chihuahua/n02085620_5927.jpg
    names = sorted(
        {(label, path.partition("/")[0].partition("-")[2]) for label, path in zip(labels, paths, strict=True)}
    )
    return listed(root / "stanford-dogs" / "Images", paths, labels, [name for _, name in names])


def _cub200(root: Path, split: str, _: bool) -> Listing:
    folder = root / "CUB_200_2011"
    table = {
        name: dict(line.split(maxsplit=1) for line in lines(folder / f"{name}.txt"))
        for name in ("images", "image_class_labels", "train_test_split", "classes")
    }
    kept = [image for image, train in table["train_test_split"].items() if train == ("1" if split == "train" else "0")]
    labels = [int(table["image_class_labels"][image]) - 1 for image in kept]
    names = [table["classes"][number].partition(".")[2] for number in sorted(table["classes"], key=int)]
    return listed(folder / "images", [table["images"][image] for image in kept], labels, names)


def _tiny_imagenet(root: Path, split: str, _: bool) -> Listing:
    folder = root / "tiny-imagenet-200"
    wnids = sorted(lines(folder / "wnids.txt"))
    words = dict(line.split("\t", 1) for line in lines(folder / "words.txt"))
    if split == "val":
        marked = sorted(line.split("\t")[:2] for line in lines(folder / "val" / "val_annotations.txt"))
        paths, classes = [f"val/images/{name}" for name, _ in marked], [wnid for _, wnid in marked]
    else:
        found = [(wnid, path) for wnid in wnids for path in sorted((folder / "train" / wnid / "images").iterdir())]
        paths, classes = [str(path) for _, path in found], [wnid for wnid, _ in found]
    place = {wnid: number for number, wnid in enumerate(wnids)}
    unknown = sorted(set(classes) - set(wnids))
    if unknown:
        raise DataError(f"{folder}/wnids.txt lacks {unknown[0]}, to which an image is assigned.")
    return listed(folder, paths, [place[wnid] for wnid in classes], [words.get(wnid, wnid) for wnid in wnids])


def _flat(folder: str, url: str) -> Layout:
    """Images without labels in one folder, however deep."""
    return Layout((), folder, folder, url, _whole(folder, labelled=False), downloads=False, unpack=True)


_MOS = "http://pages.cs.wisc.edu/~huangrui/imagenet_ood_dataset/"
_ODIN = "https://github.com/facebookresearch/odin"
_CSI = "https://github.com/alinlab/CSI"

SETS = {
    "imagenet30": Layout(
        splits=("train", "test"),
        present="imagenet30/one_class_{split}",
        archive="imagenet30/one_class_{split}",
        url="https://github.com/hendrycks/ss-ood",
        list=_imagenet30,
        downloads=False,
        unpack=True,
    ),
    "stanford-dogs": Layout(
        splits=("train", "test"),
        present="stanford-dogs/Images",
        archive="stanford-dogs/Images, with train_list.mat and test_list.mat beside it",
        url="http://vision.stanford.edu/aditya86/ImageNetDogs/ (images.tar and lists.tar)",
        list=_stanford_dogs,
        downloads=False,
        unpack=True,
    ),
    "cub200": Layout(
        splits=("train", "test"),
        present="CUB_200_2011/images",
        archive="CUB_200_2011",
        url="https://data.caltech.edu/records/65de6-vp158 (CUB_200_2011.tgz)",
        list=_cub200,
        downloads=False,
        unpack=True,
    ),
    "tiny-imagenet": Layout(
        splits=("train", "val"),
        present="tiny-imagenet-200",
        archive="tiny-imagenet-200",
        url="http://cs231n.stanford.edu/tiny-imagenet-200.zip",
        list=_tiny_imagenet,
        downloads=False,
        unpack=True,
    ),
    "mos-inaturalist": _flat("mos/iNaturalist", f"{_MOS}iNaturalist.tar.gz"),
    "mos-sun": _flat("mos/SUN", f"{_MOS}SUN.tar.gz"),
    "mos-places": _flat("mos/Places", f"{_MOS}Places.tar.gz"),
    "mos-textures": Layout(
        splits=(),
        present="dtd/dtd/images",
        archive="dtd/dtd",
        url="https://www.robots.ox.ac.uk/~vgg/data/dtd/download/dtd-r1.0.1.tar.gz",
        list=_whole("dtd/dtd/images", labelled=True),
        downloads=False,
        unpack=True,
    ),
    "lsun-resize": _flat("LSUN_resize", f"{_ODIN} (LSUN (resize))"),
    "lsun-crop": _flat("LSUN", f"{_ODIN} (LSUN (crop))"),
    "lsun-fix": _flat("LSUN_fix", f"{_CSI} (LSUN_fix)"),
    "imagenet-resize": _flat("Imagenet_resize", f"{_ODIN} (Tiny-ImageNet (resize))"),
    "imagenet-fix": _flat("Imagenet_fix", f"{_CSI} (ImageNet_fix)"),
    "ssb-hard": _flat("images_largescale/ssb_hard", OPENOOD),
    "ninco": Layout(
        splits=(),
        present="images_largescale/ninco",
        archive="images_largescale/ninco",
        url=f"https://zenodo.org/record/8013288 (NINCO_OOD_classes of NINCO_all.tar.gz), or {OPENOOD}",
        list=_whole("images_largescale/ninco", labelled=True),
        downloads=False,
        unpack=True,
    ),
    "openimage-o": _flat("images_largescale/openimage_o", f"{OPENOOD}, or https://github.com/haoqiwang/vim"),
}
"""By name."""
