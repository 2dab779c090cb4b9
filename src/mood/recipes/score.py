"""`mood score`: images → a table with a score, a p-value and a verdict for each."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Annotated, Literal

from mood.core.config import Argument, NotInFingerprint, config, to_dict
from mood.core.errors import InputError

if TYPE_CHECKING:
    import pyarrow as pa


# Images of a part: what a killed run has to do again at most.
PART = 2048


@config
class ScoreConfig:
    """Say of each image how unusual it is, and whether that is too much."""

    detector: Annotated[Path, Argument("DIR")]
    """folder that `mood fit` wrote"""
    images: Annotated[str, Argument("IMAGES")]
    """a folder, a Parquet file or glob, a named set, or features (.npz, Parquet with an embedding column)"""
    output: Annotated[Path | None, NotInFingerprint] = None
    """.parquet, .csv or .jsonl; without it the table goes to standard output"""
    format: Literal["auto", "parquet", "csv", "jsonl"] = "auto"
    """of the output; auto = by its ending, csv on standard output, which takes no parquet"""
    batch_size: int = 64
    """images a pass"""
    device: str = "auto"
    """auto, cpu or cuda"""
    workers: Annotated[int, NotInFingerprint] = 1
    """processes that decode images"""
    data_root: Annotated[tuple[str, ...], NotInFingerprint] = ()
    """folders in which named sets are looked for"""
    fail_on_ood: Annotated[bool, NotInFingerprint] = False
    """leave with exit code 10 where an image is flagged, 11 where one could not be read and none is flagged"""
    overwrite: Annotated[bool, NotInFingerprint] = False
    """replace an output of another configuration"""


@dataclass(frozen=True)
class ScoreResult:
    """Counts, and where the table is."""

    images: int
    flagged: int
    rejected: int
    output: Path | None
    exit_code: int = 0

    @property
    def table_on_stdout(self) -> bool:
        """Whether the standard output belongs to the table, so that the summary must go elsewhere."""
        return self.output is None

    def summary(self) -> str:
        """One line for a person."""
        where = "" if self.output is None else f"; the table is in {self.output}"
        return (
            f"{self.images} images: {self.images - self.rejected} scored, {self.flagged} flagged as out of "
            f"distribution, {self.rejected} could not be read{where}"
        )


def score(config: ScoreConfig) -> ScoreResult:
    """Score images with a saved detector; start again to resume.

    Raises:
        MoodError: no detector there, images that cannot be found, an output that is taken.
    """
    import sys

    import pyarrow.parquet as pq

    from mood.core.output import open_output
    from mood.data import open_source
    from mood.detector import load
    from mood.recipes.fit import features_fingerprint, is_features

    kind = _format(config)
    detector = load(config.detector, device=config.device)
    if is_features(config.images):
        from mood.core.features import Features

        features = Features.load(config.images)
        size, fingerprint = len(features), features_fingerprint(features)

        def part(start: int, stop: int) -> "pa.Table":
            return detector.judge(features[start:stop])
    else:
        source = open_source(config.images, roots=config.data_root)
        size, fingerprint = len(source), source.manifest.fingerprint

        def part(start: int, stop: int) -> "pa.Table":
            import pyarrow as pa

            return pa.concat_tables(
                detector.stream(source, batch_size=config.batch_size, workers=config.workers, start=start, stop=stop)
            )

    counts = [0, 0, 0]

    def count(table: "pa.Table") -> None:
        import pyarrow.compute as pc

        counts[0] += table.num_rows
        counts[1] += pc.sum(table["is_ood"]).as_py() or 0
        counts[2] += table["error"].length() - table["error"].null_count

    if config.output is None:
        for index, start in enumerate(range(0, size, PART)):
            table = part(start, min(start + PART, size))
            count(table)
            _write_rows(table, sys.stdout.buffer, kind, header=index == 0)
        return _result(config, counts, None)
    settings = to_dict(config) | {"images": fingerprint, "detector": detector.fingerprint()}
    with open_output(config.output, settings, kind="file", overwrite=config.overwrite) as output:
        if output.finished:
            count(_read(config.output, kind))
            return _result(config, counts, config.output)
        parts = []
        for index, start in enumerate(range(0, size, PART)):
            path = output.scratch / f"part-{index:06d}.parquet"
            if not path.exists():
                temporary = path.with_suffix(".new")
                pq.write_table(part(start, min(start + PART, size)), temporary)
                temporary.replace(path)
            count(pq.read_table(path))
            parts.append(path)
        _join(parts, output.work, kind)
        output.commit()
    return _result(config, counts, config.output)


def _format(config: ScoreConfig) -> str:
    if config.output is None:
        if config.format == "parquet":
            raise InputError("parquet cannot go to standard output: name a file with -o, or say --format csv or jsonl")
        return "csv" if config.format == "auto" else config.format
    if config.format != "auto":
        return config.format
    kind = config.output.suffix.removeprefix(".")
    if kind not in ("parquet", "csv", "jsonl"):
        raise InputError(f"the output {config.output} must end in .parquet, .csv or .jsonl, or say --format")
    return kind


def _write_rows(table: "pa.Table", target: IO[bytes], kind: str, *, header: bool) -> None:
    from pyarrow import csv

    if kind == "csv":
        csv.write_csv(table, target, csv.WriteOptions(include_header=header))
    else:
        target.writelines(f"{json.dumps(row, ensure_ascii=False)}\n".encode() for row in table.to_pylist())


def _join(parts: list[Path], target: Path, kind: str) -> None:
    import pyarrow.parquet as pq

    from mood.detector import COLUMNS

    if kind == "parquet":
        with pq.ParquetWriter(target, COLUMNS) as writer:
            for path in parts:
                writer.write_table(pq.read_table(path))
        return
    with target.open("wb") as file:
        for index, path in enumerate(parts):
            _write_rows(pq.read_table(path), file, kind, header=index == 0)


def _read(path: Path, kind: str) -> "pa.Table":
    """The columns that are counted, of a table that is there already."""
    import pyarrow.parquet as pq
    from pyarrow import csv
    from pyarrow import json as json_lines

    from mood.detector import COLUMNS

    if kind == "parquet":
        return pq.read_table(path)
    if kind == "csv":
        return csv.read_csv(
            path,
            # A file's name may break the line.
            parse_options=csv.ParseOptions(newlines_in_values=True),
            convert_options=csv.ConvertOptions(
                column_types=COLUMNS, null_values=[""], strings_can_be_null=True, quoted_strings_can_be_null=False
            ),
        )
    return json_lines.read_json(path, parse_options=json_lines.ParseOptions(explicit_schema=COLUMNS))


def _result(config: ScoreConfig, counts: list[int], output: Path | None) -> ScoreResult:
    images, flagged, rejected = counts
    code = 0
    if config.fail_on_ood:
        code = 10 if flagged else 11 if rejected else 0
    return ScoreResult(images, flagged, rejected, output, code)
