"""The figures of a benchmark so far, unit by unit on disk, so that a killed run goes on where it was."""

import hashlib
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path

from mood.recipes.bench.results import Figure


class Units:
    """A folder of figures, each unit written whole or not at all.

    Args:
        folder: the scratch of an output, which belongs to one configuration.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)

    def figures(self, name: Sequence[str], make: Callable[[], list[Figure]]) -> tuple[list[Figure], float]:
        """Figures made now or before, and the seconds that it took."""
        digest = hashlib.sha256(json.dumps(list(name)).encode()).hexdigest()
        path = self.folder / f"{digest[:24]}.json"
        if not path.exists():
            began = time.perf_counter()
            made = make()
            plain = {"figures": [asdict(figure) for figure in made], "seconds": time.perf_counter() - began}
            temporary = path.with_suffix(".tmp")
            temporary.write_text(json.dumps(plain), encoding="utf-8")
            temporary.replace(path)
        plain = json.loads(path.read_text(encoding="utf-8"))
        return [Figure(**figure) for figure in plain["figures"]], plain["seconds"]
