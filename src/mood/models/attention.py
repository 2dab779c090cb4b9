"""How attention is computed, where the default is the slow way."""

from torch import nn


def without_fused_attention(module: nn.Module) -> nn.Module:
    """Make timm's attention layers multiply, softmax and multiply, in place of the fused kernel.

    On a CPU the backward of the fused kernel took half of the time of a training step in torch's profiler, at 16 to 65
    tokens in bf16. On a GPU the fused kernel is the faster one.
    """
    for child in module.modules():
        if hasattr(child, "fused_attn"):
            setattr(child, "fused_attn", False)  # noqa: B010  a plain flag, which torch types as a tensor
    return module
