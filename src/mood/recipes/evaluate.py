"""`mood evaluate`: a detector against known and unknown images, with intervals, controls and a page to look at."""

import json
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np

from mood.core.config import NotInFingerprint, config, to_dict
from mood.core.errors import InputError
from mood.core.ranges import Count, Level, Seed
from mood.recipes.settings import DetectorConfig, OutputConfig, SelectionConfig

if TYPE_CHECKING:
    import pyarrow as pa

    from mood.core.features import Features
    from mood.data import Source
    from mood.detector import Detector
    from mood.evaluation import Estimate
    from mood.report import Measured, Report

METRIC_NAMES = ("auroc", "fpr95_id_positive", "fpr95_ood_positive", "aupr_id_positive", "aupr_ood_positive")

# Columns of a terminal that all metrics need; a narrower one is shown those that people ask for first.
WIDE = 140


@config
class EvaluateConfig(SelectionConfig, DetectorConfig, OutputConfig):
    """Measure a detector on unseen known images and on sets of unknown ones."""

    id: str
    """images of the known world that nothing was fitted or calibrated on, or features of them (.npz, Parquet)"""
    ood: tuple[str, ...]
    """NAME=DATA of a set of unknown images, or of features of them"""
    output: Annotated[Path | None, NotInFingerprint] = None
    """folder for report.html, results.json, results.md and the scores of every image"""
    controls: bool = False
    """hold two controls beside the detector: six numbers per image, and the same network with random weights"""
    fit_data: str | None = None
    """the images that the detector was fitted on, where the controls cannot find them by the name kept in it"""
    replicates: Count = 1000
    """bootstrap replicates behind the intervals"""
    confidence: Level = 0.95
    """of the intervals"""
    seed: Seed = 0
    """of the bootstrap and of the control's random weights"""
    limit: Count | None = None
    """take only so many images of each set, evenly spaced"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluation:
    """A detector's figures.

    Attributes:
        report: everything that the page shows.
        tables: id, score, p-value and verdict of every image, by set; the known one is "id".
    """

    report: "Report"
    tables: Mapping[str, "pa.Table"]

    @property
    def false_alarms(self) -> float:
        """Share of the unseen ID images that are flagged."""
        return self.report.id.flagged(self.report.promise.alpha)

    @property
    def kept(self) -> bool:
        """Whether that share lies in the range that chance allows if the promise holds."""
        low, high = self.report.promise.allowed
        return low <= self.false_alarms <= high

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers as JSON has them."""
        promise = self.report.promise
        return {
            "score": self.report.score,
            "model": self.report.model,
            "alpha": promise.alpha,
            "n_calibration": promise.n_calibration,
            "n_id": len(self.report.id.scores),
            "promised": promise.sentence,
            "false_alarms": self.false_alarms,
            "false_alarms_interval": [promise.observed.low, promise.observed.high],
            "allowed": list(promise.allowed),
            "verified": promise.verified,
            "notes": list(self.report.notes),
            "sets": {
                item.name: {
                    "images": len(item.scores),
                    "rejected": len(item.rejections),
                    "seen_by_weights": item.seen_by_weights,
                    "metrics": {key: asdict(value) for key, value in item.metrics.items()},
                    "controls": {
                        name: {key: asdict(value) for key, value in metrics.items()}
                        for name, metrics in item.controls.items()
                    },
                }
                for item in self.report.ood
            },
        }

    def summary(self) -> str:
        """The table and the promise, for a terminal."""
        from io import StringIO

        from rich.console import Console

        from mood.report import metrics_table

        text = StringIO()
        width = shutil.get_terminal_size((120, 24)).columns
        if width >= WIDE:
            shown = metrics_table(self.report.ood, score=self.report.score)
        else:
            few = ("auroc", "fpr95_id_positive", "flagged")
            shown = metrics_table(self.report.ood, score=self.report.score, metrics=few).without("images")
        Console(file=text, width=width).print(shown.to_console())
        table = "\n".join(line.rstrip() for line in text.getvalue().strip("\n").splitlines()).strip("\n")
        return "\n".join((f"{table}\n", *self.words))

    @property
    def words(self) -> tuple[str, ...]:
        """What became of the promise, what it is, and what to know of the sets: a sentence each."""
        promise = self.report.promise
        low, high = promise.allowed
        tested = (
            f"false alarms on {len(self.report.id.scores)} unseen known images: {self.false_alarms:.1%}; "
            f"promised {promise.alpha:.1%}, and by chance {low:.1%} to {high:.1%} (99 %): "
            f"{'inside' if self.kept else 'OUTSIDE'}"
        )
        return tested, f"promised: {promise.sentence}", *self.report.notes


@dataclass(frozen=True, slots=True)
class EvaluateResult:
    """The evaluation, and where it was written."""

    evaluation: Evaluation
    output: Path | None

    def summary(self) -> str:
        """What a person wants to know."""
        where = "" if self.output is None else f"\nreport: {self.output / 'report.html'}"
        return self.evaluation.summary() + where


def evaluate(
    config: EvaluateConfig,
    *,
    detector: "Detector | None" = None,
    known: Any = None,
    unknown: Mapping[str, Any] | None = None,
) -> EvaluateResult:
    """Measure a detector.

    Args:
        config: see `EvaluateConfig`.
        detector: one in memory, in place of `config.detector`.
        known: in-memory images, an opened source or `Features`, in place of `config.id`.
        unknown: the same by name, in place of what `config.ood` says of these names.

    Raises:
        MoodError: no detector there, images that cannot be found, an output that is taken.
    """
    if detector is None:
        config.check_detector()
    from mood.core.output import open_output
    from mood.data import open_data
    from mood.detector import load
    from mood.recipes.fit import fitted_source
    from mood.recipes.inputs import fingerprint_of

    judge = load(config.detector, device=config.device) if detector is None else detector
    memory = unknown or {}
    if config.fit_data is not None and not config.controls:
        raise InputError("fit_data is for the controls: leave it out, or say --controls")
    if not config.ood:
        raise InputError("say with --ood NAME=DATA what to tell the known images from: at least one set")
    roots, limit = config.data_root, config.limit
    given = config.id if known is None else known
    id_set = open_data(given, roots=roots, coarse=config.coarse, classes=config.classes, limit=limit)
    ood_sets = {}
    for pair in config.ood:
        name, equals, data = pair.partition("=")
        if not equals or not name or not data or name in ood_sets or name == "id":
            raise InputError(f"--ood takes NAME=DATA with a new NAME for each set, got {pair!r}")
        ood_sets[name] = open_data(memory.get(name, data), roots=roots, limit=limit)
    fitted_on = fitted_source(judge, data=config.fit_data, roots=roots) if config.controls else None

    def examined() -> Evaluation:
        return examine(
            judge,
            id_set,
            ood_sets,
            fitted_on=fitted_on,
            replicates=config.replicates,
            confidence=config.confidence,
            seed=config.seed,
            batch_size=config.batch_size,
            workers=config.workers,
            settings=to_dict(config),
        )

    if config.output is None:
        return EvaluateResult(examined(), None)
    prints = {name: fingerprint_of(item) for name, item in {"id": id_set, **ood_sets}.items()}
    settings = to_dict(config) | {"images": prints, "fitted": judge.fingerprint()}
    with open_output(config.output, settings, overwrite=config.overwrite) as output:
        # From cached features the figures cost seconds, so a finished run looks at them again.
        evaluation = examined()
        if not output.finished:
            write_evaluation(evaluation, output.work)
            output.commit()
    return EvaluateResult(evaluation, config.output)


def write_evaluation(evaluation: Evaluation, folder: Path) -> None:
    """Write report.html, results.json, results.md and the verdict on every image."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    from mood.report import metrics_table, render

    (folder / "report.html").write_text(render(evaluation.report), encoding="utf-8")
    (folder / "results.json").write_text(json.dumps(evaluation.to_dict(), indent=2) + "\n", encoding="utf-8")
    table = metrics_table(evaluation.report.ood, score=evaluation.report.score)
    said = "".join(f"\n{sentence}\n" for sentence in evaluation.words)
    (folder / "results.md").write_text(table.to_markdown().rstrip("\n") + f"\n{said}", encoding="utf-8")
    verdicts = [
        rows.add_column(0, "set", pa.array([name] * rows.num_rows, pa.string()))
        for name, rows in evaluation.tables.items()
    ]
    pq.write_table(pa.concat_tables(verdicts), folder / "scores.parquet")


def examine(
    detector: "Detector",
    known: "Source | Features",
    unknown: "Mapping[str, Source | Features]",
    *,
    fitted_on: "Source | None" = None,
    replicates: int = 1000,
    confidence: float = 0.95,
    seed: int = 0,
    batch_size: int = 64,
    workers: int = 0,
    settings: Mapping[str, Any] | None = None,
) -> Evaluation:
    """Score known and unknown images and compare.

    Args:
        detector: what is measured.
        known: ID images that nothing was fitted or calibrated on, or features of such images.
        unknown: OOD sets by name, or features of them.
        fitted_on: the images that the detector's score was fitted on; with them the controls are measured as well.
        replicates: of the bootstrap.
        confidence: of the intervals.
        seed: of the bootstrap and the control's random weights.
        batch_size: images a pass.
        workers: processes that decode.
        settings: to be shown on the page.

    Known images that are not new to the detector are left out, and so is a set that is nothing but known images; the
    notes say so, and of the other sets how many of their images are known ones.

    Raises:
        DataError: not one image of a set can be read, no set is left, or no known image is new to the detector.
        InputError: images for a detector that was fitted on features, features of another width, or controls without
            images.
    """
    from mood.core.features import Features
    from mood.evaluation import evaluate as compare
    from mood.evaluation import flagged_share, roc_curve
    from mood.recipes.controls import RANDOM_WEIGHTS, SIX_NUMBERS, Control
    from mood.recipes.familiar import familiar, notes, only_new, without_known
    from mood.recipes.judged import judge
    from mood.recipes.set_cards import card_of_fit, set_card
    from mood.report import Promise, Report, ScoredSet

    unknown, shared = without_known(known, unknown)
    known, left_out = only_new(detector, known)
    sets = {"id": known, **unknown}
    model = None if detector.embedder is None else detector.embedder.model
    images = {name: item for name, item in sets.items() if not isinstance(item, Features)}
    if fitted_on is not None and (model is None or len(images) < len(sets)):
        raise InputError("controls look at images: give images in place of features, or leave the controls out")
    judged = {name: judge(detector, item, batch_size, workers) for name, item in sets.items()}
    of_known = judged["id"].scores

    def measured(of_unknown: np.ndarray, on_known: np.ndarray) -> "dict[str, Measured]":
        found = compare(on_known, of_unknown, replicates=replicates, confidence=confidence, seed=seed)
        return {key: _measured(getattr(found, key)) for key in METRIC_NAMES}

    def flagged(name: str) -> "Measured":
        # Of verdicts: there need not be one threshold.
        return _measured(flagged_share(judged[name].p_values <= detector.alpha, 0.5, confidence=confidence))

    controls: dict[str, dict[str, Any]] = {name: {} for name in unknown}
    untold: list[str] = []
    if fitted_on is not None and model is not None:
        for title in [SIX_NUMBERS] if model.architecture is None else [SIX_NUMBERS, RANDOM_WEIGHTS]:
            try:
                control = Control(title, detector, fitted_on, batch_size=batch_size, workers=workers, seed=seed)
            except InputError as error:  # such as of a score of rightly named images, where the twin names none
                untold.append(f"the control {title} is left out: {error}")
                continue
            on_known = control(images["id"])
            for name in unknown:
                controls[name][title] = measured(control(images[name]), on_known)
    ood = tuple(
        ScoredSet(
            name=name,
            scores=judged[name].scores,
            p_values=judged[name].p_values,
            metrics=measured(judged[name].scores, of_known) | {"flagged": flagged(name)},
            controls=controls[name],
            roc=roc_curve(of_known, judged[name].scores),
            seen_by_weights=bool(familiar(model, judged[name].source)),
            most_unusual=judged[name].pictures(most=True),
            least_unusual=judged[name].pictures(most=False),
            rejections=judged[name].rejections,
        )
        for name in unknown
    )
    guarantee = detector.guarantee
    history = None if model is None else model.history
    report = Report(
        title=f"{detector.score_name} on {judged['id'].name}",
        score=detector.score_name,
        model="features" if model is None else f"{model.name} ({model.source})",
        promise=Promise(
            alpha=detector.alpha,
            n_calibration=len(detector.calibration),
            threshold=detector.threshold,
            verified=detector.promise.verified,
            reason=detector.promise.reason,
            allowed=detector.calibration.allowed(detector.alpha, len(of_known), confidence=0.99),
            sentence=guarantee.sentence,
            smallest=guarantee.smallest,
            observed=flagged("id"),
        ),
        id=ScoredSet(
            name=judged["id"].name,
            scores=of_known,
            p_values=judged["id"].p_values,
            most_unusual=judged["id"].pictures(most=True),
            least_unusual=judged["id"].pictures(most=False),
            rejections=judged["id"].rejections,
        ),
        ood=ood,
        seen=("what these weights were trained on is not known",)
        if history is None
        else tuple(f"{stage.stage}: {stage.images} images of {stage.data}" for stage in history),
        notes=(*([f"id: {left_out}"] if left_out else []), *shared, *notes(detector, unknown), *untold),
        cards=(
            card_of_fit(detector),
            set_card(known, name=judged["id"].name, role="known, unseen"),
            *(
                set_card(data, name=name, role="OOD", warning=f"† seen by the weights: {seen}" if seen else "")
                for name, data in unknown.items()
                for seen in [familiar(model, judged[name].source)]
            ),
        ),
        config={"fit": detector.card["config"], "evaluate": dict(settings or {})},
        versions=detector.card["versions"],
        hashes={
            **({} if model is None else {"weights": model.fingerprint(), "transform": model.transform.fingerprint}),
            "detector": detector.fingerprint(),
            **{f"images of {name}": item.fingerprint for name, item in judged.items()},
        },
    )
    return Evaluation(report=report, tables={name: item.table for name, item in judged.items()})


def _measured(estimate: "Estimate") -> "Measured":
    from mood.report import Measured

    return Measured(estimate.value, estimate.low, estimate.high)
