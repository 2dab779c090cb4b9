"""The registry of pretexts: its names are the command's, and a setting of another pretext is refused."""

from typing import get_args

import pytest
import timm

import mood.models.architectures  # noqa: F401
from mood.core.config import fields
from mood.core.errors import InputError, ModelError
from mood.models import PRETEXTS, make_pretext
from mood.models.pretexts import settings_of
from mood.recipes.pretexts import pretext_settings
from mood.recipes.pretrain import PretrainConfig


def encoder():
    return timm.create_model("mood_vit_patch4_32", num_classes=0, depth=1)


def test_the_command_offers_every_pretext_and_every_setting():
    config = PretrainConfig(data=("x",), output="y")
    assert set(get_args(fields(PretrainConfig)["pretext"].annotation)) == set(PRETEXTS)
    assert set(pretext_settings(config)) == {key for name in PRETEXTS for key in settings_of(name)} - {
        "classes"
    }  # which the images say


def test_what_is_not_said_is_left_to_the_pretext():
    made = make_pretext("mae", encoder(), {"mask_ratio": None, "decoder_width": 64})
    assert made.mask_ratio == 0.75
    assert made.decoder_embed.out_features == 64


@pytest.mark.parametrize("name", ["mae", "simmim"])
def test_a_grid_that_does_not_fill_the_image_is_refused_before_the_work(name):
    # The stem's convolutions take any size: 33 pixels become 9 patches.
    ragged = timm.create_model("mood_vit_conv4_32", num_classes=0, depth=1, img_size=33)
    with pytest.raises(ModelError, match="9 patches to a side do not fill 33 pixels"):
        make_pretext(name, ragged, {})


def test_a_setting_of_another_pretext_is_refused():
    with pytest.raises(InputError, match="decoder_width is a setting of pretext mae; supcon has temperature, proj"):
        make_pretext("supcon", encoder(), {"decoder_width": 64})
    with pytest.raises(InputError, match="scratch has none"):
        make_pretext("scratch", encoder(), {"temperature": 0.5})
