"""Official files by their content: read through the public door, and held against forwards written from their code."""

import math
import sys
import types
from argparse import Namespace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import nn
from torch.nn.functional import conv2d, gelu, layer_norm, linear, softmax

from mood.core.errors import ModelError
from mood.models import Embedder, load_weights, open_model, read_state
from mood.models.formats import fitting, recognise
from mood.models.pretexts import SimMim

GOLDEN = Path(__file__).parents[1] / "golden"
SMALL = {"img_size": 32, "patch_size": 8, "embed_dim": 48, "depth": 3, "num_heads": 3}
WIDTH, DEPTH, HEADS, PATCH, GRID = 48, 3, 3, 8, 4


def random_state(shapes, seed=0):
    generator = torch.Generator().manual_seed(seed)
    state = {}
    for name, shape in shapes.items():
        value = torch.randn(shape, generator=generator) * 0.2
        # Norms and layer scales lie around one, as in files that were trained.
        near_one = name.endswith(("norm.weight", "norm1.weight", "norm2.weight")) or "gamma" in name
        state[name] = value + 1 if near_one else value
    return state


def vit_shapes(*, beit):
    """A transformer in the names of unilm/beit (`beit`) or of facebookresearch/mae and timm."""
    shapes = {"cls_token": (1, 1, WIDTH), "patch_embed.proj.weight": (WIDTH, 3, PATCH, PATCH)}
    shapes["patch_embed.proj.bias"] = (WIDTH,)
    if not beit:
        shapes["pos_embed"] = (1, GRID**2 + 1, WIDTH)
    for index in range(DEPTH):
        block = {"norm1.weight": (WIDTH,), "norm1.bias": (WIDTH,), "attn.qkv.weight": (3 * WIDTH, WIDTH)}
        block |= {"attn.q_bias": (WIDTH,), "attn.v_bias": (WIDTH,)} if beit else {"attn.qkv.bias": (3 * WIDTH,)}
        block |= {"attn.proj.weight": (WIDTH, WIDTH), "attn.proj.bias": (WIDTH,)}
        block |= {"norm2.weight": (WIDTH,), "norm2.bias": (WIDTH,), "mlp.fc1.weight": (4 * WIDTH, WIDTH)}
        block |= {"mlp.fc1.bias": (4 * WIDTH,), "mlp.fc2.weight": (WIDTH, 4 * WIDTH), "mlp.fc2.bias": (WIDTH,)}
        block |= {"gamma_1": (WIDTH,), "gamma_2": (WIDTH,)} if beit else {}
        shapes |= {f"blocks.{index}.{name}": shape for name, shape in block.items()}
    return shapes


def offsets():
    """(17, 17): the row of BEiT's table for each pair of tokens, written from its definition."""
    side = 2 * GRID - 1
    rows = torch.empty(GRID**2 + 1, GRID**2 + 1, dtype=torch.int64)
    for a in range(GRID**2):
        for b in range(GRID**2):
            down, right = a // GRID - b // GRID + GRID - 1, a % GRID - b % GRID + GRID - 1
            rows[a + 1, b + 1] = down * side + right
    rows[0, :], rows[:, 0], rows[0, 0] = side**2, side**2 + 1, side**2 + 2
    return rows


def tokens_of(state, images, masked=None):
    """(N, 17, 48) float64 before any final norm."""
    s = {name: value.double() for name, value in state.items()}
    x = conv2d(images.double(), s["patch_embed.proj.weight"], s["patch_embed.proj.bias"], stride=PATCH)
    x = x.flatten(2).transpose(1, 2)
    if masked is not None:
        x = torch.where(masked.unsqueeze(-1), s["mask_token"], x)
    x = torch.cat((s["cls_token"].expand(len(x), -1, -1), x), dim=1)
    x = x + s["pos_embed"] if "pos_embed" in s else x
    for index in range(DEPTH):
        p = f"blocks.{index}."
        y = layer_norm(x, (WIDTH,), s[p + "norm1.weight"], s[p + "norm1.bias"], 1e-6)
        bias = s.get(p + "attn.qkv.bias")
        if bias is None:
            bias = torch.cat((s[p + "attn.q_bias"], torch.zeros(WIDTH).double(), s[p + "attn.v_bias"]))
        q, k, v = linear(y, s[p + "attn.qkv.weight"], bias).reshape(len(x), -1, 3, HEADS, WIDTH // HEADS).unbind(2)
        scores = torch.einsum("nqhd,nkhd->nhqk", q, k) / math.sqrt(WIDTH // HEADS)
        table = s.get("rel_pos_bias.relative_position_bias_table", s.get(p + "attn.relative_position_bias_table"))
        if table is not None:
            scores = scores + table[offsets()].permute(2, 0, 1)
        y = torch.einsum("nhqk,nkhd->nqhd", softmax(scores, -1), v).flatten(2)
        x = x + s.get(p + "gamma_1", 1) * linear(y, s[p + "attn.proj.weight"], s[p + "attn.proj.bias"])
        y = layer_norm(x, (WIDTH,), s[p + "norm2.weight"], s[p + "norm2.bias"], 1e-6)
        y = linear(gelu(linear(y, s[p + "mlp.fc1.weight"], s[p + "mlp.fc1.bias"])), s[p + "mlp.fc2.weight"])
        x = x + s.get(p + "gamma_2", 1) * (y + s[p + "mlp.fc2.bias"])
    return x


def norm(state, name, x):
    return layer_norm(x, (WIDTH,), state[f"{name}.weight"].double(), state[f"{name}.bias"].double(), 1e-6)


IMAGES = torch.randn(3, 3, 32, 32, generator=torch.Generator().manual_seed(7))


def opened(state, path, name, **options):
    torch.save({"model": state}, path)
    return open_model(name, checkpoint=path, options={**SMALL, **options})


@torch.no_grad()
def test_moco_v3_is_its_base_encoder_and_not_the_slow_one():
    model = open_model("vit_base_patch16_224", checkpoint=GOLDEN / "moco_v3.pth", options=SMALL)
    io = load_file(GOLDEN / "moco_v3.io.safetensors")
    tokens = model.module.forward_features(io["images"])
    torch.testing.assert_close(tokens, io["tokens"], rtol=0, atol=1e-5)
    torch.testing.assert_close(tokens[:, 0], io["cls_token"], rtol=0, atol=1e-5)
    assert "recognised as MoCo v3" in model.source
    assert model.classifier() is None  # its head compared views
    report = load_weights(model.module, read_state(GOLDEN / "moco_v3.pth"))
    assert (report.missing, report.unexpected, report.resampled) == ((), (), ())
    assert {name.split(".")[1] for name in report.aside} == {"base_encoder", "momentum_encoder"}


@torch.no_grad()
def test_the_table_that_pt22k_shares_reaches_every_block():
    """`beit_mim` through the door for networks, without its pretext: what Tables 3 and 4 call MIM alone."""
    model = open_model(
        "beit_base_patch16_224", checkpoint=GOLDEN / "beit_mim.pth", options={**SMALL, "init_values": 0.1}
    )
    state = read_state(GOLDEN / "beit_mim.pth")
    io = load_file(GOLDEN / "beit_mim.io.safetensors")
    expected = norm(state, "norm", tokens_of(state, io["images"])[:, 1:].mean(1))
    embedding = model.module.forward_head(model.module.forward_features(io["images"]), pre_logits=True)
    torch.testing.assert_close(embedding.double(), expected, rtol=0, atol=1e-5)
    # And the reference is the official code's own: at masked patches it gives the golden logits.
    masked = io["mask"].bool()
    patches = norm(state, "norm", tokens_of(state, io["images"], masked))[:, 1:]
    logits = linear(patches, state["lm_head.weight"].double(), state["lm_head.bias"].double())
    torch.testing.assert_close(logits, io["logits_all"].double(), rtol=0, atol=1e-5)
    assert model.classifier() is None
    assert "left aside (mask_token, lm_head.weight" in model.source


@torch.no_grad()
@pytest.mark.parametrize("outputs", [21841, 1000])
def test_beit_classifiers_bring_their_own_head(outputs, tmp_path):
    """`pt22k_ft22k` and `ft1k`, as unilm/beit's modeling_finetune.py saves them."""
    shapes = vit_shapes(beit=True) | {"fc_norm.weight": (WIDTH,), "fc_norm.bias": (WIDTH,)}
    shapes |= {"head.weight": (outputs, WIDTH), "head.bias": (outputs,)}
    shapes |= {f"blocks.{i}.attn.relative_position_bias_table": (52, HEADS) for i in range(DEPTH)}
    state = random_state(shapes)
    index = {f"blocks.{i}.attn.relative_position_index": torch.zeros(17, 17, dtype=torch.int64) for i in range(DEPTH)}
    model = opened(state | index, tmp_path / "w.pth", "beit_base_patch16_224", init_values=0.1)
    assert model.architecture.options["num_classes"] == outputs
    pooled = norm(state, "fc_norm", tokens_of(state, IMAGES)[:, 1:].mean(1))
    expected = linear(pooled, state["head.weight"].double(), state["head.bias"].double())
    torch.testing.assert_close(model.module(IMAGES).double(), expected, rtol=0, atol=1e-4)
    assert "recognised as BEiT" in model.source
    assert "missing" not in model.source
    assert "unexpected" not in model.source


@torch.no_grad()
def test_mae_encoder_keeps_the_stored_positions():
    model = open_model("vit_base_patch16_224", checkpoint=GOLDEN / "mae.pth", options=SMALL)
    state, io = read_state(GOLDEN / "mae.pth"), load_file(GOLDEN / "mae.io.safetensors")
    assert torch.equal(model.module.pos_embed, state["pos_embed"])
    tokens = model.module.forward_features(io["images"])
    order = io["noise"].argsort(dim=1).unsqueeze(-1).expand(-1, -1, WIDTH)
    shuffled = torch.cat((tokens[:, :1], tokens[:, 1:].gather(1, order)), dim=1)
    torch.testing.assert_close(shuffled, io["encoder_tokens_shuffled"], rtol=0, atol=1e-5)


@torch.no_grad()
def test_mae_fine_tuned_pools_the_patches_behind_which_its_norm_stands(tmp_path):
    """`global_pool` of facebookresearch/mae's models_vit.py: no `norm`, and `fc_norm` after the mean of the patches."""
    shapes = vit_shapes(beit=False) | {"fc_norm.weight": (WIDTH,), "fc_norm.bias": (WIDTH,)}
    state = random_state(shapes | {"head.weight": (9, WIDTH), "head.bias": (9,)})
    model = opened(state, tmp_path / "w.pth", "vit_base_patch16_224")
    assert (model.architecture.options["global_pool"], model.architecture.options["num_classes"]) == ("avg", 9)
    pooled = norm(state, "fc_norm", tokens_of(state, IMAGES)[:, 1:].mean(1))
    expected = linear(pooled, state["head.weight"].double(), state["head.bias"].double())
    torch.testing.assert_close(model.module(IMAGES).double(), expected, rtol=0, atol=1e-5)


def simmim_vit():
    """microsoft/SimMIM, models/simmim.py around its VisionTransformer: a shared table, no absolute positions."""
    shapes = vit_shapes(beit=True) | {"norm.weight": (WIDTH,), "norm.bias": (WIDTH,), "mask_token": (1, 1, WIDTH)}
    shapes["rel_pos_bias.relative_position_bias_table"] = (52, HEADS)
    decoder = {"decoder.0.weight": (3 * PATCH**2, WIDTH, 1, 1), "decoder.0.bias": (3 * PATCH**2,)}
    return random_state({f"encoder.{name}": shape for name, shape in shapes.items()} | decoder)


@torch.no_grad()
def test_simmim_vit_is_a_beit_and_its_decoder_goes_on(tmp_path):
    state = simmim_vit()
    model = opened(state, tmp_path / "w.pth", "beit_base_patch16_224", init_values=0.1)
    inner = {name.removeprefix("encoder."): value for name, value in state.items()}
    embedding = model.module.forward_head(model.module.forward_features(IMAGES), pre_logits=True)
    expected = norm(inner, "norm", tokens_of(inner, IMAGES)[:, 1:].mean(1))
    torch.testing.assert_close(embedding.double(), expected, rtol=0, atol=1e-5)
    assert "recognised as SimMIM (ViT)" in model.source
    pretext = SimMim(model.module, mask_unit=8).eval()
    report = pretext.load_official(state)
    assert (report.missing, report.unexpected) == ((), ())
    mask = torch.rand(3, GRID**2, generator=torch.Generator().manual_seed(1)) < 0.6
    patches = norm(inner, "norm", tokens_of(inner, IMAGES, mask))[:, 1:].transpose(1, 2).reshape(3, WIDTH, GRID, GRID)
    pixels = nn.functional.pixel_shuffle(
        conv2d(patches, state["decoder.0.weight"].double(), state["decoder.0.bias"].double()), PATCH
    )
    torch.testing.assert_close(pretext.predict(IMAGES, mask).double(), pixels, rtol=0, atol=1e-5)


SWIN = {"img_size": 32, "patch_size": 4, "embed_dim": 16, "depths": [2, 2], "num_heads": [2, 4], "window_size": 4}


def simmim_swin():
    """microsoft/SimMIM around its swin_transformer.py: merging belongs to the stage before it."""
    shapes = {"mask_token": (1, 1, 16), "patch_embed.proj.weight": (16, 3, 4, 4), "patch_embed.proj.bias": (16,)}
    shapes |= {"patch_embed.norm.weight": (16,), "patch_embed.norm.bias": (16,)}
    for stage, (width, heads) in enumerate(((16, 2), (32, 4))):
        for index in range(2):
            p = f"layers.{stage}.blocks.{index}."
            shapes |= {p + "norm1.weight": (width,), p + "norm1.bias": (width,)}
            shapes |= {p + "attn.relative_position_bias_table": (49, heads), p + "attn.qkv.weight": (3 * width, width)}
            shapes |= {p + "attn.qkv.bias": (3 * width,), p + "attn.proj.weight": (width, width)}
            shapes |= {p + "attn.proj.bias": (width,), p + "norm2.weight": (width,), p + "norm2.bias": (width,)}
            shapes |= {p + "mlp.fc1.weight": (4 * width, width), p + "mlp.fc1.bias": (4 * width,)}
            shapes |= {p + "mlp.fc2.weight": (width, 4 * width), p + "mlp.fc2.bias": (width,)}
    shapes |= {"layers.0.downsample.norm.weight": (64,), "layers.0.downsample.norm.bias": (64,)}
    shapes |= {"layers.0.downsample.reduction.weight": (32, 64), "norm.weight": (32,), "norm.bias": (32,)}
    decoder = {"decoder.0.weight": (3 * 64, 32, 1, 1), "decoder.0.bias": (3 * 64,)}
    state = random_state({f"encoder.{name}": shape for name, shape in shapes.items()} | decoder)
    state["encoder.layers.0.blocks.1.attn_mask"] = torch.zeros(4, 16, 16)
    state["encoder.layers.0.blocks.0.attn.relative_position_index"] = torch.zeros(16, 16, dtype=torch.int64)
    return state


def swin_map(state, images, masked):
    """(N, 4, 4, 32) float64 after the final norm, image by image and window by window."""
    s = {name.removeprefix("encoder."): value.double() for name, value in state.items()}

    def normed(x, name):
        return layer_norm(x, (x.shape[-1],), s[f"{name}.weight"], s[f"{name}.bias"], 1e-5)

    def attention(x, p, heads, shift):
        side = x.shape[1]
        x = torch.roll(x, (-shift, -shift), (1, 2))
        # A token may look at those that were its neighbours before the roll: same stretch in both directions.
        stretch = torch.tensor([(i >= side - 4) + (i >= side - shift) if shift else 0 for i in range(side)])
        region = stretch[:, None] * 3 + stretch[None, :]
        out = torch.empty_like(x)
        for top in range(0, side, 4):
            for left in range(0, side, 4):
                w = x[:, top : top + 4, left : left + 4].flatten(1, 2)
                own = region[top : top + 4, left : left + 4].flatten()
                q, k, v = linear(w, s[p + "qkv.weight"], s[p + "qkv.bias"]).reshape(len(w), 16, 3, heads, -1).unbind(2)
                scores = torch.einsum("nqhd,nkhd->nhqk", q, k) / math.sqrt(q.shape[-1])
                rows = [[(a // 4 - b // 4 + 3) * 7 + a % 4 - b % 4 + 3 for b in range(16)] for a in range(16)]
                scores = scores + s[p + "relative_position_bias_table"][torch.tensor(rows)].permute(2, 0, 1)
                scores = scores.masked_fill(own[:, None] != own[None, :], -100.0 * 1e3)
                w = torch.einsum("nhqk,nkhd->nqhd", softmax(scores, -1), v).flatten(2)
                out[:, top : top + 4, left : left + 4] = w.reshape(len(w), 4, 4, -1)
        out = linear(out, s[p + "proj.weight"], s[p + "proj.bias"])
        return torch.roll(out, (shift, shift), (1, 2))

    x = conv2d(images.double(), s["patch_embed.proj.weight"], s["patch_embed.proj.bias"], stride=4)
    x = normed(x.permute(0, 2, 3, 1), "patch_embed.norm")
    x = torch.where(masked.reshape(-1, 8, 8, 1), s["mask_token"], x)
    for stage, heads in enumerate((2, 4)):
        for index in range(2):
            p = f"layers.{stage}.blocks.{index}."
            x = x + attention(normed(x, p + "norm1"), p + "attn.", heads, 2 if stage == 0 and index else 0)
            y = gelu(linear(normed(x, p + "norm2"), s[p + "mlp.fc1.weight"], s[p + "mlp.fc1.bias"]))
            x = x + linear(y, s[p + "mlp.fc2.weight"], s[p + "mlp.fc2.bias"])
        if stage == 0:
            parts = (x[:, 0::2, 0::2], x[:, 1::2, 0::2], x[:, 0::2, 1::2], x[:, 1::2, 1::2])
            x = linear(
                normed(torch.cat(parts, -1), "layers.0.downsample.norm"), s["layers.0.downsample.reduction.weight"]
            )
    return normed(x, "norm")


@torch.no_grad()
def test_simmim_swin_is_a_swin_and_its_decoder_goes_on(tmp_path):
    state = simmim_swin()
    torch.save({"model": state}, tmp_path / "w.pth")
    model = open_model("swin_tiny_patch4_window7_224", checkpoint=tmp_path / "w.pth", options=SWIN)
    assert "recognised as SimMIM (Swin)" in model.source
    assert "unexpected" not in model.source
    nothing = torch.zeros(3, 64, dtype=torch.bool)
    torch.testing.assert_close(
        model.module.forward_features(IMAGES).double(), swin_map(state, IMAGES, nothing), rtol=0, atol=1e-5
    )
    pretext = SimMim(model.module, mask_unit=4).eval()
    assert not pretext.load_official(state).missing
    mask = torch.rand(3, 64, generator=torch.Generator().manual_seed(1)) < 0.6
    top = swin_map(state, IMAGES, mask).permute(0, 3, 1, 2)
    pixels = conv2d(top, state["decoder.0.weight"].double(), state["decoder.0.bias"].double())
    pixels = nn.functional.pixel_shuffle(pixels, 8)
    torch.testing.assert_close(pretext.predict(IMAGES, mask).double(), pixels, rtol=0, atol=1e-5)


def test_a_file_s_settings_are_read_without_the_code_that_made_them(tmp_path, monkeypatch):
    """SimMIM's files hold a yacs node, MAE's and BEiT's an argparse namespace."""
    package, module = types.ModuleType("yacs"), types.ModuleType("yacs.config")

    class CfgNode(dict):
        def __setstate__(self, state):
            raise AssertionError("it ran")

    CfgNode.__module__, CfgNode.__qualname__, module.CfgNode = "yacs.config", "CfgNode", CfgNode
    monkeypatch.setitem(sys.modules, "yacs", package)
    monkeypatch.setitem(sys.modules, "yacs.config", module)
    node = CfgNode({"MODEL": CfgNode({"TYPE": "vit"})})
    node.__dict__["__immutable__"] = True
    torch.save({"config": node, "args": Namespace(lr=1.0), "model": simmim_vit(), "epoch": 799}, tmp_path / "w.pth")
    monkeypatch.delitem(sys.modules, "yacs.config")
    assert recognise(read_state(tmp_path / "w.pth")).format == "SimMIM (ViT)"


@pytest.mark.parametrize("make", [vit_shapes, simmim_vit, simmim_swin, lambda: None])
def test_the_name_of_a_file_says_nothing(make, tmp_path):
    if make is vit_shapes:
        state, name, options, told = random_state(vit_shapes(beit=False)), "vit_base_patch16_224", SMALL, "timm"
        state |= random_state({"norm.weight": (WIDTH,), "norm.bias": (WIDTH,)})
    elif make is simmim_vit:
        state, name, options, told = make(), "beit_base_patch16_224", {**SMALL, "init_values": 0.1}, "SimMIM (ViT)"
    elif make is simmim_swin:
        state, name, options, told = make(), "swin_tiny_patch4_window7_224", SWIN, "SimMIM (Swin)"
    else:
        state = read_state(GOLDEN / "moco_v3.pth")
        name, options, told = "vit_base_patch16_224", SMALL, "MoCo v3"
    torch.save(state, tmp_path / "beit_large_patch16_224_pt22k.pth")
    model = open_model(name, checkpoint=tmp_path / "beit_large_patch16_224_pt22k.pth", options=options)
    assert f"recognised as {told};" in model.source


def plain_vit(tmp_path, **changes):
    shapes = vit_shapes(beit=False) | {"norm.weight": (WIDTH,), "norm.bias": (WIDTH,)}
    torch.save(random_state(shapes), tmp_path / "w.pth")
    return open_model("vit_base_patch16_224", checkpoint=tmp_path / "w.pth", options={**SMALL, **changes})


def test_a_network_that_is_not_that_of_the_weights_is_refused_with_the_one_that_is(tmp_path):
    with pytest.raises(
        ModelError, match=r"leaves .* at random values.*those of model 'vit_base_patch8_224' with .*depth=3"
    ):
        plain_vit(tmp_path, depth=4)
    with pytest.raises(ModelError, match=r"has no place for .* blocks.2.*with the options .*depth=3"):
        plain_vit(tmp_path, depth=2)
    with pytest.raises(ModelError, match=r"of another shape in the file.*embed_dim=48"):
        plain_vit(tmp_path, embed_dim=96)
    with pytest.raises(ModelError, match=r"SimMIM \(ViT\).*model 'beit_base_patch16_224' with .*num_heads=3"):
        opened(simmim_vit(), tmp_path / "w.pth", "vit_base_patch16_224")
    swin = {name: value for name, value in simmim_swin().items() if "layers.1" not in name}  # of no name
    with pytest.raises(ModelError, match="choose the architecture that the checkpoint was made with"):
        opened(swin, tmp_path / "w.pth", "vit_base_patch16_224")


@pytest.mark.parametrize(
    ("name", "options", "expected"),
    [
        ("beit_large_patch16_224", {}, ("beit_large_patch16_224", {})),
        ("beit_base_patch16_384", {}, ("beit_base_patch16_384", {})),
        ("vit_huge_patch14_224", {}, ("vit_huge_patch14_224", {})),
        ("vit_small_patch16_224", {"img_size": 96}, ("vit_small_patch16_224", {"img_size": 96})),
        ("vit_tiny_patch16_224", {"patch_size": 8}, ("vit_tiny_patch16_224", {"patch_size": 8})),
        ("swin_large_patch4_window7_224", {}, ("swin_large_patch4_window7_224", {})),
        ("swin_base_patch4_window7_224", {"window_size": 6}, ("swin_base_patch4_window7_224", {"window_size": 6})),
        (
            "mood_vit_patch4_32",
            {"embed_dim": 128, "num_heads": 4},
            (
                "vit_base_patch16_224",
                {
                    "img_size": 32,
                    "patch_size": 4,
                    "embed_dim": 128,
                    "depth": 6,
                    "class_token": False,
                    "global_pool": "avg",
                },  # how many heads there are cannot be told
            ),
        ),
        ("resnet18", {}, None),
        ("swinv2_tiny_window8_256", {}, None),
    ],
)
def test_the_network_can_be_read_off_the_weights(name, options, expected):
    import timm

    with torch.device("meta"):
        state = timm.create_model(name, num_classes=0, **options).state_dict()
    assert fitting(state) == expected


def test_a_head_is_as_wide_as_the_file_s_unless_something_else_is_said(tmp_path):
    shapes = vit_shapes(beit=False) | {"norm.weight": (WIDTH,), "norm.bias": (WIDTH,)}
    state = random_state(shapes | {"head.weight": (11, WIDTH), "head.bias": (11,)})
    assert opened(state, tmp_path / "w.pth", "vit_base_patch16_224").head().weight.shape == (11, WIDTH)
    encoder = opened(state, tmp_path / "w.pth", "vit_base_patch16_224", num_classes=0)
    assert encoder.classifier() is None
    assert "left aside (head.weight, head.bias)" in encoder.source
    other = opened(state, tmp_path / "w.pth", "vit_base_patch16_224", num_classes=4)
    assert "2 missing (head.weight, head.bias)" in other.source
    pixels = torch.zeros(2, 32, 32, 3, dtype=torch.uint8).numpy()
    assert Embedder(other, device="cpu")(pixels)[1].shape == (2, 4)
