"""`scores.parquet`: the score of every image, so that other metrics and figures can be made of a finished run."""

from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from mood.recipes.bench.networks import OWN
from mood.recipes.bench.session import ID, Session

if TYPE_CHECKING:
    import pyarrow as pa

SCORES = "scores.parquet"

# Of a row group: what is held before it is written.
ROWS = 1 << 18
NAMES = ("run", "network", "trial", "score", "set", "class", "id")


class ImageScores:
    """Writes the file a row group at a time; what a killed run has written is written anew.

    Args:
        path: of the file.
    """

    def __init__(self, path: Path) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        kinds = {"trial": pa.int64(), "value": pa.float64()}
        self._schema = pa.schema([(name, kinds.get(name, pa.string())) for name in (*NAMES, "value")])
        # Names come again by the thousand; values hardly ever do.
        self._writer = pq.ParquetWriter(path, self._schema, compression="zstd", use_dictionary=list(NAMES))
        self._held: list[pa.Table] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._flush()
        self._writer.close()

    def add(self, session: Session) -> None:
        """Add the scores of one run with one trial of one network."""
        import pyarrow as pa

        made, network = session.made, session.network
        ids: dict[str, pa.Array] = {}
        for text, scored in made.scored.items():
            for name, values in scored.values.items():
                source = made.sets[name]
                at = source.manifest.fingerprint
                if at not in ids:
                    ids[at] = pa.array([source.manifest.ids[row] for row in network.extracted(source, OWN).positions])
                about = {
                    "run": session.run.name,
                    "network": network.plan.name,
                    "trial": session.networks.trial.number,
                    "score": text,
                    "set": ID if made.by_class else name,
                    "class": name if made.by_class else None,
                }
                self._add(about, ids[at], values)

    def _add(self, about: Mapping[str, Any], ids: "pa.Array", values: np.ndarray) -> None:
        import pyarrow as pa

        columns = {
            name: pa.repeat(pa.scalar(word, self._schema.field(name).type), len(ids)) for name, word in about.items()
        }
        table = pa.table({**columns, "id": ids, "value": values}, schema=self._schema)
        for start in range(0, len(table), ROWS):
            self._held.append(table.slice(start, ROWS))
            if sum(map(len, self._held)) >= ROWS:
                self._flush()

    def _flush(self) -> None:
        import pyarrow as pa

        if self._held:
            self._writer.write_table(pa.concat_tables(self._held))
            self._held.clear()
