"""What a set looks like on disk: where its files lie below a data root, and who reads them."""

import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mood.core.errors import DataError, MissingExtraError
from mood.data.files import FileStore
from mood.data.source import Listing


@dataclass(frozen=True, slots=True)
class Layout:
    """A set that is found by its files.

    `{split}` stands for the split in paths and addresses.

    Attributes:
        splits: their names; none where the set is one.
        present: the path below a data root whose presence says that the set is there.
        archive: the path below a data root where a file that was downloaded by other means belongs.
        url: where to get it.
        list: (root, split, download) → the images, of which none is read.
        downloads: whether torchvision can fetch it.
        unpack: the archive must be unpacked by hand, so that `present` appears.
    """

    splits: tuple[str, ...]
    present: str
    archive: str
    url: str
    list: Callable[[Path, str, bool], Listing]
    downloads: bool = True
    unpack: bool = False


def listed(
    folder: Path, paths: Iterable[str | os.PathLike[str]], labels: Sequence[int] | None, names: Sequence[str] | None
) -> Listing:
    """Files below a folder, in the order given.

    Args:
        folder: none is read that lies outside of it.
        paths: below the folder, or absolute.
        labels: one for each, or None.
        names: of the classes, or None.

    Raises:
        DataError: where there is no file, a path leads out of the folder, or the labels are not those of the names.
    """
    root = folder.resolve()
    inside: list[str] = []
    for path in paths:
        below = Path(os.path.normpath(folder / path))
        if not below.is_relative_to(folder):
            raise DataError(f"{path} leads out of the folder {folder}; the list of files there is damaged.")
        inside.append(str(below.relative_to(folder)))
    if not inside:
        raise DataError(f"The folder {folder} holds no images of this split.")
    if labels is None or names is None:
        return Listing("", "", FileStore(inside, root))
    numbers = np.asarray(labels, np.int64)
    if numbers.min() < 0 or numbers.max() >= len(names):
        raise DataError(
            f"The labels in {folder} go from {numbers.min()} to {numbers.max()}; there are {len(names)} classes."
        )
    return Listing("", "", FileStore(inside, root), numbers, tuple(names))


def lines(file: Path) -> list[str]:
    """The lines of a small text file that are not empty, without their ends."""
    return [line.strip() for line in file.read_text(encoding="utf-8").splitlines() if line.strip()]


def spelled(folders: Sequence[Path]) -> str:
    """Folders as messages name them, those that are not there marked."""
    return ", ".join(f"{folder}" if folder.is_dir() else f"{folder} (absent)" for folder in folders)


def needs(package: str, what: str) -> MissingExtraError:
    """What to say where a set's files need a package that is not installed."""
    return MissingExtraError(
        f"{what} needs {package}: install the extra `sets` of the package mood-ood, or pip install {package.lower()}."
    )
