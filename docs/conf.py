import json
from collections.abc import Iterator
from typing import Any

from docutils.nodes import Node
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective
from typer.main import get_command

from mood import __version__
from mood.cli import app
from mood.scores import available

project = "mood"
author = "The mood developers"
copyright = "the mood developers, Apache-2.0"
version = release = __version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
exclude_patterns = ["_build"]
html_theme = "furo"
html_title = "mood"

# Words in single backticks are code, here as in the docstrings.
default_role = "code"
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
python_use_unqualified_type_names = True
napoleon_use_ivar = True
myst_heading_anchors = 3
myst_enable_extensions = ["dollarmath"]


def _fenced(lines: list[str]) -> Iterator[str]:
    """Fenced blocks as reStructuredText writes them: a reader of the source should see neither."""
    inside = False
    for line in lines:
        if line.lstrip().startswith("```"):
            inside = not inside
            if inside:
                yield ""
                yield f".. code-block:: {line.strip().removeprefix('```') or 'text'}"
            yield ""
        else:
            yield f"    {line}" if inside else line


class Generated(SphinxDirective):
    """What is made when the pages are built. In its place, whoever reads the source sees the lines that it encloses."""

    has_content = True


class Commands(Generated):
    """A table of arguments and flags for each command, from where the command line has them."""

    def run(self) -> list[Node]:
        group: Any = get_command(app)
        text = "\n".join(line for name, command in group.commands.items() for line in self.command(name, command))
        return self.parse_text_to_nodes(text, allow_section_headings=True)

    def command(self, name: str, command: Any) -> Iterator[str]:
        yield from (f"## mood {name}", "", (command.help or "").strip(), "", "| | |", "|---|---|")
        for parameter in command.params:
            if parameter.param_type_name == "argument":
                flag = f"`{parameter.metavar}`"
            else:
                flag = ", ".join(f"`{option}`" for option in (*parameter.opts, *parameter.secondary_opts))
            yield f"| {flag} | {_cell(parameter.help)} |"
        yield ""


class Scores(Generated):
    """The table of scores, from the registry."""

    def run(self) -> list[Node]:
        return self.parse_text_to_nodes("\n".join(self.table()))

    def table(self) -> Iterator[str]:
        yield from ("| score | what it is | needs | options | memory | source |", "|---|---|---|---|---|---|")
        for name, info in available().items():
            needs = ", ".join(info.needs)
            options = ", ".join(f"`{key}={json.dumps(value)}`" for key, value in info.options.items())
            told = " | ".join(_cell(text) for text in (info.memory, info.source))
            yield f"| `{name}` | {_cell(info.summary)} | {needs} | {options} | {told} |"


def _cell(text: str | None) -> str:
    return " ".join((text or "").split()).replace("|", "&#124;")


def setup(sphinx: Sphinx) -> None:
    sphinx.add_directive("commands", Commands)
    sphinx.add_directive("scores", Scores)

    def unfence(_: Sphinx, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
        lines[:] = _fenced(lines)

    sphinx.connect("autodoc-process-docstring", unfence, priority=400)
