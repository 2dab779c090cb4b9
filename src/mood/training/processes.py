"""The processes that train one network: this one alone, or those that torchrun started, through Lightning Fabric.

Each takes its share of every batch. What they tell each other beside gradients (weights of losses, failures, when to
save) are a few numbers a step, over gloo on the CPU, so that no GPU waits for them.
"""

import atexit
import logging
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Literal, NamedTuple, TypeVar, cast

import torch
from lightning_fabric import Fabric
from lightning_fabric.strategies.ddp import DDPStrategy
from lightning_fabric.strategies.model_parallel import ModelParallelStrategy
from torch import distributed as dist
from torch import nn

from mood.core.errors import InputError, MoodError
from mood.core.ranks import count, rank

T = TypeVar("T")
Strategy = Literal["auto", "ddp", "fsdp"]


class Share(NamedTuple):
    """Which parts of each batch are a process's own: a batch is cut into `of` equal parts.

    Attributes:
        first: the first one.
        own: how many from there on, one after the other: the gradients of more than one are accumulated.
        of: parts of a batch, over all processes.
    """

    first: int = 0
    own: int = 1
    of: int = 1

    @property
    def parts(self) -> tuple[int, ...]:
        """Numbers of the parts."""
        return tuple(range(self.first, self.first + self.own))

    @classmethod
    def of_batch(cls, batch_size: int, accumulate: int) -> "Share":
        """What this process takes of each batch, known before it meets the others.

        Raises:
            InputError: the batch cannot be cut into equal parts.
        """
        if accumulate < 1:
            raise InputError(f"accumulate is {accumulate}; it must be 1, which is none, or more")
        processes = count()
        of = processes * accumulate
        if batch_size % of:
            least, most = batch_size // of * of, -(-batch_size // of) * of
            sizes = f"{least} or {most}" if least else f"{most}"
            raise InputError(
                f"batch_size is {batch_size}, and {processes} process{'es' if processes > 1 else ''} with accumulate "
                f"{accumulate} cut it into {of} equal parts: set it to {sizes}, or change the number of processes or "
                "accumulate"
            )
        return cls(rank() * accumulate, accumulate, of)


class Step(NamedTuple):
    """What the processes agree on before a step.

    Attributes:
        weight: of the whole batch.
        save: the first one wants a checkpoint after this step.
    """

    weight: float
    save: bool


class Processes:
    """Those that train together. Made by `processes`.

    Attributes:
        fabric: Lightning's.
        strategy: "auto" for one process, else "ddp" or "fsdp".
        number: of this one, from 0.
        count: how many there are.
    """

    def __init__(self, fabric: Fabric, strategy: Strategy) -> None:
        """See `processes`."""
        self.fabric = fabric
        self.strategy = strategy
        self.number: int = fabric.global_rank
        self.count: int = fabric.world_size
        # Its own channel: with NCCL, numbers would have to travel over the GPU.
        # With gloo, the one of all will do.
        apart = self.count > 1 and dist.get_backend() != "gloo"
        self._words = cast(dist.ProcessGroup, dist.new_group(backend="gloo")) if apart else None

    @property
    def first(self) -> bool:
        """Whether this is the one that writes and tells."""
        return self.number == 0

    @property
    def alone(self) -> bool:
        """Whether there is no other."""
        return self.count == 1

    @property
    def device(self) -> torch.device:
        """Where this one computes."""
        return self.fabric.device

    def agree(self, value: T) -> T:
        """The value of the first one, for all."""
        if self.alone:
            return value
        told = [value]
        dist.broadcast_object_list(told, src=0, group=self._words)
        return told[0]

    def sum(self, *values: float) -> tuple[float, ...]:
        """Sums over the processes."""
        if self.alone:
            return values
        numbers = torch.tensor(values, dtype=torch.float64)
        dist.all_reduce(numbers, group=self._words)
        return tuple(numbers.tolist())

    def gather(self, value: T) -> list[T]:
        """The values of all, in the order of their numbers."""
        if self.alone:
            return [value]
        values: list[Any] = [None] * self.count
        dist.all_gather_object(values, value, group=self._words)
        return values

    def attempt(self, make: Callable[[], T]) -> T:
        """Do something that may fail in one process; then it fails in all, with that one's error, and none waits.

        Raises:
            MoodError: the error of the first process that has one.
        """
        result, failure = None, None
        try:
            result = make()
        except MoodError as error:
            failure = error
        (failures,) = self.sum(float(failure is not None))
        if failures:
            self._fail(failure)
        return cast(T, result)

    def step(self, weight: float, *, save: bool, failure: MoodError | None) -> Step:
        """Meet before a step.

        Args:
            weight: of what this process has of the batch.
            save: whether a checkpoint is due; the first one decides.
            failure: why this process has nothing, if so.

        Raises:
            MoodError: one of them failed.
        """
        total, failed, due = self.sum(
            0.0 if failure else weight, float(failure is not None), float(save and self.first)
        )
        if failed:
            self._fail(failure)
        return Step(total, due > 0)

    def _fail(self, failure: MoodError | None) -> None:
        raise next(error for error in self.gather(failure) if error is not None)


def processes(strategy: Strategy = "auto", device: str = "auto") -> Processes:
    """Join those that torchrun started, or be alone.

    Args:
        strategy: "auto" = alone, or ddp where there are several; "ddp" = every process holds the network; "fsdp" = each
            holds a shard of weights, gradients and the optimiser's state (torch's `fully_shard`).
        device: "auto", or what torch calls it. Of several processes on a machine, each takes a GPU of its own.

    Raises:
        InputError: several processes and one GPU by its number, or no torchrun for fsdp.
    """
    number = count()
    check_strategy(strategy)
    place = None if device == "auto" else torch.device(device)
    indexed = place is not None and place.index is not None and place.type != "cpu"
    if indexed and number > 1:
        raise InputError(f"device is {device}, and each of {number} processes has one of its own: set it to cuda")
    local = int(os.environ.get("LOCAL_WORLD_SIZE", "1")) if number > 1 else 1
    chosen: Any = "auto"
    if number > 1:
        chosen = (
            ModelParallelStrategy(_sharded, data_parallel_size=number, tensor_parallel_size=1)
            if strategy == "fsdp"
            # Searching for unused weights keeps the buckets as they were first, and with them the order of each sum:
            # torch would lay them out anew after the first step, which a resumed run makes later.
            else DDPStrategy(find_unused_parameters=True)
        )
    with _quietly():
        fabric = Fabric(
            accelerator="auto" if place is None else place.type,
            devices=[place.index] if place is not None and indexed else local,
            num_nodes=number // local,
            strategy=chosen,
            precision="32-true",
        )
        fabric.launch()
    if number > 1:
        # Stages that follow each other meet in the same group: made anew, it would find the addresses of the old one.
        atexit.unregister(_leave)
        atexit.register(_leave)
    return Processes(fabric, "auto" if number == 1 else "fsdp" if strategy == "fsdp" else "ddp")


def check_strategy(strategy: Strategy, *, compile: bool = False) -> None:
    """Refuse what the processes that torchrun started cannot do, before they meet.

    Raises:
        InputError: no torchrun for fsdp, or a compiled network.
    """
    if strategy == "fsdp" and count() == 1:
        raise InputError(
            "strategy fsdp spreads a network over several processes, and this is one: start them with "
            "torchrun --no-python --nproc-per-node N mood ..."
        )
    if strategy == "fsdp" and compile:
        raise InputError("compile is not for strategy fsdp: leave one of them out")


def shard(module: nn.Module, mesh: Any) -> None:
    """Spread the weights over the processes: those of each transformer block together, and the rest.

    A block's weights are gathered when its turn comes, and let go after it.
    """
    from torch.distributed.fsdp import fully_shard

    mesh = mesh["data_parallel"]
    for name, child in module.named_modules():
        if name.rpartition(".")[2] in ("blocks", "decoder_blocks") and isinstance(child, nn.Sequential | nn.ModuleList):
            for block in child:
                fully_shard(block, mesh=mesh)
    fully_shard(module, mesh=mesh)


def whole(value: torch.Tensor) -> torch.Tensor:
    """A tensor that is spread over the processes, put together; all of them must ask for it."""
    return cast(torch.Tensor, value.full_tensor()) if hasattr(value, "full_tensor") else value


def whole_state(module: nn.Module) -> Mapping[str, torch.Tensor]:
    """The state of a module that is spread over the processes, on the CPU."""
    return {name: whole(value).cpu() for name, value in module.state_dict().items()}


def scale_of(weight: float, total: float, processes: int) -> float:
    """What a part's loss is multiplied by, so that the mean over processes is the mean over the whole batch."""
    return processes * weight / total if total else 0.0


def _leave() -> None:
    if dist.is_initialized():
        dist.destroy_process_group()


def _sharded(module: nn.Module, mesh: Any) -> nn.Module:
    shard(module, mesh)
    return module


@contextmanager
def _quietly() -> Iterator[None]:
    """Fabric tells each precision on the terminal; what the user wants to know of a run is in its metrics."""
    loggers: Sequence[logging.Logger] = [
        logging.getLogger(name) for name in ("lightning_fabric", "lightning_fabric.utilities.rank_zero")
    ]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.WARNING)
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
