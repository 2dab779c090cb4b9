"""Images in Parquet tables: a column `image`, and `label` and `coarse_label` where there are any."""

import json
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from itertools import accumulate
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mood.core.errors import DataError
from mood.data.source import MAX_CLASSES, Listing

if TYPE_CHECKING:
    import pyarrow as pa

_RESIDENT_BYTES = 2**30
"""Up to here all encoded images stay in memory, where training can read them in any order."""
_GROUPS_KEPT = 2
"""Above, this many row groups do: enough for readers that go through the rows in order."""


class ParquetStore:
    """The column `image` of one or more tables, read a row group at a time and when it is first asked for.

    The bytes lie in Arrow buffers, which forked workers share with their parent.
    """

    def __init__(self, files: Sequence[Path]) -> None:
        """Read the footers: how many rows lie where.

        Raises:
            DataError: where a file is no Parquet table or has no usable column `image`.
        """
        import pyarrow as pa
        import pyarrow.parquet as pq

        self._files = tuple(files)
        names = [file.name for file in files]
        self._names = names if len(set(names)) == len(names) else [file.as_posix() for file in files]
        self._column = "image"
        self._groups: list[tuple[int, int]] = []
        sizes, self._file_starts, total = [], [0], 0
        for number, file in enumerate(files):
            try:
                with pq.ParquetFile(file) as table:
                    self._column = _image_column(table.schema_arrow, file)
                    metadata = table.metadata
            except (OSError, pa.ArrowException) as error:
                raise DataError(f"{file} cannot be read as a Parquet table: {error}") from error
            for group in range(metadata.num_row_groups):
                part = metadata.row_group(group)
                self._groups.append((number, group))
                sizes.append(part.num_rows)
                total += sum(
                    part.column(column).total_uncompressed_size
                    for column in range(part.num_columns)
                    if part.column(column).path_in_schema in ("image", "image.bytes")
                )
            self._file_starts.append(self._file_starts[-1] + metadata.num_rows)
        self._group_starts = list(accumulate(sizes, initial=0))
        self._kept = len(self._groups) if total < _RESIDENT_BYTES else _GROUPS_KEPT
        self._loaded: OrderedDict[int, pa.Array] = OrderedDict()

    def __len__(self) -> int:
        """How many images lie here."""
        return self._file_starts[-1]

    def __getstate__(self) -> dict[str, Any]:
        """All but the images: whoever unpickles reads them again."""
        return {**self.__dict__, "_loaded": OrderedDict()}

    def id(self, row: int) -> str:
        """`file.parquet#row`, the row counted in its file."""
        number = bisect_right(self._file_starts, row) - 1
        return f"{self._names[number]}#{row - self._file_starts[number]}"

    def read(self, row: int) -> bytes:
        """The bytes in the row's cell."""
        group = bisect_right(self._group_starts, row) - 1
        if group not in self._loaded:
            if len(self._loaded) >= self._kept:
                self._loaded.popitem(last=False)
            self._loaded[group] = self._load(group)
        image = self._loaded[group][row - self._group_starts[group]].as_py()
        if image is None:
            raise DataError("Its cell in the column 'image' is empty (null).")
        return bytes(image)

    def _load(self, group: int) -> "pa.Array":
        import pyarrow as pa
        import pyarrow.compute as pc
        import pyarrow.parquet as pq

        number, index = self._groups[group]
        try:
            # Without Arrow's threads, which a forked worker would not have.
            with pq.ParquetFile(self._files[number], pre_buffer=False) as table:
                column = table.read_row_group(index, columns=[self._column], use_threads=False)["image"]
        except (OSError, pa.ArrowException) as error:
            raise DataError(f"Row group {index} of {self._files[number]} cannot be read: {error}.") from error
        images = pa.concat_arrays(column.chunks)
        return pc.struct_field(images, "bytes") if pa.types.is_struct(images.type) else images


UNLABELLED = "give the table a column 'label' of whole numbers"
"""What to do about labels that are missing."""


def list_parquet(files: Sequence[Path], name: str, description: str) -> Listing:
    """The rows of Parquet tables, one file after the other.

    The column `image` holds encoded bytes, or a struct with the field `bytes` as Hugging Face writes it. The columns
    `label` and `coarse_label` hold whole numbers from 0; their names stand in the schema metadata as JSON lists under
    `class_names` and `coarse_class_names`, or in Hugging Face's own metadata. Where they stand nowhere, the numbers
    serve as names.

    Raises:
        DataError: where a file is no such table, or the files do not agree on their classes.
    """
    store = ParquetStore(files)
    if not len(store):
        raise DataError(f"{description} has no rows.")
    labels, class_names = _labels(files, "label", "class_names")
    coarse_labels, coarse_class_names = _labels(files, "coarse_label", "coarse_class_names")
    return Listing(
        name,
        description,
        store,
        labels,
        class_names,
        coarse_labels,
        coarse_class_names,
        unlabelled=UNLABELLED,
    )


def _image_column(schema: "pa.Schema", file: Path) -> str:
    """What to read of the column `image`: all of it, or the field `bytes`."""
    import pyarrow as pa

    if "image" not in schema.names:
        raise DataError(f"{file} has no column 'image'; it has {', '.join(schema.names) or 'none'}.")
    kind = schema.field("image").type
    column = "image"
    if pa.types.is_struct(kind) and kind.get_field_index("bytes") >= 0:
        kind, column = kind.field("bytes").type, "image.bytes"
    if not (pa.types.is_binary(kind) or pa.types.is_large_binary(kind)):
        raise DataError(f"The column 'image' of {file} holds {kind}; it must hold bytes: one encoded image per row.")
    return column


def _labels(files: Sequence[Path], column: str, key: str) -> tuple[np.ndarray | None, tuple[str, ...] | None]:
    """The labels of all files as (N,) int64, and their names; nothing where no file has the column."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    parts: list[np.ndarray] = []
    named: set[tuple[str, ...] | None] = set()
    for file in files:
        with pq.ParquetFile(file) as table:
            schema = table.schema_arrow
            if column not in schema.names:
                continue
            if not pa.types.is_integer(schema.field(column).type):
                kind = schema.field(column).type
                raise DataError(f"The column '{column}' of {file} holds {kind}; it must hold whole numbers from 0.")
            values = table.read(columns=[column], use_threads=False)[column]
        if values.null_count:
            raise DataError(f"The column '{column}' of {file} has {values.null_count} empty cells (null).")
        parts.append(values.to_numpy().astype(np.int64))
        named.add(_class_names(schema.metadata or {}, column, key, file))
    if not parts:
        return None, None
    if len(parts) < len(files) or len(named) > 1:
        raise DataError(f"The files do not agree on '{column}' and its {key}: {', '.join(map(str, files))}.")
    labels = np.concatenate(parts)
    named_by = named.pop()
    if named_by is None and labels.max(initial=-1) >= MAX_CLASSES:
        raise DataError(
            f"The column '{column}' goes up to {labels.max()}, without names: it must count classes from 0, at most "
            f"{MAX_CLASSES} of them."
        )
    names = named_by or tuple(str(label) for label in range(int(labels.max(initial=-1)) + 1))
    if labels.size and (labels.min() < 0 or labels.max() >= len(names)):
        raise DataError(
            f"The column '{column}' goes from {labels.min()} to {labels.max()}; with {len(names)} {key} "
            f"it must lie in 0 to {len(names) - 1}."
        )
    return labels, names


def _class_names(metadata: Mapping[bytes, bytes], column: str, key: str, file: Path) -> tuple[str, ...] | None:
    try:
        if key.encode() in metadata:
            return tuple(str(name) for name in json.loads(metadata[key.encode()]))
        described = json.loads(metadata.get(b"huggingface", b"{}")).get("info", {}).get("features", {})
        names = described.get(column, {}).get("names")
        return None if names is None else tuple(str(name) for name in names)
    except (ValueError, TypeError, AttributeError) as error:
        raise DataError(f"The schema metadata of {file} do not name the classes of '{column}': {error}.") from error
