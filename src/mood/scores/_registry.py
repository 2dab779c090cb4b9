"""The names of the scores: who registers one, what it needs, and what a wrong name was meant to be."""

import functools
import importlib
import inspect
import pkgutil
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, TypeVar, get_args, get_origin

from mood.core.errors import InputError
from mood.scores._given import checked
from mood.scores._names import SEPARATOR, nearest, unknown

Function = TypeVar("Function", bound=Callable[..., Any])


@dataclass(frozen=True, slots=True)
class ScoreInfo:
    """What one may know about a score before using it.

    Attributes:
        summary: one line.
        source: the paper, and the equation where it has a number.
        needs: the columns of `Features` that a fit reads, and "head" where the linear head is wanted.
            Scoring reads the same ones but never labels nor head. A fit that reads labels and logits compares them.
        options: name → default.
        fitted: whether it learns from ID features; the others are ready as they are.
        memory: what it needs beside the features for 1000 classes × 1M images of 768 values, as its docstring says
            after "For …:"; empty where nothing is kept.
    """

    summary: str
    source: str
    needs: tuple[str, ...]
    options: Mapping[str, Any]
    fitted: bool
    memory: str


@dataclass(frozen=True, slots=True)
class Entry:
    """A registered score.

    Attributes:
        info: what `available` shows.
        function: of a fitted score, options (and head) → its rounds; of a stateless one, features and options → (N,).
        types: option → the types that its values may have.
        kind: the dataclass that a fit ends in; None for a stateless score.
    """

    info: ScoreInfo
    function: Callable[..., Any]
    types: Mapping[str, tuple[type, ...]]
    kind: type | None


SIZE = re.compile(
    r"For (1000 classes × )?1M images( of 768 (float32 )?values| and (?P<layers>four layers of 768 \w+))?: "
    r"(?P<needs>.*)"
)

_entries: dict[str, Entry] = {}


def stateless(name: str, *, needs: tuple[str, ...], source: str) -> Callable[[Function], Function]:
    """Registers `function(features, *, options…) -> (N,) float64` as a score; its docstring opens with the summary."""
    return _register(name, None, needs, source)


def fitted(name: str, kind: type, *, needs: tuple[str, ...], source: str) -> Callable[[Function], Function]:
    """Registers `function([head,] *, options…) -> tuple[Round, …]`, whose last round ends in a `kind`.

    The `kind` refuses whatever is not `Features` from then on.
    """
    if not hasattr(kind.__call__, "__wrapped__"):
        kind.__call__ = _of_features(kind.__call__)  # type: ignore[method-assign]
    return _register(name, kind, needs, source)


def _of_features(score: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(score)
    def of_features(self: Any, features: Any) -> Any:
        return score(self, checked(features))

    return of_features


def _register(name: str, kind: type | None, needs: tuple[str, ...], source: str) -> Callable[[Function], Function]:
    def register(function: Function) -> Function:
        if name in _entries:
            raise InputError(f"score {name!r} is registered twice: {_entries[name].function} and {function}")
        parameters = inspect.signature(function).parameters.values()
        keywords = [parameter for parameter in parameters if parameter.kind is parameter.KEYWORD_ONLY]
        options = {option.name: option.default for option in keywords}
        types = {option.name: _types(option.annotation) for option in keywords}
        told = inspect.getdoc(function) or ""
        summary = told.partition("\n")[0]
        info = ScoreInfo(summary, source, needs, MappingProxyType(options), kind is not None, _memory(told))
        _entries[name] = Entry(info, function, types, kind)
        return function

    return register


def _types(annotation: Any) -> tuple[type, ...]:
    """The types that a value may have; what a list holds is for the score to see."""
    return tuple(get_origin(kind) or kind for kind in get_args(annotation) or (annotation,))


def _memory(told: str) -> str:
    """What a docstring says that a score needs, in the paragraph that ends with "For … 1M images …: …"."""
    for paragraph in told.split("\n\n"):
        found = SIZE.search(" ".join(paragraph.split()))
        if found:
            layers = found["layers"]
            return f"{found['needs']} So for {layers}." if layers else found["needs"]
    return ""


@functools.cache
def _load() -> dict[str, Entry]:
    """Imports every file of this package that holds scores, once, at the first question about them."""
    package = __name__.rpartition(".")[0]
    for module in pkgutil.iter_modules(importlib.import_module(package).__path__):
        if not module.name.startswith("_"):
            importlib.import_module(f"{package}.{module.name}")
    return _entries


def available() -> Mapping[str, ScoreInfo]:
    """Every score by name: what it needs, where it comes from, its options and their defaults."""
    return MappingProxyType({name: entry.info for name, entry in sorted(_load().items())})


def info(name: str) -> ScoreInfo:
    """What `available` says of one score.

    Raises:
        InputError: nothing has this name; the message names the nearest one.
    """
    return entry(name).info


def entry(name: str) -> Entry:
    """The score registered under a name, or a combination of several with commas between them.

    Raises:
        InputError: nothing has this name; the message names the nearest one.
    """
    entries = _load()
    if SEPARATOR in name:
        combined: Entry = importlib.import_module(f"{__name__.rpartition('.')[0]}._combined").composite(name)
        return combined
    if name not in entries:
        raise InputError(unknown(name, entries))
    return entries[name]


def checked_options(name: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """The options of one score, with its defaults where none was given.

    Raises:
        InputError: an option that the score does not have (the message names the nearest one), or a value of another
            type than the option's.
    """
    known, types = entry(name).info.options, entry(name).types
    checked = dict(known)
    for option, value in options.items():
        if option not in known:
            raise InputError(f"score {name!r} has no option {option!r}; {nearest(option, known)}")
        # A whole number is a number, and a truth value is none.
        number = float(value) if type(value) is int and float in types[option] else value
        if not isinstance(number, types[option]) or (isinstance(number, bool) and bool not in types[option]):
            expected = " or ".join(kind.__name__ for kind in types[option])
            raise InputError(f"{option} is {value!r}; {expected} was expected")
        checked[option] = number
    return checked


def positive(option: str, value: float) -> float:
    """The value itself.

    Raises:
        InputError: it is not a finite number above 0.
    """
    if not 0 < value < float("inf"):
        raise InputError(f"{option} is {value!r}; a number above 0 was expected")
    return value


def temperature_of(value: float | str) -> float:
    """The value itself.

    Raises:
        InputError: it is not a finite number above 0. That it may be "fitted" is for a fit to see.
    """
    if isinstance(value, str) or not 0 < value < float("inf"):
        raise InputError(f"temperature is {value!r}; a number above 0, or 'fitted', was expected")
    return value


def between(option: str, value: int, smallest: int, largest: int) -> int:
    """The value itself.

    Raises:
        InputError: it is smaller than `smallest` or larger than `largest`.
    """
    if not smallest <= value <= largest:
        raise InputError(f"{option} is {value!r}; a whole number from {smallest} to {largest} was expected")
    return value


def share_of(option: str, value: float) -> float:
    """The value itself.

    Raises:
        InputError: it is no share: not between 0 and 1, or one of them.
    """
    if not 0 < value < 1:
        raise InputError(f"{option} is {value!r}; a number between 0 and 1 was expected")
    return value
