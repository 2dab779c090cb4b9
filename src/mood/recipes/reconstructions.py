"""Images as a tokenizer is given them, and a picture of what it makes of them."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from mood.core.transform import Transform
from mood.data import Source, batches
from mood.models import DiscreteVae, map_pixels


def as_they_are(size: tuple[int, int]) -> Transform:
    """The middle of an image at this size, in [0, 1]."""
    return Transform(size, size, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))


def pictures(source: Source, size: tuple[int, int], workers: int) -> Iterator[Tensor]:
    """The readable images of a source, (n, 3, H, W) in [0, 1], batch by batch."""
    transform = as_they_are(size)
    for batch in batches(source, transform, batch_size=128, workers=workers):
        if len(batch):
            yield torch.from_numpy(transform.normalise(batch.pixels))


def beside(originals: np.ndarray, reconstructions: np.ndarray, *, columns: int = 8) -> np.ndarray:
    """One picture of (N, H, W, 3) uint8 originals, each above its reconstruction, in rows of `columns` pairs."""
    count, height, width, _ = originals.shape
    # Small images are shown larger, each pixel as a square.
    times = max(1, 96 // max(height, width))
    gap = 4
    rows = -(-count // columns)
    sheet = np.full((rows * (2 * height * times + 2 * gap), columns * (width * times + gap), 3), 255, np.uint8)
    for number, pair in enumerate(zip(originals, reconstructions, strict=True)):
        top = number // columns * (2 * height * times + 2 * gap)
        left = number % columns * (width * times + gap)
        for below, image in enumerate(pair):
            shown = image.repeat(times, axis=0).repeat(times, axis=1)
            start = top + below * height * times
            sheet[start : start + height * times, left : left + width * times] = shown
    return sheet


def draw(vae: DiscreteVae, source: Source, path: Path) -> None:
    """Write the picture of the first readable images of a source."""
    images = next(pictures(source, vae.shape.image_size, 0), None)
    if images is None:
        return
    vae = vae.eval().cpu()
    with torch.no_grad():
        images = images[:32]
        again = vae.images(vae.decode(vae.encoder(map_pixels(images)).argmax(dim=1)))
    both = [(255 * part).round().byte().permute(0, 2, 3, 1).numpy() for part in (images, again)]
    Image.fromarray(beside(*both)).save(path)
