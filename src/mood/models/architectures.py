"""Networks for 32-pixel images, added to timm's registry so that `timm.create_model` knows them.

The hub's transformers start at 5 M parameters and 224 pixels. What a laptop's two cores can pre-train in an hour is a
tenth of that, and at this size a few convolutions before the transformer ("early convolutions", Xiao et al., 2021)
buy more accuracy per minute than wider blocks do: `docs/results/2026-11-23-shapes.md`. The hub's ResNets bring 32
pixels to a map of one; the one here has its usual size behind a stem that loses no pixel.
"""

from collections.abc import Sequence
from functools import partial
from typing import Any

from timm.layers import HybridEmbed, LayerNorm2d
from timm.models import build_model_with_cfg, generate_default_cfgs, register_model
from timm.models.resnet import Bottleneck, ResNet
from timm.models.vision_transformer import VisionTransformer
from timm.models.vision_transformer_hybrid import ConvStem
from torch import nn

# Channel statistics of CIFAR-10 and CIFAR-100 taken together, rounded; the weights that come with mood expect them.
_CIFAR = {
    "input_size": (3, 32, 32),
    "interpolation": "bicubic",
    "crop_pct": 1.0,
    "mean": (0.5, 0.484, 0.444),
    "std": (0.257, 0.25, 0.269),
    "first_conv": "patch_embed.proj",
    "classifier": "head",
}

default_cfgs = generate_default_cfgs(
    {
        "mood_vit_patch4_32.untrained": _CIFAR,
        "mood_vit_conv4_32.untrained": {**_CIFAR, "first_conv": "patch_embed.backbone.0.conv"},
        "mood_resnet50_32.untrained": {**_CIFAR, "first_conv": "conv1", "classifier": "fc"},
    }
)

_DEFAULTS = {
    "img_size": 32,
    "embed_dim": 192,
    "depth": 6,
    "num_heads": 3,
    "class_token": False,
    "global_pool": "avg",
    # The norm stands before pooling, so that pre-training and fine-tuning share every weight but the head.
    "fc_norm": False,
}


@register_model
def mood_vit_patch4_32(pretrained: bool = False, **kwargs: Any) -> VisionTransformer:
    """A plain ViT on 4-pixel patches: 192 wide, 6 deep, 3 heads, mean-pooled, no class token."""
    arguments = {"patch_size": 4, **_DEFAULTS, **kwargs}
    return build_model_with_cfg(VisionTransformer, "mood_vit_patch4_32", pretrained, **arguments)


@register_model
def mood_vit_conv4_32(
    pretrained: bool = False,
    stem_channels: Sequence[int] = (48, 96),
    stem_strides: Sequence[int] = (1, 2, 2),
    **kwargs: Any,
) -> VisionTransformer:
    """The same behind overlapping 3x3 convolutions that bring 32 pixels to an 8x8 grid, or to another one.

    Args:
        pretrained: timm's flag; there are no hub weights of this name.
        stem_channels: widths of the convolutions before the last one, whose width is `embed_dim`.
        stem_strides: of all convolutions, one more than there are widths.
        kwargs: anything that timm's `VisionTransformer` takes.
    """
    arguments = {**_DEFAULTS, **kwargs}
    stem = ConvStem(
        channels=(*stem_channels, arguments["embed_dim"]),
        depth=len(stem_channels) + 1,
        stride=tuple(stem_strides),
        kernel_size=3,
        padding=1,
        norm_layer=LayerNorm2d,
        act_layer=nn.GELU,
    )
    # On the stem's map each position is one patch.
    arguments |= {"patch_size": 1, "embed_layer": partial(HybridEmbed, backbone=stem, proj=False)}
    return build_model_with_cfg(VisionTransformer, "mood_vit_conv4_32", pretrained, **arguments)


class SmallImageResNet(ResNet):
    """timm's ResNet with a stem for small images: one 3x3 convolution that keeps every pixel, and no pooling."""

    def __init__(self, *, in_chans: int = 3, **kwargs: Any) -> None:
        super().__init__(in_chans=in_chans, **kwargs)
        stem = nn.Conv2d(in_chans, 64, 3, padding=1, bias=False)
        nn.init.kaiming_normal_(stem.weight, mode="fan_out", nonlinearity="relu")
        self.conv1 = stem  # type: ignore[assignment]  # timm's is a convolution or a sequence of them
        self.maxpool = nn.Sequential()
        # What timm says of its own stem, which has made the map a quarter as wide by then, and half as wide before.
        for level in self.feature_info:
            level["reduction"] = max(1, int(str(level["reduction"])) // 4)


@register_model
def mood_resnet50_32(pretrained: bool = False, **kwargs: Any) -> SmallImageResNet:
    """ResNet-50 as SSD trains it on CIFAR (Sehwag et al., ICLR 2021): 32 pixels become a 4x4 map, 2048 wide.

    Args:
        pretrained: timm's flag; there are no hub weights of this name.
        kwargs: anything that timm's `ResNet` takes, such as `layers` and `channels`.
    """
    # The last norm of a block starts at 1, as there.
    arguments = {"block": Bottleneck, "layers": (3, 4, 6, 3), "zero_init_last": False, **kwargs}
    return build_model_with_cfg(SmallImageResNet, "mood_resnet50_32", pretrained, **arguments)
