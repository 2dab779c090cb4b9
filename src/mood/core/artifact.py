"""Artifacts: folders of safetensors and json that say what they are, and are checked before anything of them is used.

```
DIR/artifact.json       format version, kind, meta, the sha256 of every file and of this description
DIR/<stem>.safetensors  tensors
```

Nothing in an artifact is ever executed: no pickle, no dotted path that is imported.
"""

import hashlib
import json
import os
import re
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mood.core.errors import ArtifactError, InputError, OutputError
from mood.core.version import __version__

if TYPE_CHECKING:
    from torch import Tensor

FORMAT = "mood.artifact"
VERSION = 1

# A description is small; one that is not was made to exhaust memory.
MAX_DESCRIPTION = 16 << 20

_STEM = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*")
_FILE = re.compile(_STEM.pattern + r"\.safetensors")


def write(
    folder: str | os.PathLike[str],
    *,
    kind: str,
    tensors: Mapping[str, Mapping[str, "Tensor"]],
    meta: Mapping[str, Any],
) -> None:
    """Write an artifact; a folder in which this stopped half-way is no artifact.

    Args:
        folder: made where it is absent.
        kind: what it is ("detector", "model"); `read` asks for it.
        tensors: for each file its name without ending, and the tensors in it.
        meta: the rest, as JSON.

    Raises:
        InputError: a name that is no plain file name, or meta that is no JSON.
    """
    from safetensors.torch import save_file

    folder = Path(folder)
    for stem in tensors:
        if not _STEM.fullmatch(stem):
            raise InputError(f"tensor file name {stem!r}: letters, digits, _ and - were expected")
    try:
        # As reading will give it, with every key a string.
        meta = json.loads(json.dumps(meta, allow_nan=False))
    except (TypeError, ValueError) as error:
        raise InputError(f"meta of a {kind} must be JSON: {error}") from error
    folder.mkdir(parents=True, exist_ok=True)
    description = folder / "artifact.json"
    description.unlink(missing_ok=True)
    hashes = {}
    for stem, named in tensors.items():
        path = folder / f"{stem}.safetensors"
        # Cloned, because safetensors refuses tensors that share memory, such as tied weights.
        save_file({name: tensor.detach().cpu().contiguous().clone() for name, tensor in named.items()}, path)
        # safetensors keeps its files to their owner; an artifact is as open as its folder.
        path.chmod(folder.stat().st_mode & 0o666)
        hashes[path.name] = _sha256(path)
    content = {
        "format": FORMAT,
        "version": VERSION,
        "mood": __version__,
        "kind": kind,
        "files": hashes,
        "meta": meta,
    }
    temporary = folder / ".artifact.json.new"
    temporary.write_text(json.dumps({**content, "sha256": _checksum(content)}, indent=2) + "\n", encoding="utf-8")
    temporary.replace(description)


@contextmanager
def placed(folder: str | os.PathLike[str], *, kind: str, overwrite: bool) -> Iterator[Path]:
    """A new folder to write an artifact into, which takes its place when all of it is written.

    Args:
        folder: where it is wanted; absent or empty.
        kind: what it will be.
        overwrite: replace one of the same kind.

    Raises:
        OutputError: something else is there, or nothing can be written there.
    """
    place = Path(os.path.realpath(folder))
    new, old = (place.with_name(f".{place.name}.{what}") for what in ("new", "old"))
    try:
        if old.exists() and not place.exists():
            old.rename(place)  # a kill between the two names of a replacement
        if place.exists() and not (place.is_dir() and not any(place.iterdir())):
            try:
                there = describe(place)["kind"]
            except ArtifactError:
                raise OutputError(f"{folder} was not written by mood and is left alone: choose another place") from None
            if there != kind or not overwrite:
                more = ", or pass overwrite=True" if there == kind else ""
                raise OutputError(f"{folder} holds a {there} already: choose another place{more}")
        shutil.rmtree(new, ignore_errors=True)
        new.mkdir(parents=True)
        try:
            yield new
            if place.exists():
                shutil.rmtree(old, ignore_errors=True)
                place.rename(old)
            try:
                new.rename(place)
            except OSError:
                if old.exists():
                    old.rename(place)
                raise
            shutil.rmtree(old, ignore_errors=True)
        finally:
            shutil.rmtree(new, ignore_errors=True)
    except OSError as error:
        raise OutputError(f"nothing can be written to {folder}: {error.strerror}") from error


def read(folder: str | os.PathLike[str], *, kind: str) -> tuple[dict[str, dict[str, "Tensor"]], dict[str, Any]]:
    """Read an artifact, after all of it was checked.

    Args:
        folder: where it is.
        kind: what it must be.

    Returns:
        The tensors of each file, under its name without ending, and the meta.

    Raises:
        ArtifactError: there is none, it is damaged or of another kind, or a newer mood wrote it.
    """
    folder = Path(folder)
    content = describe(folder)
    if content["kind"] != kind:
        raise ArtifactError(f"{folder} holds a {content['kind']}, a {kind} was expected")
    for name, expected in content["files"].items():
        try:
            found = _sha256(folder / name)
        except OSError as error:
            raise ArtifactError(f"{folder} is damaged: {name} cannot be read ({error.strerror})") from error
        if found != expected:
            raise ArtifactError(f"{folder} is damaged: {name} is not the file that was written (its sha256 differs)")
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        tensors = {name.removesuffix(".safetensors"): load_file(folder / name) for name in content["files"]}
    except SafetensorError as error:
        raise ArtifactError(f"{folder} is damaged: {error}") from error
    return tensors, content["meta"]


def describe(folder: str | os.PathLike[str]) -> dict[str, Any]:
    """What an artifact says about itself: `kind`, `version`, `mood` (the version that wrote it), `files`, `meta`.

    Raises:
        ArtifactError: there is none, its description is damaged, or a newer mood wrote it.
    """
    path = Path(folder) / "artifact.json"
    try:
        with path.open("rb") as file:
            text = file.read(MAX_DESCRIPTION + 1)
    except OSError as error:
        why = f"{path.name}: {error.strerror}" if Path(folder).exists() else "it does not exist"
        raise ArtifactError(f"{folder} is no folder that mood saved: {why}") from error
    if len(text) > MAX_DESCRIPTION:
        raise ArtifactError(f"{path} is larger than {MAX_DESCRIPTION >> 20} MiB: mood writes no such file")
    try:
        content: dict[str, Any] = json.loads(text)
        known = content.pop("format") == FORMAT
        version, writer = int(content["version"]), str(content["mood"])
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ArtifactError(f"{path} is damaged, or nothing that mood saved") from error
    if not known:
        raise ArtifactError(f"{path} is nothing that mood saved")
    if version > VERSION:
        raise ArtifactError(
            f"{folder} has format version {version}, this mood ({__version__}) reads up to {VERSION}: "
            f"it needs mood-ood {writer} or newer"
        )
    if content.pop("sha256", None) != _checksum({"format": FORMAT, **content}):
        raise ArtifactError(f"{path} is damaged: it is not the text that was written (its sha256 differs)")
    # The checksum is no secret: whoever wants to lead us out of the folder can make one.
    escaping = [name for name in content["files"] if not _FILE.fullmatch(name)]
    if escaping:
        raise ArtifactError(f"{path} names {escaping[0]!r}, which is no file of this folder")
    return content


def _checksum(content: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
