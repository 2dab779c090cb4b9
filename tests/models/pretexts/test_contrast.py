"""MoCo v3 and SupCon against float64 references written from their papers, and what keeps them from collapsing."""

import math

import pytest
import timm
import torch

import mood.models.architectures  # noqa: F401
from mood.core.errors import ModelError
from mood.models import Views
from mood.models.pretexts import MocoV3, SupCon


def encoder(name="mood_vit_patch4_32", **options):
    torch.manual_seed(0)
    return timm.create_model(name, num_classes=0, **{"embed_dim": 24, "depth": 1, "num_heads": 2, **options})


def units(*shape):
    return torch.nn.functional.normalize(torch.randn(shape, dtype=torch.float64), dim=-1)


def batch(count=6, labels=None):
    torch.manual_seed(1)
    return Views((torch.randn(count, 3, 32, 32), torch.randn(count, 3, 32, 32)), torch.empty(count, 0), labels)


def test_info_nce_is_the_papers():
    made = MocoV3(encoder(), temperature=0.3)
    queries, keys = units(5, 8), units(5, 8)
    expected = 0.0
    for i in range(5):
        shares = [math.exp(float(queries[i] @ keys[j]) / 0.3) for j in range(5)]
        expected -= math.log(shares[i] / sum(shares)) / 5
    assert float(made.contrast(queries, keys)) == pytest.approx(2 * 0.3 * expected, rel=1e-12)


def test_the_loss_is_symmetric_in_its_views():
    made = MocoV3(encoder(), hidden_width=32).eval()
    views = batch()
    there, _ = made(views)
    back, _ = made(views._replace(images=views.images[::-1]))
    torch.testing.assert_close(there, back)


def test_the_copy_starts_equal_and_follows_along_half_a_cosine():
    made = MocoV3(encoder(), momentum=0.9, hidden_width=32)
    slow, fast = made.slow_projector[0].weight, made.projector[0].weight
    assert torch.equal(slow, fast)
    with torch.no_grad():
        fast += 1.0
    for done in (0.25, 0.5, 1.0):
        kept = 1 - 0.1 * 0.5 * (1 + math.cos(math.pi * done))
        expected = kept * slow.double() + (1 - kept) * fast.double()
        made.after_step(done)
        torch.testing.assert_close(slow.double(), expected, rtol=0, atol=1e-6)
    before = slow.clone()
    made.after_step(1.0)
    assert torch.equal(slow, before)


def test_no_gradient_reaches_the_copy_nor_the_fixed_patch_projection():
    made = MocoV3(encoder(), hidden_width=32)
    loss, extra = made(batch())
    loss.backward()
    without = {name.split(".")[0] + "." + name.split(".")[1] for name, p in made.named_parameters() if p.grad is None}
    assert {name for name in without if not name.startswith("slow")} == {"encoder.patch_embed"}
    assert all(parameter.grad is None for parameter in made.slow_encoder.parameters())
    assert 0 < float(extra["spread"]) <= 1.1
    assert all(parameter.requires_grad for parameter in made.release().parameters())


def test_a_stem_of_convolutions_is_trained():
    made = MocoV3(encoder("mood_vit_conv4_32"), hidden_width=32)
    assert all(parameter.requires_grad for parameter in made.encoder.patch_embed.parameters())


def test_spread_is_nothing_where_all_images_are_one():
    made = MocoV3(encoder(), hidden_width=32)
    one = torch.randn(1, 3, 32, 32).expand(6, -1, -1, -1)
    _, extra = made(Views((one, one), torch.empty(6, 0)))
    assert float(extra["spread"]) < 0.01


@pytest.mark.parametrize("temperature", [0.1, 0.7])
def test_supcon_is_equation_two_of_the_paper(temperature):
    made = SupCon(encoder(), temperature=temperature)
    points, labels = units(10, 6), torch.tensor([0, 1, 2, 0, 3, 0, 1, 2, 0, 3])
    expected = 0.0
    for i in range(10):
        others = [j for j in range(10) if j != i]
        positives = [j for j in others if labels[j] == labels[i]]
        total = sum(math.exp(float(points[i] @ points[j]) / temperature) for j in others)
        for p in positives:
            expected -= math.log(math.exp(float(points[i] @ points[p]) / temperature) / total) / len(positives) / 10
    assert float(made.contrast(points, labels)) == pytest.approx(expected, rel=1e-12)


LABELS = {
    "an image alone": [0],
    "images of classes of their own": [0, 1, 2, 3],
    "one without others of its class": [0, 0, 0, 1, 2, 2],
    "one class": [4, 4, 4],
}


@pytest.mark.parametrize("labels", LABELS.values(), ids=LABELS)
def test_supcon_is_a_number_where_an_image_has_no_other_of_its_class(labels):
    """Its other view is left; with itself alone in the batch there is nothing to tell it from."""
    made, twice = SupCon(encoder(), temperature=0.5), torch.tensor(labels).repeat(2)
    points = torch.randn(len(twice), 5, dtype=torch.float64, requires_grad=True)

    def loss(points):
        return made.contrast(torch.nn.functional.normalize(points, dim=1), twice)

    assert torch.isfinite(loss(points))
    assert torch.autograd.gradcheck(loss, points)
    if len(labels) == 1:
        assert float(loss(points.detach())) == pytest.approx(0, abs=1e-12)
    same = torch.ones(len(twice), 5, dtype=torch.float64)
    assert float(loss(same)) == pytest.approx(math.log(len(twice) - 1), abs=1e-12), "all points are one"


def test_supcon_pairs_the_views_of_an_image():
    made = SupCon(encoder())
    views = batch(4, labels=torch.arange(4))
    loss, _ = made(views)
    points = torch.nn.functional.normalize(made.projector(made.encoder(torch.cat(views.images))).double(), dim=1)
    torch.testing.assert_close(made.contrast(points, torch.arange(4).repeat(2)).float(), loss)
    loss.backward()
    assert all(parameter.grad is not None for parameter in made.parameters())


@pytest.mark.parametrize(
    ("kind", "settings", "message"),
    [
        (MocoV3, {"temperature": 0}, "temperature must be above 0, got 0"),
        (MocoV3, {"momentum": 1.0}, r"momentum must lie in \[0, 1\), got 1.0"),
        (MocoV3, {"hidden_width": 0}, "hidden_width 0 must be at least 1"),
        (SupCon, {"temperature": -1}, "temperature must be above 0, got -1"),
        (SupCon, {"projection_width": 0}, "projection_width must be at least 1, got 0"),
    ],
)
def test_numbers_that_no_contrast_can_be_made_with(kind, settings, message):
    with pytest.raises(ModelError, match=message):
        kind(encoder(), **settings)
