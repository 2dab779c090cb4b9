"""The batches of an epoch of training: which images are in batch k depends on (seed, epoch, k) alone."""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from mood.core.batch import Rejection
from mood.core.errors import DataError, InputError
from mood.data.drawing import Drawer, TrainingImages, generators_put_back
from mood.data.loader import check_loading, in_workers
from mood.data.source import Source
from mood.data.streaming import Stream

if TYPE_CHECKING:
    from torch import Tensor


class TrainingBatch(NamedTuple):
    """What one step is given.

    Attributes:
        views: one (B, 3, H, W) float32 normalised tensor for each view of the same images.
        labels: (B,) int64, or None where the images have none.
        positions: (B,) int64, of the images in their source.
        twin: (B, 3, h, w) float32 in [0, 1], the first view at `TrainingImages.twin_size`; None where that is None.
        rejections: the images that belong here and cannot be read.
    """

    views: tuple["Tensor", ...]
    labels: "Tensor | None"
    positions: "Tensor"
    twin: "Tensor | None" = None
    rejections: tuple[Rejection, ...] = ()


_Order = Callable[[int, int], np.ndarray]
"""The positions from one place of an epoch to another: any stretch of the order, without those before it."""


def training_batches(
    images: TrainingImages,
    *,
    epoch: int,
    batch_size: int,
    workers: int = 0,
    start_batch: int = 0,
    drop_last: bool = True,
    parts: Sequence[int] = (0,),
    of: int = 1,
) -> Iterator[TrainingBatch]:
    """One epoch of training, or the rest of one.

    Which images are in batch k, and what they look like, depends on (seed, epoch, k) alone: not on the workers, and
    not on where one starts. The global generators of Python, NumPy and torch are left as they were.

    An image that cannot be read is left out, so that its batch is smaller, the same in every run; the batch names it
    with its reason, in every epoch. Leave it out for good with `source.select`.

    Args:
        images: what to train on, and how.
        epoch: from 0.
        batch_size: images per batch.
        workers: processes that decode; 0 decodes in this one.
        start_batch: batches to skip: those that a run has done before it was stopped.
        drop_last: leave out the last batch where it is smaller.
        parts: which parts of each batch to make, one after the other, where it is cut.
        of: equal parts of a batch, for several processes or for gradients that are added up. A part holds the mirror
            image of each of its places, as far as that goes: mixup pairs the first image with the last one.

    Raises:
        InputError: for numbers that are out of range, or a batch size above the number of images with `drop_last`.
        DataError: (later) where no image of a batch can be read, or a worker process has died.
    """
    check_loading(batch_size, workers)
    if epoch < 0 or start_batch < 0:
        raise InputError(f"epoch is {epoch} and start_batch {start_batch}; both count from 0.")
    if of < 1 or (of > 1 and (batch_size % of or not drop_last)) or not all(0 <= part < of for part in parts):
        raise InputError(
            f"batch_size is {batch_size}; it cannot be cut into {of} equal parts of which {parts} are made."
        )
    count = len(images) // batch_size if drop_last else -(-len(images) // batch_size)
    if count == 0:
        raise InputError(f"batch_size is {batch_size}, but there are {len(images)} images: no batch is left.")
    drawer = images.drawer()
    stretches = [
        (batch * batch_size, min((batch + 1) * batch_size, len(images))) for batch in range(start_batch, count)
    ]
    if isinstance(images.source, Stream):
        order: _Order = partial(images.source.order, images.seed, epoch)
    else:
        order = partial(_stretch, images.order(epoch))
    wanted = [(low, high, part) for low, high in stretches for part in parts]
    made = in_workers(_AugmentedBatches(drawer, epoch, order, wanted, of), workers)
    return (_checked(images.source, *batch) for batch in made)


def _stretch(positions: np.ndarray, low: int, high: int) -> np.ndarray:
    return positions[low:high]


def _places(size: int, part: int, of: int) -> np.ndarray:
    """Places in a batch of one of its parts: a stretch and its mirror image where that can be, else a stretch alone."""
    if of == 1:
        return np.arange(size)
    length = size // of
    if length % 2:
        return np.arange(part * length, (part + 1) * length)
    first = np.arange(part * length // 2, (part + 1) * length // 2)
    return np.concatenate((first, size - 1 - first[::-1]))


def augmented(
    images: TrainingImages, *, batch_size: int, workers: int = 0, start: int = 0, stop: int | None = None
) -> Iterator[TrainingBatch]:
    """Each image once, varied as the first epoch of training would vary it, in the order of the source.

    A batch holds fewer rows, or none, where images cannot be read; it names them.

    Args:
        images: which, and how.
        batch_size: positions per batch, the last one taking what is left.
        workers: processes that decode; 0 decodes in this one.
        start: the first position.
        stop: the position after the last, by default N.

    Raises:
        InputError: for a batch size or workers that are no such thing.
        DataError: (later) where a worker process has died.
    """
    check_loading(batch_size, workers)
    positions = np.arange(len(images))[start:stop]
    wanted = [(at, min(at + batch_size, len(positions)), 0) for at in range(0, len(positions), batch_size)]
    made = _AugmentedBatches(images.drawer(), 0, partial(_stretch, positions), wanted, 1)
    return (_batch(images.source, *batch) for batch in in_workers(made, workers))


def _checked(
    source: Source | Stream, pixels: "Tensor", twins: "Tensor | None", read: np.ndarray, reasons: list[tuple[int, str]]
) -> TrainingBatch:
    if not len(read):
        position, reason = reasons[0]
        raise DataError(
            f"None of the {len(reasons)} images of a training batch can be read; the first is "
            f"{_name(source, position)}: {reason}"
        )
    return _batch(source, pixels, twins, read, reasons)


def _batch(
    source: Source | Stream, pixels: "Tensor", twins: "Tensor | None", read: np.ndarray, reasons: list[tuple[int, str]]
) -> TrainingBatch:
    import torch

    labels = _labels(source, read)
    return TrainingBatch(
        views=tuple(view.contiguous() for view in pixels.unbind(1)),
        labels=None if labels is None else torch.from_numpy(labels),
        positions=torch.from_numpy(read),
        twin=twins,
        rejections=tuple(Rejection(position, _name(source, position), reason) for position, reason in reasons),
    )


def _name(source: Source | Stream, position: int) -> str:
    return source.id(position) if isinstance(source, Stream) else source.manifest.ids[position]


def _labels(source: Source | Stream, positions: np.ndarray) -> np.ndarray | None:
    if isinstance(source, Stream):
        return source.labels(positions)
    return None if source.manifest.labels is None else source.manifest.labels[positions]


class _AugmentedBatches:
    """Part k: the pixels of the k-th batch and their twins, their positions, and the reasons of the others."""

    def __init__(self, drawer: Drawer, epoch: int, order: _Order, wanted: list[tuple[int, int, int]], of: int) -> None:
        self._drawer = drawer
        self._epoch = epoch
        self._order = order
        self._wanted = wanted
        self._of = of

    def __len__(self) -> int:
        return len(self._wanted)

    def __getitem__(self, index: int) -> tuple["Tensor", "Tensor | None", np.ndarray, list[tuple[int, str]]]:
        import torch

        low, high, part = self._wanted[index]
        chosen = self._order(low, high)[_places(high - low, part, self._of)]
        pixels = torch.empty((len(chosen), *self._drawer.shape))
        twins = None if self._drawer.twin_shape is None else torch.empty((len(chosen), *self._drawer.twin_shape))
        read: list[int] = []
        reasons: list[tuple[int, str]] = []
        with generators_put_back():
            for position in chosen.tolist():
                try:
                    pixels[len(read)], twin = self._drawer.draw(self._epoch, position)
                    if twins is not None and twin is not None:
                        twins[len(read)] = twin
                    read.append(position)
                except DataError as error:
                    reasons.append((position, str(error)))
        return pixels[: len(read)], None if twins is None else twins[: len(read)], np.array(read, np.int64), reasons
