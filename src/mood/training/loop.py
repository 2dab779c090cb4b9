"""The loop: steps, learning rate, averaged weights, metrics, and a resume that gives the bytes of an unbroken run."""

import json
import logging
import math
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, cast

import torch
from lightning_fabric import Fabric
from timm.optim import create_optimizer_v2
from timm.scheduler import CosineLRScheduler
from timm.utils import ModelEmaV3
from torch import Tensor, nn

from mood.core.errors import InputError, MoodError
from mood.core.progress import progress
from mood.training import checkpoint
from mood.training.draws import seed_everything

_WHAT_TO_DO = (
    "lower the learning rate, lengthen the warm-up, or clip the gradient. With the same settings it goes on from the "
    "last checkpoint, and will end here again"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Optimisation:
    """How a task is optimised.

    Attributes:
        epochs: passes over the data.
        lr: learning rate at the end of the warm-up.
        min_lr: learning rate at the end.
        warmup_epochs: epochs of linear warm-up from 0; may be a fraction.
        weight_decay: AdamW's, on weights of two and more dimensions only.
        betas: AdamW's.
        layer_decay: learning-rate factor from each layer to the one below it; 1 is none.
        clip: largest gradient norm; 0 is no clipping.
        ema: decay of the averaged weights; 0 keeps none.
        seed: of every draw.
        device: "auto", or what torch calls it: "cpu", "cuda", "cuda:1".
        precision: "fp32" or "bf16".
        compile: compile the module (about a minute at the start; worth it from some minutes of training on).
        save_seconds: how often a checkpoint is written.

    Raises:
        InputError: a number that no training can be done with.
    """

    epochs: int
    lr: float
    min_lr: float = 0.0
    warmup_epochs: float = 0.0
    weight_decay: float = 0.05
    betas: tuple[float, float] = (0.9, 0.999)
    layer_decay: float = 1.0
    clip: float = 0.0
    ema: float = 0.0
    seed: int = 0
    device: str = "auto"
    precision: str = "fp32"
    compile: bool = False
    save_seconds: float = 120.0

    def __post_init__(self) -> None:
        """Check every number before anything is built."""
        for name, value, sound, expected in (
            ("epochs", self.epochs, self.epochs >= 1, "at least 1"),
            ("lr", self.lr, self.lr > 0, "more than 0"),
            ("min_lr", self.min_lr, 0 <= self.min_lr <= self.lr, f"between 0 and lr ({self.lr:g})"),
            (
                "warmup_epochs",
                self.warmup_epochs,
                0 <= self.warmup_epochs < self.epochs,
                f"from 0 to below epochs ({self.epochs})",
            ),
            ("weight_decay", self.weight_decay, self.weight_decay >= 0, "0 or more"),
            ("betas", self.betas, all(0 <= beta < 1 for beta in self.betas), "from 0 to below 1"),
            ("layer_decay", self.layer_decay, 0 < self.layer_decay <= 1, "above 0 and at most 1, which is none"),
            ("clip", self.clip, self.clip >= 0, "0, which is none, or more"),
            ("ema", self.ema, 0 <= self.ema < 1, "from 0, which is none, to below 1"),
            ("save_seconds", self.save_seconds, self.save_seconds >= 0, "0 or more"),
        ):
            if not sound:
                raise InputError(f"{name} is {value}; it must be {expected}")


class Task(Protocol):
    """What is optimised: a module, its batches, and a loss."""

    steps_per_epoch: int

    @property
    def module(self) -> nn.Module:
        """The module, whose weights are changed."""

    def batches(self, epoch: int, start: int) -> Iterable[Any]:
        """The batches of an epoch from number `start` on, always the same ones."""

    def loss(self, module: nn.Module, batch: Any, epoch: int) -> tuple[Tensor, Mapping[str, Tensor]]:
        """The scalar to minimise, and what to log beside it."""

    def after_step(self, done: float) -> None:
        """Called after each step with the share of the run that is done, in (0, 1]: a momentum encoder follows."""

    def evaluate(self, module: nn.Module) -> Mapping[str, float]:
        """Called after each epoch with the weights that would be kept; empty where there is nothing to measure."""


def train(task: Task, settings: Optimisation, folder: Path, *, description: str = "training") -> nn.Module:
    """Optimise a task, from the checkpoint in the folder if there is one.

    Writes `metrics.jsonl` (one line per logged step and per epoch) and a checkpoint beside it. Every draw is a function
    of (seed, epoch, image) or (seed, step), so a run that was killed and started again ends with the same weights.

    Returns:
        The module with its final weights: the averaged ones where `ema` is set.

    Raises:
        InputError: nothing to train (no batches, no trainable parameter).
        MoodError: the loss is not finite.
    """
    if task.steps_per_epoch < 1:
        raise InputError("the training set has fewer images than one batch: lower the batch size or bring more images")
    place = None if settings.device == "auto" else torch.device(settings.device)
    with _quietly():
        fabric = Fabric(
            accelerator="auto" if place is None else place.type,
            devices=[place.index] if place is not None and place.index is not None and place.type != "cpu" else 1,
            precision="32-true",
        )
    # Not Fabric's own mixed precision, which rounds what a module is given: pixels to predict, and draws of masks.
    mixed = torch.autocast(fabric.device.type, torch.bfloat16, enabled=settings.precision == "bf16")
    optimizer = create_optimizer_v2(
        task.module,
        opt="adamw",
        lr=settings.lr,
        weight_decay=settings.weight_decay,
        betas=settings.betas,
        layer_decay=settings.layer_decay if settings.layer_decay < 1 else None,
    )
    total = settings.epochs * task.steps_per_epoch
    schedule = CosineLRScheduler(
        optimizer,
        t_initial=total,
        lr_min=settings.min_lr,
        warmup_t=round(settings.warmup_epochs * task.steps_per_epoch),
        t_in_epochs=False,
    )
    fabric.to_device(task.module)
    ema = ModelEmaV3(task.module, decay=settings.ema, use_warmup=True) if settings.ema else None
    step = kept = checkpoint.load(folder, task.module, optimizer, ema)
    compiled = cast(nn.Module, torch.compile(task.module)) if settings.compile else task.module
    module, optimizer = fabric.setup(compiled, optimizer, _reapply_compile=False)
    folder.mkdir(parents=True, exist_ok=True)
    log = _Log(folder / "metrics.jsonl", step, total)
    saved = time.monotonic()

    def keep() -> None:
        nonlocal kept, saved
        _finite_weights(task.module, step)
        checkpoint.save(folder, step, task.module, optimizer, ema)
        kept, saved = step, time.monotonic()

    with progress(total, description, start=step) as bar:
        while step < total:
            epoch, start = divmod(step, task.steps_per_epoch)
            task.module.train()
            for batch in task.batches(epoch, start):
                schedule.step_update(step)
                seed_everything(settings.seed, step)
                with mixed:
                    loss, extra = task.loss(module, fabric.to_device(batch), epoch)
                fabric.backward(loss)
                if settings.clip:
                    fabric.clip_gradients(module, optimizer, max_norm=settings.clip, error_if_nonfinite=False)
                optimizer.step()
                optimizer.zero_grad(set_to_none=True)
                step += 1
                task.after_step(step / total)
                if ema is not None:
                    ema.update(task.module, step=step)
                log.step(step, epoch, loss, extra, optimizer)
                bar.advance(1, loss=log.loss)
                if step % task.steps_per_epoch and time.monotonic() - saved > settings.save_seconds:
                    keep()
            log.epoch(step, epoch, task.evaluate(ema.module if ema is not None else task.module))
            # After the epoch's line: a run that goes on from here has no other chance to write it.
            if step < total and time.monotonic() - saved > settings.save_seconds:
                keep()
    if kept < step:
        keep()
    return ema.module if ema is not None else task.module


class _Log:
    """Metrics as JSON lines; a resumed run first drops the lines that the killed one wrote after its checkpoint."""

    every = 50

    def __init__(self, path: Path, step: int, last: int) -> None:
        self.path = path
        self.last = last
        self.loss = math.nan
        kept = []
        if path.exists():
            for line in path.read_text().splitlines():
                try:
                    kept += [line] if json.loads(line)["step"] <= step else []
                except json.JSONDecodeError:  # the line that the kill cut short
                    break
        path.write_text("".join(f"{line}\n" for line in kept))

    def step(
        self,
        step: int,
        epoch: int,
        loss: Tensor,
        extra: Mapping[str, Tensor],
        optimizer: torch.optim.Optimizer,
    ) -> None:
        if step % self.every and step not in (1, self.last):
            return
        self.loss = _finite(loss, step)
        lr = max(group["lr"] for group in optimizer.param_groups)
        self._write(
            {"step": step, "epoch": epoch, "loss": self.loss, "lr": lr, **{k: float(v) for k, v in extra.items()}}
        )

    def epoch(self, step: int, epoch: int, values: Mapping[str, float]) -> None:
        if values:
            self._write({"step": step, "epoch": epoch, **values})

    def _write(self, row: Mapping[str, float]) -> None:
        with self.path.open("a") as file:
            file.write(json.dumps(row) + "\n")


def _finite(loss: Tensor, step: int) -> float:
    """The loss as a number; looked at only where something is written, since a look makes a GPU wait."""
    value = float(loss.detach())
    if not math.isfinite(value):
        raise MoodError(f"the loss became {value} at step {step}: {_WHAT_TO_DO}")
    return value


def _finite_weights(module: nn.Module, step: int) -> None:
    """No checkpoint may hold what a run cannot go on from: one step can spoil the weights after a finite loss."""
    for name, parameter in module.named_parameters():
        if not torch.isfinite(parameter).all():
            raise MoodError(f"the weights {name} are not finite at step {step}: {_WHAT_TO_DO}")


@contextmanager
def _quietly() -> Iterator[None]:
    """Fabric tells each precision on the terminal; what the user wants to know of a run is in its metrics."""
    logger = logging.getLogger("lightning_fabric")
    level = logger.level
    logger.setLevel(logging.WARNING)
    try:
        yield
    finally:
        logger.setLevel(level)
