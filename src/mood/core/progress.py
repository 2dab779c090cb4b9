"""A bar for whoever watches a terminal, and nothing at all for whoever reads a pipe."""

import sys
from collections.abc import Iterable, Iterator
from typing import TypeVar

T = TypeVar("T")


def track(iterable: Iterable[T], description: str, total: int) -> Iterator[T]:
    """Pass the items on and, where the standard error is a terminal, draw a bar there.

    Args:
        iterable: what is worked through.
        description: a few words beside the bar.
        total: how many items there are.
    """
    if not sys.stderr.isatty():
        yield from iterable
        return
    from rich.console import Console
    from rich.progress import track as draw

    # Gone when done: what stays on the terminal is the result.
    yield from draw(iterable, description, total=total, console=Console(stderr=True), transient=True)
