"""What a foreign checkpoint is, read off its tensors and never off its name: the format, and the network that fits.

Layouts, each from the code that wrote the files:

| format | tensors that tell | encoder | beside it |
|---|---|---|---|
| MoCo v3 | `base_encoder.` | `base_encoder.` | `momentum_encoder.`, `predictor.`, the projection `head.` |
| SimMIM | `encoder.mask_token` | `encoder.`, laid out as BEiT (ViT) or Swin | `decoder.` |
| BEiT pre-training (`pt22k`) | `lm_head.`, `mask_token` | one table for all blocks | `lm_head.`, `mask_token` |
| MAE pre-training | `decoder_embed.`, `mask_token` | timm's names | `decoder_…`, `mask_token` |
| BEiT (`pt22k_ft22k`, `ft1k`) | `blocks.0.attn.q_bias` | a table in each block | |
| Swin | `layers.0.downsample.` | merging counted with the stage before it | |
| timm | none of these; MAE's fine-tuned files are among them | timm's names | |
"""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import timm
from torch import Tensor

# What wrappers of training code put in front of every name.
_PREFIXES = ("module.", "model.", "backbone.", "encoder.")

_MOCO = re.compile(r"^(module\.)?base_encoder\.")
_SHARED_TABLE = "rel_pos_bias.relative_position_bias_table"

# (width, blocks, heads) of the sizes that timm's names speak of.
_SIZES = {"tiny": (192, 12, 3), "small": (384, 12, 6), "base": (768, 12, 12), "large": (1024, 24, 16)}
_SIZES["huge"] = (1280, 32, 16)
_SWIN = {(96, 6): "tiny", (96, 18): "small", (128, 18): "base", (192, 18): "large"}


@dataclass(frozen=True, slots=True, eq=False)
class Recognised:
    """A checkpoint under timm's names.

    Attributes:
        format: in words.
        state: the tensors of the encoder, and of its classifier.
        aside: names in the file of what pre-training had beside the encoder.
    """

    format: str
    state: Mapping[str, Tensor]
    aside: tuple[str, ...] = ()


def recognise(state: Mapping[str, Tensor]) -> Recognised:
    """Tell the format of a checkpoint, and bring its names to timm's.

    Args:
        state: as `read_state` gives it.
    """
    if prefix := next((found.group() for name in state if (found := _MOCO.match(name))), None):
        # The other encoder of the file follows this one slowly; the head only served to compare views.
        own = {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}
        own = {name: value for name, value in own.items() if not name.startswith(("head.", "fc."))}
        return Recognised("MoCo v3", own, tuple(name for name in state if name.removeprefix(prefix) not in own))
    if "encoder.mask_token" in state:
        inner = {n.removeprefix("encoder."): v for n, v in state.items() if n.startswith("encoder.")}
        token = inner.pop("mask_token")
        kind = "Swin" if "layers.0.blocks.0.norm1.weight" in inner else "ViT"
        aside = tuple(name for name, value in state.items() if value is token or not name.startswith("encoder."))
        return Recognised(f"SimMIM ({kind})", _merging(inner), aside)
    plain = _without_prefix(state)
    for name, telling, beside in (
        ("BEiT pre-training", "lm_head.weight", ("lm_head.", "mask_token", "cls_pt_layers.")),
        ("MAE pre-training", "decoder_embed.weight", ("decoder_", "mask_token")),
    ):
        if telling in plain and "mask_token" in plain:
            aside = tuple(key for key in plain if key.startswith(beside))
            return Recognised(name, {key: value for key, value in plain.items() if key not in aside}, aside)
    if "blocks.0.attn.q_bias" in plain:
        return Recognised("BEiT", plain)
    if "layers.0.downsample.reduction.weight" in plain:
        return Recognised("Swin", _merging(plain))
    return Recognised("timm", plain)


def shared_table(state: Mapping[str, Tensor]) -> Tensor | None:
    """The table of relative positions that all blocks share; None where each has its own, or there are none."""
    return state.get(_SHARED_TABLE)


def spread_table(state: Mapping[str, Tensor], blocks: int) -> dict[str, Tensor]:
    """The same tensors with a copy of the shared table in each block, as BEiT's fine-tuning begins."""
    rest = {name: value for name, value in state.items() if not name.startswith("rel_pos_bias.")}
    tables = {f"blocks.{index}.attn.relative_position_bias_table": state[_SHARED_TABLE] for index in range(blocks)}
    return rest | tables


def fitting(state: Mapping[str, Tensor]) -> tuple[str, dict[str, Any]] | None:
    """timm's name for the network that the weights are of, and the options that it needs; None where they do not tell.

    Args:
        state: under timm's names, as `recognise` gives them.
    """
    stem = state.get("patch_embed.proj.weight")
    if stem is None or stem.ndim != 4:
        return None
    if "blocks.0.mlp.fc1.weight" in state and "blocks.0.attn.qkv.weight" in state:
        return _fitting_vit(state, stem)
    if "layers.0.blocks.0.norm1.weight" in state:
        return _fitting_swin(state, stem)
    return None


def _fitting_vit(state: Mapping[str, Tensor], stem: Tensor) -> tuple[str, dict[str, Any]]:
    width, patch, depth = stem.shape[0], stem.shape[-1], _count(state, "blocks.")
    table = shared_table(state)
    if table is None:
        table = state.get("blocks.0.attn.relative_position_bias_table")
    has_class = "cls_token" in state
    heads, pixels = None, None
    if table is not None:
        # Every offset on the grid, and three for the class token.
        heads, pixels = table.shape[1], (math.isqrt(table.shape[0] - 3) + 1) // 2 * patch
    elif "pos_embed" in state:
        pixels = math.isqrt(state["pos_embed"].shape[1] - has_class) * patch
    family = "vit" if table is None and "blocks.0.attn.q_bias" not in state else "beit"
    size = next((name for name, numbers in _SIZES.items() if numbers[0] == width), "base")
    known = timm.list_models(f"{family}_*_patch*", include_tags=False)
    sizes = (size, "base")
    wishes = [f"{family}_{size}_patch{patch}_{pixels or 224}"]
    wishes += [f"{family}_{one}_patch{step}_224" for one in sizes for step in (patch, 16, 14)]
    name = next(wish for wish in wishes if wish in known)
    _, kind, step, side = name.split("_")
    usual = _SIZES[kind]
    options: dict[str, Any] = {}
    if pixels and pixels != int(side):
        options["img_size"] = pixels
    if patch != int(step.removeprefix("patch")):
        options["patch_size"] = patch
    options |= {
        key: value
        for key, value, common in zip(("embed_dim", "depth", "num_heads"), (width, depth, heads), usual, strict=True)
        if value is not None and value != common
    }
    if state["blocks.0.mlp.fc1.weight"].shape[0] != 4 * width:
        options["mlp_ratio"] = state["blocks.0.mlp.fc1.weight"].shape[0] / width
    if family == "vit" and not has_class:
        options |= {"class_token": False, "global_pool": "avg"}
    return name, options


def _fitting_swin(state: Mapping[str, Tensor], stem: Tensor) -> tuple[str, dict[str, Any]] | None:
    depths = tuple(_count(state, f"layers.{stage}.blocks.") for stage in range(_count(state, "layers.")))
    table = state.get("layers.0.blocks.0.attn.relative_position_bias_table")
    if table is None or len(depths) != 4:
        return None  # the second version keeps no table that would tell of its windows
    size = _SWIN.get((stem.shape[0], depths[2]), "tiny")
    name, window = f"swin_{size}_patch4_window7_224", (math.isqrt(table.shape[0]) + 1) // 2
    options: dict[str, Any] = {}
    if window != 7:
        options["window_size"] = window
    if size == "tiny" and (stem.shape[0], depths) != (96, (2, 2, 6, 2)):
        heads = [state[f"layers.{i}.blocks.0.attn.relative_position_bias_table"].shape[1] for i in range(4)]
        options |= {"embed_dim": stem.shape[0], "depths": list(depths), "num_heads": heads}
    return name, options


def _count(state: Mapping[str, Tensor], prefix: str) -> int:
    numbers = {name.removeprefix(prefix).split(".")[0] for name in state if name.startswith(prefix)}
    return len([number for number in numbers if number.isdigit()])


def _without_prefix(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Names without what stands before most of them, such as `module.`; the others stay as they are."""
    plain = dict(state)
    while prefix := next((p for p in _PREFIXES if 2 * sum(name.startswith(p) for name in plain) > len(plain)), None):
        plain = {name.removeprefix(prefix): value for name, value in plain.items()}
    return plain


def _merging(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Swin's own code counts the merging of patches with the stage before it, timm with the one after it."""
    if "layers.0.downsample.reduction.weight" not in state:
        return dict(state)
    renamed = {}
    for name, value in state.items():
        name = re.sub(r"^layers\.(\d+)\.downsample", lambda m: f"layers.{int(m.group(1)) + 1}.downsample", name)
        renamed[f"head.fc.{name.removeprefix('head.')}" if name.startswith("head.") else name] = value
    return renamed
