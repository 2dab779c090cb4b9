"""How far an image is from its reconstruction: the logit-Laplace likelihood of DALL-E, or squared errors."""

import math

import torch
from torch import Tensor
from torch.nn.functional import softplus

EDGE = 0.1
"""The density lies on (0, 1), open, and its logit is infinite at the ends: pixels are kept this far from them."""

FLOOR = math.log(2 * (1 - 2 * EDGE) / 255)
"""ln b that is never fallen below: half a grey level, where the logit is flattest, is no more than rounding."""


def map_pixels(pixels: Tensor) -> Tensor:
    """[0, 1] → [0.1, 0.9] (Ramesh et al., 2021, appendix A.3)."""
    return (1 - 2 * EDGE) * pixels + EDGE


def unmap_pixels(mapped: Tensor) -> Tensor:
    """The way back; what lies outside of [0, 1] is brought to its edge."""
    return ((mapped - EDGE) / (1 - 2 * EDGE)).clamp(0, 1)


def bounded_scale(raw: Tensor) -> Tensor:
    """What the decoder gives for ln b, smoothly kept above `FLOOR`.

    Without a floor the likelihood of a set with flat areas has no upper end.
    """
    return FLOOR + softplus(raw - FLOOR)


def logit_laplace(mapped: Tensor, mean: Tensor, log_scale: Tensor) -> Tensor:
    """-ln f(x | μ, b), where f = exp(-|logit x - μ| / b) / (2 b x (1 - x)), equation 2 of Ramesh et al. (2021).

    Args:
        mapped: x in (0, 1), of any shape.
        mean: μ, of the same shape.
        log_scale: ln b.

    Returns:
        Nats for each number, of the same shape.
    """
    logit = torch.logit(mapped)
    density = math.log(2) + log_scale + mapped.log() + torch.log1p(-mapped)
    return density + (logit - mean).abs() * (-log_scale).exp()
