"""`mood cache`: what features and scores that are kept cost on disk, and how to be rid of them."""

import shutil
import time
from dataclasses import dataclass
from pathlib import Path

from mood.core.config import config
from mood.core.ranges import NotNegative

_DAY = 24 * 3600


@config
class CacheConfig:
    """Show what the cache of features and scores holds, and clear it."""

    clear: bool = False
    """remove what is shown; it is made again when it is needed"""
    unused_days: NotNegative = 0.0
    """only what nothing has read for so many days"""


@dataclass(frozen=True, slots=True)
class CacheResult:
    """What is, or was, in the cache.

    Attributes:
        folder: where it is.
        sets: how many sets of features.
        scores: how many sets of scores, of `mood bench`.
        size: of all of them together, in bytes.
        cleared: whether they were removed.
        busy: sets that were left because another run is writing them.
    """

    folder: Path
    sets: int
    scores: int
    size: int
    cleared: bool
    busy: int

    def summary(self) -> str:
        """One line for a person."""
        word = "removed" if self.cleared else "holds"
        left = f"; {self.busy} are being written and were left" if self.busy else ""
        held = f"{self.sets} sets of features and {self.scores} of scores"
        return f"{self.folder}: {word} {held}, {self.size / 1e6:.1f} MB{left}"


def cache(config: CacheConfig) -> CacheResult:
    """Count the cache, and remove it where that is asked for."""
    from mood.core.cache import cache_home
    from mood.recipes.bench.kept import SUFFIX, scores_folder
    from mood.recipes.extract import INDEX, alone, cache_folder

    sets = scores = size = busy = 0
    before = time.time() - config.unused_days * _DAY
    for path in sorted(item for item in cache_folder().glob("*") if item.is_dir()):
        index = path / INDEX
        if (index if index.exists() else path).stat().st_mtime > before:
            continue
        bytes_held = sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
        if config.clear:
            with alone(path, wait=False) as free:
                if not free:
                    busy += 1
                    continue
                shutil.rmtree(path)
        sets, size = sets + 1, size + bytes_held
    for path in scores_folder().glob(f"*{SUFFIX}"):
        about = path.stat()
        if about.st_mtime > before:
            continue
        if config.clear:
            path.unlink(missing_ok=True)
        scores, size = scores + 1, size + about.st_size
    return CacheResult(cache_home(), sets, scores, size, config.clear, busy)
