"""What a benchmark has done so far, unit by unit on disk, so that a killed run goes on where it was."""

import hashlib
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np

from mood.recipes.bench.networks import Scored
from mood.recipes.bench.results import Figure


class Units:
    """A folder of scores and figures, each written whole or not at all.

    Args:
        folder: the scratch of an output, which belongs to one configuration.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)

    def scores(self, name: Sequence[str]) -> Scored | None:
        """What `keep_scores` kept under a name."""
        path = self._path(name, ".npz")
        if not path.exists():
            return None
        with np.load(path, allow_pickle=False) as file:
            about = json.loads(str(file["about"]))
            values = {key: file[f"set {index}"] for index, key in enumerate(about.pop("sets"))}
        return Scored(values, **about)

    def keep_scores(self, name: Sequence[str], scored: Scored) -> None:
        """Keep what one score says."""
        about = {**asdict(replace(scored, values={})), "sets": list(scored.values)}
        del about["values"]
        columns = {f"set {index}": values for index, values in enumerate(scored.values.values())}
        path = self._path(name, ".npz")
        temporary = path.with_suffix(".tmp")
        with temporary.open("wb") as file:
            np.savez(file, allow_pickle=False, about=np.array(json.dumps(about)), **columns)
        temporary.replace(path)

    def figures(self, name: Sequence[str], make: Callable[[], list[Figure]]) -> tuple[list[Figure], float]:
        """Figures made now or before, and the seconds that it took."""
        path = self._path(name, ".json")
        if not path.exists():
            began = time.perf_counter()
            made = make()
            plain = {"figures": [asdict(figure) for figure in made], "seconds": time.perf_counter() - began}
            temporary = path.with_suffix(".tmp")
            temporary.write_text(json.dumps(plain), encoding="utf-8")
            temporary.replace(path)
        plain = json.loads(path.read_text(encoding="utf-8"))
        return [Figure(**figure) for figure in plain["figures"]], plain["seconds"]

    def _path(self, name: Sequence[str], suffix: str) -> Path:
        return self.folder / (hashlib.sha256(json.dumps(list(name)).encode()).hexdigest()[:24] + suffix)
