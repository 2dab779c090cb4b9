"""Images in tar shards as WebDataset lays them out: `key.jpg`, and `key.cls` or `key.json` with its label."""

import json
import re
import tarfile
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple, cast

import numpy as np

from mood.core.errors import DataError
from mood.data.source import MAX_CLASSES, Listing

IMAGES = ("jpg", "jpeg", "png", "webp", "gif", "bmp", "tif", "tiff", "jp2", "avif", "ppm", "pgm", "pnm")
_MAX_IMAGE = 2**30
_MAX_LABEL = 2**20
_BLOCK = 512
_BRACES = re.compile(r"\{(\d+)\.\.(\d+)\}")


class Row(NamedTuple):
    """One sample of a shard.

    Attributes:
        name: its key, with the ending of its image where it has one.
        offset: of the image's bytes in the shard.
        size: of the image in bytes.
        label: a whole number, a name, or None.
        reason: why there is no image, or nothing.
    """

    name: str
    offset: int
    size: int
    label: int | str | None
    reason: str = ""


class TarStore:
    """Images in tar files, each read from its place there: nothing is unpacked, and no name of a member is a path."""

    def __init__(self, files: Sequence[Path], rows: Sequence[Sequence[Row]]) -> None:
        """Take the rows of each file, as `rows_of` gives them."""
        names = [file.name for file in files]
        self._files = tuple(files)
        self._names = names if len(set(names)) == len(names) else [file.as_posix() for file in files]
        self._starts = np.cumsum([0, *(len(part) for part in rows)]).tolist()
        flat = [row for part in rows for row in part]
        self._members = tuple(row.name for row in flat)
        self._places = np.array([(row.offset, row.size) for row in flat], np.int64).reshape(-1, 2)
        self._reasons = {index: row.reason for index, row in enumerate(flat) if row.reason}

    def __len__(self) -> int:
        """How many images lie here."""
        return len(self._members)

    def id(self, row: int) -> str:
        """`shard.tar/key.jpg`; bytes that are no UTF-8 are spelled out."""
        name = f"{self._names[self._file(row)]}/{self._members[row]}"
        return name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")

    def read(self, row: int) -> bytes:
        """The bytes of the image."""
        if row in self._reasons:
            raise DataError(self._reasons[row])
        offset, size = self._places[row].tolist()
        try:
            with self._files[self._file(row)].open("rb") as file:
                file.seek(offset)
                content = file.read(size)
        except OSError as error:
            raise DataError(f"Its shard cannot be read: {error.strerror or error}.") from error
        if len(content) < size:
            raise DataError(f"Its shard ends after {len(content)} of its {size} bytes.")
        return content

    def _file(self, row: int) -> int:
        return bisect_right(self._starts, row) - 1


UNLABELLED = "put key.cls, or key.json with a label in it, beside each image of the shards"
"""What to do about labels that are missing."""


def list_tar(files: Sequence[Path], name: str, description: str) -> Listing:
    """The samples of tar shards, one shard after the other; all members of a sample have one key.

    The key is the path of a member up to the first dot of its last part. A label is a whole number from 0 or a name:
    the text of `key.cls`, or `key.json` as the label itself or with it under `label` or `cls`. Names are classes in
    their alphabetical order; numbers serve as their own names. A sample without an image is a row that cannot be read.

    Raises:
        DataError: a file is no tar archive, compressed, damaged or cut short, or some samples alone have labels.
    """
    rows = [list(rows_of(file)) for file in files]
    flat = [row for part in rows for row in part]
    if not flat:
        raise DataError(f"{description} has no samples: no member whose name ends in .{', .'.join(IMAGES[:4])} …")
    labels, class_names = _labels(flat, description)
    return Listing(name, description, TarStore(files, rows), labels, class_names, unlabelled=UNLABELLED)


def rows_of(file: Path) -> Iterator[Row]:
    """The samples of one shard in their order.

    Raises:
        DataError: see `list_tar`.
    """
    key, sample = None, dict[str, tarfile.TarInfo]()
    try:
        with file.open("rb") as raw, tarfile.open(fileobj=raw, mode="r:") as archive:
            while (member := archive.next()) is not None:
                # tarfile would keep them all.
                archive.members = []  # type: ignore[attr-defined]
                if member.isdir():
                    continue
                found, ending = _split(member.name)
                if found != key:
                    if key is not None:
                        yield from _row(archive, key, sample)
                    key, sample = found, {}
                sample[ending] = member
            raw.seek(archive.offset)
            if raw.read(_BLOCK) != bytes(_BLOCK):
                raise DataError(
                    f"{file} is damaged or was cut short at byte {archive.offset}, where a header or the end of the "
                    "archive should be: get it again, or leave it out."
                )
            if key is not None:
                yield from _row(archive, key, sample)
    except tarfile.TarError as error:
        raise DataError(
            f"{file} cannot be read as a tar archive ({error}): it was cut short, is damaged, or is compressed. Shards "
            "are plain .tar files, since images are read from their places in them."
        ) from error
    except OSError as error:
        raise DataError(f"{file} cannot be read: {error.strerror or error}.") from error


def numbered(pattern: str) -> list[str]:
    """`shard-{000..012}.tar` → its thirteen paths, as WebDataset spells them; a string without braces stays alone."""
    found = _BRACES.search(pattern)
    if found is None:
        return [pattern]
    first, last = found.groups()
    numbers = [f"{number:0{len(first)}}" for number in range(int(first), int(last) + 1)]
    return [path for number in numbers for path in numbered(pattern[: found.start()] + number + pattern[found.end() :])]


def _split(name: str) -> tuple[str, str]:
    folder, slash, last = name.rpartition("/")
    stem, _, ending = last.partition(".")
    return folder + slash + stem, ending.lower()


def _row(archive: tarfile.TarFile, key: str, sample: dict[str, tarfile.TarInfo]) -> Iterator[Row]:
    """The row of one sample, unless it is none: neither image nor label."""
    images = [ending for ending in IMAGES if ending in sample]
    if not images and not {"cls", "json"} & set(sample):
        return
    label = _label(archive, key, sample)
    if not images:
        yield Row(key, 0, 0, label, "There is no image beside its label in the shard.")
        return
    member = sample[images[0]]
    name, reason = f"{key}.{images[0]}", ""
    if len(images) > 1:
        reason = f"Its sample has {len(images)} images ({', '.join(images)}), and nobody can tell which one counts."
    elif not member.isreg() or member.issparse():
        reason = "It is not a regular member of the shard (a link, say), which is not followed."
    elif member.size > _MAX_IMAGE:
        reason = f"It has {member.size} bytes; more than {_MAX_IMAGE} are not read as one image."
    yield Row(name, member.offset_data, member.size, label, reason)


def _label(archive: tarfile.TarFile, key: str, sample: dict[str, tarfile.TarInfo]) -> int | str | None:
    member = sample.get("cls", sample.get("json"))
    if member is None:
        return None
    where = f"The label of {key} in {archive.fileobj.name if archive.fileobj else 'a shard'}"  # type: ignore[attr-defined]
    if not member.isreg() or member.issparse() or member.size > _MAX_LABEL:
        raise DataError(f"{where} is no regular member of at most {_MAX_LABEL} bytes.")
    content = archive.extractfile(member)
    assert content is not None
    try:
        text = content.read().decode("utf-8").strip()
        value = text if "cls" in sample else json.loads(text)
    except (UnicodeDecodeError, ValueError, RecursionError) as error:
        raise DataError(f"{where} cannot be read: {error}.") from error
    if isinstance(value, dict):
        value = value.get("label", value.get("cls"))
        if value is None:
            return None
    if isinstance(value, str) and re.fullmatch(r"\d{1,9}", value):
        value = int(value)
    # Every number up to the largest is a class.
    sound = value != "" if isinstance(value, str) else isinstance(value, int) and 0 <= value < MAX_CLASSES
    if not sound or isinstance(value, bool):
        raise DataError(
            f"{where} is {str(value)[:40]!r}; it must be a whole number from 0 to {MAX_CLASSES - 1}, or a name."
        )
    return cast(int | str, value)


def _labels(rows: Sequence[Row], description: str) -> tuple[np.ndarray | None, tuple[str, ...] | None]:
    bare = [row.name for row in rows if row.label is None]
    if len(bare) == len(rows):
        return None, None
    if bare:
        raise DataError(
            f"{len(bare)} of the {len(rows)} samples of {description} have no label, the first is {bare[0]}: put a "
            "key.cls beside each image, or beside none."
        )
    values = [row.label for row in rows]
    if all(isinstance(value, int) for value in values):
        numbers = np.array(values, np.int64)
        return numbers, tuple(str(number) for number in range(int(numbers.max()) + 1))
    names = sorted({str(value) for value in values})
    index = {name: number for number, name in enumerate(names)}
    return np.array([index[str(value)] for value in values], np.int64), tuple(names)
