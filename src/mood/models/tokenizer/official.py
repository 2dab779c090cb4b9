"""The encoder that OpenAI published with DALL-E (Ramesh et al., ICML 2021), from either of its files."""

import re
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from mood.core.errors import ModelError
from mood.models.tokenizer.blocks import Encoder
from mood.models.tokenizer.codes import DvaeTokenizer
from mood.models.tokenizer.pickled import is_torch_file, read_tensors
from mood.models.weights import read_state

# Each group of blocks but the last ends in a pooling of 2 x 2, of which the weights tell nothing.
_STEP = (2, 2)

# Groups, and blocks in a group; the published one has 4 of 2.
_MOST = 16


def open_official(path: Path, grid: tuple[int, int]) -> DvaeTokenizer:
    """The encoder in a file, for images of 8 pixels a cell.

    Args:
        path: a state in torch's or safetensors' format, or the pickled module.
        grid: (rows, columns) that are wanted.

    Raises:
        ModelError: there is no file, it is damaged, holds something else, or wants to run something.
    """
    if not path.is_file():
        raise ModelError(
            f"tokenizer {path} is neither a folder that `mood tokenizer` wrote nor a file with the encoder of DALL-E"
        )
    state = read_tensors(path) if is_torch_file(path) else read_state(path)
    encoder = _fitted(path, state)
    size = grid[0] * encoder.stride[0], grid[1] * encoder.stride[1]
    return DvaeTokenizer(encoder, image_size=size, grid=grid, history=None, seen=None)


def _fitted(path: Path, state: Mapping[str, Tensor]) -> Encoder:
    """The encoder that these weights are of: widths, groups and blocks are read from their names and shapes."""
    places = [re.fullmatch(r"blocks\.group_(\d{1,2})\.block_(\d{1,2})\..+", name) for name in state]
    numbers = [(int(place[1]), int(place[2])) for place in places if place]
    ends = [state.get(f"blocks.{name}.w") for name in ("input", "output.conv")]
    if not numbers or any(end is None or end.ndim != 4 for end in ends):
        raise ModelError(
            f"tokenizer {path} is no encoder of DALL-E: it has no blocks.input.w, blocks.group_1.block_1… and "
            f"blocks.output.conv.w, but for example {', '.join(list(state)[:3])}"
        )
    groups, blocks = (max(column) for column in zip(*numbers, strict=True))
    width, codes = len(state["blocks.input.w"]), len(state["blocks.output.conv.w"])
    if not 1 <= groups <= _MOST or not 1 <= blocks <= _MOST or width < 4 or codes < 1:
        raise ModelError(
            f"tokenizer {path} is no encoder of DALL-E as mood knows it: {groups} groups of {blocks} blocks, {width} "
            f"channels, {codes} codes"
        )
    # Before memory is given to it: what the file does not hold is not made.
    with torch.device("meta"):
        encoder = Encoder(codes=codes, width=width, blocks=blocks, steps=(_STEP,) * (groups - 1))
    try:
        encoder.load_state_dict({name: value.float() for name, value in state.items()}, assign=True)
    except RuntimeError as error:
        raise ModelError(f"tokenizer {path} is no encoder of DALL-E as mood knows it: {error}") from error
    return encoder
