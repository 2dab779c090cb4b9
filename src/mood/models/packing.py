"""bf16 matrix products on a CPU with weights that were laid out for them once, not at every pass.

oneDNN multiplies from a blocked layout. torch's eager `linear` brings the weight into it anew at each call; on AVX-512
with bf16 that is about a quarter of a transformer's time. `torch.compile` keeps the laid-out weights, but wants a C++
compiler and a minute at the start; these are the operators that it calls.
"""

from collections.abc import Callable, Iterable, MutableMapping
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils.weak import WeakTensorKeyDictionary

SMALLEST = 2**16
"""Numbers in a weight below which laying it out gains nothing."""


def can_pack() -> bool:
    """Whether this build of torch has the operators, and this processor the instructions (AVX-512) that they need."""
    return (
        torch.backends.mkldnn.is_available()
        and hasattr(torch.ops.mkldnn, "_linear_pointwise")
        and torch.ops.mkldnn._is_mkldnn_bf16_supported()
    )


class PackedLinear(TorchFunctionMode):
    """While entered, `torch.nn.functional.linear` on a parameter runs in bf16 from a kept layout of its weight.

    What it gives is bf16, as under `torch.autocast`. A weight that has changed since is laid out anew. Wherever a
    gradient is wanted, or the weight is small or no parameter, the call goes on as it was.
    """

    def __init__(self) -> None:
        super().__init__()
        self._packed: MutableMapping[Tensor, tuple[int, Tensor]] = WeakTensorKeyDictionary()

    def __torch_function__(
        self, func: Callable[..., Any], types: Iterable[type], args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        """Runs `func`, or the packed product in its place."""
        kwargs = kwargs or {}
        if func is torch.nn.functional.linear and not torch.is_grad_enabled():
            product = self._product(*args, **kwargs)
            if product is not None:
                return product
        return func(*args, **kwargs)

    def _product(self, input: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor | None:
        if weight.numel() < SMALLEST or input.ndim < 2:
            return None
        # Only a parameter stays, and tells when it is changed.
        if not isinstance(weight, torch.nn.Parameter) or weight.is_inference():
            return None
        kept = self._packed.get(weight)
        if kept is None or kept[0] != weight._version:
            kept = weight._version, torch.ops.mkldnn._reorder_linear_weight(weight.detach().bfloat16(), None)
            self._packed[weight] = kept
        bias = None if bias is None else bias.bfloat16()
        product: Tensor = torch.ops.mkldnn._linear_pointwise(input.bfloat16(), kept[1], bias, "none", [], "")
        return product
