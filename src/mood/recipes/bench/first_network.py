"""What the first network of a run says of its images, kept on disk for the other networks to be compared with."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from mood.recipes.bench.scoring import Scored


@dataclass(frozen=True, slots=True, eq=False)
class Both:
    """One score on two networks, of the images that both could read, in the same order.

    Attributes:
        first: on the first network.
        this: on the other.
        rows: set → (n,) which of the other network's readable images these are.
    """

    first: Scored
    this: Scored
    rows: Mapping[str, np.ndarray]


@dataclass(slots=True, eq=False)
class FirstNetwork:
    """The first network of a run that has scores; no more of them is in memory than is looked at.

    An image is known by its place in the manifest of its set, so that what one of two networks could not read moves
    none of the others.

    Attributes:
        folder: where they are kept; made when there is something to keep.
        name: of the network, or "" as long as there is none.
    """

    folder: Path
    name: str = ""
    _positions: dict[int, Mapping[str, np.ndarray]] = field(default_factory=dict)
    _files: dict[tuple[int, str], Path] = field(default_factory=dict)

    def keep(self, network: str, trial: int, kept: Mapping[str, Scored], positions: Mapping[str, np.ndarray]) -> bool:
        """Keep what a trial says, if it is one of the first network, as the first that comes is.

        Args:
            network: its name.
            trial: its number.
            kept: its scores.
            positions: set → (n,) places of its readable images in its manifest, ascending.

        Returns:
            Whether it is one of the first network.
        """
        if self.name not in ("", network) or not kept:
            return self.name == network
        self.name = network
        self._positions[trial] = positions
        self.folder.mkdir(parents=True, exist_ok=True)
        for text, scored in kept.items():
            path = self._files[trial, text] = self.folder / f"{len(self._files)}.f64"
            with path.open("wb") as file:
                for name in positions:
                    scored.values[name].astype(np.float64, copy=False).tofile(file)
        return True

    def beside(
        self, trial: int, kept: Mapping[str, Scored], positions: Mapping[str, np.ndarray]
    ) -> Iterator[tuple[str, Both]]:
        """Each score on this network that the same trial of the first one has too, and both of it.

        Args:
            trial: its number.
            kept: scores on this network.
            positions: of this network, as `keep` has them.
        """
        theirs = self._positions.get(trial, {})
        ends = np.cumsum([len(rows) for rows in theirs.values()])[:-1]
        shared = {
            name: np.intersect1d(rows, positions[name], assume_unique=True, return_indices=True)[1:]
            for name, rows in theirs.items()
            if name in positions
        }
        for text, scored in kept.items():
            if (trial, text) in self._files:
                whole = np.split(np.memmap(self._files[trial, text], np.float64, "r"), ends)
                values = dict(zip(theirs, whole, strict=True))
                yield (
                    text,
                    Both(
                        replace(scored, values={name: values[name][at] for name, (at, _) in shared.items()}),
                        replace(scored, values={name: scored.values[name][at] for name, (_, at) in shared.items()}),
                        {name: at for name, (_, at) in shared.items()},
                    ),
                )
