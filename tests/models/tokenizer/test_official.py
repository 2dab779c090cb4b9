"""The official encoder of DALL-E against its own outputs, from each of its forms, and what is taken for none."""

import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from mood.core.errors import ModelError
from mood.models import open_tokenizer, read_state

ROOT = Path(__file__).parents[3]
GOLDEN = ROOT / "tests" / "golden"
# The file as it was made by the official code lies beside a checkout of the project's developers, and is large.
WHOLE = [path for path in [ROOT.parent / "shared" / "golden" / "dalle_encoder_module.pkl"] if path.exists()]


@pytest.fixture
def expected():
    return load_file(GOLDEN / "dalle_encoder.io.safetensors")


def holds(path, expected):
    tokenizer = open_tokenizer(path, grid=(8, 8))
    logits, wanted = tokenizer.logits(expected["images01"]), expected["logits"]
    # Of the largest logit: by 7e-5, where the largest is 108, the official numbers themselves are off those in float64.
    torch.testing.assert_close(logits, wanted, rtol=0, atol=1e-5 * wanted.abs().max().item())
    assert torch.equal(tokenizer.tokens(expected["images01"]), expected["tokens"])
    return True


@pytest.mark.parametrize("path", [GOLDEN / "dalle_encoder.pth", *WHOLE], ids=lambda path: path.stem)
def test_gives_the_official_logits_and_tokens(path, expected):
    assert holds(path, expected)


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "before torch 1.6"])
def test_a_pickled_module_gives_them_too(published, zipped, expected):
    assert holds(published(zipped), expected)


def test_the_name_of_a_file_says_nothing(tmp_path, published, expected):
    state = tmp_path / "encoder.pkl.txt"
    shutil.copy(GOLDEN / "dalle_encoder.pth", state)
    assert holds(state, expected)
    module = published(True)
    assert holds(module.rename(tmp_path / "dalle_encoder.pth"), expected)
    tensors = tmp_path / "encoder.safetensors"
    save_file(read_state(GOLDEN / "dalle_encoder.pth"), tensors)
    assert holds(tensors, expected)


def test_takes_the_size_that_a_network_needs():
    tokenizer = open_tokenizer(GOLDEN / "dalle_encoder.pth")
    assert (tokenizer.image_size, tokenizer.grid, tokenizer.vocabulary) == ((112, 112), (14, 14), 64)
    assert tokenizer.tokens(torch.rand(2, 3, 112, 112)).shape == (2, 14, 14)
    other = open_tokenizer(GOLDEN / "dalle_encoder.pth", grid=(3, 5))
    assert other.image_size == (24, 40)
    assert other.tokens(torch.rand(1, 3, 24, 40)).shape == (1, 3, 5)
    assert (other.history, other.seen) == (None, None)
    assert not any(parameter.requires_grad for parameter in other.parameters())


def changed(tmp_path, change):
    state = dict(read_state(GOLDEN / "dalle_encoder.pth"))
    change(state)
    torch.save(state, tmp_path / "changed.pth")
    return tmp_path / "changed.pth"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda state: state.pop("blocks.input.w"), "it has no blocks.input.w"),
        (lambda state: state.pop("blocks.group_2.block_1.res_path.conv_1.b"), "no encoder of DALL-E as mood knows it"),
        (lambda state: state.update({"blocks.more": torch.ones(1)}), "no encoder of DALL-E as mood knows it"),
        (lambda state: state.update({"blocks.input.w": torch.ones(2, 3, 7, 7)}), "no encoder of DALL-E as mood knows"),
        (
            lambda state: state.update({"blocks.group_70.block_1.x": torch.ones(1)}),
            "no encoder of DALL-E as mood knows it: 70 groups",
        ),
        (lambda state: (state.clear(), state.update({"weight": torch.ones(2)})), "but for example weight"),
    ],
)
def test_another_network_is_told(tmp_path, change, message):
    with pytest.raises(ModelError, match=message):
        open_tokenizer(changed(tmp_path, change))


def test_what_is_not_there_is_told(tmp_path):
    with pytest.raises(ModelError, match="neither a folder that `mood tokenizer` wrote nor a file"):
        open_tokenizer(tmp_path / "nothing")
    (tmp_path / "words").write_text("no weights")
    with pytest.raises(ModelError, match="cannot be read safely"):
        open_tokenizer(tmp_path / "words")
