"""Where a run stands, on disk: weights, optimiser, averaged weights and step, as safetensors and json."""

import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from timm.utils import ModelEmaV3
from torch import Tensor, nn
from torch.distributed.tensor import DTensor, distribute_tensor

from mood.training.processes import whole

_FOLDER = "checkpoint"


@dataclass(frozen=True, slots=True)
class Saved:
    """A checkpoint that was read.

    Attributes:
        step: steps that were done, 0 where there is no checkpoint.
        tensors: whole ones, by their names in the file.
    """

    step: int
    tensors: Mapping[str, Tensor]

    def put_back(self, module: nn.Module, ema: ModelEmaV3 | None) -> None:
        """Fill a module and its averaged weights, before they are spread over processes."""
        if self.step:
            module.load_state_dict(_below(self.tensors, "module."))
            if ema is not None:
                ema.module.load_state_dict(_below(self.tensors, "ema."))

    def put_back_optimizer(self, optimizer: torch.optim.Optimizer) -> None:
        """Fill an optimiser, whose parameters may be spread over processes."""
        parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
        state: dict[int, dict[str, Tensor]] = {}
        for name, value in _below(self.tensors, "optimizer.").items():
            index, slot = name.split(".", 1)
            state.setdefault(int(index), {})[slot] = _spread_like(value, parameters[int(index)])
        if state:
            optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})


def tensors_of(
    module: nn.Module, optimizer: torch.optim.Optimizer, ema: ModelEmaV3 | None, *, keep: bool
) -> dict[str, Tensor]:
    """Where a run stands, as whole tensors; where they are spread over processes, all of them must ask.

    Args:
        module: what is trained.
        optimizer: its optimiser.
        ema: its averaged weights, if there are any.
        keep: whether this process wants them; else they are put together, and let go.
    """
    tensors = {f"module.{name}": value for name, value in module.state_dict().items()}
    state = optimizer.state_dict()["state"]
    for index, slots in state.items():
        tensors |= {f"optimizer.{index}.{slot}": torch.as_tensor(value) for slot, value in slots.items()}
    if ema is not None:
        tensors |= {f"ema.{name}": value for name, value in ema.module.state_dict().items()}
    kept = {}
    for name, value in tensors.items():
        # Tied or sliced tensors share memory, which safetensors refuses.
        full = whole(value.detach())
        if keep:
            kept[name] = full.cpu().contiguous().clone()
    return kept


def save(folder: Path, step: int, tensors: dict[str, Tensor]) -> None:
    """Replace the run's checkpoint; a kill in the middle leaves the one before or the new one, never half of one."""
    new = folder / f"{_FOLDER}.{step}"
    shutil.rmtree(new, ignore_errors=True)
    new.mkdir(parents=True)
    save_file(tensors, new / "state.safetensors")
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


def read(folder: Path) -> Saved:
    """The run's checkpoint, or one of step 0 where there is none."""
    pointer = folder / f"{_FOLDER}.json"
    if not pointer.exists():
        return Saved(0, {})
    saved = folder / Path(json.loads(pointer.read_text())["folder"]).name
    return Saved(int(json.loads((saved / "step.json").read_text())["step"]), load_file(saved / "state.safetensors"))


def _spread_like(value: Tensor, parameter: Tensor) -> Tensor:
    """A whole tensor, spread over the processes as a parameter is; counters are in all of them."""
    if value.ndim == 0:
        return value
    if not isinstance(parameter, DTensor):
        # In the parameter's own order in memory (channels last, say): the fused optimiser walks both side by side.
        return torch.empty_like(parameter, dtype=value.dtype, device=value.device).copy_(value)
    return distribute_tensor(value.to(parameter.device), parameter.device_mesh, parameter.placements)


def _below(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}


def _sync(path: Path) -> None:
    with path.open("rb") as file:
        os.fsync(file.fileno())
