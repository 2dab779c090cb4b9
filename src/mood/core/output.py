"""What `-o` means, for every command.

```
absent                          made
unfinished, same settings       resumed
finished, same settings         reused
finished, other settings        refused, or replaced with overwrite
finished, with less at hand     replaced, where the run says which settings are of what was at hand
not written by mood             refused, always
```

A run works in `.NAME.HASH.partial` beside the output, where HASH comes from its settings, so that a run that was killed
is found again; the output appears by one rename when it is finished. A folder carries its settings inside, as
`config.json`; a single file has them beside it, as `NAME.config.json`, together with its own hash.
"""

import fcntl
import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from itertools import zip_longest
from pathlib import Path
from typing import Any, Literal

from mood.core.config import fingerprint
from mood.core.errors import OutputError

FORMAT = "mood.output/1"

Kind = Literal["folder", "file"]

# What stands in a difference for a setting that one side does not have.
_NOTHING = object()

# Outputs that this process is writing.
_held: set[Path] = set()


class Output:
    """A place that is being written. Made by `open_output`.

    Attributes:
        path: where the result will be.
        finished: whether it is there.
        work: what to write: a folder that exists, or the path of a file. It becomes `path` at `commit`.
        scratch: a folder, empty or as a killed run left it; gone after `commit`.
    """

    def __init__(self, path: Path, settings: Mapping[str, Any], kind: Kind) -> None:
        """See `open_output`."""
        self.path = path
        self.finished = False
        self._settings = settings
        self._kind = kind
        self._partial = path.with_name(f".{path.name}.{fingerprint(settings)[:12]}.partial")
        self.work = self._partial / f"result{path.suffix}"
        self.scratch = self._partial / "scratch"

    @classmethod
    def of_another(cls, path: str | os.PathLike[str], settings: Mapping[str, Any]) -> "Output":
        """A folder that another process has opened with these settings: where it is, and nothing is touched."""
        return cls(Path(os.path.realpath(path)), json.loads(json.dumps(dict(settings))), "folder")

    def commit(self) -> None:
        """The work is done: give it its name.

        A kill in the middle leaves the finished work to the next run with the same settings.
        """
        record = {"format": FORMAT, "settings": self._settings, "content": _content(self.work)}
        if self._kind == "folder":
            self._write_record(self.work / "config.json", record)
        _sync(self.work)
        # Looked at again: somebody may have put something there while the work went on.
        if _settings_of(self.path, self._kind) is not None:
            replaced = self._partial / "replaced"
            _remove(replaced)
            self.path.rename(replaced)
        if self._kind == "file":
            self._write_record(_sidecar(self.path), record)
        self.work.rename(self.path)
        _sync_entry(self.path.parent)
        self.finished = True
        self._tidy()

    def _write_record(self, path: Path, record: Mapping[str, Any]) -> None:
        temporary = self._partial / "record"
        temporary.write_text(json.dumps(record, indent=2, sort_keys=True) + "\n", encoding="utf-8")
        _sync(temporary)
        temporary.replace(path)

    def _begin(self) -> None:
        self.scratch.mkdir(parents=True, exist_ok=True)
        if self._kind == "folder":
            self.work.mkdir(exist_ok=True)

    def _tidy(self) -> None:
        """Remove what is not needed any more; a run that failed before it wrote anything leaves nothing behind."""
        if self.finished:
            shutil.rmtree(self._partial, ignore_errors=True)
        for folder in (self.scratch, self.work, self._partial):
            with suppress(OSError):
                folder.rmdir()


@contextmanager
def open_output(
    path: str | os.PathLike[str],
    settings: Mapping[str, Any],
    *,
    kind: Kind = "folder",
    overwrite: bool = False,
    replacing: str = "",
    at_hand: Sequence[str] = (),
) -> Iterator[Output]:
    """Open the place that a run writes to.

    ```python
    with open_output(config.output, to_dict(config), overwrite=config.overwrite) as output:
        if not output.finished:
            (output.work / "result.txt").write_text("…")
            output.commit()
    ```

    Leaving the block without `commit` keeps the work for the next run with the same settings.

    Args:
        path: where the result is wanted; folders above it are made.
        settings: what decides the result, as JSON (`to_dict` and whatever else the result depends on).
        kind: whether the run writes a folder or a single file.
        overwrite: replace what mood wrote there with other settings, once the new result is finished.
        replacing: a word on what that takes, for whoever is refused without it.
        at_hand: settings that are tables of what the run found. An output that differs only in lacking some of it is
            replaced without `overwrite`: the run goes on with what has come since.

    Raises:
        OutputError: something else is there, another run is writing it now, or nothing can be written there.
    """
    place = Path(os.path.realpath(path))
    settings = json.loads(json.dumps(dict(settings)))
    if os.path.ismount(place):
        raise OutputError(f"{path} is where a disk is mounted and cannot be renamed: choose a folder inside it")
    output = Output(place, settings, kind)
    # What is finished is used without a lock: by any number of runs, and where nothing can be written.
    with suppress(OutputError):
        output.finished = _settings_of(place, kind) == settings
    if output.finished:
        output._tidy()
        yield output
        return
    with locked(place):
        there = _settings_of(place, kind)
        if there not in (None, settings) and not overwrite and not _has_less(there, settings, at_hand):
            raise OutputError(
                f"{path} was made with another configuration ({_difference(there, settings)}): choose another -o, or "
                f"replace it with --overwrite{replacing and f' ({replacing})'}"
            )
        output.finished = there == settings
        try:
            if not output.finished:
                output._begin()
            yield output
        finally:
            output._tidy()


def _settings_of(path: Path, kind: Kind) -> dict[str, Any] | None:
    """The settings under which mood wrote what is there; None where nothing is."""
    record_path = path / "config.json" if kind == "folder" else _sidecar(path)
    try:
        empty = not path.exists() or (kind == "folder" and path.is_dir() and not any(path.iterdir()))
        if empty and not record_path.exists():
            return None
    except OSError as error:
        raise OutputError(f"nothing can be written to {path}: {error.strerror}") from error
    if not empty and path.is_dir() != (kind == "folder"):
        found = "folder" if path.is_dir() else "file"
        raise OutputError(f"{path} is a {found} and a {kind} is to be written: choose another -o")
    try:
        record = json.loads(record_path.read_text(encoding="utf-8"))
        known = record["format"] == FORMAT
        settings: dict[str, Any] = record["settings"]
        unchanged = empty or _content(path) == record["content"]
    except (OSError, ValueError, KeyError, TypeError):
        known = False
    if not known:
        found_path = record_path if empty else path
        raise OutputError(f"{found_path} was not written by mood and is left alone: choose another -o, or move it away")
    if not unchanged:
        raise OutputError(
            f"{path} was changed after mood wrote it and is left alone: choose another -o, or move it away"
        )
    return None if empty else settings


def _content(path: Path) -> list[str] | str:
    """What is in an output, to see whether somebody put something else there: names in a folder, the hash of a file.

    The hashes of what is in a folder are the business of whoever wrote it.
    """
    if path.is_dir():
        return sorted(str(child.relative_to(path)) for child in path.rglob("*") if child != path / "config.json")
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _has_less(there: Mapping[str, Any] | None, wanted: Mapping[str, Any], at_hand: Sequence[str]) -> bool:
    """Whether an output has all settings that are wanted, but for things that were not at hand."""
    if there is None or there.keys() != wanted.keys():
        return False
    return all(
        there[key].items() <= wanted[key].items() if key in at_hand else there[key] == wanted[key] for key in wanted
    )


def _difference(there: Any, wanted: Any) -> str:
    changed = list(_changes(there, wanted))
    return "; ".join([*changed[:4], *([f"{len(changed) - 4} more"] if len(changed) > 4 else [])])


def _changes(there: Any, wanted: Any, at: str = "") -> Iterator[str]:
    """Each single value that differs, by the way to it: `plan.runs[0].scores[1]: "knn k=20" → "knn k=5"`."""
    if isinstance(there, dict) and isinstance(wanted, dict):
        for key in {**there, **wanted}:
            yield from _changes(there.get(key, _NOTHING), wanted.get(key, _NOTHING), f"{at}.{key}" if at else key)
    elif isinstance(there, list) and isinstance(wanted, list):
        for index, pair in enumerate(zip_longest(there, wanted, fillvalue=_NOTHING)):
            yield from _changes(*pair, f"{at}[{index}]")
    elif there != wanted:
        yield f"{at}: {_short(there)} → {_short(wanted)}"


def _short(value: Any) -> str:
    text = "not there" if value is _NOTHING else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 40 else f"{text[:24]}…"


def _sidecar(path: Path) -> Path:
    return path.with_name(f"{path.name}.config.json")


def _sync(path: Path) -> None:
    """Everything down from here is on the disk when this returns."""
    if path.is_dir():
        for child in path.iterdir():
            _sync(child)
    _sync_entry(path)


def _sync_entry(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """One run at a time for one output, whatever its settings.

    A record lock belongs to the process alone: the kernel drops it on a kill -9, also where worker processes, which
    would have inherited another kind of lock, live on for a moment.

    Raises:
        OutputError: another run holds it, or nothing can be written there.
    """
    busy = OutputError(f"another run is writing {path}: wait for it, or choose another place")
    # A process does not lock itself out.
    if path in _held:
        raise busy
    lock_path = path.with_name(f".{path.name}.lock")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = lock_path.open("a")
        while True:
            try:
                fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except (BlockingIOError, PermissionError):
                file.close()
                raise busy from None
            # The run before this one may have removed the file between open and lock.
            if lock_path.exists() and os.path.samestat(lock_path.stat(), os.fstat(file.fileno())):
                break
            file.close()
            file = lock_path.open("a")
    except OSError as error:
        raise OutputError(f"nothing can be written to {path}: {error.strerror}") from error
    _held.add(path)
    try:
        yield
    finally:
        lock_path.unlink(missing_ok=True)
        _held.discard(path)
        file.close()
