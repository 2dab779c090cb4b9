"""`mood train`: the stages of one recipe, one after the other, each from what the one before it left."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from mood.core.config import Argument, config, fields, read_toml
from mood.core.errors import DataError, InputError, ModelError
from mood.core.ranges import Count, Seed, Workers

if TYPE_CHECKING:
    from mood.models import Architecture

_KEYS = ("name", "command")


@config
class TrainConfig:
    """Run all the training stages that a recipe lists; started again it goes on."""

    stages: Annotated[Path, Argument("RECIPE")]
    """a TOML file with a [[stages]] table for each stage: its name, its command, and that command's settings"""
    output: Path
    """folder for the stages, one sub-folder each"""
    skip: tuple[str, ...] = ()
    """leave out the stage of this name; the next one starts from the one before it"""
    model: str | None = None
    """network that the first stage left starts from, in place of the stages skipped before it"""
    checkpoint: Path | None = None
    """local weights for that network"""
    check: bool = False
    """say what would be done, with every setting, network and file checked, and do nothing; images are not opened,
    and sets that are not here are named"""
    data_root: tuple[str, ...] = ()
    """folders in which named sets are looked for"""
    device: str | None = None
    """auto, cpu or cuda, in place of what the recipe says"""
    workers: Workers | None = None
    """processes that read and augment images, in place of what the recipe says"""
    strategy: Literal["auto", "ddp", "fsdp"] | None = None
    """of several processes that torchrun started, in place of what the recipe says"""
    accumulate: Count | None = None
    """parts of a batch whose gradients are added up, in place of what the recipe says"""
    seed: Seed | None = None
    """of every stage, in place of what the recipe says: another trial of the same recipe"""
    overwrite: bool = False
    """replace stages of another configuration"""


@dataclass(frozen=True, slots=True)
class PlannedStage:
    """One stage, checked.

    Attributes:
        name: of its sub-folder.
        command: "tokenizer", "pretrain" or "finetune".
        config: of that command, complete.
    """

    name: str
    command: str
    config: Any

    def __str__(self) -> str:
        data = self.config.data if isinstance(self.config.data, str) else ", ".join(self.config.data)
        start = "" if self.command == "tokenizer" else f"from {self.config.model}, "
        return f"{self.name}: mood {self.command} on {data}, {start}to {self.config.output}"


@dataclass(frozen=True)
class TrainResult:
    """What was done, stage by stage.

    Attributes:
        output: folder of the last stage: the network.
        lines: one for each stage.
    """

    output: Path
    lines: tuple[str, ...]

    def summary(self) -> str:
        """One line for each stage."""
        return "\n".join(self.lines)


def train(config: TrainConfig) -> TrainResult:
    """Check all stages and their images, then run them in order.

    Raises:
        InputError: the recipe is wrong somewhere; nothing was started then.
        MoodError: what a stage raises; those before it are finished and are reused the next time.
    """
    planned = plan(config)
    runs = _commands()
    for number, stage in enumerate(planned):
        with _told(config, stage.name):
            _check(stage, planned[:number])
    if config.check:
        return TrainResult(planned[-1].config.output, (*map(str, planned), *_not_here(planned)))
    for stage in planned:
        with _told(config, stage.name):
            _check_images(stage)
    lines = [f"{stage.name}: {runs[stage.command][1](stage.config).summary()}" for stage in planned]
    return TrainResult(planned[-1].config.output, tuple(lines))


def plan(config: TrainConfig) -> tuple[PlannedStage, ...]:
    """The stages that will run, each with its whole config, before anything is loaded.

    Keys of the table [common] are settings of every stage whose command has them. A stage of fine-tuning without
    `model` starts from the network before it, a stage of pretext beit without `tokenizer` takes the one before it.

    Raises:
        InputError: an unknown or missing key, a value of another type, two stages of one name, a stage that has nothing
            to start from, a network that no stage starts from, a name in `skip` that no stage has.
    """
    recipe = read_toml(config.stages)
    for key in recipe:
        if key not in ("common", "stages"):
            raise InputError(f"recipe {config.stages}: unknown table {key!r}; it has [common] and [[stages]]")
    common, tables = recipe.get("common", {}), recipe.get("stages", [])
    if not isinstance(common, dict) or not isinstance(tables, list) or not all(isinstance(t, dict) for t in tables):
        raise InputError(f"recipe {config.stages}: [common] is one table, and [[stages]] opens one for each stage")
    names = _names(config, tables)
    runs = _commands()
    known = {key for _, (cls, _) in runs.items() for key in fields(cls)}
    for key in common:
        if key not in known or key in ("output", "data"):
            raise InputError(f"recipe {config.stages}: {key!r} in [common] is no setting that stages share")
    planned: list[PlannedStage] = []
    for name, table in zip(names, tables, strict=True):
        if name not in config.skip:
            planned.append(_stage(config, name, table, common, planned, runs))
    if not planned:
        raise InputError(f"recipe {config.stages}: no stage is left to run")
    started = [stage.config.model for stage in planned if stage.command == "finetune"]
    if config.checkpoint is not None and config.model is None:
        raise InputError(
            f"checkpoint is {config.checkpoint}, weights of a network that model would name: give model too"
        )
    if config.model is not None and config.model not in started:
        raise InputError(
            f"model is {config.model!r}, and no stage of {config.stages} starts from it: each brings a network of its "
            "own, or follows one; leave model out, or skip the stages before"
        )
    return tuple(planned)


@contextmanager
def _told(config: TrainConfig, name: str) -> Iterator[None]:
    """What is wrong with a stage, with its name."""
    try:
        yield
    except (InputError, ModelError) as error:
        raise type(error)(f"recipe {config.stages}: stage {name!r}: {error}") from None


def _check(stage: PlannedStage, before: Sequence[PlannedStage]) -> None:
    """Refuse networks that cannot be built and files that are not there, before anything is loaded."""
    from mood.recipes import finetune, pretrain, tokenizer
    from mood.recipes.inputs import check_given

    outputs = {earlier.config.output: earlier for earlier in before}
    if stage.command == "tokenizer":
        tokenizer.check(stage.config)
    elif stage.command == "pretrain":
        coming = outputs.get(stage.config.tokenizer)
        if coming is None:
            check_given(tokenizer=stage.config.tokenizer)
        pretrain.check(stage.config, coming=None if coming is None else tokenizer.shape_of(coming.config))
    else:
        coming = outputs.get(Path(stage.config.model))
        finetune.check(stage.config, coming=None if coming is None else _left_by(coming, outputs))


def _left_by(stage: PlannedStage, outputs: Mapping[Path, PlannedStage]) -> "Architecture":
    """The network that a stage will write."""
    from mood.recipes import finetune, pretrain

    if stage.command == "pretrain":
        return pretrain.architecture_of(stage.config)
    coming = outputs.get(Path(stage.config.model))
    return finetune.architecture_of(stage.config, None if coming is None else _left_by(coming, outputs))


def _not_here(planned: Sequence[PlannedStage]) -> tuple[str, ...]:
    """A line for each set of the stages that is not here, and why."""
    from mood.data import check_data, stream_shards

    found: dict[str, str] = {}
    for stage in planned:
        config = stage.config
        wanted = [config.data] if isinstance(config.data, str) else [*config.data]
        measured = getattr(config, "eval", None)
        for data in wanted if measured is None else [*wanted, measured]:
            try:
                if data in wanted and getattr(config, "stream", False):
                    stream_shards(data)
                else:
                    check_data(data, roots=config.data_root)
            except (DataError, InputError) as error:
                found.setdefault(data, f"{data} is not here: {error}")
    return tuple(found.values())


def _check_images(stage: PlannedStage) -> None:
    """Refuse images that are too few, that have no labels where they are wanted, or more classes than the head."""
    from mood.data import open_source, stream_shards
    from mood.recipes import finetune, pretrain, tokenizer

    config = stage.config
    if getattr(config, "stream", False):
        # They have to be there; to know more, every one of them would have to be read.
        stream_shards(config.data if isinstance(config.data, str) else config.data[0])
        if getattr(config, "eval", None) is not None:
            open_source(config.eval, roots=config.data_root)
        return
    if stage.command != "finetune":
        sources = [open_source(name, roots=config.data_root, limit=config.limit) for name in config.data]
        chosen_images = pretrain.chosen_images if stage.command == "pretrain" else tokenizer.chosen_images
        chosen_images(config, sources)
        return
    roots, coarse = config.data_root, config.coarse
    classes = config.classes or None
    source = open_source(config.data, roots=roots, coarse=coarse, classes=classes, limit=config.limit)
    _, names, _ = finetune.chosen_images(config, source)
    if config.eval is not None:
        open_source(config.eval, roots=roots, coarse=coarse, classes=names)


def _names(config: TrainConfig, tables: Sequence[Mapping[str, Any]]) -> list[str]:
    names = []
    for number, table in enumerate(tables, start=1):
        missing = [key for key in _KEYS if not isinstance(table.get(key), str)]
        if missing:
            raise InputError(f"recipe {config.stages}: stage {number} has no {missing[0]!r}, a string")
        name = table["name"]
        if not name.replace("-", "").replace("_", "").isalnum() or name in names:
            raise InputError(f"recipe {config.stages}: stage {number} is named {name!r}; names are words, each once")
        names.append(name)
    for name in config.skip:
        if name not in names:
            raise InputError(f"skip is {name!r}, and the recipe's stages are {', '.join(names) or 'none'}")
    return names


def _stage(
    config: TrainConfig,
    name: str,
    table: Mapping[str, Any],
    common: Mapping[str, Any],
    before: Sequence[PlannedStage],
    runs: Mapping[str, tuple[type, Callable[[Any], Any]]],
) -> PlannedStage:
    command = table["command"]
    if command not in runs:
        raise InputError(f"recipe {config.stages}: stage {name!r} is a {command!r}; it can be {', '.join(runs)}")
    cls = runs[command][0]
    settings = {key: value for key, value in common.items() if key in fields(cls)}
    settings |= {key: value for key, value in table.items() if key not in _KEYS}
    settings |= {"output": config.output / name, "overwrite": config.overwrite}
    settings |= {"data_root": config.data_root} if config.data_root else {}
    for key in ("device", "workers", "strategy", "accumulate", "seed"):
        value = getattr(config, key)
        if value is not None and key in fields(cls):
            settings[key] = value
    if command == "finetune" and "model" not in table:
        networks = [stage for stage in before if stage.command in ("pretrain", "finetune")]
        if networks:
            settings["model"] = str(networks[-1].config.output)
            # What an architecture is built with was said where it was built; its own stage may ask for another size.
            for key in {"model_options", "checkpoint"} - set(table):
                settings.pop(key, None)
        elif config.model is not None:
            settings |= {"model": config.model, "checkpoint": config.checkpoint}
        elif "model" not in settings:
            raise InputError(
                f"recipe {config.stages}: stage {name!r} has no network to start from: put a stage before it, or give "
                "it a model"
            )
    if command == "pretrain" and settings.get("pretext") == "beit":
        tokenizers = [stage for stage in before if stage.command == "tokenizer"]
        if tokenizers:
            settings.setdefault("tokenizer", tokenizers[-1].config.output)
    try:
        return PlannedStage(name, command, cls(**settings))
    except InputError as error:
        raise InputError(f"recipe {config.stages}: stage {name!r}: {error}") from None


def _commands() -> dict[str, tuple[type, Callable[[Any], Any]]]:
    from mood.recipes.finetune import FinetuneConfig, finetune
    from mood.recipes.pretrain import PretrainConfig, pretrain
    from mood.recipes.tokenizer import TokenizerConfig, tokenizer

    return {
        "tokenizer": (TokenizerConfig, tokenizer),
        "pretrain": (PretrainConfig, pretrain),
        "finetune": (FinetuneConfig, finetune),
    }
