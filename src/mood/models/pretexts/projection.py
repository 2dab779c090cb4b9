"""The multi-layer perceptrons behind an encoder that contrastive losses look at, and what they compare across ranks."""

import itertools

import torch
from torch import Tensor, nn
from torch.distributed import get_world_size, is_available, is_initialized


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


def of_all_ranks(rows: Tensor) -> Tensor:
    """(N, D) → (ranks * N, D): the rows of every process in the order of their ranks, gradients included."""
    if not (is_available() and is_initialized() and get_world_size() > 1):
        return rows
    from torch.distributed.nn.functional import all_gather

    return torch.cat(all_gather(rows))


def rank() -> int:
    """Number of this process among those that train together."""
    return torch.distributed.get_rank() if is_available() and is_initialized() else 0
