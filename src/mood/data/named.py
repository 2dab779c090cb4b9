"""Sets by their names: tables and lists under the data roots, what torchvision can bring, and layouts of files."""

import os
import re
from collections.abc import Sequence
from dataclasses import replace
from difflib import get_close_matches
from itertools import islice
from pathlib import Path

from mood.core.cache import cache_home
from mood.core.errors import DataError
from mood.data import folder_sets, torchvision_sets
from mood.data.imglist import ENDING, LISTS, OPENOOD, list_imglist
from mood.data.layout import Layout, spelled
from mood.data.parquet import list_parquet
from mood.data.source import Listing

NAME = re.compile(r"(?P<name>\w[\w.+-]*)(:(?P<split>\w[\w.+-]*))?")
"""What a set's name looks like: NAME or NAME:SPLIT."""


SAMPLES = Path(__file__).parent / "samples"
"""The sets that come with mood: clothing, omniglot and bccd."""


BESIDE = 10_000
"""Names of a folder that are looked through for one that was meant."""


SETS = {**torchvision_sets.SETS, **folder_sets.SETS}
"""The layouts in which sets are looked for, by name."""


def data_cache() -> Path:
    """Where downloaded sets are kept."""
    return cache_home() / "data"


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
    """The set NAME or NAME:SPLIT, or the list of files PATH.txt in the first root that has it.

    A set is `NAME.parquet` or `NAME-SPLIT.parquet` in the first root that has it; else the set's own files in the first
    root that has those; else what torchvision downloads into the cache, which is the last root.

    Raises:
        DataError: where the name or the split is unknown, a split must be named, the download fails, or the list does
            not serve.
        MissingExtraError: where its files need a package that is not installed.
    """
    if text.endswith(ENDING):
        return list_imglist(_list_below(text, roots), roots)
    name, split = _parsed(text)
    stem = f"{name}-{split}" if split else name
    for root in roots:
        if (file := root / f"{stem}.parquet").is_file():
            return list_parquet([file], text, f"set {text} in {file}")
    return _bring(_layout(name, split, roots), name, split, roots)


def check_named(text: str, roots: Sequence[Path]) -> None:
    """Refuse a set or a list that is under none of the roots; nothing is read or downloaded.

    Raises:
        DataError: it is not there; the message says whether it would be downloaded, or where to get it.
    """
    if text.endswith(ENDING):
        _list_below(text, roots)
        return
    name, split = _parsed(text)
    if locate(name, roots).get(split) is None:
        layout = _layout(name, split, roots)
        coming = " It would be downloaded into the last of them." if layout.downloads else ""
        raise DataError(f"{text} is under none of {spelled(roots)}.{coming} {_advice(layout, name, split, roots[-1])}")


def _parsed(text: str) -> tuple[str, str]:
    """Name and split, "" where none is named."""
    match = NAME.fullmatch(text)
    if match is None:
        raise DataError(
            f"There is no file or folder {text!r}{beside(text)}, and the name of a set looks otherwise: NAME or "
            "NAME:SPLIT."
        )
    return match["name"], match["split"] or ""


def _layout(name: str, split: str, roots: Sequence[Path]) -> Layout:
    layout = SETS.get(name)
    if layout is None or split not in (layout.splits or ("",)):
        raise DataError(_unknown(name, split, roots))
    return layout


def _list_below(text: str, roots: Sequence[Path]) -> Path:
    for root in roots:
        if (file := root / text).is_file():
            return file
    raise DataError(
        f"There is no file {text}, neither here{beside(text)} nor under {spelled(roots)}."
        + (f" The lists and images of OpenOOD are those of {OPENOOD}." if LISTS in Path(text).parts else "")
        + " Name the folder below which it lies with roots=, --data-root or MOOD_DATA."
    )


def _bring(layout: Layout, name: str, split: str, roots: Sequence[Path]) -> Listing:
    present = [root for root in roots if (root / layout.present.format(split=split)).exists()]
    root = present[0] if present else roots[-1]
    told = f"{name}:{split}" if split else name
    if not present and not layout.downloads:
        raise DataError(f"{told} is under none of {spelled(roots)}. {_advice(layout, name, split, root)}")
    try:
        root.mkdir(parents=True, exist_ok=True)
        listing = layout.list(root, split, not present)
    except (OSError, RuntimeError, ValueError, KeyError, DataError) as error:
        if present:
            problem = f"{told} in {root} is damaged or not complete ({error}). Remove it there. "
        else:
            problem = f"{told} is under none of {spelled(roots)}, and its download failed ({error}). "
        raise DataError(problem + _advice(layout, name, split, root)) from error
    by = "by torchvision " if name in torchvision_sets.SETS else ""
    return replace(listing, name=told, description=f"set {told} {by}in {root}")


def _advice(layout: Layout, name: str, split: str, root: Path) -> str:
    get, put = (text.format(split=split) for text in (layout.url, layout.archive))
    unpack = "unpack it to" if layout.unpack else "put it at"
    stem = f"{name}-{split}" if split else name
    return f"Download {get} and {unpack} {root / put}, or put a Parquet file {stem}.parquet under a data root."


def locate(name: str, roots: Sequence[Path]) -> dict[str, Path | None]:
    """Where each split of a set was found: its Parquet file, or the path that says that its layout is there.

    Args:
        name: of a set, without a split.
        roots: the folders that are searched, in order.

    Returns:
        Split ("" where there is none) → path, or None where it is nowhere.
    """
    layout = SETS.get(name)
    tables = {file.stem for root in roots for file in root.glob(f"{name}*.parquet")}
    splits = dict.fromkeys(layout.splits or ("",) if layout else ())
    # A table of another set may begin with the same letters.
    longer = tuple(f"{other}-" for other in SETS if other.startswith(f"{name}-"))
    for stem in sorted(tables):
        if stem == name:
            splits.setdefault("")
        elif stem.startswith(f"{name}-") and stem not in SETS and not stem.startswith(longer or ("/",)):
            splits.setdefault(stem.removeprefix(f"{name}-"))
    found: dict[str, Path | None] = {}
    for split in splits:
        stem = f"{name}-{split}" if split else name
        places = [root / f"{stem}.parquet" for root in roots]
        if layout and (split in layout.splits or not (split or layout.splits)):
            places += [root / layout.present.format(split=split) for root in roots]
        found[split] = next((place for place in places if place.exists()), None)
    return found


def beside(path: str) -> str:
    """What to say behind a path that is not there: what lies there under a name like its first part that does not."""
    here = Path(os.path.expanduser(path))  # noqa: PTH111 - Path.expanduser raises where nobody has that name.
    here = [here, *(folder for folder in here.parents if not folder.is_dir())][-1]
    try:
        with os.scandir(here.parent) as entries:
            names = [entry.name for entry in islice(entries, BESIDE) if not entry.name.startswith(".")]
    except OSError:
        return ""
    near = [str(here.parent / name) for name in get_close_matches(here.name, names, n=3, cutoff=0.7)]
    return f" (there is {', '.join(near)})" if near else ""


def _unknown(name: str, split: str, roots: Sequence[Path]) -> str:
    """What to say of a name that leads nowhere: its splits if there are any, else the nearest names."""
    stems = sorted({file.stem for root in roots for file in root.glob("*.parquet")})
    splits = {stem.removeprefix(f"{name}-") for stem in stems if stem.startswith(f"{name}-")}
    splits.update(SETS[name].splits if name in SETS else ())
    if splits:
        asked = f"has no split {split!r}" if split else "has splits, and one must be named"
        return f"The set {name} {asked}: {', '.join(f'{name}:{known}' for known in sorted(splits))}."
    if name in SETS:
        return f"The set {name} has no splits; ask for {name} alone."
    known = {*stems, *SETS}
    text, stem = (f"{name}{joint}{split}" if split else name for joint in ":-")
    near = get_close_matches(stem, sorted(known), n=3, cutoff=0.5)
    return (
        f"There is no file, folder or set {text!r}{beside(text)}."
        + (f" The nearest known: {', '.join(near)}." if near else "")
        + f" Searched for {stem}.parquet in {spelled(roots)}; torchvision brings "
        f"{', '.join(sorted(name for name in SETS if SETS[name].downloads))}, and `mood sets` lists all sets. Name "
        "more data roots with roots=, --data-root or MOOD_DATA."
    )
