"""Tokenizers on disk: the folders that `mood tokenizer` writes, and the official encoder of DALL-E."""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import torch
from torch import Tensor

from mood.core import artifact
from mood.core.errors import ModelError
from mood.models.model import Stage
from mood.models.tokenizer.codes import DvaeTokenizer
from mood.models.tokenizer.official import open_official
from mood.models.tokenizer.vae import DiscreteVae, VaeShape

KIND = "tokenizer"


def open_tokenizer(path: str | Path, *, grid: tuple[int, int] | None = None) -> DvaeTokenizer:
    """What gives each patch of an image its word; nothing in the file is executed.

    Args:
        path: a folder that `mood tokenizer` wrote, or a file with the encoder of DALL-E: its state, or the pickled
            module as it is published (`encoder.pkl`). What it is is seen by its content, not by its name.
        grid: (rows, columns) that are wanted of DALL-E's encoder, which takes images of any size: 14 x 14 unless said,
            of 112 x 112 pixels, as BEiT has it. What mood trained has the grid that it was trained for.

    Raises:
        ArtifactError: the folder is damaged or holds another kind.
        ModelError: there is nothing, or the file is damaged, holds something else or wants to run something.
    """
    path = Path(path)
    if path.is_dir():
        vae, history, seen = load_vae(path)
        return DvaeTokenizer(
            vae.encoder, image_size=vae.shape.image_size, grid=vae.shape.grid, history=history, seen=seen
        )
    return open_official(path, (14, 14) if grid is None else grid)


def untrained_tokenizer(shape: VaeShape) -> DvaeTokenizer:
    """A tokenizer that is still to be trained, without memory for a weight: what it will give, and no numbers."""
    with torch.device("meta"):
        vae = DiscreteVae(shape)
    return DvaeTokenizer(vae.encoder, image_size=shape.image_size, grid=shape.grid, history=None, seen=None)


def save_vae(folder: Path, vae: DiscreteVae, *, history: Sequence[Stage], seen: Tensor) -> None:
    """Write a discrete VAE as an artifact of kind "tokenizer".

    Args:
        folder: where to; made if absent.
        vae: with its weights.
        history: what they were trained on.
        seen: (n,) int64 keys of those images, sorted.
    """
    artifact.write(
        folder,
        kind=KIND,
        tensors={"tokenizer": vae.state_dict(), "seen": {"keys": seen}},
        meta={"shape": asdict(vae.shape), "history": [asdict(stage) for stage in history]},
    )


def load_vae(folder: Path) -> tuple[DiscreteVae, tuple[Stage, ...], Tensor]:
    """Read what `save_vae` wrote: the VAE, its history, and the keys of the images that it has seen.

    Raises:
        ArtifactError: the folder is damaged or holds another kind.
        ModelError: the weights do not fit what the folder says of them.
    """
    tensors, meta = artifact.read(folder, kind=KIND)
    pairs = {name: tuple(meta["shape"][name]) for name in ("image_size", "grid")}
    with torch.device("meta"):
        vae = DiscreteVae(VaeShape(**{**meta["shape"], **pairs}))
    try:
        vae.load_state_dict(tensors["tokenizer"], assign=True)
    except RuntimeError as error:
        raise ModelError(f"the weights in {folder} do not fit the tokenizer that it describes: {error}") from error
    history = tuple(Stage(**{**stage, "class_names": tuple(stage["class_names"])}) for stage in meta["history"])
    return vae.eval(), history, tensors["seen"]["keys"]
