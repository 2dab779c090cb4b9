import importlib
from collections.abc import Iterator
from typing import Any

from docutils.nodes import Node
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

from mood import __version__
from mood.cli import RECIPES
from mood.core.config import Argument, fields

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


class Commands(SphinxDirective):
    """A table of flags for each command, from where the command line has them."""

    def run(self) -> list[Node]:
        text = "\n".join(line for names in RECIPES.values() for name in names for line in self.command(name))
        return self.parse_text_to_nodes(text, allow_section_headings=True)

    def command(self, name: str) -> Iterator[str]:
        config = getattr(importlib.import_module(f"mood.recipes.{name}"), f"{name.capitalize()}Config")
        yield from (f"## mood {name}", "", config.__doc__, "", "| | | default |", "|---|---|---|")
        for key, field in fields(config).items():
            argument = next((mark.metavar for mark in field.metadata if isinstance(mark, Argument)), None)
            default = "" if field.is_required() or field.default in (None, ()) else f"`{field.default!r}`"
            flag = f"`{argument or '--' + key.replace('_', '-')}`"
            yield f"| {flag} | {' '.join((field.description or '').split()).replace('|', '&#124;')} | {default} |"
        yield ""


def setup(app: Sphinx) -> None:
    app.add_directive("commands", Commands)

    def unfence(app: Sphinx, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
        lines[:] = _fenced(lines)

    app.connect("autodoc-process-docstring", unfence, priority=400)
