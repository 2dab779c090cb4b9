"""The one door: whatever names or holds images becomes a `Source`."""

import os
from collections.abc import Generator, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import replace
from difflib import get_close_matches
from glob import glob, has_magic
from pathlib import Path
from typing import Any

import numpy as np

from mood.core.errors import DataError, InputError
from mood.core.progress import track
from mood.data.files import FileStore, list_files, list_folder
from mood.data.imglist import ENDING, list_imglist
from mood.data.manifest import Manifest, content_hash
from mood.data.memory import list_memory
from mood.data.named import beside, check_named, data_roots, list_named
from mood.data.parquet import list_parquet
from mood.data.source import Images, Listing, Source, Store
from mood.data.tar import list_tar, numbered

READERS = 4
"""Threads that read files for their hashes: twice as fast as one from a disk, on two cores, and no slower from memory
but for files of a few kilobytes."""

STRETCH = 64
"""Files that a thread takes at once."""


def open_source(
    data: Any,
    *,
    roots: Sequence[str | os.PathLike[str]] = (),
    classes: Sequence[str | int] | str | int | None = None,
    exclude_classes: Sequence[str | int] | str | int = (),
    coarse: bool = False,
    limit: int | None = None,
    value_range: tuple[float, float] | None = None,
) -> Source:
    """Open images, and read each once for its hash.

    A string is first an existing path or a glob, then the name of a set:

    * a folder: every file below it that is not hidden, in the order of their paths, labelled by the first sub-folder
      (without labels where files lie in the folder itself, as `Source.unlabelled` says);
    * a Parquet file, or a glob or list of them: the columns `image`, `label`, `coarse_label`;
    * a tar shard of WebDataset, or a glob or list of them, or `shard-{000..012}.tar`: `key.jpg` (or another image), and
      `key.cls` or `key.json` with a label;
    * a `.txt` file: a list of images, `PATH LABEL` on each line, as OpenOOD gives its splits; its own path may be
      relative to a data root (see `list_imglist` for where its images are looked for);
    * any other file, or a glob or list of paths: images without labels;
    * NAME or NAME:SPLIT: `NAME.parquet` or `NAME-SPLIT.parquet` under the data roots, which are `roots`, then the
      folders in the environment variable `MOOD_DATA`, then the cache; else what torchvision brings into the cache;
    * in memory: a list of Pillow images, arrays (H, W, C) or tensors (C, H, W), an array (N, H, W, C) or a tensor
      (N, C, H, W).

    Args:
        data: one of the above.
        roots: folders in which named sets are searched first.
        classes: keep these alone, by name or index. The labels are counted anew from 0 in the old order of the kept
            classes, whatever the order here, and `class_names` are theirs.
        exclude_classes: leave these out, in the same way.
        coarse: take the coarse labels and their names for the labels, before `classes` is looked at.
        limit: keep at most so many of these images, evenly spaced in their order, so that a folder sorted by class
            keeps all its classes.
        value_range: (lo, hi), the values of black and white; needed for floats in memory.

    Returns:
        The images with their manifest. What cannot be read is part of it, and is rejected when it is asked for.

    Raises:
        DataError: where nothing is found, or nothing is left, or one of `roots` is no folder.
        InputError: for images, classes or a limit that are no such thing.
        MissingExtraError: where a set needs a package that is not installed.
    """
    listing = _list(data, data_roots(roots), value_range)
    if coarse:
        if listing.coarse_labels is None:
            raise InputError(f"coarse=True, but {listing.description} has no coarse labels.")
        listing = replace(listing, labels=listing.coarse_labels, class_names=listing.coarse_class_names)
    rows, labels, class_names = _kept(listing, classes, exclude_classes)
    if limit is not None:
        if isinstance(limit, bool) or not isinstance(limit, int) or limit < 1:
            raise InputError(f"limit is {limit!r}; it must be a positive whole number, or None for all.")
        rows = rows[np.arange(min(limit, len(rows))) * len(rows) // min(limit, len(rows))]
    store = listing.store
    with closing(_hashes(store, rows)) as found:
        hashes = tuple(track(found, description=f"Hashing {listing.name}", total=len(rows)))
    manifest = Manifest(
        ids=tuple(store.id(int(row)) for row in rows),
        hashes=hashes,
        labels=None if labels is None else labels[rows],
        coarse_labels=None if listing.coarse_labels is None else listing.coarse_labels[rows],
        class_names=class_names,
        coarse_class_names=listing.coarse_class_names,
    )
    return Source(listing.name, listing.description, manifest, Images(store, rows), listing.unlabelled)


def check_data(data: str, *, roots: Sequence[str | os.PathLike[str]] = ()) -> None:
    """Refuse a string that names no images which are here, without reading, listing or downloading any.

    Args:
        data: as `open_source` takes it.
        roots: folders in which named sets are searched first.

    Raises:
        DataError: there is no such path, and no set or list of that name under the data roots.
    """
    path = _expanded(data)
    if not (path.exists() or matching_files(str(path))):
        check_named(data, data_roots(roots))


def _list(data: Any, roots: Sequence[Path], value_range: tuple[float, float] | None) -> Listing:
    if isinstance(data, str) and not data:
        raise DataError("The images have an empty name; for those of the folder that you are in, say '.'.")
    if isinstance(data, str | os.PathLike):
        path = _expanded(data)
        text = str(path)
        try:
            is_folder, exists = path.is_dir(), path.exists()
        except OSError as error:
            raise DataError(f"{text} cannot be opened: {error.strerror}.") from error
        if is_folder:
            return list_folder(path)
        if exists:
            is_list = path.suffix == ENDING and path.is_file()
            return list_imglist(path, roots) if is_list else _list_paths([text], text)
        matches = matching_files(text)
        if matches:
            return _list_paths(matches, text)
        if isinstance(data, os.PathLike):
            raise DataError(f"There is no file or folder {text}{beside(text)}.")
        return list_named(data, roots)
    if isinstance(data, Iterable) and not hasattr(data, "ndim"):
        data = list(data)
        if data and all(isinstance(item, str | os.PathLike) for item in data):
            return _list_paths([str(_expanded(item)) for item in data], f"{len(data)} files")
        return list_memory(data, value_range)
    if hasattr(data, "ndim") or hasattr(data, "getbands"):
        return list_memory(data, value_range)
    raise InputError(
        f"The images came as {type(data).__name__}; expected a folder, a Parquet file, a glob, the name of a set, or a "
        "list of paths, Pillow images, arrays or tensors."
    )


def _expanded(path: str | os.PathLike[str]) -> Path:
    """The path with its ~ spelled out; where nobody has that name, it is a name like any other."""
    return Path(os.path.expanduser(path))  # noqa: PTH111 - Path.expanduser raises there.


def matching_files(text: str) -> list[str]:
    """The files of a glob, or of braces with numbers (`shard-{000..012}.tar`); none where a string is neither.

    Raises:
        DataError: a glob matches none, or a numbered file is missing.
    """
    if Path(text).is_file():
        return [text]
    named = numbered(text)
    if has_magic(text):
        # Path.glob takes no pattern that begins at the root.
        found = [match for part in named for match in glob(part, recursive=True)]  # noqa: PTH207
        matches = sorted(match for match in found if not Path(match).is_dir())
        if not matches:
            raise DataError(f"No file matches {text}.")
        return matches
    if len(named) == 1:
        return []
    for path in named:
        if not Path(path).is_file():
            raise DataError(f"{text} names {len(named)} files, and there is no file {path}.")
    return named


def _list_paths(paths: Sequence[str], description: str) -> Listing:
    """Parquet tables, tar shards, or files that are images: one kind at once."""
    for ending, kind, listed in ((".parquet", "Parquet tables", list_parquet), (".tar", "tar shards", list_tar)):
        tables = [path for path in paths if path.endswith(ending)]
        if not tables:
            continue
        if len(tables) < len(paths):
            other = next(path for path in paths if not path.endswith(ending))
            raise DataError(f"{description} is both {kind} ({tables[0]}) and other files ({other}); name one kind.")
        name = Path(tables[0]).stem if len(tables) == 1 else description
        return listed([Path(path) for path in tables], name, description)
    return list_files(paths, description)


def _kept(
    listing: Listing, classes: Sequence[str | int] | str | int | None, exclude: Sequence[str | int] | str | int
) -> tuple[np.ndarray, np.ndarray | None, tuple[str, ...] | None]:
    """The rows of the chosen classes, the new labels of all rows (-1 where left out), and the kept names."""
    rows = np.arange(len(listing.store))
    names, labels = listing.class_names, listing.labels
    left_out = _indices("exclude_classes", exclude, listing)
    chosen = None if classes is None else _indices("classes", classes, listing)
    if labels is None or names is None or (chosen is None and not left_out):
        return rows, labels, names
    kept = sorted((set(range(len(names))) if chosen is None else chosen) - left_out)
    renumbered = np.full(len(names), -1, np.int64)
    renumbered[kept] = np.arange(len(kept))
    labels = renumbered[labels]
    rows = rows[labels >= 0]
    if not len(rows):
        raise DataError(f"No image of {listing.description} is in the classes that are kept.")
    return rows, labels, tuple(names[index] for index in kept)


def _indices(argument: str, classes: Sequence[str | int] | str | int, listing: Listing) -> set[int]:
    wanted = [classes] if isinstance(classes, str | int) else list(classes)
    names = listing.class_names
    if wanted and names is None:
        raise InputError(f"{argument} is {wanted}, but {listing.description} has no labels: {listing.unlabelled}.")
    indices = set()
    for item in wanted:
        if isinstance(item, str) and item in (names or ()):
            indices.add((names or ()).index(item))
        elif not isinstance(item, str | bool) and 0 <= item < len(names or ()):
            indices.add(int(item))
        else:
            near = get_close_matches(str(item), names or (), n=3)
            hint = f"the nearest are {', '.join(near)}" if near else f"they are {', '.join((names or ())[:20])}"
            count = len(names or ())
            if "," in str(item):
                hint += "; each class is named by itself, on the command line by repeating the option"
            raise InputError(
                f"{argument} names {item!r}, which is none of the {count} classes of {listing.name}; {hint}."
            )
    return indices


def _hashes(store: Store, rows: np.ndarray) -> Generator[str, None, None]:
    """The hash of each row, in their order; files are read by several threads, since disks and hashing let others run.

    Whoever closes it early waits for the stretches that are being read, and for no others.
    """
    if not isinstance(store, FileStore):
        yield from (_hash(store, int(row)) for row in rows)
        return
    pool = ThreadPoolExecutor(READERS)
    try:
        stretches = (rows[start : start + STRETCH] for start in range(0, len(rows), STRETCH))
        for part in pool.map(lambda stretch: [_hash(store, int(row)) for row in stretch], stretches):
            yield from part
    finally:
        pool.shutdown(cancel_futures=True)


def _hash(store: Store, row: int) -> str:
    try:
        return content_hash(store.read(row))
    except DataError:
        return content_hash(b"")
