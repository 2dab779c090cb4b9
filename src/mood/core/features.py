"""What a network says about images, in memory and on disk, and nothing about the images themselves.

Axes: N images, D embedding width, K logits, D_l width of layer l. A column that is there is finite, has one row per
image and lies in main memory; `Features` checks this once, when it is made, so that no reader of it has to.
"""

import hashlib
import json
import os
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from mood.core.errors import ArtifactError, InputError

FORMAT_VERSION = 1
"""Version of the files that `Features.save` and `FeatureStore.create` write; older ones stay readable."""
MATRICES = ("embedding", "logits")
"""Columns of shape (N, width), beside the layers, which are named `layers.0`, `layers.1`, … in every file."""


@dataclass(frozen=True, slots=True, eq=False, init=False, repr=False)
class Features:
    """One row per image: its id, its embedding, and whatever else a score may ask for.

    Attributes:
        ids: N ids; "0", "1", … where none were given.
        embedding: (N, D) floating, D ≥ 1. float32 and float64 and float16 stay as they are, bfloat16 becomes float32.
        logits: (N, K) floating, or None.
        labels: (N,) int64 class indices, or None.
        layers: one (N, D_l) floating tensor per layer; widths may differ between layers.
        reconstruction: (N,) floating, the masked reconstruction error, or None.
        tokens: one (N, P_l, C_l) floating tensor per layer, values at P_l positions. They come straight from the
            network and are too large to keep: neither files nor stores have them.
    """

    ids: tuple[str, ...]
    embedding: Tensor
    logits: Tensor | None
    labels: Tensor | None
    layers: tuple[Tensor, ...]
    reconstruction: Tensor | None
    tokens: tuple[Tensor, ...]

    def __init__(
        self,
        embedding: Any,
        *,
        ids: Any = None,
        logits: Any = None,
        labels: Any = None,
        layers: Sequence[Any] = (),
        reconstruction: Any = None,
        tokens: Sequence[Any] = (),
    ) -> None:
        """Converts and checks the columns; tensors, arrays and nested lists are welcome, and are not copied if need be.

        Args:
            embedding: (N, D) floating.
            ids: N strings or integers.
            logits: (N, K) floating.
            labels: (N,) whole numbers from 0, one for each class.
            layers: a sequence of (N, D_l) floating.
            reconstruction: (N,) floating.
            tokens: a sequence of (N, P_l, C_l) floating.

        Raises:
            InputError: a column has another rank, another length or another kind of number, or is not finite.
        """
        matrix = _floating("embedding", embedding, rank=2)
        rows = len(matrix)
        values = {
            "ids": _ids(ids, rows),
            "embedding": matrix,
            "logits": None if logits is None else _floating("logits", logits, rank=2, rows=rows),
            "labels": None if labels is None else _integers("labels", labels, rows),
            "layers": tuple(
                _floating(f"layers.{index}", layer, rank=2, rows=rows) for index, layer in enumerate(layers)
            ),
            "reconstruction": None
            if reconstruction is None
            else _floating("reconstruction", reconstruction, rank=1, rows=rows),
            "tokens": tuple(
                _floating(f"tokens.{index}", layer, rank=3, rows=rows) for index, layer in enumerate(tokens)
            ),
        }
        for name, value in values.items():
            object.__setattr__(self, name, value)

    def __len__(self) -> int:
        return len(self.embedding)

    def __repr__(self) -> str:
        return f"Features({', '.join(f'{name} {described(column)}' for name, column in self._all.items())})"

    def __getitem__(self, rows: Any) -> "Features":
        """The chosen rows, in the chosen order.

        Args:
            rows: a slice, N booleans, or integer positions (negative ones count from the end).

        Raises:
            InputError: a single integer (use `features[i : i + 1]`), a mask of another length, a position outside.
        """
        if isinstance(rows, slice):
            start, stop, step = rows.indices(len(self))
            index = torch.arange(start, stop, step) if (stop - start) * step > 0 else torch.arange(0)
        else:
            index = _positions(rows, len(self))
        # A slice of step 1 stays a view: no row is copied.
        take = rows if isinstance(rows, slice) and (rows.step or 1) == 1 else index
        return Features(
            self.embedding[take],
            ids=tuple(self.ids[i] for i in index.tolist()),
            logits=None if self.logits is None else self.logits[take],
            labels=None if self.labels is None else self.labels[take],
            layers=tuple(layer[take] for layer in self.layers),
            reconstruction=None if self.reconstruction is None else self.reconstruction[take],
            tokens=tuple(layer[take] for layer in self.tokens),
        )

    @property
    def columns(self) -> dict[str, Tensor]:
        """The tensors that are there, under their names in files: `embedding`, `logits`, and so on."""
        named = {name: getattr(self, name) for name in (*MATRICES, "labels", "reconstruction")}
        named |= {f"layers.{index}": layer for index, layer in enumerate(self.layers)}
        return {name: column for name, column in named.items() if column is not None}

    def hashes(self) -> tuple[str, ...]:
        """A digest of each embedding in single precision: what a row is known again by, as an image is by its bytes."""
        return tuple(hashlib.sha256(row.tobytes()).hexdigest() for row in self.embedding.to(torch.float32).numpy())

    def fingerprint(self) -> str:
        """Hex digest of ids and columns: features with the same one give the same results."""
        digest = _digest(self._all)
        digest.update(json.dumps(self.ids).encode())
        return digest.hexdigest()

    @property
    def _all(self) -> dict[str, Tensor]:
        return {**self.columns, **{f"tokens.{index}": layer for index, layer in enumerate(self.tokens)}}

    def need(self, column: str) -> Tensor:
        """A column that must be there.

        Raises:
            InputError: it is not; the message names the ones that are.
        """
        columns = self.columns
        if column not in columns:
            raise InputError(
                f"{column!r} is missing from the features, which have {', '.join(map(repr, columns))}; "
                f"extract with {column!r}, or pass Features(…, {column}=…)"
            )
        return columns[column]

    def need_layers(self, column: str) -> tuple[Tensor, ...]:
        """The `layers` or the `tokens`, which must be there.

        Raises:
            InputError: there are none; the message says where they come from.
        """
        found: tuple[Tensor, ...] = getattr(self, column)
        if not found:
            made = ", which only a pass through the network gives" if column == "tokens" else ""
            raise InputError(
                f"{column!r} is missing from the features{made}; fit on images, or pass Features(…, {column}=[…])"
            )
        return found

    @staticmethod
    def concat(parts: Sequence["Features"]) -> "Features":
        """All rows of all parts, one after the other.

        Raises:
            InputError: no parts, or parts whose columns, widths or dtypes differ.
        """
        if not parts:
            raise InputError("Features.concat got no parts; at least one was expected")
        for position, part in enumerate(parts):
            same_layout(f"part {position}", _layout(part._all), "part 0", _layout(parts[0]._all))
        columns = {name: torch.cat([part.columns[name] for part in parts]) for name in parts[0].columns}
        tokens = [torch.cat(layer) for layer in zip(*(part.tokens for part in parts), strict=True)]
        return _from_columns(columns, ids=[name for part in parts for name in part.ids], tokens=tokens)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes one safetensors file, under a temporary name first, so that it is whole or not there.

        Tokens are left out.
        """
        path = Path(path)
        text = np.frombuffer(json.dumps(self.ids, ensure_ascii=False).encode(), dtype=np.uint8).copy()
        temporary = path.with_name(f".{path.name}.{os.getpid()}")
        metadata = {"format": "mood.features", "version": str(FORMAT_VERSION)}
        try:
            save_file({**self.columns, "ids": torch.from_numpy(text)}, temporary, metadata=metadata)
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)

    @staticmethod
    def load(path: str | os.PathLike[str]) -> "Features":
        """Reads what `save` wrote, or a `.npz` or `.parquet` file that the user already has.

        Columns are found by name: `embedding`, and optionally `ids`, `logits`, `labels`, `reconstruction`,
        `layers.0`, `layers.1`, …; other ones are left alone. In Parquet a matrix is a column of lists of one length.
        Nothing is unpickled. A safetensors file is mapped, and stays mapped while the features live.

        Raises:
            InputError: no such file, an unknown suffix, no embedding, or a column that `Features` refuses.
            ArtifactError: a safetensors file that is damaged, of another kind, or written by a newer mood.
        """
        path = Path(path)
        readers = {".safetensors": _read_safetensors, ".npz": _read_npz, ".parquet": _read_parquet}
        if path.suffix not in readers:
            raise InputError(f"{path}: features are read from {', '.join(readers)}, not from {path.suffix!r}")
        if not path.is_file():
            raise InputError(f"{path}: no such file")
        columns, ids = readers[path.suffix](path)
        if "embedding" not in columns:
            found = ", ".join(map(repr, columns)) or "nothing that features are made of"
            raise InputError(f"{path}: no column 'embedding' of shape (N, D); found {found}")
        try:
            return _from_columns(columns, ids)
        except InputError as error:
            raise InputError(f"{path}: {error}") from error


@dataclass(frozen=True, slots=True, eq=False, init=False)
class Head:
    """The linear classifier on top of the embedding: logits = weight · h + bias.

    Attributes:
        weight: (K, D) floating.
        bias: (K,) floating; zeros where none was given.
    """

    weight: Tensor
    bias: Tensor

    def __init__(self, weight: Any, bias: Any = None) -> None:
        """Converts and checks both.

        Raises:
            InputError: another rank, lengths that differ, values that are not finite, or a layer in place of its parts.
        """
        if hasattr(weight, "weight"):
            raise InputError(
                f"head weight is a {type(weight).__name__}; its parts were expected: Head(layer.weight, layer.bias)"
            )
        matrix = _floating("head weight", weight, rank=2)
        vector = torch.zeros(len(matrix), dtype=matrix.dtype) if bias is None else bias
        object.__setattr__(self, "weight", matrix)
        object.__setattr__(self, "bias", _floating("head bias", vector, rank=1, rows=len(matrix)))

    def fingerprint(self) -> str:
        """Hex digest of both."""
        return _digest({"weight": self.weight, "bias": self.bias}).hexdigest()


def _from_columns(columns: Mapping[str, Any], ids: Any, tokens: Sequence[Any] = ()) -> Features:
    layers: list[Any] = []
    while f"layers.{len(layers)}" in columns:
        layers.append(columns[f"layers.{len(layers)}"])
    return Features(
        columns["embedding"],
        ids=ids,
        logits=columns.get("logits"),
        labels=columns.get("labels"),
        layers=layers,
        reconstruction=columns.get("reconstruction"),
        tokens=tokens,
    )


def _is_column(name: str) -> bool:
    return name in (*MATRICES, "labels", "reconstruction") or name.startswith("layers.")


def _read_safetensors(path: Path) -> tuple[dict[str, Any], Any]:
    try:
        with safe_open(path, "pt") as file:
            metadata = file.metadata() or {}
            if metadata.get("format") != "mood.features":
                raise ArtifactError(f"{path}: a safetensors file, but not one of features")
            if int(metadata["version"]) > FORMAT_VERSION:
                raise ArtifactError(
                    f"{path}: features of format version {metadata['version']}; this mood reads {FORMAT_VERSION}"
                )
            names = file.keys()
            columns = {name: file.get_tensor(name) for name in names}
    except SafetensorError as error:
        raise ArtifactError(f"{path}: damaged ({error})") from error
    return columns, json.loads(columns.pop("ids").numpy().tobytes())


def _read_npz(path: Path) -> tuple[dict[str, Any], Any]:
    try:
        # Opened here: np.load leaves a file that is no archive open.
        with path.open("rb") as opened, np.load(opened, allow_pickle=False) as file:
            return {name: file[name] for name in file.files if _is_column(name)}, (
                file["ids"] if "ids" in file.files else None
            )
    except (ValueError, TypeError, EOFError, OSError, zipfile.BadZipFile, zlib.error) as error:
        raise InputError(f"{path} cannot be read as an .npz file of arrays: {error}") from error


def _read_parquet(path: Path) -> tuple[dict[str, Any], Any]:
    try:
        names = [name for name in pq.read_schema(path).names if name == "ids" or _is_column(name)]
        table = pq.read_table(path, columns=names)
    except (OSError, pa.ArrowException) as error:
        raise InputError(f"{path} cannot be read as a Parquet table: {error}") from error
    columns = {name: _from_arrow(path, name, table[name].combine_chunks()) for name in names if name != "ids"}
    return columns, table["ids"].to_pylist() if "ids" in names else None


def _from_arrow(path: Path, name: str, column: Any) -> np.ndarray:
    """(N,) or (N, width) values of one Parquet column."""
    values = (
        column.flatten() if isinstance(column.type, pa.ListType | pa.LargeListType | pa.FixedSizeListType) else None
    )
    if column.null_count or (values is not None and values.null_count):
        raise InputError(f"{path}: column {name!r} has empty cells; every image needs a value")
    if values is None:
        return np.asarray(column.to_numpy(zero_copy_only=False))
    widths = {column.type.list_size} if isinstance(column.type, pa.FixedSizeListType) else _widths(column)
    if len(widths) > 1:
        raise InputError(
            f"{path}: column {name!r} has lists of {min(widths)} to {max(widths)} values; one length needed"
        )
    return np.asarray(values.to_numpy(zero_copy_only=False)).reshape(len(column), *widths or (1,))


def _widths(column: Any) -> set[int]:
    return set(np.diff(column.offsets.to_numpy()).tolist())


def _digest(columns: Mapping[str, Tensor]) -> "hashlib._Hash":
    digest = hashlib.sha256()
    for name, column in columns.items():
        digest.update(f"{name} {described(column)}".encode() + column.numpy().tobytes())
    return digest


def _layout(columns: Mapping[str, Tensor]) -> dict[str, tuple[tuple[int, ...], str]]:
    return {name: (tuple(column.shape[1:]), str(column.dtype)) for name, column in columns.items()}


def same_layout(name: str, layout: Mapping[str, Any], first_name: str, first: Mapping[str, Any]) -> None:
    """Raises `InputError` where two parts of one set of features differ in columns, widths or dtypes."""
    for column in {**first, **layout}:
        if column != "ids" and layout.get(column) != first.get(column):
            raise InputError(
                f"{name} and {first_name} differ in {column!r}: {layout.get(column, 'absent')} "
                f"and {first.get(column, 'absent')}; parts of one set have the same columns, widths and dtypes"
            )


def described(tensor: Tensor) -> str:
    """A tensor's type and shape, for messages."""
    return f"{str(tensor.dtype).removeprefix('torch.')} {tuple(tensor.shape)}"


def _tensor(name: str, values: Any) -> Tensor:
    """Any array as a contiguous tensor in main memory; shares memory where it can."""
    if isinstance(values, Tensor):
        return values.detach().cpu().contiguous()
    try:
        array = np.asarray(values, order="C")
        if array.size and array.dtype.kind not in "biufc":
            raise TypeError(f"it holds {array.item(0)!r}")
        # torch takes neither foreign byte orders nor read-only memory.
        array = array.astype(array.dtype.newbyteorder("="), copy=not array.flags.writeable)
        return torch.from_numpy(array)
    except (TypeError, ValueError) as error:
        raise InputError(f"{name}: {type(values).__name__} cannot be read as numbers ({error})") from error


def _floating(name: str, values: Any, *, rank: int, rows: int | None = None) -> Tensor:
    column = _tensor(name, values)
    axes = {1: "(N,)", 2: "(N, width)", 3: "(N, positions, width)"}[rank]
    if column.dim() != rank or not column.dtype.is_floating_point:
        raise InputError(f"{name} is {described(column)}; floating numbers of shape {axes} were expected")
    if 0 in column.shape[1:]:
        raise InputError(f"{name} is {described(column)}; at least one value per row was expected")
    _check_rows(name, column, rows)
    if column.dtype not in (torch.float16, torch.float32, torch.float64):
        column = column.to(torch.float32)
    # aminmax carries NaN through and allocates nothing, whatever N is.
    if column.numel() and not all(torch.isfinite(extreme) for extreme in column.aminmax()):
        finite = torch.isfinite(column)
        row = int((~finite).reshape(len(column), -1).any(1).nonzero()[0])
        count = int((~finite).sum())
        raise InputError(f"{name} has {count} values that are not finite, the first in row {row}; check the extraction")
    return column


def _integers(name: str, values: Any, rows: int) -> Tensor:
    expected = (
        "whole numbers from 0 of shape (N,) were expected; np.unique(names, return_inverse=True)[1] makes them of names"
    )
    try:
        column = _tensor(name, values)
    except InputError as error:
        raise InputError(f"{error}; {expected}") from error
    if column.dim() != 1 or column.dtype.is_floating_point or column.dtype.is_complex or column.dtype == torch.bool:
        raise InputError(f"{name} is {described(column)}; {expected}")
    _check_rows(name, column, rows)
    return column.to(torch.int64)


def _check_rows(name: str, column: Tensor, rows: int | None) -> None:
    if rows is not None and len(column) != rows:
        raise InputError(f"{name} has {len(column)} rows; {rows} were expected, one for each row before it")


def _ids(ids: Any, rows: int) -> tuple[str, ...]:
    if ids is None:
        return tuple(map(str, range(rows)))
    values = ids.tolist() if isinstance(ids, np.ndarray | Tensor) else ids
    if (
        isinstance(values, str)
        or not isinstance(values, Sequence)
        or not all(isinstance(value, str | int | np.integer) for value in values)
    ):
        raise InputError(f"ids are {type(ids).__name__}; {rows} strings or integers were expected")
    if len(values) != rows:
        raise InputError(f"ids has {len(values)} rows; {rows} were expected, one for each row of embedding")
    return tuple(map(str, values))


def _positions(rows: Any, length: int) -> Tensor:
    index = _tensor("rows", rows)
    if index.dim() == 1 and len(index) == 0:
        return torch.arange(0)
    if index.dtype == torch.bool and index.shape == (length,):
        return index.nonzero()[:, 0]
    if index.dim() != 1 or index.dtype.is_floating_point or index.dtype == torch.bool:
        raise InputError(
            f"rows are {described(index)}; a slice, bool ({length},) or integer positions were expected "
            "(one row: features[i : i + 1])"
        )
    index = index.to(torch.int64)
    if index.min() < -length or index.max() >= length:
        raise InputError(f"rows go from {int(index.min())} to {int(index.max())}; there are {length}")
    return index % length
