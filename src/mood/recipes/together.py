"""One output of several processes: the first one writes it, the others know of it."""

import os
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

from mood.core.errors import MoodError
from mood.core.output import Output, open_output
from mood.training import Processes


@contextmanager
def open_output_of_all(
    together: Processes, path: str | os.PathLike[str], settings: Mapping[str, Any], *, overwrite: bool
) -> Iterator[Output]:
    """`open_output` by the first process; the others are given the same places, to read and not to write.

    All of them see one file system. The first one calls `commit`.

    Raises:
        OutputError: in every process, what the first one was told.
    """
    with ExitStack() as stack:
        output, refused = None, None
        if together.first:
            try:
                output = stack.enter_context(open_output(path, settings, overwrite=overwrite))
            except MoodError as error:
                refused = error
        refused = together.agree(refused)
        if refused is not None:
            raise refused
        if output is None:
            output = Output.of_another(path, settings)
        output.finished = together.agree(output.finished)
        yield output
