"""A source as batches of pixels, in its own order, decoded by as many processes as one likes."""

from collections.abc import Iterator, Sequence
from typing import Any, Protocol, TypeVar

import numpy as np

from mood.core.batch import Batch, Rejection
from mood.core.errors import DataError, InputError
from mood.core.transform import Transform
from mood.data.source import Images, Source

T_co = TypeVar("T_co", covariant=True)
T = TypeVar("T")


class Indexed(Protocol[T_co]):
    """What worker processes are given: parts that can be made one by one."""

    def __len__(self) -> int:
        """How many parts there are."""
        ...

    def __getitem__(self, index: int) -> T_co:
        """One part."""
        ...


def batches(
    source: Source,
    transform: Transform,
    *,
    batch_size: int,
    workers: int = 0,
    start: int = 0,
    stop: int | None = None,
) -> Iterator[Batch]:
    """Decode, resize and crop images in the order of the manifest.

    A batch is a fixed stretch of `batch_size` positions, so it does not depend on the workers; where some images
    cannot be read it holds fewer rows, and as many rejections. Every position comes out once, as one or the other.

    Args:
        source: where the images lie.
        transform: what is done to each.
        batch_size: positions per batch, the last one taking what is left.
        workers: processes that decode; 0 decodes in this one.
        start: the first position.
        stop: the position after the last, by default N.

    Returns:
        An iterator of batches with pixels (n, H, W, 3) uint8.

    Raises:
        InputError: for a batch size, workers or positions that are no such thing.
        DataError: where there are no positions, or (later) a worker process has died.
    """
    stop = len(source) if stop is None else stop
    check_loading(batch_size, workers)
    if not 0 <= start <= stop <= len(source):
        raise InputError(f"start is {start} and stop {stop}; {source.name} has the positions 0 to {len(source)}.")
    if start == stop:
        raise DataError(f"There are no images from position {start} to {stop} of {source.name}.")
    stretches = _Stretches(source.images, transform, batch_size, start, stop)
    return (_batch(source, *part) for part in in_workers(stretches, workers))


def in_workers(parts: Indexed[T], workers: int) -> Iterator[T]:
    """Make the parts in order, in this process or ahead of time in others.

    Raises:
        DataError: where a worker process has died.
    """
    if workers == 0:
        yield from (parts[index] for index in range(len(parts)))
        return
    import torch
    from torch.utils.data import DataLoader

    # A generator of its own: the loader would otherwise draw a number from the one that training uses.
    loader: DataLoader[T] = DataLoader(
        parts,  # type: ignore[arg-type]
        batch_size=None,
        num_workers=workers,
        collate_fn=_as_it_is,
        generator=torch.Generator(),
    )
    try:
        yield from loader
    except RuntimeError as error:
        if not str(error).startswith("DataLoader worker"):
            raise
        raise DataError(
            f"A process that decodes images has died ({error}). It was most likely killed for its memory: "
            "use fewer workers, smaller batches or a smaller max_pixels."
        ) from error


def check_loading(batch_size: int, workers: int) -> None:
    """Refuse a batch size below 1 and workers below 0 with an `InputError`."""
    if batch_size < 1:
        raise InputError(f"batch_size is {batch_size}; it must be at least 1.")
    if workers < 0:
        raise InputError(f"workers is {workers}; it must be 0 (decode in this process) or more.")


class _Stretches:
    """Part k: the pixels of the k-th stretch, their positions, and the reasons of the others."""

    def __init__(self, images: Images, transform: Transform, batch_size: int, start: int, stop: int) -> None:
        self._images = images
        self._transform = transform
        self._starts = range(start, stop, batch_size)
        self._batch_size = batch_size
        self._stop = stop

    def __len__(self) -> int:
        return len(self._starts)

    def __getitem__(self, index: int) -> tuple[np.ndarray, list[int], list[tuple[int, str]]]:
        start = self._starts[index]
        stop = min(start + self._batch_size, self._stop)
        pixels = np.empty((stop - start, *self._transform.size, 3), np.uint8)
        positions: list[int] = []
        reasons: list[tuple[int, str]] = []
        for position in range(start, stop):
            try:
                pixels[len(positions)] = self._transform.pixels(self._images.read(position))
                positions.append(position)
            except DataError as error:
                reasons.append((position, str(error)))
        return pixels[: len(positions)], positions, reasons


def _batch(source: Source, pixels: np.ndarray, read: Sequence[int], reasons: Sequence[tuple[int, str]]) -> Batch:
    manifest = source.manifest
    positions = np.array(read, np.int64)
    return Batch(
        positions=positions,
        ids=tuple(manifest.ids[position] for position in read),
        pixels=pixels,
        labels=None if manifest.labels is None else manifest.labels[positions],
        rejections=tuple(Rejection(position, manifest.ids[position], reason) for position, reason in reasons),
    )


def _as_it_is(part: Any) -> Any:
    return part
