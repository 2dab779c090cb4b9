"""SimMIM against the paper in float64, what it must not see, units of several patches, and its guards."""

import pytest
import timm
import torch
from torch import nn
from torch.nn.functional import conv2d, pixel_shuffle

import mood.models.architectures  # noqa: F401
from mood.core.errors import ModelError
from mood.models import SimMim, Views
from mood.training import uniform


def small(name="mood_vit_patch4_32", **options):
    return timm.create_model(name, num_classes=0, **{"embed_dim": 48, "depth": 2, "num_heads": 3, **options})


def swin(**options):
    settings = {"img_size": 32, "patch_size": 2, "window_size": 4, "embed_dim": 24, "depths": (1, 1, 1)}
    name = options.pop("name", "swin_tiny_patch4_window7_224")
    return timm.create_model(name, num_classes=0, **{**settings, "num_heads": (2, 2, 2), **options})


def beit(**options):
    return small("beit_base_patch16_224", **{"img_size": 32, "patch_size": 4, **options})


def batch(model, count=4, seed=0):
    height, width = (side * step for side, step in zip(model.grid, model.patch, strict=True))
    draws = uniform(seed, 0, torch.arange(count), model.draws)
    images = torch.randn(count, 3, height, width, generator=torch.Generator().manual_seed(seed))
    return Views((images,), draws, mask=model.hide(draws))


ENCODERS = {
    "vit": small,
    "wide": lambda: small(img_size=(32, 48)),
    "convolutions": lambda: small("mood_vit_conv4_32"),
    "beit": beit,
    "swin": swin,
    "swin v2": lambda: swin(name="swinv2_tiny_window8_256"),
}


@pytest.mark.parametrize("encoder", ENCODERS.values(), ids=ENCODERS)
def test_the_loss_is_that_of_the_paper(encoder):
    """Section 3.4: L1 over hidden pixels; section 3.3: one 1 x 1 convolution, its channels shuffled into pixels."""
    torch.manual_seed(0)
    model = SimMim(encoder(), mask_unit=8).double().eval()
    views = batch(model)
    (images,) = (view.double() for view in views.images)
    loss, _ = model(views._replace(images=(images,)))
    stride = model.stride[0]
    tokens = model.encode(images, views.mask)
    features = tokens.transpose(1, 2).unflatten(2, (images.shape[2] // stride, images.shape[3] // stride))
    weight = model.decoder.weight[:, :, None, None]
    prediction = pixel_shuffle(conv2d(features, weight, model.decoder.bias), stride)
    total = hidden = 0.0
    for image, shown, mask in zip(images, prediction, views.mask, strict=True):
        for patch in mask.nonzero().flatten().tolist():
            row, column = (patch // model.grid[1]) * model.patch[0], (patch % model.grid[1]) * model.patch[1]
            window = (slice(None), slice(row, row + model.patch[0]), slice(column, column + model.patch[1]))
            total += (image[window] - shown[window]).abs().sum().item()
            hidden += model.patch[0] * model.patch[1]
    assert loss.item() == pytest.approx(total / (hidden + 1e-5) / 3, rel=1e-6)


@pytest.mark.parametrize("encoder", ENCODERS.values(), ids=ENCODERS)
def test_nothing_of_a_hidden_patch_reaches_the_prediction(encoder):
    torch.manual_seed(0)
    model = SimMim(encoder(), mask_unit=8).eval()
    views = batch(model)
    hidden = model.to_pixels(views.mask)
    changed = torch.where(hidden, torch.randn_like(views.images[0]), views.images[0])
    assert torch.equal(model.predict(views.images[0], views.mask), model.predict(changed, views.mask))
    assert model(views)[0] != model(views._replace(images=(changed,)))[0]


@pytest.mark.parametrize("encoder", [small, swin, beit], ids=["vit", "swin", "beit"])
def test_gradients_reach_everything_and_release_leaves_timms_own(encoder):
    model = SimMim(encoder())
    model(batch(model))[0].backward()
    assert [name for name, value in model.named_parameters() if value.grad is None] == []
    model.initialise()
    plain = model.release()
    assert set(plain.state_dict()) == set(encoder().state_dict())
    assert not plain.patch_embed._forward_hooks
    assert isinstance(plain, nn.Module)


def test_the_step_is_one_graph_whatever_the_masks():
    model = SimMim(small("mood_vit_conv4_32"))
    compiled = torch.compile(model, fullgraph=True, backend="eager")
    for seed in range(2):
        views = batch(model, seed=seed)
        torch.testing.assert_close(compiled(views)[0], model(views)[0])


@pytest.mark.parametrize(
    ("options", "unit"),
    [
        ({"img_size": 224, "patch_size": 16}, (2, 2)),
        ({"img_size": 192, "patch_size": 4}, (8, 8)),
        ({"img_size": 32, "patch_size": 4}, (1, 1)),
        ({"img_size": 64, "patch_size": 4}, (2, 2)),
        ({"img_size": (48, 96), "patch_size": 4}, (2, 2)),
        ({"img_size": 32, "patch_size": (4, 2)}, (1, 2)),
        ({"img_size": 24, "patch_size": (6, 4)}, (1, 1)),
    ],
    ids=str,
)
def test_the_unit_follows_the_image(options, unit):
    model = SimMim(small(**options))
    assert model.masks.unit == unit
    assert model(batch(model, 2))[0].isfinite()


@pytest.mark.parametrize(
    ("encoder", "settings", "message"),
    [
        (small, {"mask_unit": 6}, "mask_unit is 6 pixels; .* set it to 4 or 8 or 16 or 32"),
        (small, {"mask_unit": 32}, "hides 1 of 1 units"),
        (small, {"mask_ratio": 1.0}, "mask_ratio must lie between 0 and 1"),
        (small, {"mask_ratio": 0.999}, "hides 64 of 64"),
        (lambda: small(img_size=28, patch_size=(4, 7)), {"mask_unit": 4}, "set it to 28"),
        (lambda: small(img_size=(20, 28), patch_size=(4, 7)), {"mask_unit": 4}, "nothing, which hides single patches"),
        (lambda: timm.create_model("resnet10t"), {}, "SimMim needs a VisionTransformer or Beit or Swin"),
    ],
)
def test_what_cannot_be_is_refused(encoder, settings, message):
    with pytest.raises(ModelError, match=message):
        SimMim(encoder(), **settings)
