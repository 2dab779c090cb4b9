"""Sets by their names: Parquet files under the data roots, and what torchvision can bring."""

import os
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path

import numpy as np

from mood.core.errors import DataError, MissingExtraError
from mood.data.files import FileStore
from mood.data.memory import MemoryStore
from mood.data.parquet import list_parquet
from mood.data.source import Listing

NAME = re.compile(r"(?P<name>\w[\w.+-]*)(:(?P<split>\w[\w.+-]*))?")
"""What a set's name looks like: NAME or NAME:SPLIT."""


SAMPLES = Path(__file__).parent / "samples"
"""The sets that come with mood: clothing, omniglot and bccd."""


def data_cache() -> Path:
    """Where downloaded sets are kept: `data` in `MOOD_CACHE`, else in `mood` of the user's cache folder."""
    home = os.environ.get("MOOD_CACHE")
    base = Path(home) if home else Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "mood"
    return base / "data"


def data_roots(roots: Sequence[str | os.PathLike[str]]) -> list[Path]:
    """The folders that are searched, in order: the argument's, those of `MOOD_DATA`, the samples of mood, the cache.

    Raises:
        DataError: where one of the argument's is no folder.
    """
    given = [Path(root).expanduser() for root in roots]
    for root in given:
        if not root.is_dir():
            raise DataError(f"The data root {root} is not a folder.")
    environment = [Path(root).expanduser() for root in os.environ.get("MOOD_DATA", "").split(os.pathsep) if root]
    return [*given, *environment, SAMPLES, data_cache()]


def list_named(text: str, roots: Sequence[Path]) -> Listing:
    """The set NAME or NAME:SPLIT.

    `NAME.parquet` or `NAME-SPLIT.parquet` in the first root that has it; else torchvision's files in the first root
    that has those; else what torchvision downloads into the cache, which is the last root.

    Raises:
        DataError: where the name or the split is unknown, a split must be named, or the download fails.
        MissingExtraError: where torchvision needs a package that is not installed.
    """
    match = NAME.fullmatch(text)
    if match is None:
        raise DataError(
            f"There is no file or folder {text!r}, and the name of a set looks otherwise: NAME or NAME:SPLIT."
        )
    name, split = match["name"], match["split"]
    stem = f"{name}-{split}" if split else name
    for root in roots:
        if (file := root / f"{stem}.parquet").is_file():
            return list_parquet([file], text, f"set {text} in {file}")
    brought = _TORCHVISION.get(name)
    if brought and split in brought.splits:
        return _bring(brought, name, str(split), roots)
    raise DataError(_unknown(text, name, split, roots))


@dataclass(frozen=True, slots=True)
class _Brought:
    """A set that torchvision reads and downloads."""

    splits: tuple[str, ...]
    present: str
    archive: str
    url: str
    list: Callable[[Path, str, bool], Listing]


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
        raise MissingExtraError("SVHN comes as MATLAB files, which need SciPy: pip install scipy.") from error
    return _from_arrays(found.data.transpose(0, 2, 3, 1), found.labels, tuple("0123456789"))


def _dtd(root: Path, split: str, download: bool) -> Listing:
    from torchvision import datasets

    # Its loader sees each path, so that the files stay files.
    found = datasets.DTD(root, split=split, download=download, loader=os.fspath)
    listed = [found[index] for index in range(len(found))]
    folder = (root / "dtd" / "dtd" / "images").resolve()
    return Listing(
        name="",
        description="",
        store=FileStore([str(Path(*Path(path).parts[-2:])) for path, _ in listed], folder),
        labels=np.array([label for _, label in listed], np.int64),
        class_names=tuple(found.classes),
    )


def _from_arrays(pixels: np.ndarray, labels: np.ndarray, class_names: tuple[str, ...]) -> Listing:
    return Listing("", "", MemoryStore(pixels), labels.astype(np.int64), class_names)


_TORCHVISION = {
    "cifar10": _Brought(
        splits=("train", "test"),
        present="cifar-10-batches-py",
        archive="cifar-10-python.tar.gz",
        url="https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz",
        list=_cifar("CIFAR10"),
    ),
    "cifar100": _Brought(
        splits=("train", "test"),
        present="cifar-100-python",
        archive="cifar-100-python.tar.gz",
        url="https://www.cs.toronto.edu/~kriz/cifar-100-python.tar.gz",
        list=_cifar("CIFAR100"),
    ),
    "svhn": _Brought(
        splits=("train", "test", "extra"),
        present="{split}_32x32.mat",
        archive="{split}_32x32.mat",
        url="http://ufldl.stanford.edu/housenumbers/{split}_32x32.mat",
        list=_svhn,
    ),
    "dtd": _Brought(
        splits=("train", "val", "test"),
        present="dtd/dtd",
        archive="dtd/dtd-r1.0.1.tar.gz",
        url="https://www.robots.ox.ac.uk/~vgg/data/dtd/download/dtd-r1.0.1.tar.gz",
        list=_dtd,
    ),
}


def _bring(brought: _Brought, name: str, split: str, roots: Sequence[Path]) -> Listing:
    present = [root for root in roots if (root / brought.present.format(split=split)).exists()]
    root = present[0] if present else roots[-1]
    try:
        root.mkdir(parents=True, exist_ok=True)
        listing = brought.list(root, split, not present)
    except (OSError, RuntimeError) as error:
        archive = root / brought.archive.format(split=split)
        if present:
            problem = f"{name}:{split} in {root} is damaged or not complete ({error}). Remove it there, or"
        else:
            problem = f"{name}:{split} is under none of {_spelled(roots)}, and its download failed ({error}). Where "
        raise DataError(
            f"{problem.rstrip()} download {brought.url.format(split=split)} by other means and put it at {archive}, or "
            f"put a Parquet file {name}-{split}.parquet under a data root."
        ) from error
    return Listing(
        name=f"{name}:{split}",
        description=f"set {name}:{split} by torchvision in {root}",
        store=listing.store,
        labels=listing.labels,
        class_names=listing.class_names,
    )


def _unknown(text: str, name: str, split: str | None, roots: Sequence[Path]) -> str:
    """What to say of a name that leads nowhere: its splits if there are any, else the nearest names."""
    stems = sorted({file.stem for root in roots for file in root.glob("*.parquet")})
    splits = {stem.removeprefix(f"{name}-") for stem in stems if stem.startswith(f"{name}-")}
    splits.update(_TORCHVISION[name].splits if name in _TORCHVISION else ())
    if splits:
        asked = f"has no split {split!r}" if split else "has splits, and one must be named"
        return f"The set {name} {asked}: {', '.join(f'{name}:{known}' for known in sorted(splits))}."
    known = {*stems, *_TORCHVISION}
    near = get_close_matches(text.replace(":", "-"), sorted(known), n=3, cutoff=0.5)
    return (
        f"There is no file, folder or set {text!r}."
        + (f" The nearest known: {', '.join(near)}." if near else "")
        + f" Searched for {text.replace(':', '-')}.parquet in {_spelled(roots)}; torchvision brings "
        f"{', '.join(sorted(_TORCHVISION))}. Name more data roots with roots=, --data-root or MOOD_DATA."
    )


def _spelled(roots: Sequence[Path]) -> str:
    return ", ".join(f"{root}" if root.is_dir() else f"{root} (absent)" for root in roots)
