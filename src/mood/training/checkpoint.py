"""Where a run stands, on disk: weights, optimiser, averaged weights and step, as safetensors and json."""

import json
import os
import shutil
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from timm.utils import ModelEmaV3
from torch import Tensor, nn

_FOLDER = "checkpoint"


def save(folder: Path, step: int, module: nn.Module, optimizer: torch.optim.Optimizer, ema: ModelEmaV3 | None) -> None:
    """Replace the run's checkpoint; a kill in the middle leaves the one before or the new one, never half of one."""
    new = folder / f"{_FOLDER}.{step}"
    shutil.rmtree(new, ignore_errors=True)
    new.mkdir(parents=True)
    tensors = {f"module.{name}": value for name, value in module.state_dict().items()}
    state = optimizer.state_dict()["state"]
    for index, slots in state.items():
        tensors |= {f"optimizer.{index}.{slot}": torch.as_tensor(value) for slot, value in slots.items()}
    if ema is not None:
        tensors |= {f"ema.{name}": value for name, value in ema.module.state_dict().items()}
    # Tied or sliced tensors share memory, which safetensors refuses.
    save_file({name: value.detach().contiguous().clone() for name, value in tensors.items()}, new / "state.safetensors")
    _sync(new / "state.safetensors")
    (new / "step.json").write_text(json.dumps({"step": step}))
    _sync(new / "step.json")
    pointer = folder / f"{_FOLDER}.json"
    temporary = pointer.with_suffix(".json.new")
    temporary.write_text(json.dumps({"folder": new.name}))
    _sync(temporary)
    temporary.replace(pointer)
    for old in folder.glob(f"{_FOLDER}.*"):
        if old.is_dir() and old != new:
            shutil.rmtree(old)


def load(folder: Path, module: nn.Module, optimizer: torch.optim.Optimizer, ema: ModelEmaV3 | None) -> int:
    """Put everything back where `save` found it; returns the number of steps done, 0 where there is no checkpoint."""
    pointer = folder / f"{_FOLDER}.json"
    if not pointer.exists():
        return 0
    saved = folder / Path(json.loads(pointer.read_text())["folder"]).name
    step = int(json.loads((saved / "step.json").read_text())["step"])
    tensors = load_file(saved / "state.safetensors")
    module.load_state_dict(_below(tensors, "module."))
    if ema is not None:
        ema.module.load_state_dict(_below(tensors, "ema."))
    state: dict[int, dict[str, Tensor]] = {}
    for name, value in _below(tensors, "optimizer.").items():
        index, slot = name.split(".", 1)
        state.setdefault(int(index), {})[slot] = value
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
    return step


def _below(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}


def _sync(path: Path) -> None:
    with path.open("rb") as file:
        os.fsync(file.fileno())
