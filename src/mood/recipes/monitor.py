"""`mood monitor`: a stream of images, watched until it stops being like the calibration images."""

import hashlib
import json
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field

from mood.core.config import Argument, NotInFingerprint, config
from mood.core.errors import ArtifactError, InputError, OutputError
from mood.core.ranges import Count, Level, Seed
from mood.recipes.settings import DetectorConfig

if TYPE_CHECKING:
    from mood.core.features import Features
    from mood.data import Source
    from mood.decisions import Monitor, Window
    from mood.detector import Detector

KIND = "monitor"
ALARMED = 12

# Streams whose images are remembered as judged, the newest ones.
STREAMS = 1000

Order = Literal["given", "random"]


@config
class MonitorConfig(DetectorConfig):
    """Watch a stream of images, and say when the promise has expired."""

    stream: Annotated[str, Argument("STREAM")]
    """the next images, in their order: a folder, a Parquet file or glob, a named set, or features"""
    state: Path | None = None
    """file in which the monitor lives on between runs; made where it is absent"""
    level: Level = 0.01
    """probability of a false alarm over the whole stream, however long it goes on"""
    window: Count = 500
    """images of a line of the table"""
    cap: Annotated[int, Field(ge=1, le=2**31)] | None = None
    """scores that a new one is compared with at most; 10,000 unless said, or the calibration images where there are
    more"""
    order: Order = "given"
    """of the images: as they come, or mixed, for streams that are sorted (a folder of classes is, by class)"""
    seed: Seed = 0
    """of the draws that break ties and choose who leaves the reference, and of a random order"""
    format: Literal["table", "jsonl"] = "table"
    """of what is printed, a line a window"""
    page: Annotated[Path | None, NotInFingerprint] = None
    """HTML file for a picture of the evidence and the windows"""
    fail_on_alarm: Annotated[bool, NotInFingerprint] = False
    """leave with exit code 12 where the stream has alarmed"""


@dataclass(frozen=True)
class MonitorResult:
    """Where the stream stands."""

    monitor: "Monitor"
    judged: int
    state: Path | None
    exit_code: int = 0
    note: str = ""
    by_class: bool = False

    @property
    def table_on_stdout(self) -> bool:
        """The windows have gone to the standard output."""
        return True

    def summary(self) -> str:
        """A few lines for a person."""
        m = self.monitor
        last = m.so_far()
        lines = [
            f"{self.judged} new images judged, {m.images} in all; evidence 10^{last.log10_evidence:.1f}, at most "
            f"10^{last.log10_peak:.1f}, against 1/{m.level:g} for an alarm"
        ]
        if m.alarmed:
            lines.append(
                f"ALARM at image {m.alarm}: the images have stopped being like the calibration images, here or before, "
                "and the promised rate of false alarms does not hold for them. Look at the windows, calibrate again, "
                "and begin a new state"
                + (
                    ". These images came class by class, which alone can raise an alarm: --order random mixes them"
                    if self.by_class
                    else ""
                )
            )
        else:
            lines.append(
                f"no alarm; of streams that stay like the calibration images, at most {m.level:.2%} ever raise one"
            )
        lines.append(
            "nothing was kept: name a file with --state to go on from here"
            if self.state is None
            else f"the state is in {self.state}"
        )
        if self.note:
            lines.append(f"{self.note}, and neither is the evidence")
        return "\n".join(lines)


@dataclass
class Watch:
    """A monitor beside its detector, and beside the file in which it lives on. Made by `watch`.

    Attributes:
        detector: what judges the images.
        monitor: what watches the scores.
        path: of its state; None where it is not kept.
        streams: what has been judged: for each stream its name, how many of its images, and a digest of these.
        note: how many images of the last stream were not new to the detector; empty where all were.
        by_class: whether the images of the last stream came class by class.
    """

    detector: "Detector"
    monitor: "Monitor"
    path: Path | None
    streams: list[dict[str, Any]] = field(default_factory=list)
    note: str = ""
    by_class: bool = False

    def __call__(
        self,
        images: Any,
        *,
        batch_size: int = 64,
        workers: int = 0,
        roots: Sequence[str] = (),
        order: Order = "given",
    ) -> "Iterator[Window]":
        """Judge the images of a stream that have not been judged, and give each window as it fills.

        The state is written after each window and at the end. Where the same stream has been judged in part, or has
        grown at its end, this goes on behind the last image that was judged.

        Args:
            images: DATA, in-memory images, an opened source, or features.
            batch_size: images a pass.
            workers: processes that decode.
            roots: folders in which named sets are looked for.
            order: "given", or "random" by the seed of the monitor and the images themselves, so that a run that was
                stopped goes on in the same order; such a stream cannot grow.

        Raises:
            DataError: there are no images.
            InputError: images that have been judged are not what they were, or features of no row.
            OutputError: another run uses the state, or it cannot be written.
        """
        from mood.core.output import locked
        from mood.recipes.familiar import not_new

        with ExitStack() as held:
            if self.path is not None:
                self.path.parent.mkdir(parents=True, exist_ok=True)
                held.enter_context(locked(self.path.resolve()))
                # Somebody else may have moved it on since it was read.
                if self.path.exists():
                    self.monitor, self.streams = _read(self.path, self.detector)
            stream, name, entries = _opened(images, roots)
            if order == "random":
                stream, entries = _mixed(stream, entries, self.monitor.reference.seed)
            self.by_class = _comes_by_class(stream)
            record = self._record(name, entries, order)
            digest = _prefix(entries, record["images"])
            self.note = not_new(self.detector, stream, start=record["images"])
            for position, full in self.detector.watch(
                stream, self.monitor, batch_size=batch_size, workers=workers, start=record["images"]
            ):
                for entry in entries[record["images"] : position]:
                    digest.update(entry)
                record |= {"images": position, "digest": digest.hexdigest()}
                if full:
                    self._save()
                yield from full
            self._save()

    def _record(self, name: str, entries: list[bytes], order: Order) -> dict[str, Any]:
        """What has been judged of these images, by their bytes; a new record where nothing was."""
        for record in reversed(self.streams):
            count = record["images"]
            if 0 < count <= len(entries) and _prefix(entries, count).hexdigest() == record["digest"]:
                known: dict[str, Any] = record
                return known
        for record in self.streams:
            if record["name"] == name:
                where = "" if order == "random" else "after the old ones in the order of their names, or "
                raise InputError(
                    f"{record['images']} images of {name} have been judged, and they are not the first ones there any "
                    f"more: no image may be judged twice. New images must come {where}in a folder of another name, and "
                    "a stream goes on in the order (given or random) in which it began"
                )
        new: dict[str, Any] = {"name": name, "images": 0, "digest": ""}
        self.streams = [*self.streams, new][-STREAMS:]
        return new

    def _save(self) -> None:
        from mood.core.state import write_state

        if self.path is not None:
            arrays, meta = self.monitor.state()
            about = {"detector": self.detector.fingerprint(), "streams": self.streams, "monitor": meta}
            write_state(self.path, kind=KIND, arrays=arrays, meta=about)


def watch(detector: "Detector", state: str | Path | None = None, **settings: Any) -> Watch:
    """Watch streams with a detector; go on where a state was left.

    ```python
    watch = mood.watch(detector, "monitor.state", level=0.01)
    for window in watch("new-photos/"):
        print(window.flagged, window.log10_evidence, window.alarm)
    ```

    Args:
        detector: from `fit` or `load`.
        state: file of the monitor; made where it is absent.
        **settings: `level`, `window`, `cap`, `seed`, as in `MonitorConfig`.

    Raises:
        ArtifactError: the state is damaged, or of another detector.
        InputError: a setting is out of its range, or another one than in the state.
    """
    path = None if state is None else Path(state)
    if path is None or not path.exists():
        return Watch(detector, detector.monitor(**settings), path)
    monitor, streams = _read(path, detector)
    there = {
        "level": monitor.level,
        "window": monitor.window,
        "cap": monitor.reference.cap,
        "seed": monitor.reference.seed,
    }
    for name, value in settings.items():
        if value is not None and there[name] != value:
            raise InputError(
                f"{path} was begun with {name} {there[name]:g}, now it is {value:g}: leave that as it was, or begin a "
                "new state"
            )
    return Watch(detector, monitor, path, streams)


def monitor(config: MonitorConfig) -> MonitorResult:
    """Watch the next images of a stream; start again to go on.

    Raises:
        MoodError: no detector there, images that cannot be found, a state of another detector, a page that cannot be
            written.
    """
    config.check_detector()
    from mood.detector import load

    if config.page is not None and (config.page.is_dir() or not config.page.parent.is_dir()):
        raise OutputError(f"page is {config.page}; it must be a file, in a folder that is there")
    watching = watch(
        load(config.detector, device=config.device),
        config.state,
        level=config.level,
        window=config.window,
        cap=config.cap,
        seed=config.seed,
    )
    show = _table if config.format == "table" else _lines
    before = watching.monitor.images
    windows = watching(
        config.stream,
        batch_size=config.batch_size,
        workers=config.workers,
        roots=config.data_root,
        order=config.order,
    )
    show(windows, watching)
    if config.page is not None:
        from mood.report import monitor_page

        m = watching.monitor
        config.page.write_text(
            monitor_page([item.to_dict() for item in (*m.windows, m.so_far())], level=m.level, alpha=m.alpha),
            encoding="utf-8",
        )
    alarmed = config.fail_on_alarm and watching.monitor.alarmed
    judged, code = watching.monitor.images - before, ALARMED if alarmed else 0
    return MonitorResult(watching.monitor, judged, config.state, code, watching.note, watching.by_class)


def _lines(windows: "Iterator[Window]", watching: Watch) -> None:
    for window in windows:
        print(json.dumps(window.to_dict()), flush=True)


def _table(windows: "Iterator[Window]", watching: Watch) -> None:
    # What is wrong with a stream shows when it is opened: nothing is printed before.
    first = next(windows, None)
    print("   images  unreadable  flagged  drift  by chance  evidence  alarm")
    for window in [] if first is None else chain([first], windows):
        print(_row(window), flush=True)
    rest = watching.monitor.so_far()
    if rest.images or rest.unreadable:
        print(f"{_row(rest)}  (not full)")


def _row(window: "Window") -> str:
    drift, chance = ("-" if value is None else f"{value:.2f}" for value in (window.drift, window.drift_by_chance))
    alarm = "-" if window.alarm is None else str(window.alarm)
    return (
        f"{window.first + window.images:9}  {window.unreadable:10}  {window.flagged:7.1%}  {drift:>5}  {chance:>9}  "
        f"{f'10^{window.log10_evidence:.1f}':>8}  {alarm:>5}"
    )


def _opened(images: Any, roots: Sequence[str]) -> "tuple[Source | Features, str, list[bytes]]":
    """A stream, its name, and a line for each of its images: what they are called and what they hold."""
    from mood.core.features import Features
    from mood.data import open_data

    stream = open_data(images, roots=roots)
    if isinstance(stream, Features):
        name = str(images) if isinstance(images, str | Path) else "features"
        if not len(stream):
            raise InputError(f"{name} holds no row: there is nothing to watch")
        ids, hashes = stream.ids, stream.hashes()
    else:
        name, ids, hashes = stream.description, stream.manifest.ids, stream.manifest.hashes
    return stream, name, [f"{item}\0{digest}\n".encode() for item, digest in zip(ids, hashes, strict=True)]


def _mixed(stream: "Source | Features", entries: list[bytes], seed: int) -> "tuple[Source | Features, list[bytes]]":
    """The images in an order that depends on the seed and on them alone."""
    from mood.core.features import Features

    drawn = [hashlib.sha256(f"{seed}:".encode() + entry).digest() for entry in entries]
    order = sorted(range(len(entries)), key=drawn.__getitem__)
    mixed = stream[order] if isinstance(stream, Features) else stream.select(order)
    return mixed, [entries[position] for position in order]


def _comes_by_class(stream: "Source | Features") -> bool:
    """Whether the images of one class come after those of another, as in a folder of classes."""
    from mood.core.features import Features

    labels = stream.labels if isinstance(stream, Features) else stream.manifest.labels
    return labels is not None and bool(labels[0] < labels[-1]) and bool((labels[1:] >= labels[:-1]).all())


def _prefix(entries: list[bytes], count: int) -> Any:
    """A digest of the first images, to go on with."""
    digest = hashlib.sha256()
    for entry in entries[:count]:
        digest.update(entry)
    return digest


def _read(path: Path, detector: "Detector") -> "tuple[Monitor, list[dict[str, Any]]]":
    from mood.core.state import read_state
    from mood.decisions import Monitor

    arrays, meta = read_state(path, kind=KIND)
    if meta["detector"] != detector.fingerprint():
        raise ArtifactError(
            f"{path} watches another detector: its evidence says nothing about this one. Begin a new state"
        )
    return Monitor.restore(arrays, meta["monitor"]), meta["streams"]
