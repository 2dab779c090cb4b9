"""Rows in float64, a block at a time, so that memory is bounded whatever N is."""

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from mood.core.errors import InputError

BLOCK = 2**21
"""Numbers in the largest matrix that a block makes: 16 MiB in float64. Smaller blocks were slower on two cores."""


def blocks(*columns: Tensor, width: int) -> Iterator[tuple[Tensor, ...]]:
    """The same rows of every column, converted to float64, `BLOCK // width` rows at a time.

    Args:
        columns: (N, …) each.
        width: columns of the widest matrix that the caller makes from these rows.
    """
    size = max(1, BLOCK // max(width, *(column[:1].numel() for column in columns)))
    for start in range(0, len(columns[0]), size):
        yield tuple(column[start : start + size].to(torch.float64) for column in columns)


def row_by_row(function: Callable[..., Tensor], *columns: Tensor, width: int = 1) -> Tensor:
    """(N,) float64 from a function of float64 rows that looks at each row alone."""
    parts = [function(*block) for block in blocks(*columns, width=width)]
    return torch.cat(parts) if parts else torch.zeros(0, dtype=torch.float64)


def of_width(column: Tensor, width: int, name: str) -> Tensor:
    """The column itself.

    Raises:
        InputError: its rows have another width than in the fit.
    """
    if column.shape[1] != width:
        raise InputError(f"{name} has {column.shape[1]} values per row; {width} were expected, as in the fit")
    return column


def l2_normalised(rows: Tensor) -> Tensor:
    """h / (‖h‖₂ + 1e-10), the form in the official code of MOOD and of deep k-NN: a zero row stays zero.

    Args:
        rows: (n, D) float64.
    """
    lengths: Tensor = torch.linalg.vector_norm(rows, dim=1, keepdim=True)
    return rows / (lengths + 1e-10)
