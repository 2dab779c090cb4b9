"""A monitor: says when new images have stopped being like the calibration images, and so when the promise has expired.

Two things at once. **Evidence**: a capital that bets against exchangeability on online p-values; while the images stay
as they were, the probability that it ever reaches 1/level is at most `level`, over the whole stream. **Windows**: what
every so many images looked like, for the eye alone.
"""

import math
from collections import deque
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Self

import numpy as np

from mood.core.errors import ArtifactError, InputError
from mood.core.score_vector import score_vector
from mood.decisions.drift import Usual
from mood.decisions.martingale import Jumper, linear_bets, log_mean, power_bets
from mood.decisions.online import OnlineReference

BINS = 10
KEPT = 1000
"""Windows that a monitor remembers."""

_JUMPERS = {"power": power_bets, "linear": linear_bets}


@dataclass(frozen=True, slots=True)
class Window:
    """What so many images of the stream looked like.

    Attributes:
        first: position of its first image in the stream, from 0.
        images: how many were judged.
        unreadable: how many could not be read, beside these.
        flagged: share with p ≤ alpha.
        p_values: how many have a p-value in each tenth of (0, 1], those of OOD in the first.
        drift: distance of the mean embedding from that of the calibration images, in standard deviations; None where
            nobody gave embeddings.
        drift_by_chance: what it would be of known images, on average.
        log10_evidence: of the capital at the end of the window.
        log10_peak: the highest it has ever been.
        alarm: position of the image at which the stream alarmed; None if it has not.
    """

    first: int
    images: int
    unreadable: int
    flagged: float
    p_values: tuple[int, ...]
    drift: float | None
    drift_by_chance: float | None
    log10_evidence: float
    log10_peak: float
    alarm: int | None

    def to_dict(self) -> dict[str, Any]:
        """The window as JSON."""
        return asdict(self)


@dataclass(slots=True, eq=False)
class _Open:
    """The window that is not full yet."""

    images: int
    unreadable: int
    flagged: int
    p_values: np.ndarray
    embeddings: int
    total: np.ndarray


@dataclass(slots=True, eq=False, kw_only=True)
class Monitor:
    """Watches a stream of scores. Made by `start`; unlike everything else here, it changes.

    Attributes:
        level: probability of an alarm, ever, while the stream stays as the calibration images are.
        alpha: p-values up to this count as flagged in the windows.
        window: images of a window.
        reference: the scores that the next one is compared with.
        usual: where embeddings of known images lie.
        images: how many were judged.
        alarm: position of the image at which the capital first reached 1/level; None if it has not.
        log_evidence: log of the capital.
        log_peak: log of the highest capital yet.
        windows: the newest full windows, at most 1000.
    """

    level: float
    alpha: float
    window: int
    reference: OnlineReference
    usual: Usual | None
    images: int = 0
    alarm: int | None = None
    log_evidence: float = 0.0
    log_peak: float = 0.0
    windows: deque[Window]
    _jumpers: dict[str, Jumper]
    _open: _Open

    @classmethod
    def start(
        cls,
        calibration: Any,
        *,
        level: float = 0.01,
        alpha: float = 0.05,
        window: int = 500,
        cap: int | None = None,
        seed: int = 0,
        usual: Usual | None = None,
    ) -> Self:
        """Begin a stream.

        Args:
            calibration: (n,) scores of ID images that nothing was fitted on, in any order, higher = more OOD.
            level: probability of a false alarm over the whole stream, inside (0, 1).
            alpha: what counts as flagged, inside (0, 1).
            window: images of a window, ≥ 1.
            cap: the most scores that the reference keeps (see `OnlineReference`).
            seed: of the draws that break ties, and of who leaves the reference.
            usual: where embeddings of known images lie, for the drift.

        Raises:
            InputError: an argument is out of its range, or there are no calibration scores.
        """
        for name, share in (("level", level), ("alpha", alpha)):
            if not 0 < share < 1:
                raise InputError(f"{name} is {share}; it must lie between 0 and 1")
        if window < 1:
            raise InputError(f"window is {window}; it must hold at least 1 image")
        reference = OnlineReference.start(calibration, cap=cap, seed=seed)
        if not len(reference.scores):
            raise InputError("there are no calibration scores; a stream is compared with at least one ID image")
        return cls(
            level=level,
            alpha=alpha,
            window=window,
            reference=reference,
            usual=usual,
            windows=deque(maxlen=KEPT),
            _jumpers={name: Jumper.start(bets) for name, bets in _JUMPERS.items()},
            _open=_empty(usual),
        )

    @property
    def alarmed(self) -> bool:
        """Whether the stream has alarmed; that stays so."""
        return self.alarm is not None

    def see(self, scores: Any, p_values: Any, *, embedding: Any = None, unreadable: int = 0) -> list[Window]:
        """Judge the next images of the stream.

        Args:
            scores: (N,) by the detector's score, higher = more OOD, in the order in which the images came.
            p_values: (N,) by its calibration, in [0, 1], for the windows.
            embedding: (N, D) of the same images, for the drift.
            unreadable: how many images came beside them that could not be read.

        Returns:
            The windows that are full now.

        Raises:
            InputError: a value is NaN, a p-value is no such, or lengths or widths differ; nothing has been judged then.
        """
        values = score_vector(scores, "scores")
        known = score_vector(p_values, "p_values")
        if len(known) != len(values):
            raise InputError(f"there are {len(values)} scores and {len(known)} p_values: one each per image is needed")
        if len(known) and not (known.min() >= 0 and known.max() <= 1):
            raise InputError("p_values must lie between 0 and 1")
        if unreadable < 0:
            raise InputError(f"unreadable is {unreadable}; it counts images")
        rows = self._embeddings(embedding, len(values))
        self._open.unreadable += unreadable
        full, start = [], 0
        while start < len(values):
            stop = min(len(values), start + self.window - self._open.images)
            self._bet(self.reference.judge(values[start:stop]))
            self._count(known[start:stop], None if rows is None else rows[start:stop])
            if self._open.images == self.window:
                full.append(self.so_far())
                self._open = _empty(self.usual)
            start = stop
        self.windows.extend(full)
        return full

    def so_far(self) -> Window:
        """The window that is not full yet, as it stands."""
        part = self._open
        drift = by_chance = None
        if self.usual is not None and part.embeddings:
            drift, by_chance = self.usual.drift(part.total, part.embeddings)
        return Window(
            first=self.images - part.images,
            images=part.images,
            unreadable=part.unreadable,
            flagged=part.flagged / part.images if part.images else 0.0,
            p_values=tuple(part.p_values.tolist()),
            drift=drift,
            drift_by_chance=by_chance,
            log10_evidence=self.log_evidence / math.log(10),
            log10_peak=self.log_peak / math.log(10),
            alarm=self.alarm,
        )

    def _embeddings(self, embedding: Any, count: int) -> np.ndarray | None:
        if self.usual is None or embedding is None:
            return None
        rows = np.asarray(embedding, np.float64)
        if rows.shape != (count, len(self.usual.mean)):
            raise InputError(
                f"embedding has the shape {rows.shape}; ({count}, {len(self.usual.mean)}) was expected: a row for each "
                "score, as wide as those of the calibration images"
            )
        if not np.isfinite(rows).all():
            raise InputError("embedding holds values that are not finite")
        return rows

    def _bet(self, p_values: np.ndarray) -> None:
        capital = log_mean(np.stack([jumper.play(p_values) for jumper in self._jumpers.values()], -1))
        if self.alarm is None and (over := capital >= -math.log(self.level)).any():
            self.alarm = self.images + int(over.argmax())
        self.log_evidence = float(capital[-1])
        self.log_peak = max(self.log_peak, float(capital.max()))
        self.images += len(p_values)

    def _count(self, p_values: np.ndarray, rows: np.ndarray | None) -> None:
        part = self._open
        part.images += len(p_values)
        part.flagged += int((p_values <= self.alpha).sum())
        # Closed above, as p ≤ 0.1 is: a p-value is k/(n+1), and often lies on an edge.
        tenths = np.searchsorted(np.arange(1, BINS) / BINS, p_values, side="left")
        part.p_values += np.bincount(tenths, minlength=BINS)
        if rows is not None:
            part.embeddings += len(rows)
            # One row after the other, so that batches do not change a bit.
            part.total = np.concatenate((part.total[None], rows)).cumsum(0)[-1]

    def state(self) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        """All of it, as arrays and JSON; `restore` takes them back."""
        part = self._open
        arrays = {
            "reference": self.reference.scores,
            "open.p_values": part.p_values,
            "open.total": part.total,
        }
        for name, jumper in self._jumpers.items():
            arrays |= {f"{name}.logs": jumper.logs, f"{name}.shares": jumper.shares}
        if self.usual is not None:
            arrays |= {"usual.mean": self.usual.mean, "usual.variance": self.usual.variance}
        return arrays, {
            "level": self.level,
            "alpha": self.alpha,
            "window": self.window,
            "cap": self.reference.cap,
            "seed": self.reference.seed,
            "images": self.images,
            "alarm": self.alarm,
            "log_evidence": self.log_evidence,
            "log_peak": self.log_peak,
            "usual_images": None if self.usual is None else self.usual.images,
            "open": {name: getattr(part, name) for name in ("images", "unreadable", "flagged", "embeddings")},
            "windows": [item.to_dict() for item in self.windows],
        }

    @classmethod
    def restore(cls, arrays: Mapping[str, np.ndarray], meta: Mapping[str, Any]) -> Self:
        """The monitor that `state` came from: it goes on as if it had never stopped.

        Raises:
            ArtifactError: they do not fit together.
        """
        try:
            usual = (
                None
                if meta["usual_images"] is None
                else Usual(arrays["usual.mean"], arrays["usual.variance"], meta["usual_images"])
            )
            made = cls.start(
                arrays["reference"],
                level=meta["level"],
                alpha=meta["alpha"],
                window=meta["window"],
                cap=meta["cap"],
                seed=meta["seed"],
                usual=usual,
            )
            for name, jumper in made._jumpers.items():
                logs, shares = arrays[f"{name}.logs"], arrays[f"{name}.shares"]
                if (logs.shape, shares.shape) != (jumper.logs.shape, jumper.shares.shape):
                    raise InputError(f"the bets {name} are not those of this mood: another version wrote the state")
                jumper.logs, jumper.shares = logs.copy(), shares.copy()
            made.images = made.reference.seen = meta["images"]
            made.alarm = meta["alarm"]
            made.log_evidence, made.log_peak = meta["log_evidence"], meta["log_peak"]
            made._open = _Open(
                p_values=arrays["open.p_values"].copy(), total=arrays["open.total"].copy(), **meta["open"]
            )
            made.windows.extend(Window(**{**item, "p_values": tuple(item["p_values"])}) for item in meta["windows"])
        except (KeyError, TypeError, InputError) as error:
            raise ArtifactError(f"this is not the state of a monitor: {error}") from error
        return made


def _empty(usual: Usual | None) -> _Open:
    width = 0 if usual is None else len(usual.mean)
    return _Open(0, 0, 0, np.zeros(BINS, np.int64), 0, np.zeros(width))
