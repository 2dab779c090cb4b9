"""An image is varied as timm varies it."""

import random

import numpy as np
import pytest
import torch
from PIL import Image
from timm.data.transforms_factory import create_transform

from mood.core.decoding import decode
from mood.core.errors import InputError
from mood.data import Augment, TrainingImages, open_source
from mood.data.augment import _posterize
from mood.data.drawing import _numbers

MEAN, STD = (0.5, 0.4, 0.3), (0.2, 0.25, 0.3)
CONTRAST = Augment.contrast(blur=0.0)
EVERYTHING = Augment(color_jitter=0.4, erase=0.5, interpolation="random")


@pytest.mark.parametrize("augment", [Augment.mae(), Augment.finetune(), CONTRAST, EVERYTHING])
def test_an_image_is_what_timm_makes_of_it(table, augment):
    theirs = create_transform(
        (3, 16, 16),
        is_training=True,
        scale=augment.scale,
        ratio=augment.ratio,
        hflip=augment.flip,
        color_jitter=augment.color_jitter or None,
        color_jitter_prob=None if augment.color_jitter_share == 1 else augment.color_jitter_share,
        grayscale_prob=augment.grayscale,
        auto_augment=augment.rand_augment,
        interpolation=augment.interpolation,
        mean=MEAN,
        std=STD,
        re_prob=augment.erase,
        re_mode="pixel",
    )
    images = TrainingImages(table, (augment,), (16, 16), MEAN, STD, seed=3)
    for position in range(23):
        (drawn,) = images.draw(2, position)
        _, python, numpy, torch_ = _numbers(3, 2, position)
        random.seed(python)
        np.random.seed(numpy % 2**32)
        torch.manual_seed(torch_)
        assert torch.equal(drawn, theirs(decode(table.read(position))))


def test_solarization_leaves_no_bright_pixel_and_blur_no_edge():
    edge = np.zeros((1, 40, 40, 3), np.uint8)
    edge[:, :, 20:] = 255
    source = open_source(edge)

    def shown(augment):
        images = TrainingImages(source, (augment,), (40, 40), (0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
        return torch.cat([images.draw(epoch, 0) for epoch in range(8)])

    still = {"scale": (1.0, 1.0), "ratio": (1.0, 1.0), "flip": 0.0}
    assert shown(Augment(**still, solarize=1.0)).max() < 0.5
    blurred = shown(Augment(**still, blur=1.0))
    assert ((blurred > 0.05) & (blurred < 0.95)).any()
    assert not ((shown(Augment(**still)) > 0.05) & (shown(Augment(**still)) < 0.95)).any()


def test_wrong_settings_are_refused_by_name(table):
    for wrong, message in (
        ({"scale": (0.5, 0.2)}, "scale is"),
        ({"scale": (0.5, 1.2)}, "scale is"),
        ({"ratio": (0, 1)}, "ratio is"),
        ({"flip": 2}, "flip is 2"),
        ({"erase": -1}, "erase is -1"),
        ({"color_jitter": -1}, "color_jitter is -1"),
        ({"rand_augment": "m9"}, "rand_augment is 'm9'"),
        ({"color_jitter": (0.1, 0.1, 0.1, -0.1)}, "color_jitter is"),
        ({"color_jitter_share": 1.5}, "color_jitter_share is 1.5"),
        ({"grayscale": 2}, "grayscale is 2"),
        ({"blur": 2}, "blur is 2"),
        ({"solarize": 2}, "solarize is 2"),
        ({"interpolation": "nearest"}, "interpolation is 'nearest'"),
    ):
        with pytest.raises(InputError, match=message):
            Augment(**wrong)
    with pytest.raises(InputError, match="timm cannot read rand_augment='rand-zz9'"):
        TrainingImages(table, (Augment(rand_augment="rand-zz9"),), (8, 8), MEAN, STD).draw(0, 0)


def test_full_strength_of_posterize_is_black():
    image = Image.new("RGB", (2, 2), (200, 100, 50))
    assert _posterize(image, 0).getpixel((0, 0)) == (0, 0, 0)
    assert _posterize(image, 1).getpixel((0, 0)) == (128, 0, 0)
    assert _posterize(image, 8) is image
