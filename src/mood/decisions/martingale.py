"""Betting against exchangeability: a capital that grows only where p-values stop being even.

Whoever bets 1 on even, independent p-values p₁, p₂, … and multiplies the capital by f(p) with f ≥ 0 and ∫f = 1 owns a
martingale: it stays at 1 on average. By Ville's inequality the capital ever reaches 1/level with probability at most
level, over a stream without end. So a capital of 100 is evidence at 1 %, whenever one looks.

Vovk, Nouretdinov, Gammerman: Testing Exchangeability On-Line, ICML 2003 (power bets). Vovk, Petej, Nouretdinov,
Ahlberg, Carlsson, Gammerman: Retrain or Not Retrain, COPA 2021 (the simple jumper and its mixture over rates).
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from mood.core.errors import InputError

Bets = Callable[[np.ndarray], np.ndarray]

RATES = (1e-2, 1e-3, 1e-4, 1e-5, 1e-6)
"""Chance a step that the capital is spread anew: streams that break after a hundred images, or after a million."""

EXPONENTS = (0.05, 0.2, 0.5)
SHARES = (0.1, 0.3, 1.0)
"""How strange the strange images are (small = very), and how much of the capital is put on it."""

BLOCK = 256
"""Steps whose bets are laid out at once."""


def power_bets(p_values: np.ndarray) -> np.ndarray:
    """On small p-values: 1 + w(ε p^(ε-1) - 1), and one that does not bet.

    With w = 1 it is the power bet of Vovk et al. (2003); a smaller w stakes a share of the capital alone, which is what
    pays where most images are still as they were.

    Args:
        p_values: (...,) in (0, 1].

    Returns:
        (..., 10), each ≥ 0 and 1 on average over even p-values.
    """
    logs = np.log(p_values)[..., None, None]
    exponents, shares = np.array(EXPONENTS)[:, None], np.array(SHARES)
    bets = 1 + shares * (exponents * np.exp((exponents - 1) * logs) - 1)
    return np.concatenate(
        (np.ones_like(p_values)[..., None], bets.reshape(*p_values.shape, len(EXPONENTS) * len(SHARES))), axis=-1
    )


def linear_bets(p_values: np.ndarray) -> np.ndarray:
    """On a shift either way: 1 + ε(p - 1/2) for ε in -1, 0, 1, the bets of the simple jumper.

    Args:
        p_values: (...,) in (0, 1].

    Returns:
        (..., 3).
    """
    return np.asarray(1 + (p_values[..., None] - 0.5) * np.array([-1.0, 0.0, 1.0]))


@dataclass(slots=True, eq=False)
class Jumper:
    """A capital that moves between bets, in the mean over several rates of moving.

    Before each p-value a share `rate` of the capital is spread evenly over all bets; then each part is multiplied by
    its bet. That is the mean over all ways to change bets now and then, so that what was lost while nothing happened
    does not weigh on what is won afterwards.

    Attributes:
        bets: p-values (...,) → (..., K).
        rates: (R,) in [0, 1].
        logs: (..., R) log capital at each rate; leading axes are streams side by side.
        shares: (..., R, K) how each capital lies on the bets, 1 in all.
    """

    bets: Bets
    rates: np.ndarray
    logs: np.ndarray
    shares: np.ndarray

    @classmethod
    def start(cls, bets: Bets, rates: tuple[float, ...] = RATES, streams: tuple[int, ...] = ()) -> "Jumper":
        """With a capital of 1, spread evenly.

        Raises:
            InputError: no rate, or one outside of [0, 1].
        """
        if not rates or not all(0 <= rate <= 1 for rate in rates):
            raise InputError(f"rates are {rates}; at least one is needed, each between 0 and 1")
        count = bets(np.ones(1)).shape[-1]
        shape = (*streams, len(rates))
        return cls(bets, np.array(rates), np.zeros(shape), np.full((*shape, count), 1 / count))

    def play(self, p_values: np.ndarray) -> np.ndarray:
        """Bet on p-values, one after the other.

        Args:
            p_values: (..., N) in (0, 1], the leading axes as in `logs`.

        Returns:
            (..., N) log of the capital after each.
        """
        gains = np.empty((p_values.shape[-1], *self.logs.shape))
        moved, kept = self.rates[:, None] / self.shares.shape[-1], 1 - self.rates[:, None]
        shares = self.shares.copy()
        for start in range(0, len(gains), BLOCK):
            # The steps come first, so that what a step reads lies together.
            odds = np.moveaxis(self.bets(p_values[..., start : start + BLOCK]), -2, 0).copy()
            for step, odd in enumerate(odds, start):
                shares *= kept
                shares += moved
                shares *= odd[..., None, :]
                shares.sum(-1, out=gains[step])
                shares /= gains[step][..., None]
        self.shares = shares
        gains = np.moveaxis(gains, 0, -2)
        # Added one after the other from where it stood, so that batches do not change a bit.
        logs = np.concatenate((self.logs[..., None, :], np.log(gains)), axis=-2).cumsum(-2)
        self.logs = logs[..., -1, :]
        return log_mean(logs[..., 1:, :])


def log_mean(logs: np.ndarray) -> np.ndarray:
    """Log of the mean of capitals that are given by their logs, over the last axis."""
    top = logs.max(-1, keepdims=True)
    return np.asarray(top[..., 0] + np.log(np.exp(logs - top).mean(-1)))
