"""A config tells what is wrong, and orders defaults < recipe < flags."""

import dataclasses
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
from pydantic import Field

from mood.core.config import Argument, NotInFingerprint, config, fields, fingerprint, load_toml, to_dict
from mood.core.errors import InputError


@config
class Settings:
    """Try every kind of field."""

    data: Annotated[str, Argument("DATA")]
    """the images"""
    output: Annotated[Path | None, NotInFingerprint] = None
    """where to write"""
    epochs: Annotated[int, Field(ge=1)] = 3
    """passes"""
    lr: float = 1
    """learning rate"""
    classes: tuple[str, ...] = ()
    """only these"""
    kind: Literal["plain", "fancy"] = "plain"
    """which"""
    compile: bool = False
    """compile it"""
    limit: int | None = None
    """at most so many"""
    workers: Annotated[int, NotInFingerprint] = 1
    """processes"""


def test_each_field_brings_its_help_default_and_marks() -> None:
    known = fields(Settings)
    assert known["epochs"].description == "passes"
    assert known["data"].is_required()
    assert known["data"].metadata == [Argument("DATA")]
    assert known["limit"].default is None


def test_lists_and_strings_become_tuples_and_paths_and_whole_numbers_floats() -> None:
    values: dict[str, Any] = {"data": "d", "output": "out", "classes": ["a", "b"], "lr": 2}
    made = Settings(**values)
    assert made == Settings(data="d", output=Path("out"), classes=("a", "b"), lr=2.0)
    assert type(made.lr) is float


def test_a_config_cannot_change_but_be_replaced() -> None:
    made = Settings(data="d")
    with pytest.raises(dataclasses.FrozenInstanceError):
        made.epochs = 4  # type: ignore[misc]
    assert dataclasses.replace(made, epochs=4).epochs == 4
    with pytest.raises(InputError, match="'epochs'"):
        dataclasses.replace(made, epochs=0)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({}, "'data' is missing: the images"),
        ({"data": 3}, "'data' is 3; it should be a valid string"),
        ({"data": "d", "epochs": "5"}, "'epochs' is '5'; it should be a valid integer"),
        ({"data": "d", "epochs": True}, "'epochs' is True; it should be a valid integer"),
        ({"data": "d", "epochs": 0}, "'epochs' is 0; it should be greater than or equal to 1"),
        ({"data": "d", "lr": float("nan")}, "'lr' is nan; it should be a finite number"),
        ({"data": "d", "lr": "1"}, "'lr' is '1'; it should be a valid number"),
        ({"data": "d", "compile": 1}, "'compile' is 1; it should be a valid boolean"),
        ({"data": "d", "limit": "all"}, "'limit' is 'all'; it should be a valid integer"),
        ({"data": "d", "output": 3}, "'output' is 3; it should be an instance of Path"),
        ({"data": "d", "kind": "fanci"}, "'kind' is 'fanci'; it should be 'plain' or 'fancy'"),
        ({"data": "d", "classes": "cat"}, "'classes' is 'cat'; it should be a valid tuple"),
        ({"data": "d", "classes": ["cat", 3]}, r"'classes\[1\]' is 3; it should be a valid string"),
        ({"data": "d", "epoch": 3}, "unknown option 'epoch'; did you mean 'epochs'?"),
        ({"data": "d", "zzz": 3}, "unknown option 'zzz'; known are data, output, epochs"),
    ],
)
def test_what_is_wrong_is_told_in_one_line(values: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        Settings(**values)
    assert "\n" not in str(caught.value)


def test_everything_that_is_wrong_is_told_at_once(tmp_path: Path) -> None:
    recipe = tmp_path / "recipe.toml"
    recipe.write_text('epochs = "5"')
    with pytest.raises(InputError, match="'data' is missing.*; 'epochs' is '5'"):
        load_toml(recipe, Settings, {})


def test_flags_win_over_the_recipe_and_the_recipe_over_the_defaults(tmp_path: Path) -> None:
    recipe = tmp_path / "recipe.toml"
    recipe.write_text('data = "set"\nepochs = 7\nclasses = ["a"]\noutput = "out"\nworkers = 4\n')
    made = load_toml(recipe, Settings, {"epochs": 9})
    assert made == Settings(data="set", epochs=9, classes=("a",), output=Path("out"), workers=4, lr=1)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('data = "d"\nbatch-sise = 3', "unknown option 'batch-sise'"),
        ('data = "d"\nkid = "plain"', "did you mean 'kind'?"),
        ("data = ", "is not TOML"),
        ('[fit]\ndata = "d"', "unknown option 'fit'"),
        ('data = "\\ud800"', "is not TOML"),
    ],
)
def test_a_wrong_recipe_is_named(tmp_path: Path, text: str, message: str) -> None:
    recipe = tmp_path / "recipe.toml"
    recipe.write_text(text)
    with pytest.raises(InputError, match=message) as caught:
        load_toml(recipe, Settings, {})
    assert str(caught.value).count("recipe.toml") == 1


def test_a_recipe_that_cannot_be_read_is_told(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot be read: No such file"):
        load_toml(tmp_path / "absent.toml", Settings, {})
    latin = tmp_path / "latin.toml"
    latin.write_bytes(b'data = "\xe9"')
    with pytest.raises(InputError, match="is not TOML"):
        load_toml(latin, Settings, {})


def test_the_fingerprint_depends_on_what_decides_the_result_alone() -> None:
    plain = to_dict(Settings(data="d"))
    assert plain == {
        "data": "d",
        "epochs": 3,
        "lr": 1.0,
        "classes": [],
        "kind": "plain",
        "compile": False,
        "limit": None,
    }
    assert to_dict(Settings(data="d", workers=8, output=Path("elsewhere"))) == plain
    assert fingerprint(plain) == fingerprint(dict(reversed(plain.items())))
    assert fingerprint(to_dict(Settings(data="d", epochs=4))) != fingerprint(plain)


@config
class Shared:
    """What several configs share."""

    place: Annotated[str, Argument("DIR")]
    """where it lies"""
    epochs: int
    """passes"""
    seed: int = 0
    """of every draw"""
    workers: Annotated[int, NotInFingerprint] = 1
    """processes"""


@config
class Beside:
    """What others share."""

    limit: int | None = None
    """at most so many"""


@config
class Nearer(Shared):
    """What fewer of them share."""

    seed: int = 1
    """of every throw"""
    window: int = 5
    """of a line"""


@config
class Heir(Nearer, Beside):
    """Inherit."""

    data: Annotated[str, Argument("DATA")]
    """the images"""
    kind: Literal["plain", "fancy"] = "plain"
    """which"""
    epochs: int = 3
    seed: int = 2
    workers: Annotated[int, NotInFingerprint] = 2
    """processes that throw"""


def test_what_is_special_comes_before_what_is_shared_and_arguments_come_first() -> None:
    assert [*fields(Heir)] == ["place", "data", "kind", "window", "epochs", "seed", "workers", "limit"]
    assert [*fields(Shared)] == ["place", "epochs", "seed", "workers"]


def test_what_is_inherited_keeps_its_words_and_marks_until_it_is_said_again() -> None:
    told = {name: field.description for name, field in fields(Heir).items()}
    assert told == {
        "place": "where it lies",
        "data": "the images",
        "kind": "which",
        "window": "of a line",
        "epochs": "passes",
        "seed": "of every throw",
        "workers": "processes that throw",
        "limit": "at most so many",
    }
    assert fields(Heir)["place"].metadata == [Argument("DIR")]
    # The base stays as it was.
    assert fields(Shared)["epochs"].is_required()
    assert fields(Shared)["workers"].description == "processes"


def test_inherited_settings_are_filled_checked_and_kept_like_others(tmp_path: Path) -> None:
    recipe = tmp_path / "recipe.toml"
    recipe.write_text('place = "p"\nlimit = 4\nworkers = 3\nseed = 5\n')
    made = load_toml(recipe, Heir, {"data": "d", "seed": 6})
    assert made == Heir(place="p", data="d", limit=4, workers=3, seed=6)
    assert to_dict(made) == {
        "place": "p",
        "data": "d",
        "kind": "plain",
        "window": 5,
        "epochs": 3,
        "seed": 6,
        "limit": 4,
    }
    with pytest.raises(InputError, match="'limit' is 'all'; it should be a valid integer; 'place' is missing: where"):
        Heir(data="d", limit="all")  # type: ignore[arg-type, call-arg]
    with pytest.raises(InputError, match="unknown option 'windov'; did you mean 'window'?"):
        Heir(place="p", data="d", windov=3)  # type: ignore[call-arg]
