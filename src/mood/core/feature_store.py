"""Features that are larger than memory: shards on disk, read one at a time."""

import json
import os
from collections.abc import Iterator, Mapping
from copy import copy
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from mood.core.errors import ArtifactError, InputError, OutputError
from mood.core.features import FORMAT_VERSION, Features, described, same_layout


class FeatureStore:
    """Features on disk: a folder of `shard-00000.safetensors`, … and `features.json`, read one shard at a time.

    Iterating gives `Features` shard by shard, again and again; at most one shard is in memory. The shards, and so every
    sum over them, depend on what was written alone.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        """Opens a finished store.

        Raises:
            ArtifactError: no store there, one that was not finished, one from a newer mood, or a shard that is gone,
                damaged, or of other rows than were written.
        """
        self.path = Path(path)
        index = _read_index(self.path)
        if index["rows"] is None:
            raise ArtifactError(f"{self.path}: the extraction did not finish; run it again to resume it")
        self.meta: dict[str, Any] = index["meta"]
        self.rows: tuple[int, ...] = tuple(index["rows"])
        self._mask: Tensor | None = None
        for shard, rows in enumerate(self.rows):
            path = _shard_path(self.path, shard)
            found = _rows(path)
            if found != rows:
                raise ArtifactError(f"{path}: the shard has {found} rows, and {rows} were written")

    def __len__(self) -> int:
        return sum(self.rows) if self._mask is None else int(self._mask.sum())

    def __iter__(self) -> Iterator[Features]:
        return (self.shard(index) for index in range(len(self.rows)))

    def shard(self, index: int) -> Features:
        """The selected rows of one shard; there may be none."""
        features = Features.load(_shard_path(self.path, index))
        if self._mask is None:
            return features
        start = sum(self.rows[:index])
        return features[self._mask[start : start + self.rows[index]]]

    def select(self, mask: Any) -> "FeatureStore":
        """The same store with fewer rows; nothing is read or written.

        Args:
            mask: (N,) booleans, one per row of this store.

        Raises:
            InputError: a mask that is not boolean or has another length.
        """
        chosen = torch.as_tensor(mask)
        if chosen.dtype != torch.bool or chosen.shape != (len(self),):
            raise InputError(
                f"mask is {described(chosen)}; the store has {len(self)} rows, so bool ({len(self)},) was expected"
            )
        if self._mask is not None:
            whole = torch.zeros_like(self._mask)
            whole[self._mask] = chosen
            chosen = whole
        store = copy(self)
        store._mask = chosen
        return store

    @staticmethod
    def create(path: str | os.PathLike[str], meta: Mapping[str, Any]) -> "FeatureWriter":
        """Starts a store, or resumes one that was killed.

        Args:
            path: the folder; made where it is absent.
            meta: what the features were made from, as JSON: only a writer with the same meta may resume.

        Raises:
            OutputError: the folder holds a finished store, a store with other meta, or something else.
        """
        return FeatureWriter(path, meta)


class FeatureWriter:
    """Writes the shards of one `FeatureStore`, each whole or not at all."""

    def __init__(self, path: str | os.PathLike[str], meta: Mapping[str, Any]) -> None:
        """See `FeatureStore.create`."""
        self.path = Path(path)
        self.meta: dict[str, Any] = json.loads(json.dumps(dict(meta)))
        self.path.mkdir(parents=True, exist_ok=True)
        if not (self.path / "features.json").exists():
            if any(not entry.name.startswith(".") for entry in self.path.iterdir()):
                raise OutputError(f"{self.path}: the folder is not empty and holds no features; choose another")
            self._write_index(rows=None)
            return
        index = _read_index(self.path)
        if index["rows"] is not None:
            raise OutputError(f"{self.path}: the features are finished; open them with FeatureStore")
        if index["meta"] != self.meta:
            raise OutputError(f"{self.path}: holds the start of features made from something else; choose another")

    @property
    def next_shard(self) -> int:
        """The first shard that is not whole on disk: where a killed extraction goes on."""
        index = 0
        while self._is_whole(index):
            index += 1
        return index

    def _is_whole(self, index: int) -> bool:
        try:
            _rows(_shard_path(self.path, index))
        except ArtifactError:
            return False
        return True

    def append(self, shard_index: int, features: Features) -> None:
        """Writes one shard; shards may come in any order, and one that comes again replaces the first."""
        features.save(_shard_path(self.path, shard_index))

    def finish(self) -> FeatureStore:
        """Closes the store, clears what killed runs left half written, and opens it for reading.

        Raises:
            InputError: no shard was written, one is missing in between, or their columns differ.
        """
        paths = sorted(self.path.glob("shard-*.safetensors"))
        if not paths or len(paths) != self.next_shard:
            raise InputError(f"{self.path}: shard {self.next_shard} is missing; append it before finish()")
        headers = [_header(path) for path in paths]
        layouts = [{name: (shape[1:], dtype) for name, (shape, dtype) in header.items()} for header in headers]
        for path, layout in zip(paths, layouts, strict=True):
            same_layout(path.name, layout, paths[0].name, layouts[0])
        self._write_index([header["embedding"][0][0] for header in headers])
        for leftover in self.path.glob(".*"):
            leftover.unlink()
        return FeatureStore(self.path)

    def _write_index(self, rows: list[int] | None) -> None:
        index = {"format": "mood.feature-store", "version": FORMAT_VERSION, "rows": rows, "meta": self.meta}
        temporary = self.path / f".features.json.{os.getpid()}"
        temporary.write_text(json.dumps(index, indent=2), encoding="utf-8")
        temporary.replace(self.path / "features.json")


def _shard_path(folder: Path, index: int) -> Path:
    return folder / f"shard-{index:05d}.safetensors"


def _read_index(folder: Path) -> dict[str, Any]:
    path = folder / "features.json"
    try:
        index = json.loads(path.read_text(encoding="utf-8"))
        version, known = index["version"], index["format"] == "mood.feature-store"
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ArtifactError(f"{path}: not the index of a feature store ({error})") from error
    if not known or version > FORMAT_VERSION:
        raise ArtifactError(f"{path}: format {index['format']!r} version {version}; this mood reads {FORMAT_VERSION}")
    return dict(index)


def _header(path: Path) -> dict[str, tuple[tuple[int, ...], str]]:
    """Shape and dtype of every column of a shard, without reading the shard.

    Raises:
        ArtifactError: it is gone, or another file, or shorter or longer than its header says.
    """
    if not path.is_file():
        raise ArtifactError(f"{path}: the shard is gone")
    try:
        with safe_open(path, "pt") as file:
            slices = {name: file.get_slice(name) for name in [*file.keys()]}
            return {name: (tuple(part.get_shape()), part.get_dtype()) for name, part in slices.items()}
    except (SafetensorError, OSError) as error:
        raise ArtifactError(f"{path}: the shard is damaged ({error})") from error


def _rows(path: Path) -> int:
    """How many rows a shard has, by its header; raises as `_header`."""
    columns = _header(path)
    if "embedding" not in columns:
        raise ArtifactError(f"{path}: a safetensors file, but not one of features")
    return columns["embedding"][0][0]
