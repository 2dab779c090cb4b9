"""From a config to the flags of a command: there is no second list of settings."""

import inspect
from collections.abc import Callable
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Union, get_args, get_origin

import typer
from pydantic.fields import FieldInfo

from mood.core.config import Argument, fields, load_toml


def command(cls: type, run: Callable[[Callable[[], Any], bool], None]) -> Callable[..., None]:
    """A function for `typer.Typer.command` whose parameters are the fields of a config.

    Every parameter may be left out, because a recipe may say it; the config tells what is missing in the end.

    Args:
        cls: the config; the first line of its docstring is the help of the command.
        run: called with what makes the config, and whether a traceback is wanted.
    """

    def invoke(recipe: Path | None, debug: bool, **given: Any) -> None:
        # Of the options that nobody gave, typer says None, or an empty list.
        said = {name: value for name, value in given.items() if value is not None and value != []}
        run(lambda: cls(**said) if recipe is None else load_toml(recipe, cls, said), debug)

    recipe_flag = Annotated[Path | None, typer.Option(help="a TOML file with these settings; flags win")]
    debug_flag = Annotated[bool, typer.Option("--debug", help="show where an error comes from")]
    parameters = [_parameter(name, _annotation(name, field), None) for name, field in fields(cls).items()]
    parameters += [_parameter("recipe", recipe_flag, None), _parameter("debug", debug_flag, False)]
    invoke.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    invoke.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    invoke.__doc__ = cls.__doc__
    return invoke


def _parameter(name: str, annotation: Any, default: Any) -> inspect.Parameter:
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation)


def _annotation(name: str, field: FieldInfo) -> Any:
    kind = _flag_type(field.annotation)
    help_text = " ".join((field.description or "").split())
    argument = _argument(field)
    if argument is not None:
        # The dots, and brackets around what may be left out, are typer's to draw.
        metavar = argument.metavar.removesuffix("...")
        return Annotated[kind | None, typer.Argument(metavar=metavar, help=help_text, show_default=False)]
    flag = name.replace("_", "-")
    names = [f"--{flag}/--no-{flag}" if kind is bool else f"--{flag}"]
    if name == "output":
        names.append("-o")
    if get_origin(kind) is list:
        help_text += " (may be repeated)"
    return Annotated[kind | None, typer.Option(*names, help=help_text + _default(field), show_default=False)]


def _argument(field: FieldInfo) -> Argument | None:
    return next((mark for mark in field.metadata if isinstance(mark, Argument)), None)


def _flag_type(annotation: Any) -> Any:
    """The type of a flag: `X | None` is X, a range is the config's to check, and a tuple may be repeated."""
    origin, parts = get_origin(annotation), get_args(annotation)
    if origin in (Union, UnionType):
        (annotation,) = (part for part in parts if part is not type(None))
        return _flag_type(annotation)
    if origin is Annotated:
        return _flag_type(parts[0])
    if origin is tuple:
        return list[_flag_type(parts[0])]  # type: ignore[misc]
    return annotation


def _default(field: FieldInfo) -> str:
    """A default as help tells it; where nothing happens by default there is nothing to tell."""
    quiet = field.is_required() or field.default is None or field.default is False or field.default in ((), "")
    return "" if quiet else f" (default: {field.default})"
