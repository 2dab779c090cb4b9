"""Configs: one frozen, validated dataclass beside each recipe, and the only source of its settings.

The command line makes its flags from the fields, a TOML recipe fills them, and every output keeps them:

```python
@config
class FitConfig:
    "Fit a detector."

    data: Annotated[str, Argument("DATA")]
    "images of the known world"
    alpha: float = 0.05
    "promised false-alarm rate"
    workers: Annotated[int, NotInFingerprint] = 1
    "processes that decode"
```
"""

import difflib
import functools
import hashlib
import json
import tomllib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any, TypeVar, cast, dataclass_transform, get_args

import pydantic.dataclasses
from pydantic import ConfigDict, TypeAdapter, ValidationError
from pydantic.fields import FieldInfo

from mood.core.errors import InputError

C = TypeVar("C")


@dataclass(frozen=True, slots=True)
class Argument:
    """Marks a field that the command line takes by its position.

    Attributes:
        metavar: its name in the usage line; with three dots behind it there may be several.
    """

    metavar: str


class NotInFingerprint:
    """Marks a field that cannot change the result (where to write, how many workers)."""


@dataclass_transform(frozen_default=True, kw_only_default=True)
def config(cls: type[C]) -> type[C]:
    """Make a class a config: frozen, keyword-only, its values checked, the docstring under each field its help.

    A config may inherit the fields of others. One that names such a field again takes the help from there, unless it
    has words of its own; marks it must repeat, since they belong to the type.

    Making an object of it raises `InputError` where a key is unknown (with the nearest known one), missing, or has a
    value of another type. Lists become tuples and strings become paths where the field asks for one; nothing else is
    converted, so that `epochs = "10"` or `epochs = true` is told and not guessed.
    """
    made = pydantic.dataclasses.dataclass(
        frozen=True,
        kw_only=True,
        config=ConfigDict(extra="forbid", strict=True, use_attribute_docstrings=True, allow_inf_nan=False),
    )(cls)
    # pydantic reads the words of a class under its own fields only.
    own = fields(made)
    for base in made.__mro__[1:]:
        for name, field in getattr(base, "__pydantic_fields__", {}).items():
            own[name].description = own[name].description or field.description
    check: Callable[..., None] = made.__init__

    @functools.wraps(check)
    def init(self: Any, **values: Any) -> None:
        known = fields(made)
        try:
            check(self, **{name: _as_declared(known.get(name), value) for name, value in values.items()})
        except ValidationError as error:
            raise InputError("; ".join(_explained(made, error))) from None

    made.__init__ = init  # type: ignore[method-assign]
    return cast("type[C]", made)


def fields(cls: type) -> dict[str, FieldInfo]:
    """The fields of a config: type, default, help (`description`) and marks (`metadata`) of each.

    Arguments come first, as the command line takes them: a base's before those of the config. Then what the config says
    itself, and what it shares with others after that, base by base.
    """
    known = cast("Mapping[str, FieldInfo]", cls.__pydantic_fields__)  # type: ignore[attr-defined]
    bases = [getattr(base, "__pydantic_fields__", {}) for base in cls.__mro__]

    def place(name: str) -> int:
        if any(isinstance(mark, Argument) for mark in known[name].metadata):
            return -1
        return max(number for number, base in enumerate(bases) if name in base)

    return {name: known[name] for name in sorted(known, key=place)}


def read_toml(path: str | PathLike[str]) -> dict[str, Any]:
    """The tables of a recipe.

    Raises:
        InputError: the file cannot be read or is no TOML.
    """
    try:
        return tomllib.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"recipe {path} cannot be read: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"recipe {path} is not TOML: {error}") from error


def load_toml(path: str | PathLike[str], cls: type[C], overrides: Mapping[str, Any]) -> C:
    """Read a recipe: defaults, then what the file says, then the overrides.

    Args:
        path: a TOML file with the config's fields as keys.
        cls: the config.
        overrides: what was said on the command line.

    Raises:
        InputError: the file cannot be read or is no TOML; a key or a value in it is wrong.
    """
    settings = {**read_toml(path), **overrides}
    try:
        return cls(**settings)
    except InputError as error:
        raise InputError(f"with recipe {path}: {error}") from None


def to_dict(config: Any) -> dict[str, Any]:
    """What decides the result, as JSON has it: every field but those marked `NotInFingerprint`."""
    values = TypeAdapter(type(config)).dump_python(config, mode="json")
    return {
        name: values[name] for name, field in fields(type(config)).items() if NotInFingerprint not in field.metadata
    }


def fingerprint(settings: Mapping[str, Any]) -> str:
    """Sha256 (hex) of settings as `to_dict` gives them; their order does not matter."""
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()


def _as_declared(field: FieldInfo | None, value: Any) -> Any:
    """What TOML and people write for tuples and paths, as tuples and paths."""
    if isinstance(value, list):
        return tuple(value)
    if field is not None and isinstance(value, str) and Path in (field.annotation, *get_args(field.annotation)):
        return Path(value)
    return value


def _explained(cls: type, error: ValidationError) -> list[str]:
    """One sentence for each thing that is wrong."""
    known = fields(cls)
    messages = []
    for item in error.errors(include_url=False, include_context=False):
        name, *inside = item["loc"]
        key = f"{name}{''.join(f'[{step}]' for step in inside if isinstance(step, int))}"
        if name not in known:
            messages.append(f"unknown option {key!r}{_nearest(key, list(known))}")
        elif item["type"].startswith("missing"):
            messages.append(f"{key!r} is missing: {known[str(name)].description}")
        else:
            messages.append(f"{key!r} is {item['input']!r}; it {item['msg'].removeprefix('Input ')}")
    return messages


def _nearest(key: str, known: Sequence[str]) -> str:
    near = difflib.get_close_matches(key.replace("-", "_"), known, n=1)
    return f"; did you mean {near[0]!r}?" if near else f"; known are {', '.join(known)}"
