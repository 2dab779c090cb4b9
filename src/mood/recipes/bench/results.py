"""What a benchmark leaves: figures in long form, what they cost, what is missing; as JSON, Parquet and CSV."""

import csv
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from mood.evaluation.protocols import members
from mood.recipes.bench.plan import PublishedPlan, RowPlan

RESULTS = "results.json"
LESS_THIS = "auroc_of_{}_less_this"
"""What the difference is called between the AUROC of a run's first score and that of another."""
LESS_THIS_NETWORK = "auroc_on_{}_less_this"
"""The same of one score on a run's first network and on another."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """One number.

    Attributes:
        run: name of the run.
        protocol: of it.
        network: name of the network.
        trial: 0, 1, … of its trials.
        score: as the recipe has it.
        key: what it was measured on: an OOD set, a class, a pair, "mean", …
        metric: "auroc", "fpr95_id_positive", …
        value: a share in [0, 1], or a number of images where the metric is "accepted".
        low: lower end of its interval, or None.
        high: upper end.
        p_value: of a paired test, or None.
        n_id: ID images behind it; None where no one number says it, as of a mean.
        n_ood: OOD images behind it, likewise.
        seen: why the weights are not new to the images, or "".
        flattered: why they are not new to the test images, or to classes of theirs that stand for the unknown, or "".
    """

    run: str
    protocol: str
    network: str
    trial: int
    score: str
    key: str
    metric: str
    value: float
    low: float | None = None
    high: float | None = None
    p_value: float | None = None
    n_id: int | None = None
    n_ood: int | None = None
    seen: str = ""
    flattered: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """What a score took in one run.

    Attributes:
        run: name of the run.
        network: name of the network.
        score: as the recipe has it, or "extraction", "probes" and "intervals".
        kind: "extraction", "stored", "scikit-learn", "further pass", "probes" or "intervals".
        fit_seconds: of fitting it.
        score_seconds: of scoring all sets.
        trial: 0, 1, … of its network's trials.
    """

    run: str
    network: str
    score: str
    kind: str
    fit_seconds: float
    score_seconds: float
    trial: int = 0


@dataclass(frozen=True, slots=True)
class LeftOut:
    """A run, a network or a score that was not measured.

    Attributes:
        run: name of the run.
        what: the set, the score, or the network, with the classes for which it has none.
        reason: why, and what to do.
    """

    run: str
    what: str
    reason: str

    def __str__(self) -> str:
        """As a line has it."""
        return f"{self.run}, {self.what}: {self.reason}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Results:
    """Everything that a benchmark found.

    Attributes:
        title: of the recipe.
        figures: in long form.
        costs: likewise.
        missing: DATA that is not there → why, and where to get and put it.
        left_out: what was not measured.
        notes: sentences to be read beside the figures.
        chosen: what was chosen on known images, and why.
        published: tables of others.
        footnotes: of the published figures.
        other_sets: stand-in runs against other sets than the run in whose place they are: their means are no figures
            to hold beside published ones.
        settings: the full effective configuration.
        versions: of mood and what it stands on.
    """

    title: str
    figures: tuple[Figure, ...]
    costs: tuple[Cost, ...] = ()
    missing: Mapping[str, str] = field(default_factory=dict)
    left_out: tuple[LeftOut, ...] = ()
    notes: tuple[str, ...] = ()
    chosen: tuple[str, ...] = ()
    published: tuple[PublishedPlan, ...] = ()
    footnotes: tuple[str, ...] = ()
    other_sets: tuple[str, ...] = ()
    settings: Mapping[str, Any] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)

    def beside(self, table: PublishedPlan, row: RowPlan, column: int) -> list[Figure]:
        """What a cell of a published row is compared with, one a trial; none where ours would be another figure."""
        score, key, metric = table.measured_as(row, column)
        if row.network is None or (key.startswith("mean") and table.run in self.other_sets):
            return []
        return self.of(table.run, network=row.network, score=score, key=key, metric=metric)

    def left_out_together(self) -> list[LeftOut]:
        """What was left out, with all that one reason is given for in one place: of scores there may be dozens."""
        found: dict[tuple[str, str], list[str]] = {}
        for item in self.left_out:
            found.setdefault((item.run, item.reason), []).append(item.what)
        return [LeftOut(run, _together(names), reason) for (run, reason), names in found.items()]

    def controls(self, run: str) -> frozenset[str]:
        """The networks of a run that are controls: random weights, or six numbers of each image."""
        return frozenset(
            network["name"]
            for network in self._plan_of(run).get("networks", ())
            if network["random_weights"] or network["six_numbers"]
        )

    def sets_behind(self, run: str, key: str) -> tuple[str, ...]:
        """The OOD sets that a figure of this key is over: those of a mean, or what it is called itself."""
        plan = self._plan_of(run)
        groups = {name: tuple(plan[name]) for name in ("near", "far") if plan.get(name)}
        return members(groups).get(key, (key,)) if groups else (key,)

    def _plan_of(self, run: str) -> Mapping[str, Any]:
        """What the recipe says of a run; nothing where it has none."""
        plan = self.settings.get("plan", {})
        runs = plan.get("small" if self.settings.get("small") else "runs", ())
        return next((item for item in runs if item["name"] == run), {})

    def of(self, run: str, **wanted: Any) -> list[Figure]:
        """The figures of a run that have these values."""
        return [
            figure
            for figure in self.figures
            if figure.run == run and all(getattr(figure, name) == value for name, value in wanted.items())
        ]


def _together(names: Sequence[str]) -> str:
    """`["ours, gram", "ours, odin", "other, gram"]` → `"ours, gram, odin; other, gram"`."""
    networks: dict[str, dict[str, None]] = {}
    for name in names:
        network, _, rest = name.partition(", ")
        networks.setdefault(network, {})[rest] = None
    return "; ".join(", ".join(filter(None, (network, *rest))) for network, rest in networks.items())


def to_json(results: Results) -> dict[str, Any]:
    """Results as JSON has them."""
    from mood.core.config import to_dict

    plain = {item.name: getattr(results, item.name) for item in fields(results)}
    for name in ("figures", "costs", "left_out"):
        plain[name] = [asdict(item) for item in plain[name]]
    plain["published"] = [to_dict(table) for table in results.published]
    return plain


def read_results(folder: Path) -> Results:
    """What `write_results` wrote."""
    plain = json.loads((folder / RESULTS).read_text(encoding="utf-8"))
    made = {"figures": Figure, "costs": Cost, "left_out": LeftOut}
    for name, cls in made.items():
        plain[name] = tuple(cls(**item) for item in plain[name])
    for name in ("notes", "chosen", "footnotes", "other_sets"):
        plain[name] = tuple(plain[name])
    plain["published"] = tuple(_published(table) for table in plain["published"])
    return Results(**plain)


def write_results(results: Results, folder: Path) -> None:
    """Write results.json, .parquet and .csv; the tables and the page have their own writers."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    rows = [asdict(figure) for figure in results.figures]
    names = [item.name for item in fields(Figure)]
    (folder / RESULTS).write_text(json.dumps(to_json(results), indent=1) + "\n", encoding="utf-8")
    pq.write_table(pa.Table.from_pylist(rows, schema=_schema()), folder / "results.parquet")
    with (folder / "results.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, names)
        writer.writeheader()
        writer.writerows(rows)


def trials_of(figures: Iterable[Figure]) -> dict[tuple[str, str, str, str, str], list[Figure]]:
    """Figures by (run, network, score, key, metric), one for each trial."""
    found: dict[tuple[str, str, str, str, str], list[Figure]] = {}
    for figure in figures:
        at = (figure.run, figure.network, figure.score, figure.key, figure.metric)
        found.setdefault(at, []).append(figure)
    return found


def lost(old: Results, new: Results) -> list[Figure]:
    """What was measured before and is not now.

    Comparisons with whatever comes first, and the cells that a rival chooses, are others where more is there.
    """

    def places(results: Results) -> dict[tuple[str, str, int, str, str, str], Figure]:
        return {(f.run, f.network, f.trial, f.score, f.key, f.metric): f for f in results.figures}

    there = places(new).keys()
    return [
        figure
        for at, figure in places(old).items()
        if at not in there and figure.p_value is None and "→" not in figure.key
    ]


def _schema() -> Any:
    import pyarrow as pa

    kinds = {"trial": pa.int64(), "n_id": pa.int64(), "n_ood": pa.int64()}
    kinds |= dict.fromkeys(("value", "low", "high", "p_value"), pa.float64())
    return pa.schema([(item.name, kinds.get(item.name, pa.string())) for item in fields(Figure)])


def _published(table: Mapping[str, Any]) -> PublishedPlan:
    def tuples(values: Mapping[str, Any]) -> dict[str, Any]:
        return {
            key: tuple(value) if isinstance(value, Sequence) and not isinstance(value, str) else value
            for key, value in values.items()
        }

    rows = tuple(RowPlan(**tuples(row)) for row in table["rows"])
    return PublishedPlan(**{**tuples(table), "rows": rows})
