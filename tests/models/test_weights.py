"""Foreign checkpoints: reproduced, reported, refused, and never run."""

import argparse
import pickle
from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import load_file, save_file

from mood.core.errors import ModelError
from mood.models import load_weights, open_model, read_state

GOLDEN = Path(__file__).parents[1] / "golden"
SMALL = {"img_size": 32, "patch_size": 8, "embed_dim": 48, "depth": 3, "num_heads": 3}


def beit(**options):
    return timm.create_model("beit_base_patch16_224", **{**SMALL, "init_values": 0.1, "num_classes": 7, **options})


@torch.no_grad()
def test_reproduces_the_official_fine_tuned_beit():
    module = beit().eval()
    report = load_weights(module, read_state(GOLDEN / "beit_finetuned.pth"))
    assert not report.missing
    assert not report.unexpected
    io = load_file(GOLDEN / "beit_finetuned.io.safetensors")
    embedding = module.forward_head(module.forward_features(io["images"]), pre_logits=True)
    torch.testing.assert_close(embedding, io["embedding"], rtol=0, atol=1e-5)
    torch.testing.assert_close(module(io["images"]), io["logits"], rtol=0, atol=1e-5)


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_resamples_relative_positions_and_leaves_another_head_alone():
    module = beit(img_size=48, num_classes=5)
    report = load_weights(module, read_state(GOLDEN / "beit_finetuned.pth"))
    assert len(report.resampled) == 3
    assert set(report.missing) == {"head.weight", "head.bias"}
    assert "3 resampled" in str(report)
    assert module(torch.zeros(1, 3, 48, 48)).shape == (1, 5)


def test_reads_the_encoder_of_a_mae_file_and_leaves_the_decoder_aside():
    module = timm.create_model("vit_base_patch16_224", **SMALL, num_classes=0)
    report = load_weights(module, read_state(GOLDEN / "mae.pth"))
    assert not report.missing
    assert not report.unexpected
    assert any(name.startswith("decoder_blocks") for name in report.aside)
    state = read_state(GOLDEN / "mae.pth")
    assert torch.equal(module.blocks[1].attn.qkv.weight, state["blocks.1.attn.qkv.weight"])


def test_resamples_positions_and_patches():
    module = timm.create_model("vit_base_patch16_224", **{**SMALL, "img_size": 48, "patch_size": 6}, num_classes=0)
    report = load_weights(module, read_state(GOLDEN / "mae.pth"))
    assert set(report.resampled) == {"pos_embed", "patch_embed.proj.weight"}


def test_finds_weights_behind_prefixes_and_in_safetensors(tmp_path):
    module = timm.create_model("vit_base_patch16_224", **SMALL, num_classes=0)
    save_file({f"module.{name}": value for name, value in module.state_dict().items()}, tmp_path / "w.safetensors")
    other = timm.create_model("vit_base_patch16_224", **SMALL, num_classes=0)
    assert not load_weights(other, read_state(tmp_path / "w.safetensors")).missing
    assert all(torch.equal(a, b) for a, b in zip(module.parameters(), other.parameters(), strict=True))


def test_a_file_is_what_is_in_it_whatever_its_name_ends_in(tmp_path):
    state = {"weight": torch.arange(3.0)}
    save_file(state, tmp_path / "one.pth")
    torch.save(state, tmp_path / "two.safetensors")
    torch.save(state, tmp_path / "three.safetensors", _use_new_zipfile_serialization=False)
    for path in tmp_path.iterdir():
        assert torch.equal(read_state(path)["weight"], state["weight"])


def test_refuses_a_poor_match_and_changes_nothing():
    module = timm.create_model("resnet18", num_classes=0)
    before = {name: value.clone() for name, value in module.state_dict().items()}
    with pytest.raises(ModelError, match="leaves 100 tensors of the network at random values"):
        load_weights(module, read_state(GOLDEN / "mae.pth"))
    assert all(torch.equal(before[name], value) for name, value in module.state_dict().items())


class Bomb:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (Path.touch, (self.path,))


@pytest.mark.parametrize("golden", ["beit_mim", "beit_finetuned", "mae", "moco_v3"])
def test_a_malicious_pickle_runs_nothing(golden, tmp_path):
    """In the place of each official file, with its tensors, through the door that people use."""
    target, state = tmp_path / "ran", read_state(GOLDEN / f"{golden}.pth")
    places = (
        {"model": Bomb(target)},
        {"model": state, "args": Bomb(target)},
        {"model": state, "epoch": [Bomb(target)]},
    )
    for content in places:
        for name, write in (("a.pth", torch.save), ("b.pth", lambda o, p: p.write_bytes(pickle.dumps(o)))):
            write(content, tmp_path / name)
            with pytest.raises(ModelError, match="cannot be read safely.*never runs"):
                open_model("vit_base_patch16_224", checkpoint=tmp_path / name, options=SMALL)
    assert not target.exists()
    # The bomb is live: whoever unpickles it runs it.
    pickle.loads(pickle.dumps(Bomb(target)))
    assert target.exists()


def test_a_share_of_the_network_may_be_enough_where_it_is_said():
    state = read_state(GOLDEN / "mae.pth")
    del state["blocks.1.norm1.bias"]
    module = timm.create_model("vit_base_patch16_224", **SMALL, num_classes=0)
    with pytest.raises(ModelError, match="leaves 1 tensors.*blocks.1.norm1.bias"):
        load_weights(module, state)
    assert load_weights(module, state, share=0.9).missing == ("blocks.1.norm1.bias",)


def test_attributes_of_a_stand_in_hide_nothing(tmp_path):
    settings = argparse.Namespace(items=torch.ones(1), get=torch.ones(1))
    torch.save(settings, tmp_path / "args.pth")
    with pytest.raises(ModelError, match="no tensors"):
        read_state(tmp_path / "args.pth")


def test_refuses_files_that_are_missing_damaged_or_empty(tmp_path):
    with pytest.raises(ModelError, match="not a file"):
        read_state(tmp_path / "none.pth")
    (tmp_path / "bad.safetensors").write_bytes(b"\x00" * 20)
    with pytest.raises(ModelError, match="damaged"):
        read_state(tmp_path / "bad.safetensors")
    for content in ({"epoch": 3}, torch.zeros(3), [torch.zeros(3)]):
        torch.save(content, tmp_path / "empty.pth")
        with pytest.raises(ModelError, match="no tensors"):
            read_state(tmp_path / "empty.pth")
