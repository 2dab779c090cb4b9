"""Codes that gradients pass through: the Gumbel-softmax relaxation, and its distance from using all codes alike."""

import math

import torch
from torch import Tensor
from torch.nn.functional import one_hot


def gumbel_softmax(logits: Tensor, noise: Tensor, temperature: Tensor | float, hard: Tensor | bool) -> Tensor:
    """A mixture of codes that becomes one code as the temperature falls (Jang et al.; Maddison et al., ICLR 2017).

    softmax((logits + g) / τ), where g = -ln e are draws of the Gumbel distribution.

    Args:
        logits: (N, V, …) over the codes.
        noise: e, of the same shape: draws of the exponential distribution with mean 1.
        temperature: τ > 0.
        hard: give the largest code alone, and pass gradients on as if it were the mixture (straight-through).

    Returns:
        (N, V, …) shares that sum to 1 over V.
    """
    soft = ((logits - noise.log()) / temperature).softmax(dim=1)
    if not hard:
        return soft
    largest = one_hot(soft.argmax(dim=1), soft.shape[1]).movedim(-1, 1).to(soft.dtype)
    return largest + soft - soft.detach()


def kl_to_uniform(logits: Tensor) -> Tensor:
    """KL(softmax(logits) ‖ uniform over V) = ln V - H, in nats: from 0 to ln V.

    Args:
        logits: (N, V, …).

    Returns:
        (N, …).
    """
    log_shares = logits.log_softmax(dim=1)
    return math.log(logits.shape[1]) + (log_shares.exp() * log_shares).sum(dim=1)


def imbalance(mixture: Tensor) -> Tensor:
    """KL(the share of each code in a whole batch ‖ uniform), in nats: from 0 to ln V.

    `kl_to_uniform` is 0 for cells that cannot decide; this is 0 for a batch in which all codes come alike, however
    decided each cell is. It is the second half of the mutual information of cells and codes (Bridle et al., 1991).

    Args:
        mixture: (N, V, …) shares that sum to 1 over V.

    Returns:
        A scalar.
    """
    shares = mixture.transpose(0, 1).flatten(1).mean(dim=1)
    # A code that does not come at all has no finite slope.
    return math.log(len(shares)) + (shares * shares.clamp(min=1e-6).log()).sum()


def codebook_usage(counts: Tensor) -> tuple[float, float]:
    """How a codebook is used.

    Args:
        counts: (V,) how often each code came.

    Returns:
        The share of the codes that came at all, and the perplexity: e to the entropy of their frequencies, from 1 (one
        code for all) to V (all alike).
    """
    shares = counts.double() / counts.sum().clamp(min=1)
    entropy = -torch.special.xlogy(shares, shares).sum()
    return float((counts > 0).double().mean()), float(entropy.exp())
