"""Covariate shifts: the same images, worse taken. Their classes stay what they are; only how they look moves.

Strengths are stated with the shift, so that two figures under one name come from the same images. torchvision does the
work; the noise is seeded by each image's own hash, so that it depends on neither order nor workers.
"""

import io
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any

import numpy as np

from mood.core.decoding import as_seen
from mood.core.errors import InputError
from mood.data.manifest import Manifest, content_hash
from mood.data.source import Images, Source, Store


def _blur(image: Any, strength: float, seed: int) -> Any:
    from torchvision.transforms.v2 import functional

    # Three standard deviations on each side, where the image has room to be mirrored at its edges.
    reach = max(1, round(3 * strength))
    kernel = [2 * min(reach, side - 1) + 1 for side in (image.shape[2], image.shape[1])]
    return functional.gaussian_blur(image, kernel, [strength] * 2)


def _noise(image: Any, strength: float, seed: int) -> Any:
    import torch

    noise = torch.randn(image.shape, generator=torch.Generator().manual_seed(seed))
    return (image + 255 * strength * noise).round().clamp(0, 255).to(torch.uint8)


def _brightness(image: Any, strength: float, seed: int) -> Any:
    from torchvision.transforms.v2 import functional

    return functional.adjust_brightness(image, strength)


def _contrast(image: Any, strength: float, seed: int) -> Any:
    from torchvision.transforms.v2 import functional

    return functional.adjust_contrast(image, strength)


def _saturation(image: Any, strength: float, seed: int) -> Any:
    from torchvision.transforms.v2 import functional

    return functional.adjust_saturation(image, strength)


def _rotation(image: Any, strength: float, seed: int) -> Any:
    from torchvision.transforms.v2 import InterpolationMode, functional

    return functional.rotate(image, strength, InterpolationMode.BILINEAR)


def _jpeg(image: Any, strength: float, seed: int) -> Any:
    import torch
    from PIL import Image

    # Pillow's: torchvision's own encoder is on its way out.
    file = io.BytesIO()
    Image.fromarray(image.permute(1, 2, 0).numpy()).save(file, "JPEG", quality=int(strength))
    return torch.from_numpy(np.array(Image.open(file))).permute(2, 0, 1)


@dataclass(frozen=True, slots=True)
class Shift:
    """A kind of shift.

    Attributes:
        unit: what its strength is.
        smallest: strength.
        largest: strength.
        apply: (3, H, W) uint8 tensor, strength, seed → the same shape.
    """

    unit: str
    smallest: float
    largest: float
    apply: Callable[[Any, float, int], Any]


SHIFTS: Mapping[str, Shift] = MappingProxyType(
    {
        "blur": Shift("standard deviation in pixels", 0.1, 50, _blur),
        "noise": Shift("standard deviation, of white = 1", 0.001, 1, _noise),
        "brightness": Shift("factor", 0.01, 10, _brightness),
        "contrast": Shift("factor", 0.01, 10, _contrast),
        "saturation": Shift("factor", 0, 10, _saturation),
        "rotation": Shift("degrees", -180, 180, _rotation),
        "jpeg": Shift("quality", 1, 100, _jpeg),
    }
)
"""Shifts by name; a blur of 1 or a noise of 0.1 is severe at 32 pixels and mild at 224."""


def parse_shift(text: str) -> tuple[str, float]:
    """`"blur=1.5"` → its name and strength.

    Raises:
        InputError: an unknown shift, or a strength out of its range.
    """
    name, equals, value = text.partition("=")
    if name not in SHIFTS:
        raise InputError(f"shift {text!r}: known are {', '.join(f'{key}=' for key in SHIFTS)} with a strength")
    kind = SHIFTS[name]
    try:
        strength = float(value)
    except ValueError:
        strength = float("nan")
    if not equals or not kind.smallest <= strength <= kind.largest:
        raise InputError(
            f"shift {text!r}: its strength is a {kind.unit}, a number from {kind.smallest:g} to {kind.largest:g}"
        )
    return name, strength


@dataclass(frozen=True, slots=True, eq=False)
class ShiftedStore:
    """Images of another store under a shift.

    Attributes:
        images: as they are.
        hashes: of them, where the noise comes from.
        name: of the shift.
        strength: of it.
        ids: of the shifted images.
    """

    images: Images
    hashes: tuple[str, ...]
    name: str
    strength: float
    ids: tuple[str, ...]

    def __len__(self) -> int:
        """Number of images."""
        return len(self.ids)

    def id(self, row: int) -> str:
        """The name of an image."""
        return self.ids[row]

    def read(self, row: int) -> np.ndarray:
        """(H, W, 3) uint8."""
        import torch

        pixels = np.asarray(as_seen(self.images.read(row)))
        tensor = torch.from_numpy(pixels.copy()).permute(2, 0, 1)
        moved = SHIFTS[self.name].apply(tensor, self.strength, int(self.hashes[row][:12], 16))
        return np.ascontiguousarray(moved.permute(1, 2, 0).numpy())


def shifted(source: Source, shift: str) -> Source:
    """The same images with the same labels under a shift; they have hashes of their own.

    Args:
        source: known images.
        shift: "NAME=STRENGTH".

    Raises:
        InputError: an unknown shift, or a strength out of its range.
    """
    name, strength = parse_shift(shift)
    manifest = source.manifest
    hashes = tuple(content_hash(f"{name}={strength!r} {digest}".encode()) for digest in manifest.hashes)
    store: Store = ShiftedStore(source.images, manifest.hashes, name, strength, manifest.ids)
    return replace(
        source,
        name=f"{source.name}, {shift}",
        description=f"{source.description}, under {name} of {strength:g} ({SHIFTS[name].unit})",
        manifest=Manifest(ids=manifest.ids, hashes=hashes, labels=manifest.labels, class_names=manifest.class_names),
        images=Images(store, np.arange(len(source))),
    )
