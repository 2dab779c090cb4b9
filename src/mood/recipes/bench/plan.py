"""The recipe of a benchmark: runs with their networks, sets and scores, and what others have published."""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import field
from pathlib import Path
from typing import Any, Literal, TypeVar

from mood.core.config import config, fields, read_toml
from mood.core.errors import InputError, MissingExtraError
from mood.core.ranges import Count, Natural
from mood.recipes.settings import EmbeddingConfig, MasksConfig, NetworkConfig

T = TypeVar("T")

RESERVED = frozenset({"id", "mean", "mean, near", "mean, far"})
"""What results call the test images, and means over sets."""

CLASS = "{class}"
"""What stands for the name of each known class where each has a network of its own."""

SETS = ("near", "far", "exposed", "shifted")
"""Keys of a run that name sets: each is a table NAME = DATA."""

AGAINST_SETS = ("multi-class", "confusion", "few-shot", "full-spectrum")
"""Protocols that compare known images with OOD sets; the others take known classes for unknown."""

ONLY: Mapping[str, tuple[str, ...]] = {
    "near": AGAINST_SETS,
    "far": AGAINST_SETS,
    "pairs": ("pairs",),
    "rival": ("confusion",),
    "exposed": ("few-shot",),
    "shots": ("few-shot",),
    "trials": ("few-shot",),
    "shifts": ("full-spectrum",),
    "shifted": ("full-spectrum",),
}
"""Keys of a run that not every protocol has, and those that do."""

PROBE = "linear probe"
"""What the score of few-shot is called."""

Protocol = Literal["multi-class", "one-class", "pairs", "confusion", "few-shot", "full-spectrum"]


@config
class NetworkPlan(NetworkConfig, EmbeddingConfig, MasksConfig):
    """A network of a run."""

    name: str
    """what tables call it"""
    model: str | tuple[str, ...] = "embedded"
    """timm name, a folder that mood wrote, 'embedded', or a name that `mood.bench` is given a network for; several
    are trials of one network. Under the one-class and pairs protocols {class} in it stands for the name of each known
    class, which then has a network of its own"""
    random_weights: bool = False
    """keep random weights (a control)"""
    six_numbers: bool = False
    """in place of what the network sees, six numbers of each image as it is fed, under one Gaussian for all known
    images, whatever the scores of the run (a control)"""
    inner: str = "auto"
    """blocks for scores of inner layers"""
    trained_by: str | tuple[str, ...] = ""
    """the command that trains it, which is told where it is not there; several are those of its trials"""

    @property
    def trials(self) -> tuple[str, ...]:
        """The models, one for each trial."""
        return (self.model,) if isinstance(self.model, str) else self.model

    @property
    def of_each_class(self) -> bool:
        """Whether each known class has a network of its own."""
        return any(CLASS in trial for trial in self.trials)

    def trained(self, number: int) -> str:
        """The command that trains one of its trials; "" where the recipe names none."""
        return self.trained_by if isinstance(self.trained_by, str) else self.trained_by[number]


@config
class RunPlan:
    """One known set under one protocol."""

    name: str
    """what tables call it"""
    protocol: Protocol
    """multi-class, one-class, pairs, confusion, few-shot or full-spectrum"""
    fit: str
    """DATA of the known world that scores are fitted on: the whole training split"""
    test: str
    """DATA of unseen known images"""
    near: dict[str, str] = field(default_factory=dict)
    """NAME = DATA of OOD sets with classes like the known ones"""
    far: dict[str, str] = field(default_factory=dict)
    """NAME = DATA of OOD sets of other things"""
    networks: tuple[NetworkPlan, ...]
    """a [[runs.networks]] table each"""
    scores: tuple[str, ...] = ("mood",)
    """'NAME KEY=VALUE …'; 'NAME chosen' has its options chosen on known images; 'all' is every score"""
    coarse: bool = False
    """the coarse labels are the classes"""
    pairs: tuple[tuple[str, str], ...] = ()
    """(ID class, OOD class) of the pairs protocol; Table 8's twelve unless said"""
    rival: str | None = None
    """'SCORE' or 'NETWORK / SCORE', whose largest twelve cells the confusion protocol shows; without a network the
    first that has the score"""
    exposed: dict[str, str] = field(default_factory=dict)
    """NAME = DATA that few-shot shows images of; without it they come from the OOD set and are left out of its test"""
    shots: tuple[Natural, ...] = (0, 1, 2, 3, 10)
    """shown OOD images per class of the few-shot protocol"""
    trials: Count = 3
    """draws of the shown images"""
    shifts: tuple[str, ...] = ()
    """'NAME=STRENGTH' of the full-spectrum protocol, made of the test images"""
    shifted: dict[str, str] = field(default_factory=dict)
    """NAME = DATA of shifted known images of the full-spectrum protocol, in place of shifts"""

    @property
    def unknown(self) -> dict[str, str]:
        """All OOD sets, near ones first."""
        return {**self.near, **self.far}

    @property
    def rival_network(self) -> str:
        """The network of the rival; "" where any will do."""
        return (self.rival or "").rpartition(" / ")[0]

    @property
    def rival_score(self) -> str:
        """The score of the rival."""
        return (self.rival or "").rpartition(" / ")[2]

    @property
    def groups(self) -> dict[str, tuple[str, ...]]:
        """OOD sets by group; none is empty."""
        return {name: tuple(sets) for name, sets in (("near", self.near), ("far", self.far)) if sets}


@config
class RowPlan:
    """One published row."""

    name: str
    """the method, as the paper calls it"""
    values: tuple[float | str, ...]
    """in percent, one for each column; '-' where the paper has none"""
    deviations: tuple[float | str, ...] = ()
    """the ± of each value"""
    network: str | None = None
    """the network of the run that measures this row here; without it the row is of the paper only"""
    score: str | tuple[str, ...] = "mood"
    """and the score; several where the columns are not of one"""
    keys: tuple[str, ...] = ()
    """what the run calls the columns of this row, where that is another word than in the other rows"""
    improves: tuple[str, ...] = ()
    """of an 'improve' row: the row that is better, and the row that it is compared with"""


@config
class PublishedPlan:
    """One published table."""

    run: str
    """the run that measures it here"""
    title: str
    """its heading"""
    columns: tuple[str, ...]
    """as the paper has them"""
    keys: tuple[str, ...] = ()
    """what the run calls them, where that is another word"""
    metrics: tuple[str, ...] = ()
    """the metric of each column; auroc unless said"""
    rows: tuple[RowPlan, ...]
    """a [[published.rows]] table each"""

    def measured_as(self, row: RowPlan, column: int) -> tuple[str, str, str]:
        """Score, key and metric under which the run measures one cell; nobody's score is that of an accuracy."""
        metric = self.metrics[column] if self.metrics else "auroc"
        score = row.score if isinstance(row.score, str) else row.score[column]
        return "" if metric == "accuracy" else score, (row.keys or self.keys or self.columns)[column], metric


@config
class Plan:
    """A whole recipe."""

    title: str
    """of the report"""
    runs: tuple[RunPlan, ...]
    """a [[runs]] table each"""
    small: tuple[RunPlan, ...] = ()
    """stand-ins under the same names that run on a small machine"""
    published: tuple[PublishedPlan, ...] = ()
    """a [[published]] table each"""
    footnotes: tuple[str, ...] = ()
    """sentences to be read beside the published figures"""


def load_plan(path: Path) -> Plan:
    """Read a recipe, and check all that can be checked without images and networks.

    Raises:
        InputError: the file cannot be read; a key or a value in it is wrong, with the table in which it stands.
    """
    raw = read_toml(path)
    try:
        plan = _made(
            Plan,
            {
                **raw,
                "runs": _each(raw, "runs", "runs", _run),
                "small": _each(raw, "small", "small", _run),
                "published": _each(raw, "published", "published", _published),
            },
            "",
        )
        for run in (*plan.runs, *plan.small):
            _check_names(run)
        for run in (*plan.runs, *plan.small):
            _check_run(run)
        for table in plan.published:
            _check_published(table, plan)
    except InputError as error:
        raise InputError(f"recipe {path}: {error}") from None
    return plan


def chosen_runs(plan: Plan, *, small: bool, only: Sequence[str]) -> tuple[RunPlan, ...]:
    """The runs that are wanted.

    Raises:
        InputError: no stand-ins, or a name in `only` that no run has.
    """
    runs = plan.small if small else plan.runs
    if not runs:
        raise InputError("this recipe has no [[small]] runs; leave out --small" if small else "the recipe has no runs")
    for name in only:
        if name not in [run.name for run in runs]:
            raise InputError(f"only is {name!r}, and the runs are {', '.join(run.name for run in runs)}")
    return tuple(run for run in runs if not only or run.name in only)


def score_spec(text: str) -> tuple[str, dict[str, Any], bool]:
    """`"knn k=200"` → its name, its options, and whether they are to be chosen (`"mahalanobis chosen"`).

    Raises:
        InputError: nothing there, an option without "=", or options beside "chosen".
    """
    from mood.recipes.inputs import model_options

    name, *words = text.split() or [""]
    if not name:
        raise InputError("a score is empty; write 'NAME', 'NAME KEY=VALUE' or 'NAME chosen'")
    if "chosen" in words:
        if len(words) > 1:
            raise InputError(f"score {text!r}: options are either chosen or given")
        return name, {}, True
    return name, model_options(words), False


def _check_names(run: RunPlan) -> None:
    """A slip in the name of a score is answered before anything is loaded that takes seconds."""
    from mood.scores import check_name

    for text in run.scores:
        name = text.partition(" ")[0]
        try:
            if name != "all":
                check_name(name)
        except InputError as error:
            raise InputError(f"run {run.name!r}, score {text!r}: {error}") from None


def _check_run(run: RunPlan) -> None:
    from mood.data.shifts import parse_shift
    from mood.scores import check, check_choice, info

    where = f"run {run.name!r}"
    names = [network.name for network in run.networks]
    if not names or len({*names}) < len(names):
        raise InputError(f"{where}: its networks are {names}; at least one is needed, each with a name of its own")
    for network in run.networks:
        if network.six_numbers and network.random_weights:
            raise InputError(f"{where}, network {network.name!r}: six_numbers and random_weights are two controls")
        if not isinstance(network.trained_by, str) and len(network.trained_by) != len(network.trials):
            raise InputError(
                f"{where}, network {network.name!r}: trained_by has {len(network.trained_by)} commands for "
                f"{len(network.trials)} trials; each has its own, or one command trains all"
            )
        if not network.trials or len({*network.trials}) < len(network.trials):
            raise InputError(
                f"{where}, network {network.name!r}: model is {list(network.trials)}; a trial is a network of its own, "
                "each named once"
            )
        if network.of_each_class:
            _check_each_class(network, run.protocol, f"{where}, network {network.name!r}")
    if not run.scores or len({*run.scores}) < len(run.scores):
        raise InputError(f"{where}: scores are {list(run.scores)}; at least one is needed, each once")
    for text in run.scores:
        name, options, choose = score_spec(text)
        if name == "all" and not choose:
            continue
        try:
            if choose:
                check_choice(name)
            # A package that is missing is told with what else is left out.
            with suppress(MissingExtraError):
                check(name, **options)
        except InputError as error:
            raise InputError(f"{where}, score {text!r}: {error}") from None
    names_of_scores = [score_spec(text)[0] for text in run.scores]
    if "all" not in names_of_scores and not any("reconstruction" in info(name).needs for name in names_of_scores):
        for network in run.networks:
            _check_no_masks(network, f"{where}, network {network.name!r}")
    if taken := run.unknown.keys() & RESERVED:
        raise InputError(f"{where}: an OOD set cannot be called {sorted(taken)[0]!r}: tables call something else so")
    if both := run.near.keys() & run.far.keys():
        raise InputError(f"{where}: {sorted(both)[0]!r} is near and far; it can be one of them")
    if run.protocol in AGAINST_SETS and not run.unknown:
        raise InputError(f"{where}: the {run.protocol} protocol needs OOD sets: name them in near or far")
    if run.protocol == "full-spectrum" and bool(run.shifts) == bool(run.shifted):
        raise InputError(f"{where}: the full-spectrum protocol needs shifts, or shifted sets: one of the two")
    if both := run.shifted.keys() & {*run.unknown, *RESERVED}:
        raise InputError(f"{where}: a shifted set cannot be called {sorted(both)[0]!r}: something else is called so")
    for shift in run.shifts:
        parse_shift(shift)
    if run.protocol == "confusion":
        if run.rival_score not in run.scores and "all" not in run.scores:
            raise InputError(
                f"{where}: rival is {run.rival!r}; the confusion protocol shows the cells of one of its scores"
            )
        if run.rival_network and run.rival_network not in names:
            raise InputError(
                f"{where}: the network of its rival is {run.rival_network!r}, and its networks are {', '.join(names)}"
            )
    if stray := run.exposed.keys() - run.unknown.keys():
        raise InputError(f"{where}: exposed names {sorted(stray)[0]!r}, which is none of its OOD sets")


def _check_no_masks(network: NetworkPlan, where: str) -> None:
    for name, usual in fields(MasksConfig).items():
        value = getattr(network, name)
        if value != usual.default:
            raise InputError(
                f"{where}: {name} is {value}, and no score of its run looks at masked images: leave {name} out, or add "
                "'mim_reconstruction'"
            )


def _check_each_class(network: NetworkPlan, protocol: Protocol, where: str) -> None:
    if without := [trial for trial in network.trials if CLASS not in trial]:
        raise InputError(f"{where}: {CLASS} is not in its trial {without[0]!r}; all trials have it, or none has")
    about = f"{where}: model is {network.trials[0]!r}, a network for each class"
    if protocol not in ("one-class", "pairs"):
        raise InputError(
            f"{about}; the {protocol} protocol takes one for all classes: name one, or set protocol to 'one-class'"
        )
    for control in ("six_numbers", "random_weights"):
        if getattr(network, control):
            raise InputError(f"{about}; {control} is the same control for all of them: name one of these networks")


def _check_published(table: PublishedPlan, plan: Plan) -> None:
    where = f"published {table.title!r}"
    if table.run not in [run.name for run in plan.runs]:
        raise InputError(f"{where}: run is {table.run!r}, and the runs are {', '.join(run.name for run in plan.runs)}")
    for name, words in (("keys", table.keys), ("metrics", table.metrics)):
        if words and len(words) != len(table.columns):
            raise InputError(f"{where}: {len(words)} {name} for {len(table.columns)} columns")
    rows = [row.name for row in table.rows]
    if len({*rows}) < len(rows):
        raise InputError(f"{where}: its rows are {', '.join(rows)}; each needs a name of its own")
    run = next(run for run in plan.runs if run.name == table.run)
    for row in table.rows:
        several = () if isinstance(row.score, str) else row.score
        given: dict[str, Sequence[float | str]] = {
            "values": row.values,
            "deviations": row.deviations,
            "keys": row.keys,
            "scores": several,
        }
        for name, values in given.items():
            if (values or name == "values") and len(values) != len(table.columns):
                raise InputError(f"{where}, row {row.name!r}: {len(values)} {name} for {len(table.columns)} columns")
        if stray := [value for value in (*row.values, *row.deviations) if isinstance(value, str) and value != "-"]:
            raise InputError(f"{where}, row {row.name!r}: {stray[0]!r} is neither a number nor '-'")
        if row.improves and (len(row.improves) != 2 or not {*row.improves} <= {*rows}):
            raise InputError(f"{where}, row {row.name!r}: improves names two of its rows, got {list(row.improves)}")
        _check_measured(table, row, run, f"{where}, row {row.name!r}")


def _check_measured(table: PublishedPlan, row: RowPlan, run: RunPlan, where: str) -> None:
    """A row of a network or score that the run does not have would stand as the paper's only, and say nothing."""
    if row.network is None:
        return
    networks = {network.name: network for network in run.networks}
    if row.network not in networks:
        raise InputError(
            f"{where}: network is {row.network!r}, and those of run {run.name!r} are {', '.join(networks)}"
        )
    if "all" in run.scores or networks[row.network].six_numbers:
        return
    known = (*run.scores, PROBE) if run.protocol == "few-shot" else run.scores
    for column in range(len(table.columns)):
        score, *_ = table.measured_as(row, column)
        if score and score not in known:
            raise InputError(f"{where}: score is {score!r}, and those of run {run.name!r} are {', '.join(known)}")


def _run(raw: Mapping[str, Any], where: str) -> RunPlan:
    for key in SETS:
        if not isinstance(value := raw.get(key, {}), dict):
            raise InputError(f'{where}: {key} is {value!r}; its sets have names: {key} = {{ NAME = "DATA" }}')
    run = _made(RunPlan, {**raw, "networks": _each(raw, "networks", f"{where}.networks", _network)}, where)
    for key, protocols in ONLY.items():
        if key in raw and run.protocol not in protocols:
            raise InputError(
                f"{where}: {key} is a key of the protocol{'s' * (len(protocols) > 1)} {', '.join(protocols)}, and "
                f"this is {run.protocol}: take it out, or name another protocol"
            )
    return run


def _network(raw: Mapping[str, Any], where: str) -> NetworkPlan:
    return _made(NetworkPlan, raw, where)


def _published(raw: Mapping[str, Any], where: str) -> PublishedPlan:
    return _made(PublishedPlan, {**raw, "rows": _each(raw, "rows", f"{where}.rows", _row)}, where)


def _row(raw: Mapping[str, Any], where: str) -> RowPlan:
    return _made(RowPlan, raw, where)


def _each(raw: Mapping[str, Any], key: str, where: str, make: Any) -> tuple[Any, ...]:
    tables = raw.get(key, [])
    if not isinstance(tables, list) or not all(isinstance(table, dict) for table in tables):
        raise InputError(f"{where!r} opens one table for each: [[{where}]]")
    return tuple(make(table, f"{where}[{index}]") for index, table in enumerate(tables))


def _made(cls: type[T], raw: Mapping[str, Any], where: str) -> T:
    try:
        return cls(**{key: _tuples(value) for key, value in raw.items()})
    except InputError as error:
        raise InputError(f"{where}: {error}" if where else str(error)) from None


def _tuples(value: Any) -> Any:
    return tuple(map(_tuples, value)) if isinstance(value, list) else value
