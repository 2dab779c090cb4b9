"""Online conformal p-values: each score is judged against those before it, and then joins them.

Vovk, Gammerman, Shafer: Algorithmic Learning in a Random World, 2005, section 2.6 and theorem 8.1. With ties broken by
a random number, the p-values of exchangeable scores are even on (0, 1) and independent of each other. That is what a
martingale needs, and what a fixed calibration set does not give: there all p-values share the same calibration scores,
whose chance deviations a bettor learns.

Memory is bounded: with more than `cap` scores, one of the cap + 1 leaves, **drawn evenly, the newcomer among them**.
Why that keeps the p-values even and independent: given the cap + 1 scores as a set, the newest is any of them with the
same chance, so its rank is even; and which one leaves does not depend on which is the newest, so what stays says
nothing about that rank. An even sample of all the past (a reservoir) does not have this property: it keeps a newcomer
ever more rarely, becomes a fixed calibration set, and alarms. A window of the newest does not have it either. The price
is forgetting: a score stays for about `cap` images, and what drifts more slowly than that is not seen.
"""

from dataclasses import dataclass

import numpy as np

from mood.core.errors import InputError
from mood.core.score_vector import score_vector

CAP = 10_000

BLOCK = 128
"""Scores that are judged at once: between them they are compared in pairs, with the rest through one sorted copy."""


@dataclass(slots=True, eq=False)
class OnlineReference:
    """The scores that a new one is compared with.

    Attributes:
        scores: (n,) in the order of their slots.
        cap: the most that are kept.
        seed: of the draws: the same stream gets the same p-values again, however it is cut into batches.
        seen: how many scores have been judged.
    """

    scores: np.ndarray
    cap: int
    seed: int
    seen: int = 0

    @classmethod
    def start(cls, scores: np.ndarray, *, cap: int | None = None, seed: int = 0) -> "OnlineReference":
        """Begin with the scores of ID images that nothing was fitted on.

        Args:
            scores: (n,), higher = more OOD; may be empty.
            cap: the most scores that are kept; 10,000 unless said, or n where that is more.
            seed: of the draws, ≥ 0.

        Raises:
            InputError: a score is NaN, the cap is below n or below 1, the seed is negative.
        """
        first = score_vector(scores, "calibration scores").copy()
        if cap is None:
            cap = max(CAP, len(first))
        if cap < max(1, len(first)):
            raise InputError(
                f"cap is {cap}, below the {len(first)} calibration scores that the reference begins with: raise it, or "
                "leave it out"
            )
        if seed < 0:
            raise InputError(f"seed is {seed}; it must be at least 0")
        return cls(first, cap, seed)

    def judge(self, scores: np.ndarray) -> np.ndarray:
        """The p-value of each score among those before it.

        p = (#{higher} + θ · #{equal, itself included}) / (n + 1), θ even on (0, 1).

        Args:
            scores: (N,), higher = more OOD; +inf and -inf are welcome.

        Returns:
            (N,) in (0, 1); small = unusual.

        Raises:
            InputError: a score is NaN; nothing has been judged then.
        """
        checked = score_vector(scores, "scores")
        draws = _draws(self.seed, self.seen, len(checked))
        parts = [
            self._block(checked[start : start + BLOCK], draws[start : start + BLOCK])
            for start in range(0, len(checked), BLOCK)
        ]
        self.seen += len(checked)
        return np.concatenate(parts) if parts else np.empty(0)

    def _block(self, scores: np.ndarray, draws: np.ndarray) -> np.ndarray:
        """At most BLOCK scores: what was there at first, plus who came, less who left, before each one."""
        there = np.sort(self.scores)
        sizes = np.minimum(len(there) + np.arange(len(scores)), self.cap)
        below, up_to = (np.searchsorted(there, scores, side) for side in ("left", "right"))
        leavers = self._admit(scores, draws[:, 1])
        before = np.tri(len(scores), k=-1, dtype=bool)
        higher, equal = len(there) - up_to, up_to - below
        for others, sign in ((scores, 1), (leavers, -1)):
            if not np.isnan(others).all():
                higher = higher + sign * np.count_nonzero((others > scores[:, None]) & before, axis=1)
                equal = equal + sign * np.count_nonzero((others == scores[:, None]) & before, axis=1)
        return np.asarray((higher + draws[:, 0] * (equal + 1)) / (sizes + 1))

    def _admit(self, scores: np.ndarray, draws: np.ndarray) -> np.ndarray:
        """Let scores join, and say who left at each step: NaN, which equals nothing, where nobody did."""
        room = min(len(scores), self.cap - len(self.scores))
        leavers = np.full(len(scores), np.nan)
        held = np.concatenate((self.scores, scores[:room]))
        slots = (draws * (self.cap + 1)).astype(np.int64)
        for step in range(room, len(scores)):
            if slots[step] == self.cap:
                leavers[step] = scores[step]
            else:
                leavers[step] = held[slots[step]]
                held[slots[step]] = scores[step]
        self.scores = held
        return leavers


def _draws(seed: int, start: int, count: int) -> np.ndarray:
    """(count, 2) numbers inside (0, 1) that belong to the positions from `start`.

    From the raw bits of PCG64, which numpy promises not to change.
    """
    bits = np.random.PCG64(seed)
    bits.advance(2 * start)
    raw = bits.random_raw(2 * count).reshape(count, 2)
    return np.asarray(((raw >> np.uint64(11)) + 0.5) * 2.0**-53)
