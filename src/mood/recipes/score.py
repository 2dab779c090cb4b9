"""`mood score`: images → a table with a score, a p-value and a verdict for each."""

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import IO, TYPE_CHECKING, Annotated, Literal

from mood.core.config import Argument, NotInFingerprint, config, to_dict
from mood.core.errors import InputError
from mood.core.ranges import Level
from mood.recipes.settings import DetectorConfig, OutputConfig

if TYPE_CHECKING:
    import pyarrow as pa

    from mood.detector import Detector


# Images of a part: what a killed run has to do again at most.
PART = 2048


@config
class ScoreConfig(DetectorConfig, OutputConfig):
    """Say of each image how unusual it is, and whether that is too much."""

    images: Annotated[str, Argument("IMAGES")]
    """a folder, a Parquet file or glob, a named set, or features (.npz, Parquet with an embedding column)"""
    output: Annotated[Path | None, NotInFingerprint] = None
    """.parquet, .csv or .jsonl; without it the table goes to standard output"""
    format: Literal["auto", "parquet", "csv", "jsonl"] = "auto"
    """of the output; auto = by its ending, csv on standard output, which takes no parquet"""
    fdr: Level | None = None
    """flag so many that at most this share of what is flagged is known, on average over batches, in place of judging
    each image by alpha; the verdicts wait for the last image"""
    fdr_method: Literal["bh", "storey"] = "bh"
    """bh: Benjamini and Hochberg; storey: with an estimate of how many are known, for batches with many unknown"""
    fail_on_ood: Annotated[bool, NotInFingerprint] = False
    """leave with exit code 10 where an image is flagged, 11 where one could not be read and none is flagged"""


@dataclass(frozen=True)
class ScoreResult:
    """Counts, where the table is, and how many images were not new."""

    images: int
    flagged: int
    rejected: int
    output: Path | None
    exit_code: int = 0
    fdr: float | None = None
    fewest: int = 0
    note: str = ""

    @property
    def table_on_stdout(self) -> bool:
        """Whether the standard output belongs to the table, so that the summary must go elsewhere."""
        return self.output is None

    def summary(self) -> str:
        """One line for a person."""
        where = "" if self.output is None else f"; the table is in {self.output}"
        return (
            f"{self.images} images: {self.images - self.rejected} scored, {self.flagged} flagged as out of "
            f"distribution, {self.rejected} could not be read{where}{self._batch()}"
        ) + (f"\n{self.note}" if self.note else "")

    def _batch(self) -> str:
        """What a false-discovery rate needs before it flags anything."""
        if self.fdr is None:
            return ""
        return (
            f"\nof those flagged at most {self.fdr:.1%} are known images, on average over batches; p-values this "
            f"coarse flag nothing before {self.fewest} of these images are at least that unusual together"
        )


def score(config: ScoreConfig) -> ScoreResult:
    """Score images with a saved detector; start again to resume.

    Raises:
        MoodError: no detector there, images that cannot be found, an output that is taken.
    """
    config.check_detector()
    import sys

    import pyarrow as pa
    import pyarrow.parquet as pq

    from mood.core.features import Features
    from mood.core.output import open_output
    from mood.data import open_data
    from mood.detector import load
    from mood.recipes.familiar import not_new
    from mood.recipes.inputs import fingerprint_of

    kind = _format(config)
    detector = load(config.detector, device=config.device)
    images = open_data(config.images, roots=config.data_root)
    size = len(images)

    note = not_new(detector, images)

    def part(start: int, stop: int) -> "pa.Table":
        if isinstance(images, Features):
            return detector.judge(images[start:stop])
        return pa.concat_tables(
            detector.stream(images, batch_size=config.batch_size, workers=config.workers, start=start, stop=stop)
        )

    if config.fdr is not None:
        _check_fdr(config.fdr, detector)
    starts = range(0, size, PART)
    counts = _Counts()
    if config.output is None and config.fdr is None:
        for index, start in enumerate(starts):
            table = part(start, min(start + PART, size))
            counts.add(table)
            _write_rows(table, sys.stdout.buffer, kind, header=index == 0)
        return _result(config, counts, detector, note)

    def parts(folder: Path) -> "Iterator[pa.Table]":
        paths = [folder / f"part-{index:06d}.parquet" for index in range(len(starts))]
        for path, start in zip(paths, starts, strict=True):
            if not path.exists():
                temporary = path.with_suffix(".new")
                pq.write_table(part(start, min(start + PART, size)), temporary)
                temporary.replace(path)
        for table in _decided(paths, config):
            counts.add(table)
            yield table

    if config.output is None:
        with TemporaryDirectory() as folder:
            for index, table in enumerate(parts(Path(folder))):
                _write_rows(table, sys.stdout.buffer, kind, header=index == 0)
        return _result(config, counts, detector, note)
    settings = to_dict(config) | {"images": fingerprint_of(images), "detector": detector.fingerprint()}
    with open_output(config.output, settings, kind="file", overwrite=config.overwrite) as output:
        if output.finished:
            counts.add(_read(config.output, kind))
            return _result(config, counts, detector, note)
        _write(parts(output.scratch), output.work, kind)
        output.commit()
    return _result(config, counts, detector, note)


@dataclass
class _Counts:
    """Of the images that went by."""

    images: int = 0
    flagged: int = 0
    rejected: int = 0
    large: int = 0

    def add(self, table: "pa.Table") -> None:
        import pyarrow.compute as pc

        from mood.decisions.fdr import LAMBDA

        self.images += table.num_rows
        self.flagged += pc.sum(table["is_ood"]).as_py() or 0
        self.rejected += table["error"].length() - table["error"].null_count
        self.large += pc.sum(pc.greater_equal(table["p_value"], LAMBDA)).as_py() or 0


def _check_fdr(level: float, detector: "Detector") -> None:
    """Refuse a false-discovery rate that nobody can promise."""
    from mood.decisions import fewest_discoveries, kind_of

    fewest_discoveries(level, detector.guarantee.smallest, 1)
    kind = kind_of(detector.calibration)
    if kind not in ("split", "conditional"):
        raise InputError(
            f"a false-discovery rate is proven for p-values of one calibration set, and those of this detector are "
            f"{kind}: calibrate it on images held out (mood calibrate), or leave out fdr"
        )


def _decided(paths: "list[Path]", config: ScoreConfig) -> "Iterator[pa.Table]":
    """The parts, with verdicts on all of them together where a false-discovery rate is asked for."""
    import numpy as np
    import pyarrow as pa
    import pyarrow.parquet as pq

    from mood.decisions import discoveries
    from mood.detector import COLUMNS

    if config.fdr is None:
        yield from map(pq.read_table, paths)
        return
    # Eight bytes an image are all that is held of them at once.
    p_values = [pq.read_table(path, columns=["p_value"])["p_value"].drop_null().to_numpy() for path in paths]
    flagged = discoveries(np.concatenate([np.empty(0), *p_values]), config.fdr, method=config.fdr_method)
    start = 0
    for path, scored in zip(paths, p_values, strict=True):
        table = pq.read_table(path)
        lost = table["p_value"].is_null().to_numpy()
        verdicts = np.zeros(len(table), bool)
        verdicts[~lost] = flagged[start : start + len(scored)]
        start += len(scored)
        place = COLUMNS.get_field_index("is_ood")
        yield table.set_column(place, COLUMNS.field(place), pa.array(verdicts, mask=lost))


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


def _write(tables: "Iterable[pa.Table]", target: Path, kind: str) -> None:
    import pyarrow.parquet as pq

    from mood.detector import COLUMNS

    if kind == "parquet":
        with pq.ParquetWriter(target, COLUMNS) as writer:
            for table in tables:
                writer.write_table(table)
        return
    with target.open("wb") as file:
        for index, table in enumerate(tables):
            _write_rows(table, file, kind, header=index == 0)


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


def _result(config: ScoreConfig, counts: _Counts, detector: "Detector", note: str) -> ScoreResult:
    from mood.decisions import fewest_discoveries, id_share

    code = 0
    if config.fail_on_ood:
        code = 10 if counts.flagged else 11 if counts.rejected else 0
    fewest = 0
    if config.fdr is not None:
        scored = counts.images - counts.rejected
        known = id_share(counts.large, scored) if config.fdr_method == "storey" and scored else 1.0
        fewest = fewest_discoveries(config.fdr, detector.guarantee.smallest, scored, known=known)
    return ScoreResult(counts.images, counts.flagged, counts.rejected, config.output, code, config.fdr, fewest, note)
