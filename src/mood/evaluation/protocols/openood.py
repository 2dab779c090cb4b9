"""What OpenOOD v1.5 compares with what, as data: its sets by the lists of files that it gives for them.

Zhang et al.: OpenOOD v1.5: Enhanced Benchmark for Out-of-Distribution Detection, 2023, section 4; the lists are those
that its configs/datasets names. They leave out of an OOD set the images whose class is a known one, image by image, and
of every split what OpenOOD sets apart for choosing options. Its FPR95 takes OOD for positive.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType


@dataclass(frozen=True, slots=True)
class Benchmark:
    """One ID set and what stands against it, each by its list, relative to OpenOOD's folder `data`.

    `mood.data.open_source(list, roots=["…/data"])` opens one.

    Attributes:
        fit: the training images.
        test: unseen ID images.
        near: OOD sets with classes like the known ones, by name.
        far: OOD sets of other things altogether.
        shifted: covariate-shifted ID sets of the full-spectrum variant; none where OpenOOD has no such variant.
    """

    fit: str
    test: str
    near: Mapping[str, str]
    far: Mapping[str, str]
    shifted: Mapping[str, str]


def _list(folder: str, name: str) -> str:
    return f"benchmark_imglist/{folder}/{name}.txt"


def _tests(folder: str, **sets: str) -> Mapping[str, str]:
    return MappingProxyType({name: _list(folder, f"test_{file}") for file, name in sets.items()})


def _cifar(known: str, **other: str) -> Benchmark:
    return Benchmark(
        fit=_list(known, f"train_{known}"),
        test=_list(known, f"test_{known}"),
        near=_tests(known, **other, tin="TinyImageNet"),
        far=_tests(known, mnist="MNIST", svhn="SVHN", texture="Textures", places365="Places365"),
        shifted=_tests(known),
    )


def _imagenet(known: str, **shifted: str) -> Benchmark:
    # Both known sets have the same OOD sets, by the same lists.
    return Benchmark(
        fit=_list(known, f"train_{known}"),
        test=_list(known, f"test_{known}"),
        near=_tests("imagenet", ssb_hard="SSB-hard", ninco="NINCO"),
        far=_tests("imagenet", inaturalist="iNaturalist", textures="Textures", openimage_o="OpenImage-O"),
        shifted=_tests(known, **shifted),
    )


OPENOOD = MappingProxyType(
    {
        "CIFAR-10": _cifar("cifar10", cifar100="CIFAR-100"),
        "CIFAR-100": _cifar("cifar100", cifar10="CIFAR-10"),
        "ImageNet-200": _imagenet(
            "imagenet200", imagenet200_c="ImageNet-C", imagenet200_r="ImageNet-R", imagenet200_v2="ImageNet-V2"
        ),
        "ImageNet-1k": _imagenet(
            "imagenet", imagenet_c="ImageNet-C", imagenet_r="ImageNet-R", imagenet_v2="ImageNet-V2"
        ),
    }
)
"""ID set → its benchmark; each near and far group is averaged without weights."""
