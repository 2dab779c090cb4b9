"""What a run writes about itself while it goes on."""

import json
import math
from collections.abc import Mapping
from pathlib import Path


class Log:
    """Metrics as JSON lines.

    Attributes:
        loss: the last one that was written.
    """

    every = 50

    def __init__(self, path: Path, step: int, last: int) -> None:
        """The log of a run that has done `step` of its `last` steps; nothing is written yet."""
        self.path = path
        self.loss = math.nan
        self._step = step
        self._last = last

    def begin(self) -> None:
        """Drop the lines that a killed run wrote after its checkpoint."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        kept = []
        if self.path.exists():
            for line in self.path.read_text().splitlines():
                try:
                    kept += [line] if json.loads(line)["step"] <= self._step else []
                except json.JSONDecodeError:  # the line that the kill cut short
                    break
        self.path.write_text("".join(f"{line}\n" for line in kept))

    def due(self, step: int) -> bool:
        """Whether a step is one of those that are written: a look at a loss makes a GPU wait."""
        return step % self.every == 0 or step in (1, self._last)

    def write(self, row: Mapping[str, float]) -> None:
        """Add a line."""
        self.loss = row.get("loss", self.loss)
        with self.path.open("a") as file:
            file.write(json.dumps(row) + "\n")
