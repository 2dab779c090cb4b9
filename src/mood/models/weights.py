"""The one door for foreign checkpoints: read without running anything, recognise, rename, and say what was loaded."""

import json
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from timm.layers import resample_abs_pos_embed, resample_patch_embed
from timm.models import beit
from torch import Tensor, nn
from torch.serialization import safe_globals

from mood.core.errors import ModelError
from mood.models.formats import Recognised, fitting, recognise, shared_table, spread_table

# Where releases put the weights inside their file, outermost first.
_WRAPPERS = ("model", "state_dict", "module", "model_state")

# Buffers that a network computes from its own shape, and that are neither read nor missed.
_DERIVED = (
    "relative_position_index",
    "relative_coords_table",
    "attn_mask",
    "num_batches_tracked",
    "attn.k_bias",
)

# What training code keeps beside the weights of a release: its settings, in classes that hold nothing but values. A
# dictionary of torch's own reader stands in for them, so that their code is neither needed nor run.
_SETTINGS = [(OrderedDict, "argparse.Namespace"), (OrderedDict, "yacs.config.CfgNode")]

# Numbers of the file, those that pre-training alone needs aside, that must find a place: a deeper network's would not.
_USED = 0.9


@dataclass(frozen=True, slots=True)
class ImportReport:
    """What became of a foreign file.

    Attributes:
        format: what it was recognised as, by its content.
        loaded: names of the module's tensors that were filled.
        resampled: those of them that had to be resampled to another grid or patch.
        missing: names that the file does not have and that keep their initialisation.
        unexpected: names of the file that the module has no place for.
        aside: names of the file that only pre-training needs, or that are of a classifier which was not wanted.
    """

    format: str
    loaded: tuple[str, ...]
    resampled: tuple[str, ...]
    missing: tuple[str, ...]
    unexpected: tuple[str, ...]
    aside: tuple[str, ...] = ()

    def __str__(self) -> str:
        parts = [f"recognised as {self.format}", f"{len(self.loaded)} tensors loaded"]
        for name in ("resampled", "missing", "unexpected", "aside"):
            values = getattr(self, name)
            if values:
                shown = ", ".join(values[:4]) + (", …" if len(values) > 4 else "")
                parts.append(f"{len(values)} {'left ' if name == 'aside' else ''}{name} ({shown})")
        return "; ".join(parts)


def read_state(path: str | Path) -> dict[str, Tensor]:
    """The tensors of a safetensors or torch file, told by its content, by name; nothing in the file is executed.

    Raises:
        ModelError: the file is missing, damaged, holds objects other than tensors and settings, or has no tensors.
    """
    path = Path(path)
    if not path.is_file():
        raise ModelError(f"checkpoint {path} is not a file: give a .safetensors or a torch .pth/.bin/.ckpt file")
    try:
        if _is_safetensors(path):
            state: Any = load_file(path)
        else:
            # From the open file: given a path, torch goes by its ending too.
            with safe_globals(cast(Any, _SETTINGS)), path.open("rb") as file:
                state = torch.load(file, map_location="cpu", weights_only=True)
    except SafetensorError as error:
        raise ModelError(f"checkpoint {path} is damaged: {error}") from error
    except Exception as error:  # torch raises many kinds for the many ways a file can be wrong
        raise ModelError(
            f"checkpoint {path} cannot be read safely ({type(error).__name__}): it is damaged or holds Python objects, "
            "which mood never runs; save its state_dict with safetensors and give that file"
        ) from error
    while isinstance(state, dict):
        inner = next((dict.get(state, key) for key in _WRAPPERS if isinstance(dict.get(state, key), dict)), None)
        if inner is None:
            break
        state = inner
    # Of the class itself: what a file says of an instance may hide its methods.
    items = dict.items(state) if isinstance(state, dict) else ()
    tensors = {str(key): value for key, value in items if isinstance(value, Tensor)}
    if not tensors:
        raise ModelError(f"checkpoint {path} holds no tensors by their names")
    return tensors


def _is_safetensors(path: Path) -> bool:
    """By its first bytes, the length of a json header and its beginning: releases carry all kinds of endings."""
    with path.open("rb") as file:
        first = file.read(9)
    torch_file = first.startswith((b"PK", b"\x80"))
    return first[5:] == bytes(3) + b"{" or (path.suffix == ".safetensors" and not torch_file)


def load_weights(module: nn.Module, state: Mapping[str, Tensor], *, share: float = 1.0) -> ImportReport:
    """Fill a timm module from a file's tensors, renamed and resampled as their format needs.

    Known formats, told by their content: those of `mood.models.formats`. Positions are those that the file has, never
    made anew: sine-cosine tables of different releases are laid out differently. A classifier of another width is left
    out. The final norm of a file without pooling becomes the norm behind the pooling of a module that has it there.

    Args:
        module: changed in place.
        state: as `read_state` gives it.
        share: the least share of the module's parameters, head aside, that must be found. What is not found keeps its
            random weights, so that less than all is only good for a start of fine-tuning.

    Raises:
        ModelError: too little of the module is found in the file, or of the file in the module; nothing was changed
            then.
    """
    target = module.state_dict()
    found = recognise(state)
    head = _head(module)
    renamed: dict[str, Tensor] = {}
    unexpected: list[str] = []
    aside = list(found.aside)
    for name, value in _for_target(found.state, target).items():
        if name in target:
            renamed[name] = value
        elif not name.endswith(_DERIVED):
            # An encoder has no classifier, whatever it is called in the file.
            (aside if name.startswith(head) else unexpected).append(name)
    resampled, filled = [], {}
    for name, value in renamed.items():
        wanted = target[name].shape
        if value.shape != wanted:
            fitted = _resample(name, value, module)
            if fitted is None or fitted.shape != wanted:
                unexpected.append(f"{name} {tuple(value.shape)}≠{tuple(wanted)}")
                continue
            value = fitted
            resampled.append(name)
        filled[name] = value
    missing = tuple(name for name in target if name not in filled and not name.endswith(_DERIVED))
    lost = [name for name in missing if not name.startswith(head)]
    body = {name: value.numel() for name, value in target.items() if name in filled or name in lost}
    used = {name: value.numel() for name, value in renamed.items() if name in filled}
    spare = sum(found.state[name].numel() for name in unexpected if name in found.state)
    if lost and sum(body[name] for name in body if name not in lost) < share * sum(body.values()):
        raise ModelError(
            f"the checkpoint ({found.format}, {len(state)} tensors) leaves {len(lost)} tensors of the network at "
            f"random values, for example {', '.join(lost[:3])}{_of_another_shape(unexpected)}: {_remedy(found)}"
        )
    if spare > (1 - min(share, _USED)) * (sum(used.values()) + spare):
        raise ModelError(
            f"the network has no place for {len(unexpected)} tensors of the checkpoint ({found.format}), for example "
            f"{', '.join(unexpected[:3])}: {_remedy(found)}"
        )
    module.load_state_dict(filled, strict=False)
    return ImportReport(found.format, tuple(filled), tuple(resampled), missing, tuple(unexpected), tuple(aside))


def implied_options(module: nn.Module, state: Mapping[str, Tensor]) -> dict[str, Any]:
    """What the weights say of the head that a network of timm should have: its outputs, and what it looks at.

    Args:
        module: of the architecture, on any device.
        state: as `read_state` gives it.
    """
    found = recognise(state).state
    options: dict[str, Any] = {"num_classes": 0}
    outputs = [found[f"{name}weight"] for name in _head(module) if f"{name}weight" in found]
    if outputs:
        options["num_classes"] = outputs[0].shape[0]
    if "cls_token" in found and hasattr(module, "fc_norm"):
        pooled_first = not isinstance(module.fc_norm, nn.Identity)
        if "fc_norm.weight" in found and "norm.weight" not in found and not pooled_first:
            options["global_pool"] = "avg"
        elif "norm.weight" in found and "fc_norm.weight" not in found and pooled_first and outputs:
            # A classifier that looks at its class token; where an encoder looks is left to the architecture.
            options["global_pool"] = "token"
    return options


def _head(module: nn.Module) -> tuple[str, ...]:
    """What the names of the classifier's tensors begin with."""
    named = getattr(module, "default_cfg", None) or {}
    names = named.get("classifier") or "head"
    return tuple(f"{name}." for name in ([names] if isinstance(names, str) else names))


def _for_target(state: Mapping[str, Tensor], target: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors under the names of one network: what releases keep in one place, it may keep in another."""
    result = dict(state)
    if shared_table(result) is not None and "blocks.0.attn.relative_position_bias_table" in target:
        result = spread_table(result, len({name.split(".")[1] for name in result if name.startswith("blocks.")}))
    for name in state:
        # BEiT stores no key bias; networks that keep one joint bias get zeros in its place.
        if name.endswith("attn.q_bias") and name not in target:
            stem = name.removesuffix("q_bias")
            query, value = result.pop(name), result.pop(f"{stem}v_bias")
            result[f"{stem}qkv.bias"] = torch.cat((query, torch.zeros_like(query), value))
    if "norm.weight" not in target and "fc_norm.weight" in target and "fc_norm.weight" not in result:
        result = {f"fc_{name}" if name.startswith("norm.") else name: value for name, value in result.items()}
    return result


def _of_another_shape(unexpected: list[str]) -> str:
    other = [name for name in unexpected if "≠" in name]
    return f" (of another shape in the file: {', '.join(other[:3])})" if other else ""


def _remedy(found: Recognised) -> str:
    """Which architecture to take, where the weights tell it."""
    fit = fitting(found.state)
    if fit is None:
        some = ", ".join(list(found.state)[:3])
        return f"choose the architecture that the checkpoint was made with; the file has for example {some}"
    name, options = fit
    # Values as --model-options and recipes read them.
    plain = {key: value if isinstance(value, str) else json.dumps(value) for key, value in options.items()}
    pairs = " ".join(f"{key}={value.replace(' ', '')}" for key, value in plain.items())
    return f"its weights are those of model {name!r}{pairs and f' with the options {pairs}'}"


def _resample(name: str, value: Tensor, module: Any) -> Tensor | None:
    """The tensor on the module's grid; None where the name has no grid."""
    if name == "pos_embed" and value.shape[-1] == module.pos_embed.shape[-1]:
        prefix = 0 if getattr(module, "no_embed_class", False) else module.num_prefix_tokens
        fitted: Tensor = resample_abs_pos_embed(value, list(module.patch_embed.grid_size), num_prefix_tokens=prefix)
    elif name == "patch_embed.proj.weight" and value.ndim == 4:
        fitted = resample_patch_embed(value, list(module.patch_embed.proj.weight.shape[-2:]))
    elif name.endswith("relative_position_bias_table"):
        owner = module.get_submodule(name.rpartition(".")[0])
        if value.shape[-1] != owner.relative_position_bias_table.shape[-1]:
            return None
        fitted = beit.resize_rel_pos_bias_table(
            value, new_window_size=owner.window_size, new_bias_shape=owner.relative_position_bias_table.shape
        )
    else:
        return None
    return fitted
