"""How a training image is varied: the arguments of timm's training transform, and that transform."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Self

from PIL import Image, ImageOps

from mood.core.errors import InputError
from mood.core.transform import Transform

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
    def contrast(
        cls,
        *,
        blur: float = 0.5,
        solarize: float = 0.0,
        saturation: float = 0.2,
        scale: tuple[float, float] = (0.08, 1.0),
    ) -> Self:
        """Crop, flip, colours, grey, blur and inversion, as MoCo v3 varies (blur 1 and .1, solarize 0 and .2)."""
        return cls(
            scale=scale,
            color_jitter=(0.4, 0.4, saturation, 0.1),
            color_jitter_share=0.8,
            grayscale=0.2,
            blur=blur,
            solarize=solarize,
        )

    @classmethod
    def finetune(cls) -> Self:
        """Crop, flip, RandAugment and erasing, as BEiT and MAE fine-tune."""
        return cls(rand_augment="rand-m9-mstd0.5-inc1", erase=0.25)


@lru_cache(maxsize=8)
def timm_transform(
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
