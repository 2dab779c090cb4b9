"""From the bytes of a file to an image as a person sees it, with NumPy and Pillow alone."""

import io
import re
import threading
import warnings
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import cache
from importlib import import_module
from typing import Any

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
            if opened.format == "PNG":
                _check_sums(data)
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


def _check_sums(png: bytes) -> None:
    """Pillow does not look at the checksums of a PNG's pixels, and may take a part that was never written for some."""
    view, start = memoryview(png), 8
    # What is cut off is Pillow's to tell, where it matters.
    while (end := start + 12 + int.from_bytes(view[start : start + 4], "big")) <= len(view):
        kind, stored = bytes(view[start + 4 : start + 8]), int.from_bytes(view[end - 4 : end], "big")
        if kind == b"IDAT" and zlib.crc32(view[start + 4 : end - 4]) != stored:
            raise DataError("It is a damaged PNG: the checksum of its pixels is another.")
        start = end


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
