"""A bar on the standard error for whoever watches a terminal, and no bar for whoever reads a pipe.

Of several processes that train together, the first one draws it, and says what there is to say.
"""

import sys
from collections.abc import Iterable, Iterator, Sized
from contextlib import contextmanager
from typing import TYPE_CHECKING, TypeVar

from mood.core.ranks import rank

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

T = TypeVar("T")


class Bar:
    """How far the work is. Made by `progress`."""

    def __init__(self, drawn: "tuple[Progress, TaskID] | None") -> None:
        """See `progress`; without a terminal there is nothing to draw on."""
        self._drawn = drawn

    def advance(self, n: int = 1, **fields: float) -> None:
        """So many more are done.

        Args:
            n: how many.
            **fields: numbers to show beside the bar, such as `loss=0.31`.
        """
        if self._drawn is None:
            return
        drawing, task = self._drawn
        drawing.advance(task, n)
        if fields:
            drawing.update(task, note="  ".join(f"{name} {value:.4g}" for name, value in fields.items()))


@contextmanager
def progress(total: int | None, description: str, *, start: int = 0) -> Iterator[Bar]:
    """A bar for the time of a `with` block.

    Args:
        total: how many there are to do; None where nobody knows.
        description: a few words beside the bar.
        start: how many a run before this one has done.
    """
    if not sys.stderr.isatty() or rank():
        yield Bar(None)
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
    )
    # Transient: what stays on the terminal is the result.
    with Progress(*columns, console=Console(stderr=True), transient=True) as drawing:
        yield Bar((drawing, drawing.add_task(description, total=total, completed=start, note="")))


def say(words: str) -> None:
    """One line on the standard error, of work that takes hours: also where nobody watches, and a file keeps it.

    Args:
        words: what has happened; line breaks in it become spaces.
    """
    if not rank():
        print(" ".join(words.split()), file=sys.stderr, flush=True)


def track(iterable: Iterable[T], *, total: int | None = None, description: str = "") -> Iterator[T]:
    """Pass the items on, with a bar beside them.

    Args:
        iterable: what is worked through.
        total: how many items there are; None asks `len`, where there is one.
        description: a few words beside the bar.
    """
    if total is None and isinstance(iterable, Sized):
        total = len(iterable)
    with progress(total, description) as bar:
        for item in iterable:
            yield item
            bar.advance()
