"""What OpenOOD v1.5 compares with what, as data.

Zhang et al.: OpenOOD v1.5: Enhanced Benchmark for Out-of-Distribution Detection, 2023, section 3. Its OOD sets are
filtered: images whose class is one of the known set are removed, which its own lists of files say image by image.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from mood.core.errors import InputError


@dataclass(frozen=True, slots=True)
class Benchmark:
    """One ID set and what stands against it.

    Attributes:
        near: OOD sets with classes like the known ones.
        far: OOD sets of other things altogether.
        shifted: covariate-shifted ID sets of the full-spectrum variant.
        positive: which side its FPR95 calls positive.
    """

    near: tuple[str, ...]
    far: tuple[str, ...]
    shifted: tuple[str, ...] = ()
    positive: str = "ood"


_CIFAR_FAR = ("MNIST", "SVHN", "Textures", "Places365")
_IMAGENET = Benchmark(
    near=("SSB-hard", "NINCO"),
    far=("iNaturalist", "Textures", "OpenImage-O"),
    shifted=("ImageNet-C", "ImageNet-R", "ImageNet-V2"),
)

OPENOOD = MappingProxyType(
    {
        "CIFAR-10": Benchmark(near=("CIFAR-100", "TinyImageNet"), far=_CIFAR_FAR),
        "CIFAR-100": Benchmark(near=("CIFAR-10", "TinyImageNet"), far=_CIFAR_FAR),
        "ImageNet-200": _IMAGENET,
        "ImageNet-1k": _IMAGENET,
    }
)
"""ID set → its benchmark; each near and far group is averaged without weights."""


def groups(known: str) -> Mapping[str, tuple[str, ...]]:
    """The near and far sets of a known set, as `group_means` takes them.

    Raises:
        InputError: OpenOOD v1.5 has no benchmark of that set.
    """
    if known not in OPENOOD:
        raise InputError(f"OpenOOD v1.5 has no benchmark {known!r}; it has {', '.join(OPENOOD)}")
    return {"near": OPENOOD[known].near, "far": OPENOOD[known].far}
