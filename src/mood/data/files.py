"""Images that are files: a folder of them, or a list of paths."""

import os
import stat
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from mood.core.errors import DataError
from mood.data.source import UNLABELLED, Listing

_MAX_BYTES = 2**30

NO_IMAGES = frozenset({"thumbs.db", "ehthumbs.db", "desktop.ini", "icon\r"})
"""What Windows and macOS leave in folders of images without hiding it by a dot, in small letters."""

_OUTSIDE = (
    "It is a link to the folder {target}, outside of this one, and not followed: copy or mount its images here, or "
    "name the folder in which they lie."
)


class FileStore:
    """Files by their paths; with a root, none is read that lies outside of it."""

    def __init__(self, paths: Sequence[str], root: Path | None = None) -> None:
        """Take the paths as they are, relative to the root where there is one. Nothing is opened."""
        self._paths = tuple(paths)
        self._root = root

    def __len__(self) -> int:
        """How many images lie here."""
        return len(self._paths)

    def id(self, row: int) -> str:
        """The path with forward slashes; bytes that are no UTF-8 are spelled out."""
        name = Path(self._paths[row]).as_posix()
        return name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")

    def read(self, row: int) -> bytes:
        """All the bytes of the file."""
        path = Path(self._paths[row])
        try:
            if self._root is not None:
                path = self._root / path
                if path.is_symlink() and not (target := _target(path)).is_relative_to(self._root):
                    if target.is_dir():
                        raise DataError(_OUTSIDE.format(target=target))
                    raise DataError("It is a link to a file outside of the folder, which is not followed.")
            status = path.stat()
            if not stat.S_ISREG(status.st_mode):
                raise DataError("It is not a regular file.")
            if status.st_size > _MAX_BYTES:
                raise DataError(f"It has {status.st_size} bytes; more than {_MAX_BYTES} are not read as one image.")
            return path.read_bytes()
        except OSError as error:
            raise DataError(f"It cannot be opened: {error.strerror or error}.") from error
        except ValueError as error:
            raise DataError(f"No file can have this name: {error}.") from error


def list_folder(folder: Path) -> Listing:
    """Every file below a folder, in the order of their paths, labelled by the first sub-folder.

    Every file counts as an image, whatever its name, so that what cannot be read is rejected with a reason and not
    overlooked. What is hidden (a name that begins with a dot) is left out, with what systems leave beside images
    (`NO_IMAGES`), and so is what is no file (a socket, say). A link to a file is read if its target lies inside the
    folder. A link to a folder inside is not followed, as its images are read where they lie; one that leads out counts
    as one image that cannot be read. What lies in the folder itself belongs to no class, so that there are no labels
    then.

    Raises:
        DataError: where there is no file, or the folder cannot be listed.
    """
    root = folder.resolve()
    found: list[tuple[str, ...]] = []
    outside: list[tuple[str, ...]] = []
    for parent, folders, files in os.walk(root, onerror=_cannot_list):
        above = Path(parent).relative_to(root).parts
        folders[:] = [name for name in folders if not name.startswith(".")]
        for name in folders:
            path = Path(parent, name)
            if path.is_symlink() and not _target(path).is_relative_to(root):
                outside.append((*above, name))
        for name in files:
            path = Path(parent, name)
            if not _is_left_out(name) and (path.is_symlink() or path.is_file()):
                found.append((*above, name))
    if not found:
        link = root.joinpath(*min(outside)) if outside else None
        raise DataError(
            f"The folder {folder} holds no images: no file that is not hidden."
            + (f" Of {link}: {_OUTSIDE.format(target=_target(link))}" if link else "")
        )
    found = sorted(found + outside)
    labels, class_names, unlabelled = None, None, UNLABELLED
    beside = [parts[0] for parts in found if len(parts) == 1]
    if beside and (beside[0],) in outside:
        unlabelled = f"{beside[0]} in {folder} is a link out of it and not followed: copy or mount its images there"
    elif beside and len(beside) < len(found):
        more = f" (and {len(beside) - 1} more)" if len(beside) > 1 else ""
        unlabelled = (
            f"{beside[0]}{more} lies in {folder} itself, beside the folders of the classes, and belongs to none: move "
            "it into the folder of its class, or out"
        )
    if not beside:
        class_names = tuple(sorted({parts[0] for parts in found}))
        index = {name: label for label, name in enumerate(class_names)}
        labels = np.array([index[parts[0]] for parts in found], np.int64)
    return Listing(
        name=root.name or str(root),
        description=f"folder {folder}",
        store=FileStore([str(Path(*parts)) for parts in found], root),
        labels=labels,
        class_names=class_names,
        unlabelled=unlabelled,
    )


def list_files(paths: Sequence[str], description: str) -> Listing:
    """Files in the order in which they are named, without labels."""
    name = Path(paths[0]).name if len(paths) == 1 else "files"
    return Listing(name=name, description=description, store=FileStore(paths))


def _target(link: Path) -> Path:
    """Where a link ends; one that leads to itself ends where it stands, and is refused when it is opened."""
    # Path.resolve raises RuntimeError on such a link until Python 3.13.
    return Path(os.path.realpath(link))


def _is_left_out(name: str) -> bool:
    return name.startswith(".") or name.lower() in NO_IMAGES


def _cannot_list(error: OSError) -> None:
    raise DataError(f"The folder {error.filename} cannot be listed: {error.strerror}.") from error
