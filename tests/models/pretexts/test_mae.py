"""The masked autoencoder against the official code's outputs, and its guards."""

from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import load_file

import mood.models.architectures  # noqa: F401
from mood.core.errors import ModelError
from mood.models import MaskedAutoencoder, read_state
from mood.models.pretexts.mae import sincos_positions

GOLDEN = Path(__file__).parents[2] / "golden"


def small_encoder(**options):
    settings = {"img_size": 32, "patch_size": 8, "embed_dim": 48, "depth": 3, "num_heads": 3, "num_classes": 0}
    return timm.create_model("vit_base_patch16_224", **{**settings, **options})


def official(normalise=True):
    model = MaskedAutoencoder(
        small_encoder(), decoder_width=32, decoder_depth=2, decoder_heads=4, normalise_target=normalise
    )
    report = model.load_official(read_state(GOLDEN / "mae.pth"))
    assert (report.format, report.missing, report.unexpected) == ("MAE pre-training", (), ())
    return model.eval(), load_file(GOLDEN / "mae.io.safetensors")


@torch.no_grad()
def test_reproduces_the_official_prediction_mask_and_loss():
    model, io = official()
    output = model.reconstruct(io["images"], io["noise"])
    assert torch.equal(output.mask, io["mask"])
    torch.testing.assert_close(output.prediction, io["prediction"], rtol=0, atol=1e-5)
    torch.testing.assert_close(output.loss, io["loss"], rtol=0, atol=1e-5)


@torch.no_grad()
def test_reproduces_the_official_encoder_on_all_patches_in_shuffled_order():
    model, io = official()
    tokens = model.encode(io["images"], io["noise"].argsort(dim=1), torch.zeros_like(io["mask"]))
    torch.testing.assert_close(tokens, io["encoder_tokens_shuffled"], rtol=0, atol=1e-5)


def test_positions_are_the_official_table():
    state = read_state(GOLDEN / "mae.pth")
    torch.testing.assert_close(sincos_positions((4, 4), 48, 1), state["pos_embed"], rtol=0, atol=1e-6)
    torch.testing.assert_close(sincos_positions((4, 4), 32, 1), state["decoder_pos_embed"], rtol=0, atol=1e-6)


def test_positions_of_a_wide_grid_tell_rows_from_columns():
    table = sincos_positions((2, 5), 16, 0)[0].reshape(2, 5, 16)
    assert torch.equal(table[0, :, :8], table[1, :, :8])  # the first half speaks of the column alone
    assert torch.equal(table[:, 0, 8:], table[:, 4, 8:])  # the second of the row alone
    assert len(table.reshape(10, 16).unique(dim=0)) == 10


@pytest.mark.parametrize("ratio", [0.5, 0.75, 0.9])
def test_keeps_exactly_the_patches_with_the_smallest_noise(ratio):
    model = MaskedAutoencoder(small_encoder(), decoder_width=32, decoder_depth=1, decoder_heads=4, mask_ratio=ratio)
    noise = torch.rand(3, 16)
    mask = model.reconstruct(torch.randn(3, 3, 32, 32), noise).mask
    kept = int(16 * (1 - ratio))
    assert (mask == 0).sum(dim=1).tolist() == [kept] * 3
    assert (noise.masked_fill(mask == 1, -1).amax(1) < noise.masked_fill(mask == 0, 2).amin(1)).all()


@pytest.mark.parametrize("name", ["mood_vit_conv4_32", "mood_vit_patch4_32"])
def test_nothing_of_a_removed_patch_reaches_the_prediction(name):
    """A stem with overlapping windows must not let the encoder look into removed patches."""
    torch.manual_seed(0)
    encoder = timm.create_model(name, embed_dim=48, depth=2, num_classes=0)
    model = MaskedAutoencoder(encoder, decoder_width=32, decoder_depth=1, decoder_heads=4).eval()
    images, noise = torch.randn(2, 3, 32, 32), torch.rand(2, model.patches)
    with torch.no_grad():
        first = model.reconstruct(images, noise)
        hidden = model.to_pixels(first.mask).bool()
        changed = torch.where(hidden, torch.randn_like(images), images)
        second = model.reconstruct(changed, noise)
    torch.testing.assert_close(first.prediction, second.prediction, rtol=0, atol=0)
    assert first.loss != second.loss


def test_target_is_the_image_again_without_normalisation():
    model, io = official(normalise=False)
    blocks = model.target(io["images"]).reshape(4, 4, 4, 8, 8, 3)
    assert torch.equal(blocks.permute(0, 5, 1, 3, 2, 4).reshape(4, 3, 32, 32), io["images"])


def test_normalised_target_has_mean_zero_and_unbiased_variance_one():
    model, io = official()
    target = model.target(io["images"])
    assert target.mean(-1).abs().max() < 1e-5
    assert (target.var(-1) - 1).abs().max() < 1e-3


def test_gradients_reach_everything_but_the_fixed_positions():
    model = MaskedAutoencoder(small_encoder(), decoder_width=32, decoder_depth=1, decoder_heads=4)
    model.reconstruct(torch.randn(2, 3, 32, 32), torch.rand(2, 16)).loss.backward()
    without = {name for name, value in model.named_parameters() if value.grad is None}
    assert without == {"encoder.pos_embed", "decoder_pos_embed"}


def test_refuses_what_is_not_a_vision_transformer():
    with pytest.raises(ModelError, match="VisionTransformer"):
        MaskedAutoencoder(timm.create_model("resnet18", num_classes=0))


def test_refuses_positions_that_leave_out_the_class_token():
    with pytest.raises(ModelError, match="class token"):
        MaskedAutoencoder(small_encoder(no_embed_class=True))


@pytest.mark.parametrize("ratio", [0.0, 1.0, -0.1])
def test_refuses_a_ratio_that_masks_nothing_or_all(ratio):
    with pytest.raises(ModelError, match="mask_ratio"):
        MaskedAutoencoder(small_encoder(), mask_ratio=ratio)
