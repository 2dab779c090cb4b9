"""The errors that mood raises on purpose.

```
MoodError
├── InputError (ValueError)      an argument, a column, an option or a config value is wrong      exit 2
├── DataError                    images or a data set cannot be found, or none of them be read    exit 3
├── ModelError                   a network or its weights cannot be had, or do not fit            exit 4
├── ArtifactError                a saved folder is damaged, too new, or of another kind           exit 5
├── OutputError                  the place named by -o is taken by something else                 exit 6
├── PromiseError                 the false-alarm rate that was asked for cannot be promised       exit 7
└── MissingExtraError (ImportError)   an optional dependency is not installed                     exit 8
```

Every message names the thing, what came, what was expected, and what to do. The command line prints the message
alone, without a traceback, and leaves with the error's `exit_code`.
"""

from typing import ClassVar


class MoodError(Exception):
    """Any failure that mood can explain."""

    exit_code: ClassVar[int] = 1


class InputError(MoodError, ValueError):
    """An argument, a column, an option or a config value is wrong."""

    exit_code = 2


class DataError(MoodError):
    """Images or a data set cannot be found, or none of them can be read."""

    exit_code = 3


class ModelError(MoodError):
    """A network or its weights cannot be had, or do not fit each other."""

    exit_code = 4


class ArtifactError(MoodError):
    """A saved folder is damaged, was written by a newer mood, or holds another kind of thing."""

    exit_code = 5


class OutputError(MoodError):
    """The output path is taken by something that this run must not touch."""

    exit_code = 6


class PromiseError(MoodError):
    """The false-alarm rate that was asked for cannot be promised with these images."""

    exit_code = 7


class MissingExtraError(MoodError, ImportError):
    """An optional dependency is not installed."""

    exit_code = 8
