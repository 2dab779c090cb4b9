"""From the bytes of an image to the numbers that a network sees, with NumPy and Pillow alone.

Training evaluation, scoring, export and a server all go through this file, so the same bytes give the same numbers
everywhere. `Transform` gives bit for bit what timm's evaluation transform gives on Pillow images.
"""

import hashlib
import io
import json
import math
import re
import threading
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, fields
from functools import cache
from importlib import import_module
from typing import Any, Self, TypeGuard

import numpy as np
from PIL import Image, UnidentifiedImageError

from mood.core.errors import DataError, InputError

_PLUGINS = {
    "JPEG": "PIL.JpegImagePlugin",
    "PNG": "PIL.PngImagePlugin",
    "WEBP": "PIL.WebPImagePlugin",
    "GIF": "PIL.GifImagePlugin",
    "BMP": "PIL.BmpImagePlugin",
    "TIFF": "PIL.TiffImagePlugin",
    "JPEG2000": "PIL.Jpeg2KImagePlugin",
    "AVIF": "PIL.AvifImagePlugin",
    "PPM": "PIL.PpmImagePlugin",
}
FORMATS = tuple(_PLUGINS)
"""What is read. All are raster formats that Pillow decodes by itself: EPS, for one, would start Ghostscript."""

MAX_PIXELS = 89_478_485
"""The largest image that is decoded unless told otherwise: Pillow's own line, a quarter of a gigabyte in RGB."""

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

_ORIENTATION_TAG = 0x0112
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_BITS_PER_SAMPLE_TAG = 258
_PHOTOMETRIC_TAG = 262


def decode(data: bytes, *, max_pixels: int = MAX_PIXELS) -> Image.Image:
    """Read one encoded image as a person would see it.

    The first frame of an animation is taken, turned upright by its EXIF or XMP orientation. Transparent parts lie on
    white. Grey of 16 bits keeps its high byte, as Pillow does for colour. Samples of 32 bits, which have no agreed
    white, are read against 1 (floats), 255 or 65535, the first that none exceeds; where one is negative or larger,
    against the image's own range. Colour profiles are not applied, which is what timm and torchvision do too.

    Args:
        data: the bytes of the file, in one of `FORMATS`.
        max_pixels: refuse a larger image (width x height), by its header, before anything is decoded.

    Returns:
        An upright image of mode RGB.

    Raises:
        DataError: with one sentence, where the bytes are empty, no image, cut short, damaged or too large.
    """
    if not data:
        raise DataError("It is empty (0 bytes).")
    with _pillow_is_quiet():
        try:
            opened = Image.open(io.BytesIO(data), formats=_readable_formats())
        except Exception as error:
            raise DataError(_why_not_opened(error)) from error
        with opened:
            return _upright_rgb(opened, max_pixels)


def as_seen(image: bytes | Image.Image | np.ndarray, *, max_pixels: int = MAX_PIXELS) -> Image.Image:
    """What `decode` gives, of an image in any of the forms in which one may come.

    Args:
        image: an encoded file, a Pillow image of any mode, loaded or not, or a uint8 array (H, W), (H, W, 1),
            (H, W, 3) or (H, W, 4), the last being RGB and opacity.
        max_pixels: as in `decode`.

    Returns:
        An upright image of mode RGB.

    Raises:
        DataError: where the image cannot be read or is too large.
        InputError: where it is no image at all: another type, another dtype, another shape.
    """
    if isinstance(image, bytes):
        return decode(image, max_pixels=max_pixels)
    if isinstance(image, np.ndarray):
        image = _from_array(image)
    elif not isinstance(image, Image.Image):
        raise InputError(f"An image came as {type(image).__name__}; it must be bytes, a Pillow image or a uint8 array.")
    with _pillow_is_quiet():
        return _upright_rgb(image, max_pixels)


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
        share = chosen["crop_pct"] if crop_pct is None else crop_pct
        if not isinstance(share, int | float) or not 0 < share < math.inf:
            raise InputError(f"crop_pct is {share!r}; it must be a positive number, usually 0.8 to 1.")
        if size is None:
            channels, *sides = chosen["input_size"]
            if channels != 3:
                raise InputError(f"The model takes {channels} channels; images are read as RGB, so it must take 3.")
            size = (sides[0], sides[1])
        height, width = _pair("size", (size, size) if _is_count(size) else size)
        resize = (math.floor(height / share), math.floor(width / share))
        return cls(
            size=(height, width),
            resize=resize,
            interpolation=chosen["interpolation"],
            crop=chosen["crop_mode"],
            mean=tuple(chosen["mean"]),
            std=tuple(chosen["std"]),
            max_pixels=max_pixels,
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


def _upright_rgb(image: Image.Image, max_pixels: int) -> Image.Image:
    """RGB, upright, on white."""
    width, height = image.size
    if width * height > max_pixels:
        raise DataError(f"It is {width} x {height} = {width * height} pixels, over the limit of {max_pixels}.")
    if width * height == 0:
        raise DataError(f"It is {width} x {height}: it has no pixels.")
    try:
        image.load()
        if image.mode == "I" or image.mode == "F" or image.mode.startswith("I;16"):
            seen = _grey(image).convert("RGB")
        elif image.has_transparency_data:
            opaque = image.convert("RGBA")
            white = Image.new("RGBA", opaque.size, "white")
            white.alpha_composite(opaque)
            seen = white.convert("RGB")
        else:
            seen = image.convert("RGB")
    except DataError:
        raise
    except Exception as error:
        raise DataError(_why_not_decoded(image, error)) from error
    turn = _UPRIGHT.get(_orientation(image))
    return seen if turn is None else seen.transpose(turn)


def _grey(image: Image.Image) -> Image.Image:
    """An image of one channel with more than 8 bits, in 8."""
    values = np.asarray(image)
    tags: Mapping[int, Any] = getattr(image, "tag_v2", {})
    if image.mode.startswith("I;16"):
        # Pillow keeps a TIFF's 12 bits where they are.
        spare = 4 if tags.get(_BITS_PER_SAMPLE_TAG) == (12,) else 8
        grey = (values >> spare).astype(np.uint8)
        if tags.get(_PHOTOMETRIC_TAG) == 0:
            grey = 255 - grey
    else:
        if not np.isfinite(values).all():
            raise DataError("It holds samples that are no numbers (NaN or infinity).")
        low, high = float(values.min()), float(values.max())
        whites = [white for white in (1.0, 255.0, 65535.0) if high <= white and (image.mode == "F" or white > 1)]
        if low >= 0 and whites:
            low, high = 0.0, whites[0]
        spread = (high - low) or 1.0
        grey = np.floor((values.astype(np.float64) - low) / spread * 255 + 0.5).astype(np.uint8)
    transparent = image.info.get("transparency")
    if isinstance(transparent, int):
        grey[values == transparent] = 255
    return Image.fromarray(grey)


def _orientation(image: Image.Image) -> int:
    """1 to 8 as EXIF counts them; an orientation that cannot be read is none."""
    try:
        return int(image.getexif().get(_ORIENTATION_TAG, 1))
    except Exception:
        return 1


def _from_array(array: np.ndarray) -> Image.Image:
    if array.dtype != np.uint8:
        raise InputError(f"An image came as an array of {array.dtype}; it must be uint8 (0-255).")
    if array.ndim not in (2, 3) or (array.ndim == 3 and array.shape[2] not in (1, 3, 4)):
        raise InputError(f"An image came as an array of shape {array.shape}; it must be (H, W) or (H, W, 1, 3 or 4).")
    if array.ndim == 3 and array.shape[2] == 1:
        array = array[:, :, 0]
    if array.size == 0:
        raise DataError(f"It is {array.shape[1]} x {array.shape[0]}: it has no pixels.")
    return Image.fromarray(np.ascontiguousarray(array))


@cache
def _readable_formats() -> tuple[str, ...]:
    """`FORMATS`, less those that this build of Pillow lacks. Image.init() would load forty plugins more."""
    for plugin in _PLUGINS.values():
        with suppress(ImportError):
            import_module(plugin)
    return tuple(name for name in FORMATS if name in Image.OPEN)


_quiet_lock = threading.Lock()
_quiet_depth = 0
_quiet_filters: warnings.catch_warnings | None = None


@contextmanager
def _pillow_is_quiet() -> Iterator[None]:
    """Ignore the warnings of Pillow's own modules, and put the filters back.

    Pillow warns of large images, which are refused here, and of metadata, which is not used; under `-W error` such a
    warning would break off a good image. Threads decode side by side, and Python's filters belong to all of them: the
    first that comes sets them, the last that leaves puts them back.
    """
    global _quiet_depth, _quiet_filters
    with _quiet_lock:
        _quiet_depth += 1
        if _quiet_depth == 1:
            _quiet_filters = warnings.catch_warnings()
            _quiet_filters.__enter__()
            warnings.filterwarnings("ignore", module=r"PIL\.")
    try:
        yield
    finally:
        with _quiet_lock:
            _quiet_depth -= 1
            if _quiet_depth == 0 and _quiet_filters is not None:
                _quiet_filters.__exit__(None, None, None)
                _quiet_filters = None


def _why_not_opened(error: Exception) -> str:
    if isinstance(error, UnidentifiedImageError):
        return f"It is not an image, or its header is damaged; what can be read is {', '.join(_readable_formats())}."
    if isinstance(error, Image.DecompressionBombError):
        return f"It is larger than Pillow opens: {_sentence(error)}"
    return f"Its header is damaged: {_sentence(error)}"


def _why_not_decoded(image: Image.Image, error: Exception) -> str:
    kind = getattr(image, "format", None) or "image"
    if "truncated" in str(error).lower():
        return f"It is cut short: the {kind} ends before its last pixel."
    return f"It is a damaged {kind}: {_sentence(error)}"


def _sentence(error: Exception) -> str:
    """The message of a decoder on one line, or the kind of error where it has none."""
    text = re.sub(r"\s+", " ", str(error)).strip().rstrip(".")
    return f"{text[:200] or type(error).__name__}."


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
