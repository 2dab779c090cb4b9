"""The multi-layer perceptrons behind an encoder that contrastive losses look at, and what they compare across ranks."""

import itertools
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch import distributed as dist
from torch.autograd import Function
from torch.autograd.function import FunctionCtx
from torch.nn.functional import pad


def projector(widths: tuple[int, ...], *, normalised: bool) -> nn.Sequential:
    """Linear layers of these widths, one after the other, with ReLU between them.

    Args:
        widths: of the input, of each layer between, and of the output.
        normalised: batch normalisation after every layer, without scale and shift after the last, as MoCo v3 has it;
            else none, and biases.
    """
    layers: list[nn.Module] = []
    last = len(widths) - 2
    for index, (width, following) in enumerate(itertools.pairwise(widths)):
        layers.append(nn.Linear(width, following, bias=not normalised))
        if normalised:
            layers.append(nn.BatchNorm1d(following, affine=index < last))
        if index < last:
            layers.append(nn.ReLU())
    return nn.Sequential(*layers)


class AllRows(NamedTuple):
    """The rows of every process.

    Attributes:
        rows: (M, ...) in the order of the ranks, gradients included.
        start: where those of this process begin.
    """

    rows: Tensor
    start: int


def of_all_ranks(rows: Tensor) -> AllRows:
    """(N, ...) → (M, ...): N may differ between the processes, where one could not read some of its images."""
    if not (dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1):
        return AllRows(rows, 0)
    counts = [torch.zeros(1, dtype=torch.int64, device=rows.device) for _ in range(dist.get_world_size())]
    dist.all_gather(counts, torch.tensor([len(rows)], device=rows.device))
    numbers = [int(count) for count in counts]
    padded = pad(rows, (*[0, 0] * (rows.ndim - 1), 0, max(numbers) - len(rows)))
    everyone = _Gather.apply(padded)
    kept = torch.cat([part[:number] for part, number in zip(everyone, numbers, strict=True)])
    return AllRows(kept, sum(numbers[: dist.get_rank()]))


class _Gather(Function):
    """(N, ...) → (ranks, N, ...); the gradient of a row is the sum of what all processes found for it."""

    @staticmethod
    def forward(ctx: FunctionCtx, rows: Tensor) -> Tensor:
        parts = [torch.empty_like(rows) for _ in range(dist.get_world_size())]
        dist.all_gather(parts, rows.contiguous())
        return torch.stack(parts)

    @staticmethod
    def backward(ctx: FunctionCtx, *gradients: Tensor) -> Tensor:
        total = gradients[0].contiguous().clone()
        dist.all_reduce(total)
        return total[dist.get_rank()]
