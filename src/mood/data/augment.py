"""Training images: augmented by timm, with draws that belong to (seed, epoch, position) and to nothing else.

A run that was killed, or that decodes with another number of workers, sees the same bytes as one that was not.
"""

import hashlib
import random
import struct
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from typing import TYPE_CHECKING, Any, NamedTuple, Self

import numpy as np
from PIL import Image, ImageOps

from mood.core.batch import Rejection
from mood.core.decoding import MAX_PIXELS, as_seen
from mood.core.errors import DataError, InputError
from mood.core.transform import Transform
from mood.data.loader import check_loading, in_workers
from mood.data.source import Images, Source
from mood.data.streaming import Stream

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, slots=True)
class Augment:
    """How a training image is varied: the arguments of timm's training transform, under its rules.

    Attributes:
        scale: (smallest, largest) share of the area that is cropped, in (0, 1].
        ratio: (smallest, largest) width : height of the crop.
        flip: probability of a mirror image.
        color_jitter: strength for brightness, contrast and saturation, or one for each and for hue; 0 is none. Without
            effect beside RandAugment.
        color_jitter_share: probability of it.
        grayscale: probability that the colours go.
        blur: probability of a Gaussian blur of 0.1 to 2 pixels.
        solarize: probability that the brighter half of each channel is inverted.
        rand_augment: timm's string, such as "rand-m9-mstd0.5-inc1"; None is none.
        erase: probability that a rectangle becomes noise, after normalisation.
        interpolation: "bilinear", "bicubic", "lanczos" or "random", which takes one of the first two for each image.
    """

    scale: tuple[float, float] = (0.08, 1.0)
    ratio: tuple[float, float] = (3 / 4, 4 / 3)
    flip: float = 0.5
    color_jitter: float | tuple[float, float, float, float] = 0.0
    color_jitter_share: float = 1.0
    grayscale: float = 0.0
    blur: float = 0.0
    solarize: float = 0.0
    rand_augment: str | None = None
    erase: float = 0.0
    interpolation: str = "bicubic"

    def __post_init__(self) -> None:
        """Check every field."""
        for name, low, high in (("scale", *self.scale), ("ratio", *self.ratio)):
            if not 0 < low <= high or (name == "scale" and high > 1):
                raise InputError(f"{name} is {(low, high)}; it must be (smallest, largest), positive, scale at most 1.")
        for name in ("flip", "erase", "color_jitter_share", "grayscale", "blur", "solarize"):
            probability = getattr(self, name)
            if not 0 <= probability <= 1:
                raise InputError(f"{name} is {probability}; a probability lies between 0 and 1.")
        if min(self.color_jitter if isinstance(self.color_jitter, tuple) else (self.color_jitter,)) < 0:
            raise InputError(f"color_jitter is {self.color_jitter}; it must be 0 or more.")
        if self.rand_augment is not None and not self.rand_augment.startswith("rand"):
            raise InputError(f"rand_augment is {self.rand_augment!r}; expected a string like 'rand-m9-mstd0.5-inc1'.")
        if self.interpolation not in ("bilinear", "bicubic", "lanczos", "random"):
            raise InputError(
                f"interpolation is {self.interpolation!r}; it must be bilinear, bicubic, lanczos or random."
            )

    @classmethod
    def mae(cls) -> Self:
        """Crop and flip alone, as MAE pre-trains: the mask is its augmentation (He et al., 2021, table 1e)."""
        return cls(scale=(0.2, 1.0))

    @classmethod
    def contrast(cls, *, blur: float = 0.5, solarize: float = 0.0, scale: tuple[float, float] = (0.08, 1.0)) -> Self:
        """Crop, flip, colours, grey, blur and inversion, as MoCo v3 varies (blur 1 and .1, solarize 0 and .2)."""
        return cls(
            scale=scale,
            color_jitter=(0.4, 0.4, 0.2, 0.1),
            color_jitter_share=0.8,
            grayscale=0.2,
            blur=blur,
            solarize=solarize,
        )

    @classmethod
    def finetune(cls) -> Self:
        """Crop, flip, RandAugment and erasing, as BEiT and MAE fine-tune."""
        return cls(rand_augment="rand-m9-mstd0.5-inc1", erase=0.25)


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


@dataclass(frozen=True, slots=True, eq=False)
class TrainingImages:
    """A source to be trained on.

    Attributes:
        source: where the images lie; select the rows to train on first (see `held_out`). A `Stream` has them selected.
        augments: how each image is varied, once for each view of it.
        size: (H, W) of the pixels.
        mean: of each channel, for pixels in 0-1.
        std: of each channel, for pixels in 0-1.
        seed: of all draws.
        max_pixels: the largest image (width x height) that is decoded.
        twin_size: (h, w) at which the first view is shown once more, by Lanczos, for a tokenizer: the same crop, mirror
            image and colours, neither erased nor normalised. Where it is `size`, it is the view itself.
    """

    source: Source | Stream
    augments: tuple[Augment, ...]
    size: tuple[int, int]
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    seed: int = 0
    max_pixels: int = MAX_PIXELS
    twin_size: tuple[int, int] | None = None

    def __len__(self) -> int:
        """N."""
        return len(self.source)

    def order(self, epoch: int) -> np.ndarray:
        """(N,) int64: the positions in the order in which the epoch goes through them."""
        if isinstance(self.source, Stream):
            return self.source.order(self.seed, epoch, 0, len(self))
        # A bit generator's raw stream is the one that NumPy keeps for ever (NEP 19).
        keys = np.random.Philox(key=_numbers(self.seed, epoch)[0]).random_raw(len(self))
        return np.argsort(keys, kind="stable")

    def draw(self, epoch: int, position: int) -> "Tensor":
        """(V, 3, H, W) float32: the views of one image as the epoch shows them, normalised.

        Raises:
            DataError: where the image cannot be read.
        """
        with _generators_put_back():
            return self._drawer().draw(epoch, position)[0]

    def _drawer(self) -> "_Drawer":
        recipe = Transform(
            self.size, self.size, crop="squash", mean=self.mean, std=self.std, max_pixels=self.max_pixels
        )
        # Built here once, so that a wrong string is known at once and forked workers have timm already.
        for augment in self.augments:
            _timm(augment, recipe)
        return _Drawer(self.source.images, self.augments, recipe, self.seed, self._twin(recipe))

    def _twin(self, recipe: Transform) -> "_Twin | None":
        if self.twin_size is None:
            return None
        first = self.augments[0]
        if first.rand_augment is not None or first.interpolation == "random":
            raise InputError(
                "A twin shows what its view shows, and the draws of rand_augment and of a random interpolation depend "
                "on the size: leave both out of the first view."
            )
        twin = replace(recipe, size=self.twin_size, resize=self.twin_size)
        return _Twin(self.twin_size, None if twin == recipe else (replace(first, interpolation="lanczos"), twin))


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
    drawer = images._drawer()
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
    made = _AugmentedBatches(images._drawer(), 0, partial(_stretch, positions), wanted, 1)
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


class _Twin(NamedTuple):
    """The size, and how it is made; None where it is the view itself."""

    size: tuple[int, int]
    recipe: tuple[Augment, Transform] | None


class _Drawer:
    """Reads and augments single images; all that a worker process is given."""

    def __init__(
        self,
        images: Images | Stream,
        augments: tuple[Augment, ...],
        transform: Transform,
        seed: int,
        twin: _Twin | None,
    ) -> None:
        self._images = images
        self._augments = augments
        self._transform = transform
        self._seed = seed
        self._twin = twin
        self.shape = (len(augments), 3, *transform.size)
        self.twin_shape = None if twin is None else (3, *twin.size)

    def draw(self, epoch: int, position: int) -> tuple["Tensor", "Tensor | None"]:
        """See `TrainingImages.draw`, and the twin; leaves the global generators as the draws left them."""
        import torch

        seen = as_seen(self._images.read(position), max_pixels=self._transform.max_pixels)
        shown = [self._view(seen, epoch, position, view) for view in range(len(self._augments))]
        twin = None
        if self._twin is not None:
            pixels = shown[0][0]
            if self._twin.recipe is not None:
                self._seed_all(epoch, position, 0)
                pixels = np.asarray(_timm(*self._twin.recipe)[0](seen))
            twin = torch.from_numpy(pixels.transpose(2, 0, 1) / np.float32(255))
        return torch.stack([values for _, values in shown]), twin

    def _view(self, seen: Image.Image, epoch: int, position: int, view: int) -> tuple[np.ndarray, "Tensor"]:
        """(H, W, 3) uint8 pixels, and what the network sees of them."""
        import torch

        vary, erase = _timm(self._augments[view], self._transform)
        self._seed_all(epoch, position, view)
        pixels = np.asarray(vary(seen))
        values = torch.from_numpy(self._transform.normalise(pixels))
        return pixels, values if erase is None else erase(values)

    def _seed_all(self, epoch: int, position: int, view: int) -> None:
        import torch

        # The first view's draws do not tell whether there are others.
        _, python, numpy, torch_ = _numbers(self._seed, epoch, position, *([view] if view else []))
        random.seed(python)
        np.random.seed(numpy % 2**32)
        torch.default_generator.manual_seed(torch_)


class _AugmentedBatches:
    """Part k: the pixels of the k-th batch and their twins, their positions, and the reasons of the others."""

    def __init__(self, drawer: _Drawer, epoch: int, order: _Order, wanted: list[tuple[int, int, int]], of: int) -> None:
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
        with _generators_put_back():
            for position in chosen.tolist():
                try:
                    pixels[len(read)], twin = self._drawer.draw(self._epoch, position)
                    if twins is not None and twin is not None:
                        twins[len(read)] = twin
                    read.append(position)
                except DataError as error:
                    reasons.append((position, str(error)))
        return pixels[: len(read)], None if twins is None else twins[: len(read)], np.array(read, np.int64), reasons


@lru_cache(maxsize=8)
def _timm(
    augment: Augment, transform: Transform
) -> tuple[Callable[[Image.Image], Image.Image], Callable[["Tensor"], "Tensor"] | None]:
    """The training transform of timm in two parts: up to the pixels, and from the normalised values on.

    Between them it converts and normalises, which `Transform.normalise` does to the same bits in a sixth of the time.
    """
    from timm.data.transforms_factory import create_transform
    from torchvision.transforms import Compose, GaussianBlur, RandomSolarize

    try:
        crop, colour, end = create_transform(
            (3, *transform.size),
            is_training=True,
            separate=True,
            scale=augment.scale,
            ratio=augment.ratio,
            hflip=augment.flip,
            color_jitter=augment.color_jitter or None,  # type: ignore[arg-type]
            color_jitter_prob=None if augment.color_jitter_share == 1 else augment.color_jitter_share,
            grayscale_prob=augment.grayscale,
            gaussian_blur_prob=augment.blur,
            auto_augment=augment.rand_augment,
            interpolation=augment.interpolation,
            mean=transform.mean,
            std=transform.std,
            re_prob=augment.erase,
            re_mode="pixel",
        )
    except (AssertionError, KeyError, ValueError) as error:
        raise InputError(f"timm cannot read rand_augment={augment.rand_augment!r}: {error!r}.") from error
    for step in colour.transforms:
        for operation in getattr(step, "ops", ()):
            if operation.name.startswith("Posterize"):
                operation.aug_fn = _posterize
        for inner in getattr(step, "transforms", ()):
            if isinstance(inner, GaussianBlur):
                # timm's 23 pixels are meant for 224: a tenth of the image, and odd.
                inner.kernel_size = tuple(side // 20 * 2 + 1 for side in reversed(transform.size))
    last = [RandomSolarize(128, p=augment.solarize)] if augment.solarize else []
    erase = end.transforms[2:]
    return Compose([*crop.transforms, *colour.transforms, *last]), Compose(erase) if erase else None


def _posterize(image: Image.Image, bits: int, **_: Any) -> Image.Image:
    """What timm does, and black for 0 bits: RandAugment asks for it at full strength, and Pillow 13 refuses."""
    if bits >= 8:
        return image
    return ImageOps.posterize(image, bits) if bits > 0 else Image.new(image.mode, image.size)


def _numbers(*parts: int) -> tuple[int, int, int, int]:
    """Four numbers of 64 bits that are a function of the parts alone."""
    digest = hashlib.blake2b(repr(parts).encode(), digest_size=32).digest()
    first, second, third, fourth = struct.unpack("<4Q", digest)
    return first, second, third, fourth


@contextmanager
def _generators_put_back() -> Iterator[None]:
    """Leave the global generators, which timm and torchvision draw from, as they were."""
    import torch

    python, numpy, torch_ = random.getstate(), np.random.get_state(), torch.get_rng_state()
    try:
        yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)
        torch.set_rng_state(torch_)
