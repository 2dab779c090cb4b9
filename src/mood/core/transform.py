"""From an image to the numbers that a network sees, with NumPy and Pillow alone.

Training evaluation, scoring, export and a server all go through this file, so the same bytes give the same numbers
everywhere. `Transform` gives bit for bit what timm's evaluation transform gives on Pillow images.
"""

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from typing import Any, Self, TypeGuard

import numpy as np
from PIL import Image

from mood.core.decoding import MAX_PIXELS, as_seen
from mood.core.errors import DataError, InputError

_RESAMPLING = {
    "nearest": Image.Resampling.NEAREST,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "box": Image.Resampling.BOX,
    "hamming": Image.Resampling.HAMMING,
    "lanczos": Image.Resampling.LANCZOS,
}
_CROPS = ("center", "squash", "border")
# timm.data.constants: what a pretrained_cfg means by leaving a key out.
_TIMM_DEFAULTS: Mapping[str, Any] = {
    "input_size": (3, 224, 224),
    "interpolation": "bicubic",
    "crop_pct": 0.875,
    "crop_mode": "center",
    "mean": (0.485, 0.456, 0.406),
    "std": (0.229, 0.224, 0.225),
}


@dataclass(frozen=True, slots=True)
class Transform:
    """Resize, crop and normalise: everything between a decoded image and the first layer.

    Attributes:
        size: (H, W) of what comes out.
        resize: with crop "center", the shorter side before the crop, or (h, w) that the image just covers; with
            "squash" the exact (h, w), and with "border" the (h, w) it just fits into, an int meaning a square.
        interpolation: "nearest", "bilinear", "bicubic", "box", "hamming" or "lanczos".
        crop: "center" keeps the aspect and loses the margins, "squash" loses the aspect, "border" keeps both and pads
            with the mean colour: timm's crop_mode.
        mean: of each channel, for pixels in 0-1.
        std: of each channel, for pixels in 0-1, positive.
        max_pixels: the largest image (width x height) that is decoded.
    """

    size: tuple[int, int]
    resize: int | tuple[int, int]
    interpolation: str = "bicubic"
    crop: str = "center"
    mean: tuple[float, float, float] = _TIMM_DEFAULTS["mean"]
    std: tuple[float, float, float] = _TIMM_DEFAULTS["std"]
    max_pixels: int = MAX_PIXELS

    def __post_init__(self) -> None:
        """Check every field, and write equal transforms in one way."""
        height, width = _pair("size", self.size)
        resize: int | tuple[int, int]
        if _is_count(self.resize):
            resize = int(self.resize) if self.crop == "center" else (int(self.resize), int(self.resize))
        else:
            rows, columns = _pair("resize", self.resize)
            resize = rows if self.crop == "center" and rows == columns else (rows, columns)
        if self.interpolation not in _RESAMPLING:
            raise InputError(f"interpolation is {self.interpolation!r}; it must be one of {', '.join(_RESAMPLING)}.")
        if self.crop not in _CROPS:
            raise InputError(f"crop is {self.crop!r}; it must be one of {', '.join(_CROPS)}.")
        if not _is_count(self.max_pixels):
            raise InputError(f"max_pixels is {self.max_pixels!r}; it must be a positive whole number.")
        mean, std = _three("mean", self.mean), _three("std", self.std)
        if min(std) <= 0:
            raise InputError(f"std is {std}; each of its three numbers must be positive.")
        for name, value in (
            ("size", (height, width)),
            ("resize", resize),
            ("mean", mean),
            ("std", std),
            ("max_pixels", int(self.max_pixels)),
        ):
            object.__setattr__(self, name, value)

    @classmethod
    def from_pretrained_cfg(
        cls,
        config: Mapping[str, Any],
        *,
        size: int | tuple[int, int] | None = None,
        crop_pct: float | None = None,
        max_pixels: int = MAX_PIXELS,
    ) -> Self:
        """The evaluation transform that timm would build from a model's `pretrained_cfg`.

        Args:
            config: with timm's keys input_size, interpolation, crop_pct, crop_mode, mean and std; others are left
                alone, and one that is absent or None means timm's default.
            size: in place of input_size: the side of a square, or (H, W).
            crop_pct: in place of the config's, the cropped share of the resized side.
            max_pixels: as in `Transform`.

        Raises:
            InputError: for a value that is no such thing, or a model that does not take three channels.
        """
        chosen = {key: config[key] if config.get(key) is not None else usual for key, usual in _TIMM_DEFAULTS.items()}
        if size is None:
            channels, *sides = chosen["input_size"]
            if channels != 3:
                raise InputError(f"The model takes {channels} channels; images are read as RGB, so it must take 3.")
            size = (sides[0], sides[1])
        height, width = _pair("size", (size, size) if _is_count(size) else size)
        return cls(
            size=(height, width),
            resize=_resize((height, width), chosen["crop_pct"] if crop_pct is None else crop_pct),
            interpolation=chosen["interpolation"],
            crop=chosen["crop_mode"],
            mean=tuple(chosen["mean"]),
            std=tuple(chosen["std"]),
            max_pixels=max_pixels,
        )

    def changed(self, settings: Mapping[str, Any]) -> Self:
        """The same transform with some settings of its own, in timm's words; the size stays that of the network.

        Args:
            settings: crop_pct, interpolation, crop_mode, mean, std: any of them.

        Raises:
            InputError: another key, or a value that is no such thing.
        """
        known = ("crop_pct", "interpolation", "crop_mode", "mean", "std")
        for key in settings:
            if key not in known:
                raise InputError(f"transform has no setting {key!r}; it has {', '.join(known)}")
        if "crop_pct" in settings:
            resize: int | tuple[int, int] = _resize(self.size, settings["crop_pct"])
        else:
            resize = self.resize
        return replace(
            self,
            resize=resize,
            interpolation=settings.get("interpolation", self.interpolation),
            crop=settings.get("crop_mode", self.crop),
            mean=_three("mean", settings.get("mean", self.mean)),
            std=_three("std", settings.get("std", self.std)),
        )

    def pixels(self, image: bytes | Image.Image | np.ndarray) -> np.ndarray:
        """Decode, resize and crop one image.

        Args:
            image: as in `as_seen`.

        Returns:
            (H, W, 3) uint8 of this transform's size.

        Raises:
            DataError: where the image cannot be read, is too large, or is too long and thin to be resized.
            InputError: where it is no image at all: another type, another dtype, another shape.
        """
        seen = as_seen(image, max_pixels=self.max_pixels)
        return np.array(self._crop(self._resized(seen)))

    def normalise(self, pixels: np.ndarray) -> np.ndarray:
        """Scale pixels to 0-1, take off the mean and divide by the std.

        Args:
            pixels: (..., H, W, 3) uint8.

        Returns:
            (..., 3, H, W) float32, contiguous.

        Raises:
            InputError: for another dtype or shape.
        """
        if pixels.dtype != np.uint8 or pixels.ndim < 3 or pixels.shape[-1] != 3:
            raise InputError(f"pixels is {pixels.dtype} {pixels.shape}; it must be uint8 (..., H, W, 3).")
        mean = np.array(self.mean, np.float32)[:, None, None]
        std = np.array(self.std, np.float32)[:, None, None]
        # One contiguous copy, then in place: in torchvision's order of operations, for its exact bits.
        values = np.moveaxis(pixels, -1, -3).astype(np.float32, order="C")
        values /= np.float32(255)
        values -= mean
        values /= std
        return values

    def to_dict(self) -> dict[str, Any]:
        """The fields as plain JSON values."""
        return {key: list(value) if isinstance(value, tuple) else value for key, value in asdict(self).items()}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """The transform that `to_dict` wrote down.

        Raises:
            InputError: where a field is missing, unknown or wrong.
        """
        known = [field.name for field in fields(cls)]
        missing, unknown = sorted(set(known) - set(values)), sorted(set(values) - set(known))
        if missing or unknown:
            raise InputError(f"A transform has the fields {known}; missing {missing}, unknown {unknown}.")
        arguments: dict[str, Any] = dict(values)
        return cls(**arguments)

    @property
    def fingerprint(self) -> str:
        """Hex digest that two transforms share exactly if they give the same pixels and numbers."""
        return hashlib.sha256(json.dumps(self.to_dict(), sort_keys=True).encode()).hexdigest()

    def _resized(self, image: Image.Image) -> Image.Image:
        width, height = image.size
        if isinstance(self.resize, int):
            # torchvision's Resize(int): the longer side is cut to whole pixels.
            short, long = min(width, height), max(width, height)
            other = int(self.resize * long / short)
            rows, columns = (other, self.resize) if width <= height else (self.resize, other)
        elif self.crop == "squash":
            rows, columns = self.resize
        else:
            # timm's ResizeKeepRatio: both sides are rounded; a line of one pixel must not round to none.
            ratios = height / self.resize[0], width / self.resize[1]
            ratio = max(ratios) if self.crop == "border" else min(ratios)
            rows, columns = max(1, round(height / ratio)), max(1, round(width / ratio))
        if rows * columns > self.max_pixels:
            raise DataError(
                f"It is {width} x {height}, so long and thin that it would be resized to {columns} x {rows}, "
                f"over the limit of {self.max_pixels} pixels."
            )
        return image.resize((columns, rows), _RESAMPLING[self.interpolation])

    def _crop(self, image: Image.Image) -> Image.Image:
        # torchvision's CenterCrop and timm's CenterCropOrPad, which differ in the colour of the padding.
        height, width = self.size
        columns, rows = image.size
        if columns < width or rows < height:
            fill = tuple(round(255 * value) for value in self.mean) if self.crop == "border" else (0, 0, 0)
            padded = Image.new("RGB", (max(columns, width), max(rows, height)), fill)
            padded.paste(image, (max(0, width - columns) // 2, max(0, height - rows) // 2))
            image, (columns, rows) = padded, padded.size
        left, top = round((columns - width) / 2.0), round((rows - height) / 2.0)
        return image.crop((left, top, left + width, top + height))


def _resize(size: tuple[int, int], crop_pct: Any) -> tuple[int, int]:
    """(h, w) before a crop of this share of them."""
    if isinstance(crop_pct, bool) or not isinstance(crop_pct, int | float) or not 0 < crop_pct < math.inf:
        raise InputError(f"crop_pct is {crop_pct!r}; it must be a positive number, usually 0.8 to 1.")
    return math.floor(size[0] / crop_pct), math.floor(size[1] / crop_pct)


def _is_count(value: object) -> TypeGuard[int]:
    return isinstance(value, int | np.integer) and not isinstance(value, bool) and bool(value > 0)


def _pair(name: str, value: object) -> tuple[int, int]:
    if not isinstance(value, tuple | list) or len(value) != 2 or not all(_is_count(side) for side in value):
        raise InputError(f"{name} is {value!r}; it must be (height, width), two positive whole numbers.")
    return int(value[0]), int(value[1])


def _three(name: str, values: object) -> tuple[float, float, float]:
    if (
        not isinstance(values, tuple | list)
        or len(values) != 3
        or not all(isinstance(value, int | float) and math.isfinite(value) for value in values)
    ):
        raise InputError(f"{name} is {values!r}; it must be three numbers, one for each of red, green and blue.")
    return float(values[0]), float(values[1]), float(values[2])
