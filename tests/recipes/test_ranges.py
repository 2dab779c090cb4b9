"""No setting takes a number that makes no sense: every one has a range, and a config refuses what lies outside."""

import importlib
from typing import Annotated, Any, get_args, get_origin

import pytest
from annotated_types import Ge, Gt

from mood.cli import RECIPES
from mood.core.config import fields
from mood.core.errors import InputError
from mood.recipes.bench.plan import NetworkPlan, RunPlan

CONFIGS = [
    *(
        getattr(importlib.import_module(f"mood.recipes.{name}"), f"{name.capitalize()}Config")
        for names in RECIPES.values()
        for name in names
    ),
    NetworkPlan,
    RunPlan,
]


def numbers(annotation: Any, marks: list[Any]) -> list[tuple[type, list[Any]]]:
    """The kinds of numbers that a type takes, each with its marks."""
    if annotation in (int, float):
        return [(annotation, marks)]
    if get_origin(annotation) is Annotated:
        inside, *own = get_args(annotation)
        return numbers(inside, [*marks, *(mark for item in own for mark in getattr(item, "metadata", [item]))])
    return [found for part in get_args(annotation) for found in numbers(part, marks)]


NUMBERS = [
    pytest.param(cls, name, kind, marks, get_origin(field.annotation) is tuple, id=f"{cls.__name__}.{name}")
    for cls in CONFIGS
    for name, field in fields(cls).items()
    for kind, marks in numbers(field.annotation, field.metadata)
]


@pytest.mark.parametrize(("cls", "name", "kind", "marks", "several"), NUMBERS)
def test_a_number_below_its_range_is_refused_with_its_key(cls, name, kind, marks, several):
    lowest = [mark.ge if isinstance(mark, Ge) else mark.gt for mark in marks if isinstance(mark, Ge | Gt)]
    assert lowest, "it has no range"
    wrong = kind(lowest[0] - 1)
    with pytest.raises(InputError, match=rf"'{name}(\[0\])?' is {wrong}; it should be greater than"):
        cls(**{name: (wrong,) if several else wrong})


@pytest.mark.parametrize("name", [name for names in RECIPES.values() for name in names])
def test_a_seed_that_no_generator_takes_is_refused(name):
    cls = getattr(importlib.import_module(f"mood.recipes.{name}"), f"{name.capitalize()}Config")
    if "seed" not in fields(cls):
        return
    for seed in (-1, 2**32):
        with pytest.raises(InputError, match=f"'seed' is {seed}; it should be (greater|less) than or equal to"):
            cls(seed=seed)


def test_so_many_workers_are_a_slip():
    from mood.recipes.score import ScoreConfig

    with pytest.raises(InputError, match="'workers' is 100000; it should be less than or equal to 1024"):
        ScoreConfig(detector="d", images="photos", workers=100_000)


def test_what_is_never_certain_is_neither_0_nor_1():
    from mood.recipes.fit import FitConfig

    for alpha in (0.0, 1.0, float("nan")):
        with pytest.raises(InputError, match=f"'alpha' is {alpha}"):
            FitConfig(data="photos", alpha=alpha)
