"""The loop: steps, learning rate, averaged weights, metrics, and a resume that gives the bytes of an unbroken run."""

import copy
import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any, Protocol, cast, runtime_checkable

import torch
from timm.layers import convert_sync_batchnorm
from timm.optim import create_optimizer_v2
from timm.scheduler import CosineLRScheduler
from timm.utils import ModelEmaV3
from torch import Tensor, nn

from mood.core.errors import InputError, MoodError
from mood.core.progress import progress
from mood.training import checkpoint, depth
from mood.training.batch_norm import StatisticsOfAll, check_divisible, normalises_batches
from mood.training.draws import seed_everything, seed_of
from mood.training.log import Log
from mood.training.optimisation import Optimisation
from mood.training.processes import Processes, Share, check_strategy, processes, scale_of, shard, whole_state

_WHAT_TO_DO = (
    "lower the learning rate, lengthen the warm-up, or clip the gradient. With the same settings it goes on from the "
    "last checkpoint, and will end here again"
)


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


@runtime_checkable
class DivisibleTask(Protocol):
    """A `Task` whose batches can be cut into parts, for several processes and for gradients that are added up."""

    batch_size: int

    def parts(self, epoch: int, start: int, share: Share) -> Iterable[Any]:
        """`Task.batches`, cut: the share's own parts of the first batch one after the other, then of the next one."""

    def weight(self, part: Any) -> float:
        """How many things the loss of a part is the mean of: the mean over all parts, so weighted, is the batch's."""

    def items(self, part: Any) -> Tensor:
        """(n,) int64, which images are in a part."""


def train(
    task: Task,
    settings: Optimisation,
    folder: Path,
    *,
    description: str = "training",
    together: Processes | None = None,
) -> nn.Module:
    """Optimise a task, from the checkpoint in the folder if there is one.

    Writes `metrics.jsonl` (one line per logged step and per epoch) and a checkpoint beside it. Every draw is a function
    of (seed, epoch, image) or (seed, step), so a run that was killed and started again ends with the same weights.

    Several processes and accumulated gradients give what one process makes of the whole batch, up to the rounding of
    sums. A checkpoint holds whole tensors, so that a run may go on with another number of processes or strategy.

    Args:
        task: what is optimised; a `DivisibleTask` where its batches are to be cut.
        settings: the numbers.
        folder: for checkpoint and metrics; one that all processes see.
        description: a word beside the progress bar.
        together: the processes that train; this one alone unless said.

    Returns:
        The module with its final weights, in every process: the averaged ones where `ema` is set.

    Raises:
        InputError: nothing to train (no batches, no trainable parameter), or a batch that cannot be cut so.
        MoodError: the loss is not finite; or another process has failed, with its error.
    """
    together = processes(device=settings.device) if together is None else together
    if task.steps_per_epoch < 1:
        raise InputError("the training set has fewer images than one batch: lower the batch size or bring more images")
    share = _share(task, settings, together)
    run = _Run(task, settings, folder, share, together)
    log = Log(folder / "metrics.jsonl", run.step, run.total)
    if together.first:
        log.begin()
    saved = time.monotonic()

    def due() -> bool:
        return time.monotonic() - saved > settings.save_seconds

    with progress(run.total, description, start=run.step) as bar:
        while run.step < run.total:
            epoch, start = divmod(run.step, task.steps_per_epoch)
            task.module.train()
            for parts, save in _steps(task, epoch, start, share, together, due):
                line = run.advance(parts, epoch, written=log.due(run.step + 1))
                if line and together.first:
                    log.write({"step": run.step, "epoch": epoch, **line})
                bar.advance(1, loss=log.loss)
                if run.step % task.steps_per_epoch and (save or (together.alone and due())):
                    run.keep()
                    saved = time.monotonic()
            values = task.evaluate(run.ema.module if run.ema is not None else task.module)
            if values and together.first:
                log.write({"step": run.step, "epoch": epoch, **values})
            # After the epoch's line: a run that goes on from here has no other chance to write it.
            if run.step < run.total and together.agree(due()):
                run.keep()
                saved = time.monotonic()
    if run.kept < run.step:
        run.keep()
    return run.finished()


def _share(task: Task, settings: Optimisation, together: Processes) -> Share:
    """What this process takes of each batch.

    Raises:
        InputError: the batch cannot be cut, or the network cannot learn from parts of one.
    """
    if together.alone and settings.accumulate == 1:
        return Share()
    if not isinstance(task, DivisibleTask):
        raise InputError("this training runs in one process, without accumulated gradients")
    check_divisible(task.module, settings.accumulate)
    return Share.of_batch(task.batch_size, settings.accumulate)


Part = tuple[Any, float]
"""What is given to the network at once, and the factor of its loss."""


def _steps(
    task: Task, epoch: int, start: int, share: Share, together: Processes, due: Callable[[], bool]
) -> Iterator[tuple[list[Part], bool]]:
    """For each step of the rest of an epoch, its parts; and whether a checkpoint is due after it."""
    if share.of == 1:
        for batch in task.batches(epoch, start):
            yield [(batch, 1.0)], False
        return
    divisible = cast(DivisibleTask, task)
    parts = iter(divisible.parts(epoch, start, share))
    for _ in range(start, task.steps_per_epoch):
        mine, failure = [], None
        try:
            mine = [next(parts) for _ in range(share.own)]
        except MoodError as error:
            failure = error
        weights = [divisible.weight(part) for part in mine]
        agreed = together.step(sum(weights), save=due(), failure=failure)
        yield (
            [(part, scale_of(w, agreed.weight, together.count)) for part, w in zip(mine, weights, strict=True)],
            agreed.save,
        )


class _Run:
    """Module, optimiser, schedule and averaged weights of a run, and where it stands.

    Attributes:
        step: how many are done.
        total: how many there are.
        kept: the step of the newest checkpoint.
        ema: the averaged weights, or None.
    """

    def __init__(self, task: Task, settings: Optimisation, folder: Path, share: Share, together: Processes) -> None:
        self.task, self.settings, self.folder, self._share, self.together = task, settings, folder, share, together
        self.total = settings.epochs * task.steps_per_epoch
        fabric = together.fabric
        # Where every image of a batch is known, its draws are its own.
        self._paths = depth.place(task.module) if isinstance(task, DivisibleTask) else ()
        shared = not together.alone and normalises_batches(task.module)
        if shared and together.device.type != "cpu":
            convert_sync_batchnorm(task.module)
        self._mode: Callable[[], AbstractContextManager[Any]] = (
            StatisticsOfAll if shared and together.device.type == "cpu" else nullcontext
        )
        # Not Fabric's own mixed precision, which rounds what a module is given: pixels to predict, and draws of masks.
        bf16 = settings.precision == "bf16"
        self._mixed = torch.autocast(together.device.type, torch.bfloat16, enabled=bf16)
        fabric.to_device(task.module)
        self.ema = ModelEmaV3(task.module, decay=settings.ema, use_warmup=True) if settings.ema else None
        saved = checkpoint.read(folder)
        self.step = self.kept = saved.step
        saved.put_back(task.module, self.ema)
        # What weights that are spread over the processes are put together in at the end.
        self._whole = copy.deepcopy(task.module).cpu() if together.strategy == "fsdp" else None
        check_strategy(together.strategy, compile=settings.compile)
        compiled = cast(nn.Module, torch.compile(task.module)) if settings.compile else task.module
        self._module = fabric.setup_module(compiled, _reapply_compile=False)
        if together.strategy == "fsdp" and self.ema is not None:
            shard(self.ema.module, cast(Any, fabric.strategy).device_mesh)
        adamw = settings.optimiser == "adamw"
        optimizer = create_optimizer_v2(
            task.module,
            # timm's "sgd" is Nesterov's.
            opt="adamw" if adamw else "momentum",
            lr=settings.lr,
            weight_decay=settings.weight_decay,
            momentum=settings.betas[0],
            betas=settings.betas,
            layer_decay=settings.layer_decay if settings.layer_decay < 1 else None,
            # torch cannot spread the fused SGD over processes.
            fused=True if adamw else None,
        )
        self._schedule = CosineLRScheduler(
            optimizer,
            t_initial=self.total,
            lr_min=settings.min_lr,
            warmup_t=round(settings.warmup_epochs * task.steps_per_epoch),
            t_in_epochs=False,
        )
        saved.put_back_optimizer(optimizer)
        self._optimizer = cast(torch.optim.Optimizer, fabric.setup_optimizers(optimizer))

    def advance(self, parts: list[Part], epoch: int, *, written: bool) -> dict[str, float]:
        """One step of the optimiser; where it is to be written, gives loss, rate and what else there is to log."""
        self._schedule.step_update(self.step)
        seen: list[dict[str, Tensor]] = []
        for number, (part, scale) in enumerate(parts):
            self._draw(part, epoch, number)
            waits = number < len(parts) - 1
            with self._mode(), self.together.fabric.no_backward_sync(self._module, enabled=waits):
                with self._mixed:
                    loss, extra = self.task.loss(self._module, self.together.fabric.to_device(part), epoch)
                # A factor of 1 is left out, and with it a product at each step.
                self.together.fabric.backward(loss if scale == 1 else loss * scale)
            if written:
                seen.append({name: value.detach().float() * scale for name, value in {"loss": loss, **extra}.items()})
        if self.settings.clip:
            # Not Fabric's own, which refuses what it did not set up together.
            nn.utils.clip_grad_norm_(self.task.module.parameters(), self.settings.clip)
        self._optimizer.step()
        self._optimizer.zero_grad(set_to_none=True)
        self.step += 1
        self.task.after_step(self.step / self.total)
        if self.ema is not None:
            self.ema.update(self.task.module, step=self.step)
        return self._line(seen) if written else {}

    def _line(self, seen: Sequence[Mapping[str, Tensor]]) -> dict[str, float]:
        """The means over all parts of all processes."""
        sums = [float(sum(part[name] for part in seen)) for name in seen[0]]
        means = [value / self.together.count for value in self.together.sum(*sums)]
        line = dict(zip(seen[0], means, strict=True))
        if not math.isfinite(line["loss"]):
            raise MoodError(f"the loss became {line['loss']} at step {self.step}: {_WHAT_TO_DO}")
        rate = max(group["lr"] for group in self._optimizer.param_groups)
        return {"loss": line.pop("loss"), "lr": rate, **line}

    def _draw(self, part: Any, epoch: int, number: int) -> None:
        """Set every generator to what belongs to this step, and to this part of it."""
        seed_everything(self.settings.seed, self.step)
        if self._share.of > 1:
            # Mixup draws once for a batch, from NumPy; what torch draws is for single rows, which parts do not share.
            torch.manual_seed(seed_of(self.settings.seed, self.step, self._share.first + number))
        if self._paths:
            items = cast(DivisibleTask, self.task).items(part)
            depth.draw(self._paths, self.settings.seed, epoch, items, self.together.device)

    def keep(self) -> None:
        """Write a checkpoint.

        Raises:
            MoodError: a weight is not finite. One step can spoil the weights after a finite loss, and no checkpoint may
                hold what a run cannot go on from.
        """
        spoiled = [name for name, value in self.task.module.named_parameters() if not _finite(value)]
        (found,) = self.together.sum(float(bool(spoiled)))
        if found:
            name = next(name for names in self.together.gather(spoiled) for name in names)
            raise MoodError(f"the weights {name} are not finite at step {self.step}: {_WHAT_TO_DO}")
        tensors = checkpoint.tensors_of(self.task.module, self._optimizer, self.ema, keep=self.together.first)
        if self.together.first:
            checkpoint.save(self.folder, self.step, tensors)
        self.kept = self.step

    def finished(self) -> nn.Module:
        """The module that is kept: the averaged one where there is one, whole."""
        module = self.task.module if self.ema is None else cast(nn.Module, self.ema.module)
        if self._whole is None:
            return module
        self._whole.load_state_dict(whole_state(module))
        return self._whole


def _finite(value: Tensor) -> bool:
    local = cast(Any, value).to_local() if hasattr(value, "to_local") else value
    return bool(torch.isfinite(local).all())
