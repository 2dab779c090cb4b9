"""Images that a training run could not read: each is written down once, with the reason, and the run goes on."""

import json
import logging
from collections.abc import Iterable, Iterator
from pathlib import Path

from mood.data import TrainingBatch

REJECTIONS = "rejections.jsonl"

_log = logging.getLogger(__name__)


def noted(batches: Iterable[TrainingBatch], folder: Path, process: int = 0) -> Iterator[TrainingBatch]:
    """The batches without their rejections, which become lines of `rejections.jsonl`, one an image.

    The file outlives a kill: a run that goes on adds what is not there yet. The first line of all is told in the log.
    Each of several processes has a file of its own.
    """
    path = folder / (f"{process}-{REJECTIONS}" if process else REJECTIONS)
    known = _read(path)
    if path.exists():
        # Without the line that a kill cut short.
        path.write_text("".join(_line(*item) for item in known.items()), encoding="utf-8")
    for batch in batches:
        new = {item.id: item.reason for item in batch.rejections if item.id not in known}
        if new:
            if not known:
                _log.warning(
                    "%s is left out of training: %s The list goes to %s.", *next(iter(new.items())), REJECTIONS
                )
            known |= new
            with path.open("a", encoding="utf-8") as file:
                file.writelines(_line(*item) for item in new.items())
        yield batch._replace(rejections=())


def rejections(folder: Path) -> dict[str, str]:
    """Reasons by image id, of the run that wrote to this folder; empty where every image was read."""
    found: dict[str, str] = {}
    for path in [folder / REJECTIONS, *sorted(folder.glob(f"*-{REJECTIONS}"))]:
        found |= _read(path)
    return found


def keep_rejections(scratch: Path, folder: Path) -> None:
    """Write the list of all processes, where there is one, to what a run leaves."""
    found = rejections(scratch)
    if found:
        lines = "".join(_line(*item) for item in found.items())
        (folder / REJECTIONS).write_text(lines, encoding="utf-8")


def _read(path: Path) -> dict[str, str]:
    found: dict[str, str] = {}
    for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else ():
        try:
            row = json.loads(line)
        except json.JSONDecodeError:
            break
        found[row["id"]] = row["reason"]
    return found


def told(count: int) -> str:
    """What a summary says of them."""
    if not count:
        return ""
    return f"; {count} image{'s' if count > 1 else ''} could not be read, see {REJECTIONS} there"


def _line(name: str, reason: str) -> str:
    return json.dumps({"id": name, "reason": reason}) + "\n"
