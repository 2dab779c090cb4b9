"""BEiT's pre-training against the official code's outputs, what it must not see, what it leaves, and its guards."""

import copy
import math
from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import load_file
from torch import nn
from torch.nn.functional import log_softmax

import mood.models.architectures  # noqa: F401
from mood.core.errors import InputError, ModelError
from mood.models import BeitPretext, Views, read_state
from mood.training import uniform

GOLDEN = Path(__file__).parents[2] / "golden"


class Brightness(nn.Module):
    """A tokenizer that tells how bright each cell is."""

    def __init__(self, grid=(4, 4), vocabulary=64, cell=8):
        super().__init__()
        self.grid, self.vocabulary, self.cell = grid, vocabulary, cell
        self.image_size = (grid[0] * cell, grid[1] * cell)
        self.weight = nn.Parameter(torch.ones(1))

    def tokens(self, images):
        assert images.shape[1:] == (3, *self.image_size)
        light = nn.functional.avg_pool2d(images, self.cell).mean(dim=1) * self.weight
        return (light * self.vocabulary).long().clamp(0, self.vocabulary - 1)


def beit(**options):
    settings = {"img_size": 32, "patch_size": 8, "embed_dim": 48, "depth": 3, "num_heads": 3, "num_classes": 0}
    return timm.create_model("beit_base_patch16_224", **{**settings, **options})


def small(name="mood_vit_conv4_32", **options):
    return timm.create_model(name, num_classes=0, **{"embed_dim": 48, "depth": 2, "num_heads": 3, **options})


def batch(pretext, count=4, seed=0):
    generator = torch.Generator().manual_seed(seed)
    height, width = (side * step for side, step in zip(pretext.grid, pretext.patch, strict=True))
    draws = uniform(seed, 0, torch.arange(count), pretext.draws)
    images = torch.randn(count, 3, height, width, generator=generator)
    twin = torch.rand(count, 3, *pretext.twin_size, generator=generator)
    return Views((images,), draws, None, twin, pretext.hide(draws))


@pytest.mark.parametrize("pooled", ["avg", "token"])
@torch.no_grad()
def test_reproduces_the_official_logits(pooled):
    model = BeitPretext(beit(global_pool=pooled), tokenizer=Brightness()).eval()
    report = model.load_official(read_state(GOLDEN / "beit_mim.pth"))
    assert (report.missing, report.unexpected) == ((), ())
    assert report.format == "BEiT pre-training"
    io = load_file(GOLDEN / "beit_mim.io.safetensors")
    mask = io["mask"].bool()
    logits = model.logits(io["images"], mask)
    torch.testing.assert_close(logits, io["logits_all"], rtol=0, atol=1e-5)
    torch.testing.assert_close(logits[mask], io["logits_masked"], rtol=0, atol=1e-5)


@torch.no_grad()
def test_what_is_released_gives_what_the_shared_table_gave():
    model = BeitPretext(beit(), tokenizer=Brightness()).eval()
    model.load_official(read_state(GOLDEN / "beit_mim.pth"))
    images = load_file(GOLDEN / "beit_mim.io.safetensors")["images"]
    table = model.encoder.rel_pos_bias.relative_position_bias_table.clone()
    assert table.abs().max() > 0
    before = model.encoder(images)
    encoder = model.release()
    torch.testing.assert_close(encoder(images), before)
    assert encoder.rel_pos_bias is None
    assert set(encoder.state_dict()) == set(beit().state_dict())
    for block in encoder.blocks:
        assert torch.equal(block.attn.relative_position_bias_table, table)
    first, second = (block.attn.relative_position_bias_table.data_ptr() for block in encoder.blocks[:2])
    assert first != second
    assert torch.equal(encoder.patch_embed(images), copy.deepcopy(encoder).patch_embed(images))


def test_one_table_serves_all_blocks_and_learns_from_each():
    model = BeitPretext(beit(), tokenizer=Brightness())
    tables = [name for name, _ in model.named_parameters() if "relative_position" in name]
    assert tables == ["encoder.rel_pos_bias.relative_position_bias_table"]
    again = BeitPretext(model.release(), tokenizer=Brightness())
    assert [name for name, _ in again.named_parameters() if "relative_position" in name] == tables
    own = BeitPretext(beit(use_rel_pos_bias=False, use_shared_rel_pos_bias=True), tokenizer=Brightness())
    assert own.release().rel_pos_bias is not None  # it was its own


@pytest.mark.parametrize("exact", [False, True])
def test_the_loss_is_the_mean_cross_entropy_of_hidden_patches(exact):
    torch.manual_seed(0)
    encoder = small(img_size=(32, 48))
    tokenizer = Brightness((8, 12), 11, cell=2)
    model = BeitPretext(encoder, tokenizer=tokenizer, min_block=30, exact_mask=exact).double().eval()
    views = batch(model, 8)
    views = views._replace(images=(views.images[0].double(),), twin=views.twin.double())
    assert (len(set(views.mask.sum(1).tolist())) == 1) == exact
    loss, logged = model(views)
    tokens = model.tokenizer.tokens(views.twin).flatten(1)
    shares = log_softmax(model.logits(views.images[0], views.mask), dim=2)
    pairs = [(i, p) for i in range(8) for p in range(96) if views.mask[i, p]]
    assert loss.item() == pytest.approx(-sum(shares[i, p, tokens[i, p]].item() for i, p in pairs) / len(pairs), 1e-5)
    right = [shares[i, p].argmax() == tokens[i, p] for i, p in pairs]
    assert logged["token_accuracy"].item() == pytest.approx(sum(right).item() / len(pairs))


@pytest.mark.parametrize("name", ["mood_vit_conv4_32", "mood_vit_patch4_32", "beit_base_patch16_224"])
def test_nothing_of_a_hidden_patch_reaches_the_prediction(name):
    torch.manual_seed(0)
    options = {"img_size": 32, "patch_size": 4} if name.startswith("beit") else {}
    model = BeitPretext(small(name, **options), tokenizer=Brightness((8, 8))).eval()
    views = batch(model)
    hidden = model.to_pixels(views.mask)
    changed = torch.where(hidden, torch.randn_like(views.images[0]), views.images[0])
    assert torch.equal(model.logits(views.images[0], views.mask), model.logits(changed, views.mask))
    shown = torch.where(hidden, views.images[0], torch.randn_like(changed))
    assert not torch.equal(model.logits(shown, views.mask), model.logits(changed, views.mask))


def test_gradients_reach_everything_but_the_tokenizer():
    model = BeitPretext(small("mood_vit_patch4_32"), tokenizer=Brightness((8, 8)))
    model(batch(model))[0].backward()
    assert [name for name, value in model.named_parameters() if value.grad is None] == []
    assert not any("tokenizer" in name for name in model.state_dict())
    assert model.tokenizer.weight.grad is None
    assert not model.tokenizer.weight.requires_grad


def test_the_tokenizer_goes_where_the_pretext_goes():
    model = BeitPretext(small("mood_vit_patch4_32"), tokenizer=Brightness((8, 8))).double()
    assert model.tokenizer.weight.dtype == torch.float64
    assert model.lm_head.weight.dtype == torch.float64


def test_the_step_is_one_graph_whatever_the_masks():
    model = BeitPretext(small(), tokenizer=Brightness((8, 8)))
    compiled = torch.compile(model, fullgraph=True, backend="eager")
    for seed in range(2):
        views = batch(model, seed=seed)
        torch.testing.assert_close(compiled(views)[0], model(views)[0])


def test_tables_and_tokens_do_not_decay():
    model = BeitPretext(beit(), tokenizer=Brightness())
    assert model.no_weight_decay() == {
        "mask_token",
        "encoder.cls_token",
        "encoder.pos_embed",
        "encoder.rel_pos_bias.relative_position_bias_table",
    }


@pytest.mark.parametrize("encoder", [beit, small], ids=["beit", "vit"])
def test_initial_weights_are_the_official_ones(encoder):
    torch.manual_seed(0)
    network = encoder(depth=4)
    model = BeitPretext(network, tokenizer=Brightness(tuple(network.patch_embed.grid_size), 512))
    for parameter in network.blocks.parameters():
        nn.init.ones_(parameter)
    model.initialise()
    # A normal that is cut at one deviation has .54 of it left.
    assert model.lm_head.weight.std().item() == pytest.approx(0.0108, rel=0.05)
    assert model.lm_head.weight.abs().max() <= 0.02
    assert model.lm_head.bias.abs().max() == 0
    for number, block in enumerate(network.blocks, start=1):
        for weight in (block.attn.proj.weight, block.mlp.fc2.weight):
            assert weight.std().item() == pytest.approx(0.0108 / math.sqrt(2 * number), rel=0.1)
        assert block.mlp.fc1.weight.std().item() == pytest.approx(0.0108, rel=0.1)


def test_masks_are_the_official_ones_unless_something_else_is_said():
    plain = BeitPretext(small("mood_vit_patch4_32", img_size=56), tokenizer=Brightness((14, 14)))
    assert (plain.masks.count, plain.masks.min_block, plain.masks.exact) == (75, 16, False)
    less = BeitPretext(small(), tokenizer=Brightness((8, 8)))
    assert (less.masks.count, less.masks.min_block) == (24, 5)
    said = BeitPretext(small(), tokenizer=Brightness((8, 8)), mask_ratio=0.5, min_block=2, exact_mask=True)
    assert (said.masks.count, said.masks.min_block, said.masks.exact) == (32, 2, True)


@pytest.mark.parametrize(
    ("encoder", "settings", "error", "message"),
    [
        (small, {"tokenizer": None}, InputError, "train one with `mood tokenizer`"),
        (
            small,
            {"tokenizer": Brightness((4, 4))},
            ModelError,
            "gives 4 x 4 tokens and the network has 8 x 8 patches.* or a tokenizer of 8 x 8 tokens",
        ),
        (small, {"mask_ratio": 1.0}, ModelError, "mask_ratio must lie between 0 and 1"),
        (small, {"mask_ratio": 0.001}, ModelError, "count is 0"),
        (small, {"min_block": 30}, ModelError, "min_block is 30, and mask_ratio 0.383 hides 24 of 64"),
        (small, {"min_block": 0}, ModelError, "min_block is 0"),
        (lambda: timm.create_model("resnet10t"), {}, ModelError, "needs a VisionTransformer or Beit of timm, got ResN"),
        (lambda: small(pos_embed="none"), {}, ModelError, "set pos_embed"),
        (lambda: small(patch_drop_rate=0.5), {}, ModelError, "no patch_drop_rate"),
        (
            lambda: small(img_size=(4, 256)),
            {"tokenizer": Brightness((1, 64))},
            ModelError,
            "no block fits into a grid of 1 x 64 patches: set exact_mask",
        ),
    ],
)
def test_what_cannot_be_is_refused(encoder, settings, error, message):
    with pytest.raises(error, match=message):
        BeitPretext(encoder(), **{"tokenizer": Brightness((8, 8)), **settings})


def test_files_that_are_no_such_checkpoint():
    model = BeitPretext(beit(), tokenizer=Brightness(vocabulary=8))
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(ModelError, match="it has no mask_token"):
        model.load_official(read_state(GOLDEN / "beit_finetuned.pth"))
    with pytest.raises(ModelError, match=r"lm_head.weight is \(64, 48\) in the checkpoint and \(8, 48\) here"):
        model.load_official(read_state(GOLDEN / "beit_mim.pth"))
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name])
