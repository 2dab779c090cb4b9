"""The names of the scores, before any score is loaded: a slip is answered at once.

The registry imports every score, and with them torch, which takes seconds. The names stand in the files of the scores,
and are read from there.
"""

import difflib
import re
from collections.abc import Iterable
from functools import cache
from importlib.resources import files

from mood.core.errors import InputError

SEPARATOR = ","
"""Between the names of scores that are combined."""

_REGISTERED = re.compile(r'^@(?:fitted|stateless)\(\s*"([^"]+)"', re.MULTILINE)


@cache
def names() -> tuple[str, ...]:
    """Of every score."""
    texts = [file.read_text(encoding="utf-8") for file in files("mood.scores").iterdir() if file.name.endswith(".py")]
    return tuple(sorted(name for text in texts for name in _REGISTERED.findall(text)))


def check_name(name: str) -> None:
    """Refuse what is no name of a score, or of several with commas between them, without loading one.

    Raises:
        InputError: nothing has this name, or that of a part; the message names the nearest one.
    """
    for part in name.split(SEPARATOR):
        if (word := part.strip()) and word not in names():
            raise InputError(unknown(word, names()))


def unknown(name: str, known: Iterable[str]) -> str:
    """What is said of a score that is none."""
    return f"unknown score {name!r}; {nearest(name, known)}"


def nearest(word: str, known: Iterable[str]) -> str:
    """Which of the known words an unknown one was meant to be, as a sentence."""
    known = sorted(known)
    close = difflib.get_close_matches(word, known, n=1)
    return f"did you mean {close[0]!r}?" if close else f"known: {', '.join(known) or 'none'}"
