"""Supervised pre-training: its loss is equation 1 of the paper, and it needs classes."""

import math

import pytest
import timm
import torch

import mood.models.architectures  # noqa: F401
from mood.core.errors import ModelError
from mood.models import Views
from mood.models.pretexts import Classification, Scratch


def encoder():
    torch.manual_seed(0)
    return timm.create_model("mood_vit_patch4_32", num_classes=0, embed_dim=24, depth=1, num_heads=2)


def test_the_loss_spreads_its_share_over_all_classes():
    made = Classification(encoder(), classes=3, label_smoothing=0.3)
    images, labels = torch.randn(4, 3, 32, 32), torch.tensor([2, 0, 1, 1])
    loss, extra = made(Views((images,), torch.empty(4, 0), labels))
    logits = made.classifier(made.encoder(images)).double()
    expected = 0.0
    for row, label in zip(logits.tolist(), labels.tolist(), strict=True):
        total = sum(math.exp(value) for value in row)
        for k, value in enumerate(row):
            target = 0.7 * (k == label) + 0.3 / 3
            expected -= target * math.log(math.exp(value) / total) / 4
    assert loss.item() == pytest.approx(expected, rel=1e-5)
    assert extra["train_accuracy"].item() == (logits.argmax(1) == labels).double().mean().item()


def test_refuses_what_it_cannot_learn():
    with pytest.raises(ModelError, match="two classes or more, got 1"):
        Classification(encoder(), classes=1)
    with pytest.raises(ModelError, match="label_smoothing must lie in"):
        Classification(encoder(), classes=2, label_smoothing=1.0)


def test_scratch_is_the_encoder_itself():
    network = encoder()
    assert Scratch(network).release() is network
    assert not Scratch.trained
