"""What mood adds to timm's registry."""

import timm
import torch
from timm.models.resnet import Bottleneck

import mood.models.architectures  # noqa: F401


def test_the_resnet_is_resnet_50_behind_a_stem_that_loses_no_pixel():
    network = timm.create_model("mood_resnet50_32", num_classes=0).eval()
    usual = timm.create_model("resnet50", num_classes=0)
    stem = 3 * 64 * (7 * 7 - 3 * 3)
    assert sum(p.numel() for p in network.parameters()) == sum(p.numel() for p in usual.parameters()) - stem
    images = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        at_stem = network.maxpool(network.act1(network.bn1(network.conv1(images))))
        maps = network.forward_features(images)
        assert at_stem.shape == (2, 64, 32, 32)
        assert maps.shape == (2, 2048, 4, 4)
        torch.testing.assert_close(network(images), maps.mean((2, 3)))
        sides = [level.shape[-1] for level in network.forward_intermediates(images, intermediates_only=True)]
    assert [32 // level["reduction"] for level in network.feature_info] == sides == [32, 32, 16, 8, 4]


def test_its_new_weights_start_as_those_of_ssd():
    """He's for what a convolution gives, and the last norm of a block at 1."""
    torch.manual_seed(0)
    network = timm.create_model("mood_resnet50_32", num_classes=0)
    weight = network.conv1.weight.detach()
    assert abs(float(weight.std()) / (2 / (64 * 9)) ** 0.5 - 1) < 0.1
    blocks = [module for module in network.modules() if isinstance(module, Bottleneck)]
    assert len(blocks) == 16
    assert all((block.bn3.weight == 1).all() for block in blocks)
