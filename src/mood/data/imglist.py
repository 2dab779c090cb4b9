"""A list of files: each line has the path of an image and its label, as OpenOOD v1.5 gives its splits."""

import os
import re
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

import numpy as np

from mood.core.errors import DataError
from mood.data.files import FileStore
from mood.data.layout import spelled
from mood.data.source import MAX_CLASSES, Listing

ENDING = ".txt"

LISTS = "benchmark_imglist"
"""OpenOOD's folder of lists, in which each benchmark has a folder of its own."""

IMAGES = ("images_classic", "images_largescale")
"""OpenOOD's folders of images, beside that of its lists."""

OPENOOD = "https://github.com/Jingkang50/OpenOOD (scripts/download)"
"""What brings both."""

_MAX_BYTES = 2**28
"""Four times the list of ImageNet's training images."""

_LABEL = re.compile("-1|[0-9]{1,9}")


def list_imglist(file: Path, roots: Sequence[Path]) -> Listing:
    """The files that a list names, in its order.

    A line is `PATH LABEL`; the label is its last word, so that paths may have spaces, and empty lines are left out.
    Labels are whole numbers from 0, or -1 in every line where the images have none. A class is called by the folder in
    which its images lie, where every class has one of its own; else all are called by their numbers.

    All images lie below one folder: the first in which any of them is, of the list's own folder; in OpenOOD's layout,
    `benchmark_imglist/NAME/list.txt`, the two folders of images beside `benchmark_imglist`; the data roots. An image
    that is not there is rejected when it is asked for.

    Args:
        file: the list.
        roots: data roots.

    Raises:
        DataError: a line is no such line or leads out of the folder, some lines have labels and others -1, the list is
            empty, too large or no text, or none of its images is found.
    """
    paths, labels = _entries(file)
    folder = _folder(file, paths, roots)
    labelled = labels[0] >= 0
    return Listing(
        name=file.stem,
        description=f"list {file}, images in {folder}",
        store=FileStore(paths, folder.resolve()),
        labels=np.array(labels, np.int64) if labelled else None,
        class_names=_class_names(paths, labels) if labelled else None,
    )


def _entries(file: Path) -> tuple[list[str], list[int]]:
    """The paths and labels of all lines."""
    paths: list[str] = []
    labels: list[int] = []
    try:
        size = file.stat().st_size
        if size > _MAX_BYTES:
            raise DataError(f"The list {file} has {size} bytes; more than {_MAX_BYTES} are not read as a list.")
        with file.open(encoding="utf-8-sig") as lines:
            for number, line in enumerate(lines, start=1):
                if line.isspace():
                    continue
                path, label = _entry(line, f"Line {number} of {file}")
                if labels and (label < 0) != (labels[0] < 0):
                    raise DataError(
                        f"Line {number} of {file} has the label {label}, and the first has {labels[0]}: a list has a "
                        "label for every image, or -1 for all. Make two lists of it."
                    )
                paths.append(path)
                labels.append(label)
    except UnicodeDecodeError as error:
        raise DataError(
            f"{file} is no UTF-8 text. A single {ENDING} file is taken for a list of images, with PATH LABEL on each "
            "line; give an image the ending of its format."
        ) from error
    except OSError as error:
        raise DataError(f"The list {file} cannot be opened: {error.strerror}.") from error
    if not paths:
        raise DataError(f"The list {file} names no image: it has no line PATH LABEL.")
    return paths, labels


def _entry(line: str, where: str) -> tuple[str, int]:
    *path, label = line.strip().rsplit(maxsplit=1)
    if not path or not _LABEL.fullmatch(label) or int(label) >= MAX_CLASSES:
        raise DataError(
            f"{where} is {line.strip()[:80]!r}; expected PATH LABEL, the label a whole number from 0 to "
            f"{MAX_CLASSES - 1}, or -1 where images have none."
        )
    inside = PurePosixPath(path[0])
    if inside.is_absolute() or ".." in inside.parts:
        raise DataError(
            f"{where} leads out of the folder of its images: {path[0][:80]!r}. Paths in a list are relative to that "
            "folder, without '..'."
        )
    return str(inside), int(label)


def _folder(file: Path, paths: Sequence[str], roots: Sequence[Path]) -> Path:
    own = file.absolute().parent
    openood = own.parent.name == LISTS
    places = [own, *(own.parents[1] / name for name in IMAGES if openood), *roots]
    for place in places:
        # Path.is_file raises where a name is too long.
        if place.is_dir() and any(os.path.isfile(f"{place}/{path}") for path in paths):  # noqa: PTH113
            return place
    raise DataError(
        f"None of the {len(paths)} images of the list {file} is there: searched for {paths[0]} and the others in "
        f"{spelled(places)}."
        + (f" The images of OpenOOD are those of {OPENOOD}." if openood else "")
        + " Put them into one of these folders, or name the folder in which they lie with roots=, --data-root or "
        "MOOD_DATA."
    )


def _class_names(paths: Sequence[str], labels: Sequence[int]) -> tuple[str, ...]:
    pairs = {(label, PurePosixPath(path).parent.name) for path, label in zip(paths, labels, strict=True)}
    classes, folders = {label for label, _ in pairs}, {folder for _, folder in pairs}
    if len(classes) == len(folders) == len(pairs) == max(classes) + 1 and "" not in folders:
        return tuple(folder for _, folder in sorted(pairs))
    return tuple(str(label) for label in range(max(classes) + 1))
