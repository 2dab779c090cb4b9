"""The command line: it parses, calls one recipe, and prints what the recipe says about its result."""

import importlib
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from mood.cli.flags import command
from mood.cli.running import run, told
from mood.core.version import __version__

# The recipes by what a person is about to do: `mood NAME` is `mood.recipes.NAME.NAME(NameConfig)`.
RECIPES = {
    "Start here": ("demo",),
    "Use a detector": ("fit", "calibrate", "score", "monitor", "evaluate"),
    "Compare methods": ("bench",),
    "Train a network": ("tokenizer", "pretrain", "finetune", "train"),
    "Work with features": ("extract", "cache"),
}

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
    context_settings={"help_option_names": ["-h", "--help"]},
)


def main() -> None:
    """The `mood` command."""
    try:
        app()
    except KeyboardInterrupt:
        # While modules are loaded there is no run to speak of.
        sys.exit(130)


@app.callback(invoke_without_command=True)
def mood(
    version: Annotated[bool, typer.Option("--version", help="show the version")] = False,
) -> None:
    """Tell images that do not belong from those that do, with a promised rate of false alarms.

    Start with three lines:

    ```
    mood fit IMAGES -o detector
    mood score detector OTHER_IMAGES -o scores.csv
    mood evaluate detector --id TEST_IMAGES --ood strange=STRANGE_IMAGES
    ```

    IMAGES is a folder, a Parquet file or a named set such as cifar10. Every command that writes takes `-o`; when it
    was interrupted, the same command goes on.
    """
    if version:
        typer.echo(f"mood {__version__}")
        raise typer.Exit


def add(name: str, panel: str) -> None:
    """Make a recipe a command."""
    module = importlib.import_module(f"mood.recipes.{name}")
    recipe = getattr(module, name)
    config = getattr(module, f"{name.capitalize()}Config")
    app.command(name, rich_help_panel=panel)(command(config, lambda make, debug: run(make, recipe, debug=debug)))


for panel, names in RECIPES.items():
    for name in names:
        add(name, panel)


@app.command(rich_help_panel="Look around")
def scores(
    name: Annotated[
        str | None, typer.Argument(metavar="NAME", help="of one score, for all of it", show_default=False)
    ] = None,
) -> None:
    """List the scores: what each one needs, and its options. With NAME, all of one, its source among it."""
    with told(debug=False):
        from rich.console import Console
        from rich.table import Table
        from rich.text import Text

        from mood import scores as room

        if name is not None:
            room.check_name(name)
        table = Table(box=None, pad_edge=False, show_header=False)
        if name is None:
            # Two columns, which have place in a narrow terminal.
            table.add_column(no_wrap=True)
            for known, info in room.available().items():
                options = _spelled(info.options)
                beneath = f"needs {', '.join(info.needs)}" + (f"; options {options}" if options else "")
                table.add_row(known, Text.assemble(info.summary, "\n", (beneath, "dim")))
        else:
            info = room.info(name)
            for heading, text in (
                ("score", name),
                ("what it is", info.summary),
                ("source", info.source),
                ("needs", ", ".join(info.needs)),
                ("fitted", "on known images" if info.fitted else "no: it is ready as it is"),
                ("options", _spelled(info.options) or "none"),
                ("memory", info.memory and f"for 1000 classes × 1M images of 768 values: {info.memory}"),
            ):
                if text:
                    table.add_row(heading, text)
        Console().print(table, markup=False)


def _spelled(options: Mapping[str, Any]) -> str:
    """Options and their defaults as `--options` takes them."""
    return " ".join(f"{key}={json.dumps(value)}" for key, value in options.items())


@app.command(rich_help_panel="Look around")
def sets(
    name: Annotated[
        str | None, typer.Argument(metavar="NAME", help="of one set, for its card", show_default=False)
    ] = None,
    data_root: Annotated[
        list[Path] | None,
        typer.Option(help="folder in which sets are searched first (may be repeated)", show_default=False),
    ] = None,
) -> None:
    """List the sets that have a name: which are here. With NAME, its card: size, licence, overlap, where to get it."""
    with told(debug=False):
        from rich.console import Console
        from rich.table import Table

        from mood import data as room

        roots = data_root or []
        table = Table(box=None, pad_edge=False, show_header=name is None)
        if name is None:
            for heading in ("set", "what it is", "splits", "here"):
                table.add_column(heading, no_wrap=heading == "set")
            for known, card in room.cards().items():
                places = room.find(known, roots=roots)
                here = ", ".join(split or "yes" for split, place in places.items() if place)
                table.add_row(known, card.title, ", ".join(card.splits), here or "no")
        else:
            card = room.card(name)
            for heading, text in card.lines():
                table.add_row(heading, text)
            for split, place in room.find(card.name, roots=roots).items():
                table.add_row(f"here: {split}".removesuffix(": "), str(place or "no"))
        Console().print(table, markup=False)


@app.command(rich_help_panel="Look around")
def info(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="a folder that mood saved", show_default=False)],
) -> None:
    """Print what a saved detector or network says about itself, as JSON."""
    with told(debug=False):
        from mood.core import artifact

        described: dict[str, Any] = artifact.describe(folder)
        del described["files"]
        typer.echo(json.dumps(described, indent=2, ensure_ascii=False))
