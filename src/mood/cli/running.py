"""What a person sees of a run: its summary, or one line that says what is wrong."""

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Protocol

import typer

from mood.core.errors import MoodError
from mood.core.ranks import count, rank

REFUSED = 1
INTERRUPTED = 130
BROKEN_PIPE = 141


class Result(Protocol):
    """What every recipe returns.

    It may also have an `exit_code` other than 0, for scripts, and `table_on_stdout`, which is true where the recipe has
    written its table there.
    """

    def summary(self) -> str:
        """What a person wants to know, as plain lines."""


@contextmanager
def told(debug: bool) -> Iterator[None]:
    """Turn errors into a line and an exit code.

    Args:
        debug: leave the errors as they are, with their traceback.

    Raises:
        typer.Exit: with the error's `exit_code`, 1 where the system refused something, or what shells expect after
            Ctrl-C and a closed pipe.
    """
    try:
        yield
    except MoodError as error:
        if debug:
            raise
        _tell(error)
        raise typer.Exit(error.exit_code) from error
    except KeyboardInterrupt as error:
        typer.echo("\nstopped; the same command goes on from here", err=True)
        raise typer.Exit(INTERRUPTED) from error
    except BrokenPipeError as error:
        # Whoever read has seen enough. What is still buffered has nowhere to go.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise typer.Exit(BROKEN_PIPE) from error
    except OSError as error:
        # A full disk, a folder that may not be read: the system says what, and no traceback says more.
        if debug:
            raise
        _tell(error)
        raise typer.Exit(REFUSED) from error


def _tell(error: Exception) -> None:
    place = f"process {rank() + 1} of {count()}: " if count() > 1 else ""
    typer.echo(f"{typer.style('error:', fg='red', bold=True)} {place}{error}", err=True)


def run(make_config: Callable[[], Any], recipe: Callable[[Any], Result], *, debug: bool) -> None:
    """Call a recipe and print its summary: on the standard error where the standard output belongs to a table.

    Args:
        make_config: gives the config, or says what is wrong with it.
        recipe: takes the config.
        debug: show the traceback of an error.

    Raises:
        typer.Exit: see `told`; or with the result's own exit code.
    """
    with told(debug):
        config = make_config()
        result = recipe(config)
        if rank() == 0:
            typer.echo(result.summary(), err=getattr(result, "table_on_stdout", False))
            sys.stdout.flush()
    code = getattr(result, "exit_code", 0)
    if code:
        raise typer.Exit(code)
