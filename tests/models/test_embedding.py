"""What one pass gives: the vector the head sees, other poolings, earlier blocks, and the same numbers every time."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from mood.core.errors import InputError
from mood.models import (
    Beside,
    Embedder,
    Views,
    make_pretext,
    open_model,
    resolve_device,
    resolve_precision,
    six_numbers,
)

PIXELS = np.random.default_rng(0).integers(0, 256, (5, 32, 32, 3), dtype=np.uint8)
VIT = {"img_size": 32, "patch_size": 8, "embed_dim": 48, "depth": 3, "num_heads": 3, "num_classes": 7}


def opened(name="vit_base_patch16_224", **options):
    settings = {} if name.startswith("resnet") else VIT
    return open_model(name, options={**settings, **options}, random_weights=True)


def embed(model, **options):
    return Embedder(model, device="cpu", precision="fp32", **options)(PIXELS)


def images_of(model):
    return torch.from_numpy(model.transform.normalise(PIXELS))


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("vit_base_patch16_224", {}),
        ("beit_base_patch16_224", {"init_values": 0.1}),
        ("mood_vit_conv4_32", {"patch_size": 1}),
        ("resnet18", {"num_classes": 7}),
        ("eva02_tiny_patch14_224", {"patch_size": 8}),
    ],
)
@torch.no_grad()
def test_the_embedding_is_what_the_head_sees(name, options):
    if name == "mood_vit_conv4_32":
        model = open_model(name, options={"embed_dim": 48, "depth": 2, "num_classes": 7}, random_weights=True)
    elif name == "resnet18":
        model = open_model(name, options={"num_classes": 7}, random_weights=True)
    else:
        model = opened(name, **options)
    pixels = PIXELS if model.transform.size == (32, 32) else np.zeros((2, *model.transform.size, 3), np.uint8)
    images = torch.from_numpy(model.transform.normalise(pixels))
    embedder = Embedder(model, device="cpu", precision="fp32")
    embedding, logits = embedder(pixels)
    tokens = model.module.forward_features(images)
    torch.testing.assert_close(embedding, model.module.forward_head(tokens, pre_logits=True))
    torch.testing.assert_close(logits, model.module(images))
    head = embedder.head
    torch.testing.assert_close(embedding @ head.weight.T + head.bias, logits, atol=1e-5, rtol=1e-5)


def test_an_encoder_has_no_logits_and_no_head():
    model = opened(num_classes=0)
    assert embed(model)[1] is None
    assert Embedder(model, device="cpu").head is None


@torch.no_grad()
def test_poolings_of_the_last_layer():
    model = opened()
    tokens = model.module.forward_features(images_of(model))
    patches = tokens[:, 1:]
    torch.testing.assert_close(embed(model, pool="cls")[0], tokens[:, 0])
    torch.testing.assert_close(embed(model, pool="avg")[0], patches.mean(1))
    both = torch.cat((patches.mean(1), patches.std(1, correction=0)), 1)
    torch.testing.assert_close(embed(model, pool="mean+std")[0], both)


@torch.no_grad()
def test_earlier_blocks_and_several_at_once():
    model = opened()
    module = model.module
    tokens = module.norm_pre(module.patch_drop(module._pos_embed(module.patch_embed(images_of(model)))))
    tokens = module.blocks[1](module.blocks[0](tokens))
    expected = torch.cat((tokens[:, 1:].mean(1), tokens[:, 1:].std(1, correction=0)), 1)
    torch.testing.assert_close(embed(model, layer="1")[0], expected)
    torch.testing.assert_close(embed(model, layer="1", pool="cls")[0], tokens[:, 0])
    joined = embed(model, layer="1+last")[0]
    torch.testing.assert_close(joined, torch.cat((expected, embed(model)[0]), 1))
    torch.testing.assert_close(embed(model, layer="1+last")[1], embed(model)[1])


def test_another_pooling_than_the_heads_has_no_head():
    assert Embedder(opened(), pool="avg", device="cpu").head is None
    assert Embedder(opened(), layer="0+last", device="cpu").head is None


def test_bf16_stays_near_fp32_and_keeps_the_head_exact():
    model = opened()
    embedder = Embedder(model, device="cpu", precision="bf16")
    embedding, logits = embedder(PIXELS)
    assert embedding.dtype == logits.dtype == torch.float32
    torch.testing.assert_close(embedding, embed(model)[0], atol=0.05, rtol=0.05)
    head = embedder.head
    torch.testing.assert_close(embedding @ head.weight.T + head.bias, logits, atol=1e-5, rtol=1e-5)


SWIN = {"img_size": 32, "patch_size": 2, "window_size": 4, "embed_dim": 24, "depths": [1, 1], "num_heads": [2, 2]}


@pytest.mark.parametrize(
    ("pretext", "name", "options"),
    [
        ("mae", "vit_base_patch16_224", {}),
        ("simmim", "vit_base_patch16_224", {}),
        # Its blocks share one table of positions while it is pre-trained, and have one each afterwards.
        ("simmim", "beit_base_patch16_224", {"use_abs_pos_emb": False, "use_rel_pos_bias": True}),
        ("simmim", "swin_tiny_patch4_window7_224", SWIN),
    ],
)
@torch.no_grad()
def test_the_reconstruction_error_is_the_mean_loss_of_the_pretext_over_masks(pretext, name, options):
    size = SWIN if options is SWIN else {**VIT, **options}
    model = open_model(name, options={**size, "num_classes": 0}, random_weights=True)
    trained = make_pretext(pretext, model.architecture.build(), {})
    for parameter in trained.parameters():
        parameter.add_(0.05 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(parameter.numel())))
    trained.eval()
    images, expected = images_of(model), torch.zeros(len(PIXELS))
    for number in (3, 4, 5):
        draws = torch.rand(1, trained.draws, generator=torch.Generator().manual_seed(number))
        for index in range(len(images)):
            views = Views((images[index : index + 1],), draws, mask=trained.hide(draws))
            expected[index] += trained(views)[0] / 3
    own = {key: value for key, value in trained.state_dict().items() if not key.startswith("encoder.")}
    left = replace(model, module=trained.release(), beside=Beside(pretext, {}, own))
    embedder = Embedder(left, device="cpu", precision="fp32", reconstruction=True, masks=3, mask_seed=1)
    torch.testing.assert_close(embedder.look(PIXELS).reconstruction, expected, rtol=1e-5, atol=0)


@pytest.mark.parametrize("options", [{"masks": 0}, {"mask_seed": -1}])
def test_masks_that_are_none_are_refused(options):
    with pytest.raises(InputError, match="masks is .* and mask_seed .*; at least 1 and 0 were expected"):
        Embedder(opened(), device="cpu", **options)


def test_twice_gives_the_same_bytes():
    model = opened()
    embedder = Embedder(model, device="cpu", precision="bf16")
    assert torch.equal(embedder(PIXELS)[0], embedder(PIXELS)[0])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"pool": "max"}, "pool must be one of"),
        ({"layer": "first"}, "layer must be"),
        ({"layer": "3"}, "blocks 0 to 2"),
    ],
)
def test_poolings_and_layers_that_do_not_exist(options, message):
    with pytest.raises(InputError, match=message):
        Embedder(opened(), device="cpu", **options)


def test_a_network_without_a_class_token():
    with pytest.raises(InputError, match="no class token"):
        Embedder(opened(class_token=False, global_pool="avg"), pool="cls", device="cpu")


def test_six_numbers_are_the_channel_statistics():
    model = six_numbers(opened().transform)
    images = images_of(model).double()
    expected = torch.cat((images.mean((2, 3)), images.std((2, 3), correction=0)), 1)
    torch.testing.assert_close(embed(model)[0].double(), expected, atol=1e-6, rtol=1e-5)
    with pytest.raises(InputError, match="your own module"):
        Embedder(model, pool="avg", device="cpu")


def test_devices_and_precisions():
    assert resolve_device("cpu").type == "cpu"
    for name in ("nonsense", "meta"):
        with pytest.raises(InputError, match="cannot be used here"):
            resolve_device(name)
    cpu = torch.device("cpu")
    assert resolve_precision("auto", cpu) in ("fp32", "bf16")
    assert resolve_precision("bf16", cpu) == "bf16"
    with pytest.raises(InputError, match="fp16"):
        resolve_precision("fp16", cpu)
