"""Batch normalisation over the batch of all processes."""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch import distributed as dist
from torch.autograd import Function
from torch.autograd.function import FunctionCtx
from torch.nn.modules.batchnorm import _BatchNorm
from torch.overrides import TorchFunctionMode

from mood.core.errors import InputError


def normalises_batches(module: nn.Module) -> bool:
    """Whether what a network makes of an image depends, in training, on the others in its batch."""
    return any(isinstance(child, _BatchNorm) for child in module.modules())


def check_divisible(module: nn.Module, accumulate: int) -> None:
    """Refuse to cut batches that a network must see at once.

    Raises:
        InputError: parts whose gradients are added up, and batch normalisation.
    """
    if accumulate > 1 and normalises_batches(module):
        raise InputError(
            f"accumulate is {accumulate}, and batch normalisation needs the whole batch at once: set "
            "accumulate to 1, and use more processes or checkpoint_activations where memory is short"
        )


class StatisticsOfAll(TorchFunctionMode):
    """While entered, batch normalisation in training takes mean and variance over the rows of all processes.

    torch's own `SyncBatchNorm` is for GPUs alone; this is the same for the CPU, in float32.
    """

    def __torch_function__(
        self, func: Callable[..., Any], types: Iterable[type], args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        """Runs `func`, or the normalisation in its place."""
        kwargs = kwargs or {}
        if func is nn.functional.batch_norm:
            return _normalise(func, *args, **kwargs)
        return func(*args, **kwargs)


def _normalise(
    func: Callable[..., Any],
    input: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Tensor:
    if not training:
        normalised: Tensor = func(input, running_mean, running_var, weight, bias, False, momentum, eps)
        return normalised
    values = input.float()
    over = [axis for axis in range(values.ndim) if axis != 1]
    shape = (1, -1, *[1] * (values.ndim - 2))
    count = _Sum.apply(values.new_tensor(float(values.numel() // values.shape[1])))
    mean = _Sum.apply(values.sum(over)) / count
    centred = values - mean.reshape(shape)
    variance = _Sum.apply(centred.square().sum(over)) / count
    if running_mean is not None and running_var is not None:
        with torch.no_grad():
            running_mean.lerp_(mean.to(running_mean.dtype), momentum)
            running_var.lerp_((variance * count / (count - 1)).to(running_var.dtype), momentum)
    result: Tensor = centred * (variance + eps).rsqrt().reshape(shape)
    if weight is not None and bias is not None:
        result = result * weight.reshape(shape) + bias.reshape(shape)
    return result.to(input.dtype)


class _Sum(Function):
    """Sum over the processes; each one's gradient is the sum of the gradients of all."""

    @staticmethod
    def forward(ctx: FunctionCtx, value: Tensor) -> Tensor:
        total = value.clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: FunctionCtx, *gradients: Tensor) -> Tensor:
        total = gradients[0].clone()
        dist.all_reduce(total)
        return total
