"""Images that are in memory already: Pillow images, arrays, tensors."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from PIL import Image

from mood.core.decoding import as_seen
from mood.core.errors import DataError, InputError
from mood.data.source import Listing

_CHANNELS = (1, 3, 4)


class MemoryStore:
    """Pixels by their index, and the reasons why some have none."""

    def __init__(self, images: Sequence[np.ndarray | str] | np.ndarray) -> None:
        """Take uint8 pixels, or the reason why there are none, for each image."""
        self._images = images

    def __len__(self) -> int:
        """How many images lie here."""
        return len(self._images)

    def id(self, row: int) -> str:
        """The index."""
        return str(row)

    def read(self, row: int) -> np.ndarray:
        """The pixels."""
        image = self._images[row]
        if isinstance(image, str):
            raise DataError(image)
        return image


def list_memory(data: Any, value_range: tuple[float, float] | None) -> Listing:
    """An array (N, H, W, C), a tensor (N, C, H, W), or a sequence of Pillow images, arrays (H, W, C) and tensors.

    Raises:
        InputError: for anything else, for floats without a value range, and for values outside of it.
        DataError: where there is no image.
    """
    images: Sequence[np.ndarray | str] | np.ndarray
    if isinstance(data, np.ndarray) or _is_tensor(data):
        if data.ndim != 4:
            expected = "(N, H, W, C)" if isinstance(data, np.ndarray) else "(N, C, H, W)"
            instead = "put a single one in a list" if data.ndim != 2 else "features are mood.Features(embedding=…)"
            raise InputError(f"The images came as {tuple(data.shape)}; expected {expected}; {instead}.")
        images = _pixels(data, value_range, "The array of images")
    elif isinstance(data, Image.Image):
        raise InputError("A single Pillow image came; put it in a list: [image].")
    else:
        images = [_one(image, value_range, f"Image {index}") for index, image in enumerate(data)]
    if not len(images):
        raise DataError("No images came: the list is empty.")
    return Listing(name="memory", description=f"{len(images)} images in memory", store=MemoryStore(images))


def _one(image: Any, value_range: tuple[float, float] | None, name: str) -> np.ndarray | str:
    if isinstance(image, Image.Image):
        try:
            return np.array(as_seen(image))
        except DataError as error:
            return str(error)
    if not (isinstance(image, np.ndarray) or _is_tensor(image)):
        raise InputError(
            f"{name} is a {type(image).__name__}; expected a path, a Pillow image, an array (H, W, C) or a tensor "
            "(C, H, W), and all of one list of one kind: paths or images."
        )
    return _pixels(image, value_range, name)


def _pixels(images: Any, value_range: tuple[float, float] | None, name: str) -> np.ndarray:
    """(..., H, W) or (..., H, W, C) uint8, channels last."""
    array: np.ndarray
    if _is_tensor(images):
        values = images.detach().cpu()
        # NumPy knows no bfloat16.
        array = (values.float() if values.is_floating_point() else values).numpy()
        array = np.moveaxis(array, -3, -1) if array.ndim >= 3 else array
        layout = "(C, H, W)"
    else:
        array, layout = np.asarray(images), "(H, W, C)"
    if array.ndim != 2 and (array.ndim < 3 or array.shape[-1] not in _CHANNELS):
        raise InputError(
            f"{name} has the shape {tuple(images.shape)}; expected {layout} with C = 1, 3 or 4, or (H, W)."
        )
    if array.dtype == np.uint8:
        return array
    if array.dtype.kind != "f":
        raise InputError(f"{name} holds {array.dtype}; expected uint8 (0-255), or floats with value_range=(lo, hi).")
    if value_range is None:
        raise InputError(
            f"{name} holds floats, whose black and white nobody can tell from the numbers: pass "
            "value_range=(0, 1) where 0 is black and 1 is white, or (0, 255), or (-1, 1). Undo a normalisation first."
        )
    low, high = value_range
    if not high > low:
        raise InputError(f"value_range is {value_range!r}; expected (lo, hi) with lo < hi.")
    if array.size and not (array.min() >= low and array.max() <= high):
        raise InputError(
            f"{name} holds values from {array.min()} to {array.max()}, outside of value_range={value_range}."
        )
    scaled: np.ndarray = np.floor((array.astype(np.float64) - low) / (high - low) * 255 + 0.5).astype(np.uint8)
    return scaled


def _is_tensor(value: Any) -> bool:
    """A torch tensor, told without importing torch: nobody can hold one who has not imported it."""
    return any(
        base.__module__.partition(".")[0] == "torch" and base.__name__ == "Tensor" for base in type(value).__mro__
    )
