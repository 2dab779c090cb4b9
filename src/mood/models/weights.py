"""The one door for foreign checkpoints: read without running anything, recognise, rename, and say what was loaded."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from timm.layers import resample_abs_pos_embed, resample_patch_embed
from timm.models import beit
from torch import Tensor, nn

from mood.core.errors import ModelError

# Where releases put the weights inside their file, outermost first.
_WRAPPERS = ("model", "state_dict", "module", "model_state")

# Buffers that a network computes from its own shape, and that are neither read nor missed.
_DERIVED = ("relative_position_index", "num_batches_tracked", "attn.k_bias")


@dataclass(frozen=True, slots=True)
class ImportReport:
    """What became of a foreign file.

    Attributes:
        loaded: names of the module's tensors that were filled.
        resampled: those of them that had to be resampled to another grid or patch.
        missing: names that the file does not have and that keep their initialisation.
        unexpected: names of the file that the module has no place for.
    """

    loaded: tuple[str, ...]
    resampled: tuple[str, ...]
    missing: tuple[str, ...]
    unexpected: tuple[str, ...]

    def __str__(self) -> str:
        parts = [f"{len(self.loaded)} tensors loaded"]
        for name in ("resampled", "missing", "unexpected"):
            values = getattr(self, name)
            if values:
                shown = ", ".join(values[:4]) + (", …" if len(values) > 4 else "")
                parts.append(f"{len(values)} {name} ({shown})")
        return "; ".join(parts)


def read_state(path: str | Path) -> dict[str, Tensor]:
    """The tensors of a .safetensors file or of a torch file, by name; nothing in the file is executed.

    Raises:
        ModelError: the file is missing, damaged, holds objects other than tensors, or has no tensors.
    """
    path = Path(path)
    if not path.is_file():
        raise ModelError(f"checkpoint {path} is not a file: give a .safetensors or a torch .pth/.bin/.ckpt file")
    try:
        if path.suffix == ".safetensors":
            state: Any = load_file(path)
        else:
            state = torch.load(path, map_location="cpu", weights_only=True)
    except SafetensorError as error:
        raise ModelError(f"checkpoint {path} is damaged: {error}") from error
    except Exception as error:  # torch raises many kinds for the many ways a file can be wrong
        raise ModelError(
            f"checkpoint {path} cannot be read safely ({type(error).__name__}): it is damaged or holds Python objects, "
            "which mood never runs; save its state_dict with safetensors and give that file"
        ) from error
    while isinstance(state, Mapping) and (inner := next((state[key] for key in _WRAPPERS if key in state), None)):
        if not isinstance(inner, Mapping):
            break
        state = inner
    named = state.items() if isinstance(state, Mapping) else ()
    tensors = {str(key): value for key, value in named if isinstance(value, Tensor)}
    if not tensors:
        raise ModelError(f"checkpoint {path} holds no tensors by their names")
    return tensors


def load_weights(module: nn.Module, state: Mapping[str, Tensor], *, share: float = 0.7) -> ImportReport:
    """Fill a timm module from a file's tensors, renamed and resampled as their format needs.

    Known formats: timm's own, BEiT (fine-tuned), MAE (encoder part). A classifier of another width is left out.

    Args:
        module: changed in place.
        state: as `read_state` gives it.
        share: the least share of the module's parameters, head aside, that must be found.

    Raises:
        ModelError: too little of the module is found in the file; nothing was changed then.
    """
    target = module.state_dict()
    renamed, unexpected = {}, []
    for name, value in state.items():
        new = _rename(name, target)
        if new is not None:
            renamed[new] = value
        elif not name.endswith(_DERIVED):
            unexpected.append(name)
    resampled, filled = [], {}
    for name, value in _with_beit_biases(renamed, target).items():
        wanted = target[name].shape
        if value.shape != wanted:
            fitted = _resample(name, value, module)
            if fitted is None or fitted.shape != wanted:
                unexpected.append(f"{name} {tuple(value.shape)}≠{tuple(wanted)}")
                continue
            value = fitted
            resampled.append(name)
        filled[name] = value
    head = f"{getattr(module, 'default_cfg', {}).get('classifier', 'head')}."
    body = {n: v.numel() for n, v in target.items() if not n.startswith(head) and not n.endswith(_DERIVED)}
    found = sum(size for name, size in body.items() if name in filled)
    total = sum(body.values())
    missing = tuple(name for name in target if name not in filled and not name.endswith(_DERIVED))
    if found < share * total:
        raise ModelError(
            f"the checkpoint fills only {found / max(total, 1):.0%} of the network ({len(filled)} tensors found; "
            f"missing for example {', '.join(missing[:3])}; the file has for example {', '.join(list(state)[:3])}): "
            "choose the architecture that the checkpoint was made with"
        )
    module.load_state_dict(filled, strict=False)
    return ImportReport(tuple(filled), tuple(resampled), missing, tuple(unexpected))


def _rename(name: str, target: Mapping[str, Tensor]) -> str | None:
    for prefix in ("", "module.", "backbone.", "encoder."):
        plain = name.removeprefix(prefix)
        if plain in target or plain.endswith(("attn.q_bias", "attn.v_bias")):
            return plain
    return None


def _with_beit_biases(state: Mapping[str, Tensor], target: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """BEiT stores no key bias; networks that keep one joint bias get zeros in its place."""
    result = dict(state)
    for name in state:
        if name.endswith("attn.q_bias") and name not in target:
            stem = name.removesuffix("q_bias")
            query, value = result.pop(name), result.pop(f"{stem}v_bias")
            result[f"{stem}qkv.bias"] = torch.cat((query, torch.zeros_like(query), value))
    return {name: value for name, value in result.items() if name in target}


def _resample(name: str, value: Tensor, module: Any) -> Tensor | None:
    """The tensor on the module's grid; None where the name has no grid."""
    if name == "pos_embed":
        prefix = 0 if getattr(module, "no_embed_class", False) else module.num_prefix_tokens
        fitted: Tensor = resample_abs_pos_embed(value, list(module.patch_embed.grid_size), num_prefix_tokens=prefix)
    elif name == "patch_embed.proj.weight" and value.ndim == 4:
        fitted = resample_patch_embed(value, list(module.patch_embed.proj.weight.shape[-2:]))
    elif name.endswith("relative_position_bias_table"):
        owner = module.get_submodule(name.rpartition(".")[0])
        fitted = beit.resize_rel_pos_bias_table(
            value, new_window_size=owner.window_size, new_bias_shape=owner.relative_position_bias_table.shape
        )
    else:
        return None
    return fitted
