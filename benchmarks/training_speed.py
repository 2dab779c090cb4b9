"""How many images a second does a network learn from, in mood's loop and in a plain one over the same model?

    python benchmarks/training_speed.py                       # beit and mae on a ViT-T/4 at 32 pixels
    python benchmarks/training_speed.py --pretext mae --turns 3 --compile

Both loops take the same batches, which lie ready, and do the same maths in bf16: forward, backward, AdamW. The plain
loop is what one writes in a morning: eager, under autocast, with torch's defaults. Mood's is `mood.training.train` as
`mood pretrain` calls it. They take turns inside of one run, so that whatever else the machine does meets both; what is
printed is the median over the turns, with the load beside it, and the same ratio of processor time. On a machine that
others use, threads wait for each other most of the time; with OMP_NUM_THREADS=1, processor time is free of that. The
time of compiling is told, and is in no turn.

On a GPU, the share of the peak of its bf16 matrix products, as measured there and then, stands beside it.
"""

import argparse
import copy
import os
import platform
import statistics
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import timm
import torch
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d
from torch.utils.flop_counter import FlopCounterMode

from mood.models import Pretext, Views, make_pretext, resolve_device, without_fused_attention
from mood.training import Optimisation, train, uniform

MODEL = "vit_tiny_patch16_224"
SIZE, PATCH = 32, 4
RATE, DECAY, BETAS = 1.5e-4, 0.05, (0.9, 0.95)


class Colours(nn.Module):
    """A tokenizer that costs next to nothing: each cell's mean colour in 8 x 8 x 8 steps."""

    vocabulary, image_size, grid = 512, (SIZE, SIZE), (SIZE // PATCH, SIZE // PATCH)

    def tokens(self, images: Tensor) -> Tensor:
        """(N, 3, 32, 32) in [0, 1] → (N, 8, 8)."""
        steps = (avg_pool2d(images, PATCH) * 8).long().clamp(0, 7)
        return (steps[:, 0] * 8 + steps[:, 1]) * 8 + steps[:, 2]


def made(name: str, width: int, depth: int) -> Pretext:
    """The pretext around a new network, the same every time."""
    torch.manual_seed(0)
    encoder = timm.create_model(
        MODEL, img_size=SIZE, patch_size=PATCH, num_classes=0, embed_dim=width, depth=depth, num_heads=width // 64 or 1
    )
    return make_pretext(name, encoder, {"tokenizer": Colours()} if name == "beit" else {})


def batch_of(pretext: Pretext, images: Tensor, step: int) -> Views:
    """The batch of a step, as `mood pretrain` makes it."""
    draws = uniform(0, step, torch.arange(len(images)), pretext.draws)
    twin = None if pretext.twin_size is None else images
    return Views(((images - 0.5) / 0.5,), draws, None, twin, pretext.hide(draws), torch.arange(len(images)))


class Plain:
    """The loop that one writes in a morning."""

    def __init__(self, pretext: Pretext, device: torch.device) -> None:
        self.module = pretext.to(device)
        self.device = device
        weights = [value for value in pretext.parameters() if value.requires_grad]
        self.optimizer = torch.optim.AdamW(weights, lr=RATE, weight_decay=DECAY, betas=BETAS)

    def step(self, batch: Views) -> float:
        """One step; gives the loss."""
        moved = Views(*(_to(part, self.device) for part in batch))
        with torch.autocast(self.device.type, torch.bfloat16):
            loss, _ = self.module(moved)
        loss.backward()
        self.optimizer.step()
        self.optimizer.zero_grad()
        return float(loss.detach())


def _to(part: Any, device: torch.device) -> Any:
    if isinstance(part, tuple):
        return tuple(item.to(device) for item in part)
    return None if part is None else part.to(device)


class Turns:
    """A task of mood's loop that lets the plain loop have its turn between batches, and takes the time of both."""

    def __init__(self, pretext: Pretext, plain: Plain, batches: list[Views], options: argparse.Namespace) -> None:
        self.module = pretext
        self.plain = plain
        self.prepared = batches
        self.options = options
        self.batch_size = options.batch_size
        self.steps_per_epoch = options.warmup + options.turns * options.steps
        self.seconds: dict[str, list[float]] = {"mood": [], "plain": []}
        self.processor: dict[str, list[float]] = {"mood": [], "plain": []}
        self.first = 0.0
        self.losses: list[tuple[float, float]] = []
        self._loss: Tensor | None = None

    def batches(self, epoch: int, start: int) -> Iterator[Views]:
        """Mood's batches; while it waits for the next one, the plain loop goes through the same."""
        begun = time.perf_counter()
        for index in range(self.options.warmup):
            batch = self.prepared[index % len(self.prepared)]
            yield batch
            if index == 0:
                self._wait()
                self.first = time.perf_counter() - begun
            assert self._loss is not None
            self.losses.append((float(self._loss), self.plain.step(batch)))
        for _ in range(self.options.turns):
            turn = [self.prepared[index % len(self.prepared)] for index in range(self.options.steps)]
            begun = self._now()
            yield from turn
            self._took("mood", begun)
            begun = self._now()
            for batch in turn:
                self.plain.step(batch)
            self._took("plain", begun)

    def _now(self) -> tuple[float, float]:
        self._wait()
        return time.perf_counter(), time.process_time()

    def _took(self, loop: str, begun: tuple[float, float]) -> None:
        wall, processor = self._now()
        self.seconds[loop].append(wall - begun[0])
        self.processor[loop].append(processor - begun[1])

    def _wait(self) -> None:
        if self.plain.device.type == "cuda":
            torch.cuda.synchronize()

    def loss(self, module: nn.Module, batch: Views, epoch: int) -> tuple[Tensor, Mapping[str, Tensor]]:
        """That of the pretext."""
        loss, extra = module(batch)
        self._loss = loss.detach()
        return loss, extra

    def after_step(self, done: float) -> None:
        """Nothing to do."""

    def evaluate(self, module: nn.Module) -> Mapping[str, float]:
        """Nothing to measure."""
        return {}


def peak(device: torch.device) -> float:
    """Operations a second of a large bf16 matrix product, measured."""
    one = torch.randn(8192, 8192, device=device, dtype=torch.bfloat16)
    for _ in range(3):
        one @ one
    torch.cuda.synchronize()
    begun = time.perf_counter()
    for _ in range(20):
        one @ one
    torch.cuda.synchronize()
    return 20 * 2 * 8192**3 / (time.perf_counter() - begun)


def operations(pretext: Pretext, batch: Views, device: torch.device) -> int:
    """Of matrix products, forward and backward, in one step."""
    counted = copy.deepcopy(pretext).to(device)
    with FlopCounterMode(display=False) as counter:
        counted(Views(*(_to(part, device) for part in batch)))[0].backward()
    return int(counter.get_total_flops())


def measure(name: str, options: argparse.Namespace, device: torch.device) -> str:
    """One line: images a second of both loops, and how they compare."""
    pretext = made(name, options.width, options.depth)
    plain = Plain(copy.deepcopy(pretext), device)
    draws = torch.Generator().manual_seed(1)
    images = [torch.rand(options.batch_size, 3, SIZE, SIZE, generator=draws) for _ in range(4)]
    batches = [batch_of(pretext, part, step) for step, part in enumerate(images)]
    if device.type == "cpu":
        without_fused_attention(pretext)
    task = Turns(pretext, plain, batches, options)
    settings = Optimisation(
        epochs=1,
        lr=RATE,
        min_lr=RATE,
        weight_decay=DECAY,
        betas=BETAS,
        device=str(device),
        precision="bf16",
        compile=options.compile,
        save_seconds=1e9,
    )
    load = os.getloadavg()[0]
    with tempfile.TemporaryDirectory() as folder:
        train(task, settings, Path(folder))
    for mine, theirs in task.losses:
        if abs(mine - theirs) > 0.02 * abs(theirs):
            raise SystemExit(f"the loops do not learn the same: their losses are {mine} and {theirs}")
    shown = options.steps * options.batch_size
    speed = {loop: shown / statistics.median(seconds) for loop, seconds in task.seconds.items()}
    ratios = [theirs / mine for mine, theirs in zip(task.seconds["mood"], task.seconds["plain"], strict=True)]
    busy = [theirs / mine for mine, theirs in zip(task.processor["mood"], task.processor["plain"], strict=True)]
    line = (
        f"{name}: mood {speed['mood']:.0f} images/s, plain {speed['plain']:.0f}, ratio {statistics.median(ratios):.2f} "
        f"({min(ratios):.2f} to {max(ratios):.2f} over {len(ratios)} turns of {options.steps} steps of "
        f"{options.batch_size}); of processor time {statistics.median(busy):.2f}; first step {task.first:.0f} s; "
        f"load {load:.1f} to {os.getloadavg()[0]:.1f}"
    )
    if device.type == "cuda":
        used = operations(made(name, options.width, options.depth), batches[0], device) / options.batch_size
        line += f"; {used * speed['mood'] / peak(device):.1%} of the measured bf16 peak"
    return line


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--pretext", choices=("beit", "mae"), action="append")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--turns", type=int, default=7)
    parser.add_argument("--steps", type=int, default=4, help="of one turn")
    parser.add_argument("--warmup", type=int, default=3, help="steps before the first turn")
    parser.add_argument("--width", type=int, default=192)
    parser.add_argument("--depth", type=int, default=12)
    parser.add_argument("--compile", action=argparse.BooleanOptionalAction, default=False)
    options = parser.parse_args()
    device = resolve_device(options.device)
    where = torch.cuda.get_device_name(device) if device.type == "cuda" else f"{torch.get_num_threads()} threads"
    print(f"torch {torch.__version__}, {platform.machine()}, {where}")
    for name in options.pretext or ("beit", "mae"):
        print(measure(name, options, device), flush=True)


if __name__ == "__main__":
    main()
