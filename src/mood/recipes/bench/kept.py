"""What scores say of images, kept beside the features for any other run.

The key is made of all that decides it: what decides the features (weights, transform, pooling, layer, precision,
device, batch size), the known images of the fit with their labels, the score with its options, the images that are
scored, and the code of the scores. So nothing stale can be found.
"""

import hashlib
import json
import logging
import os
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mood.core.cache import cache_home
from mood.core.errors import ArtifactError
from mood.core.state import read_state, write_state
from mood.core.version import __version__
from mood.recipes.extract import alone

if TYPE_CHECKING:
    from mood.data import Source
    from mood.scores import Score

FORMAT = 1
SUFFIX = ".safetensors"

_SET, _FIT = "set of scores", "fitted score"
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class SetScores:
    """What one score says of one set, and what that took when it was made.

    Attributes:
        values: (n,) float64, higher = more OOD, in the order of the readable images.
        chosen: what was chosen for the score on known images and why, or "".
        kind: as `Scored.kind`.
        fit_seconds: of the fit.
        score_seconds: of scoring this set.
        passes: what the passes took that fit and set were read from, as in `Network.seconds`.
    """

    values: np.ndarray
    chosen: str
    kind: str
    fit_seconds: float
    score_seconds: float
    passes: Mapping[str, float | None]


def scores_folder() -> Path:
    """Where scores are kept: a file for each set under each fit."""
    return cache_home() / "scores"


class Kept:
    """What one score after one fit says of sets.

    A file that is damaged is told in the log and made again. Whatever is kept here is a number: a score that is none
    is refused before.

    Args:
        key: all that decides it but the images that are scored, as JSON; the code of the scores is added to it.
    """

    def __init__(self, key: Mapping[str, Any]) -> None:
        self._key = {"format": FORMAT, "code": _code(), **key}

    def of(self, source: "Source") -> SetScores | None:
        """What `keep` kept of these images."""
        found = _read(self._path(source.manifest.fingerprint), _SET)
        return None if found is None else SetScores(values=found[0]["values"], **found[1])

    def keep(self, source: "Source", found: SetScores) -> None:
        """Keep what the score says of these images.

        Raises:
            OutputError: nothing can be written to the cache.
        """
        about = asdict(found)
        _write(self._path(source.manifest.fingerprint), _SET, {"values": about.pop("values")}, about)

    def fit(self, name: str, make: Callable[[], "Score"]) -> tuple["Score", float]:
        """The fit itself, made now or before, and the seconds that it took: for one that costs a pass over the images.

        Args:
            name: of the score in the registry.
            make: fits it.

        Raises:
            OutputError: nothing can be written to the cache.
            MoodError: what `make` raises.
        """
        import torch

        from mood import scores

        path = self._path("")
        if (found := _read(path, _FIT)) is not None:
            tensors = {key: torch.from_numpy(array) for key, array in found[0].items()}
            return scores.restore(name, tensors, found[1]["meta"]), found[1]["seconds"]
        began = time.perf_counter()
        score = make()
        seconds = time.perf_counter() - began
        held, meta = scores.state(score)
        _write(path, _FIT, {key: tensor.numpy() for key, tensor in held.items()}, {"meta": meta, "seconds": seconds})
        return score, seconds

    def _path(self, images: str) -> Path:
        key = json.dumps({**self._key, "images": images}, sort_keys=True)
        return scores_folder() / (hashlib.sha256(key.encode()).hexdigest()[:32] + SUFFIX)


def _read(path: Path, kind: str) -> tuple[dict[str, np.ndarray], dict[str, Any]] | None:
    if not path.exists():
        return None
    try:
        found = read_state(path, kind=kind)
    except ArtifactError as error:
        _log.warning("scores that were kept are damaged, and are made again: %s", error)
        return None
    # `mood cache` goes by the last use.
    with suppress(OSError):
        os.utime(path)
    return found


def _write(path: Path, kind: str, arrays: Mapping[str, np.ndarray], meta: Mapping[str, Any]) -> None:
    # Another run may be making the same: then the second one replaces what is alike.
    with alone(path):
        write_state(path, kind=kind, arrays=arrays, meta=meta)


@cache
def _code() -> str:
    """Of the code of all scores, whose files may change between two versions: no value of another one is found."""
    from mood import scores

    digest = hashlib.sha256(__version__.encode())
    for path in sorted(Path(str(scores.__file__)).parent.glob("*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()
