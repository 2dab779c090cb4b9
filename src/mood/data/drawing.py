"""Training images as an epoch shows them, with draws that belong to (seed, epoch, position) and to nothing else.

A run that was killed, or that decodes with another number of workers, sees the same bytes as one that was not.
"""

import hashlib
import random
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from PIL import Image

from mood.core.decoding import MAX_PIXELS, as_seen
from mood.core.errors import InputError
from mood.core.transform import Transform
from mood.data.augment import Augment, timm_transform
from mood.data.source import Images, Source
from mood.data.streaming import Stream

if TYPE_CHECKING:
    from torch import Tensor


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
        with generators_put_back():
            return self.drawer().draw(epoch, position)[0]

    def drawer(self) -> "Drawer":
        """What draws these images, in this process or in a worker.

        Raises:
            InputError: where timm cannot read an augmentation, or the first view cannot have a twin.
        """
        recipe = Transform(
            self.size, self.size, crop="squash", mean=self.mean, std=self.std, max_pixels=self.max_pixels
        )
        # Built here once, so that a wrong string is known at once and forked workers have timm already.
        for augment in self.augments:
            timm_transform(augment, recipe)
        return Drawer(self.source.images, self.augments, recipe, self.seed, self._twin(recipe))

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


class _Twin(NamedTuple):
    """The size, and how it is made; None where it is the view itself."""

    size: tuple[int, int]
    recipe: tuple[Augment, Transform] | None


class Drawer:
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
                pixels = np.asarray(timm_transform(*self._twin.recipe)[0](seen))
            twin = torch.from_numpy(pixels.transpose(2, 0, 1) / np.float32(255))
        return torch.stack([values for _, values in shown]), twin

    def _view(self, seen: Image.Image, epoch: int, position: int, view: int) -> tuple[np.ndarray, "Tensor"]:
        """(H, W, 3) uint8 pixels, and what the network sees of them."""
        import torch

        vary, erase = timm_transform(self._augments[view], self._transform)
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


def _numbers(*parts: int) -> tuple[int, int, int, int]:
    """Four numbers of 64 bits that are a function of the parts alone."""
    digest = hashlib.blake2b(repr(parts).encode(), digest_size=32).digest()
    first, second, third, fourth = struct.unpack("<4Q", digest)
    return first, second, third, fourth


@contextmanager
def generators_put_back() -> Iterator[None]:
    """Leave the global generators, which timm and torchvision draw from, as they were."""
    import torch

    python, numpy, torch_ = random.getstate(), np.random.get_state(), torch.get_rng_state()
    try:
        yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)
        torch.set_rng_state(torch_)
