"""The page and the figures of a benchmark, from its results and the scores behind them."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mood.core.errors import DataError
from mood.evaluation import over_trials, roc_curve
from mood.recipes.bench.networks import kind_of
from mood.recipes.bench.plan import score_spec
from mood.recipes.bench.results import Results
from mood.recipes.bench.scoring import Scored
from mood.recipes.bench.session import ID, Session
from mood.recipes.bench.tables import CHOSEN_CELLS, costs, further_grids, measured_grids, published_grids, reduced
from mood.recipes.set_cards import set_card
from mood.report import Card, Comparison, Drawn, Ends, Thumbnail, extremes, render_comparison
from mood.report.comparison_figures import confusion_bars, distributions, roc_lines, task_bars

if TYPE_CHECKING:
    from mood.data import Source

METHODS = 3
"""Methods whose distributions are drawn, at most: Figure 2 has three."""

BESIDE = ("msp", "knn")
"""Of "all" scores, those that are drawn after what the recipe names: Figure 2 has softmax and a rival's distances."""


@dataclass(frozen=True, slots=True, eq=False)
class Shown:
    """What a page shows of one run with one network, made while the network is there.

    Attributes:
        run: name of the run.
        figures: distributions and ROC curves.
        ends: images at both ends of every set.
        cards: of the sets.
        seen: a line for each set that the weights have seen.
        hashes: of weights, transform and images.
    """

    run: str
    figures: tuple[Drawn, ...]
    ends: tuple[Ends, ...]
    cards: tuple[Card, ...]
    seen: tuple[str, ...]
    hashes: Mapping[str, str]


def shown(session: Session, scored: Mapping[str, Scored], *, drawn: bool, ends: bool) -> Shown:
    """What to keep of a session.

    Args:
        session: finished.
        scored: its scores.
        drawn: the figures too; one trial of a network is enough for them.
        ends: the images at both ends too; they are large, and one network of a run is enough for them.
    """
    return Shown(
        run=session.run.name,
        figures=tuple(_spreads(session, scored)) if drawn else (),
        ends=tuple(_ends(session, scored)) if ends else (),
        cards=tuple(_cards(session)),
        seen=tuple(_seen(session)),
        hashes=_hashes(session),
    )


def write_page(results: Results, parts: Sequence[Shown], folder: Path) -> None:
    """Write report.html, and every figure as PNG in figures/."""
    figures = [*_tasks(results), *_confusions(results), *(drawn for part in parts for drawn in part.figures)]
    place = folder / "figures"
    for number, drawn in enumerate(figures):
        place.mkdir(exist_ok=True)
        drawn.figure.savefig(place / f"{number:02d}-{_slug(drawn.group)}-{_slug(drawn.title)}.png", dpi=150)
    page = Comparison(
        title=results.title,
        summary=" ".join((*reduced(results), _summary(results))),
        published=tuple(published_grids(results)),
        footnotes=results.footnotes,
        methods=tuple(measured_grids(results)),
        further=tuple(further_grids(results)),
        figures=tuple(figures),
        ends=tuple(ends for part in parts for ends in part.ends),
        cards=tuple(_merged([card for part in parts for card in part.cards])),
        missing=results.missing,
        left_out=tuple((f"{item.run}, {item.what}", item.reason) for item in results.left_out_together()),
        chosen=results.chosen,
        notes=results.notes,
        costs=tuple(costs(results)),
        seen=tuple(dict.fromkeys(line for part in parts for line in part.seen)),
        config=_settings(results),
        versions=results.versions,
        hashes={name: value for part in parts for name, value in part.hashes.items()},
    )
    (folder / "report.html").write_text(render_comparison(page), encoding="utf-8")


def _summary(results: Results) -> str:
    runs = {figure.run for figure in results.figures}
    networks = {figure.network for figure in results.figures}
    scores = {figure.score for figure in results.figures if figure.score}
    counts = {"run": len(runs), "network": len(networks), "score": len(scores), "figure": len(results.figures)}
    parts = ", ".join(f"{count:,} {word}{'' if count == 1 else 's'}" for word, count in counts.items())
    return f"{parts}; sets that are missing: {len(results.missing)}. Scores are higher = more OOD."


def _settings(results: Results) -> dict[str, Any]:
    """The effective settings, without what stands elsewhere on the page (published figures) or had no part in it."""
    settings = dict(results.settings)
    plan = settings.get("plan", {})
    idle = {"published", "footnotes", "runs" if settings.get("small") else "small"}
    return {**settings, "plan": {key: value for key, value in plan.items() if key not in idle}}


def _tasks(results: Results) -> list[Drawn]:
    """Figure 1: of a recipe whose published tables have one AUROC a method, those that say what they improve on."""
    if any(len(table.columns) > 1 or table.metrics not in ((), ("auroc",)) for table in results.published):
        return []
    tasks: list[str] = []
    values: dict[str, list[float | None]] = {
        name: [] for name in ("rival (paper)", "ours (paper)", "rival (here)", "ours (here)")
    }
    for table in results.published:
        row = next((row for row in table.rows if row.improves), None)
        if row is None:
            continue
        tasks.append(table.title)
        for whose, name in zip(("ours", "rival"), row.improves, strict=True):
            method = next(item for item in table.rows if item.name == name)
            printed, found = method.values[0], results.beside(table, method, 0)
            values[f"{whose} (paper)"].append(None if isinstance(printed, str) else float(printed))
            here = 100 * over_trials([figure.value for figure in found]).mean if found else None
            values[f"{whose} (here)"].append(here)
    if not tasks:
        return []
    return [Drawn("AUROC beside the rival", task_bars(tasks, values), "Tasks (Figure 1 of the paper)")]


def _confusions(results: Results) -> list[Drawn]:
    """Figure 3."""
    drawn = []
    accepted = [figure for figure in results.figures if figure.metric == "accepted" and "→" in figure.key]
    for run, network in dict.fromkeys((figure.run, figure.network) for figure in accepted):
        mine = [f for f in accepted if (f.run, f.network, f.trial) == (run, network, 0)]
        cells = list(dict.fromkeys(figure.key for figure in mine))
        counts = {
            score: [next(f.value for f in mine if (f.score, f.key) == (score, cell)) for cell in cells]
            for score in dict.fromkeys(figure.score for figure in mine)
        }
        figure = confusion_bars(cells, counts)
        drawn.append(Drawn(f"{run}, {network}", figure, "Confusion (Figure 3 of the paper)", CHOSEN_CELLS))
    return drawn


def _spreads(session: Session, scored: Mapping[str, Scored]) -> list[Drawn]:
    """Figure 2 and ROC curves."""
    kept = {text: one for text, one in scored.items() if ID in one.values}
    first = {text: kept[text] for text in _first(session.run.scores, kept)}
    order = (
        f"those that the recipe names, then {' and '.join(BESIDE)}" if "all" in session.run.scores else "the first ones"
    )
    at = f"{session.run.name}, {session.network.plan.name}"
    note = f"Drawn of {len(first)} of {len(kept)} scores, {order}." * (len(kept) > len(first))
    known, drawn = session.sets.test.name, []
    for text, one in first.items():
        others = {
            f"{known}{name.removeprefix(ID)}" if name.startswith(f"{ID}, ") else name: values
            for name, values in one.values.items()
            if name != ID
        }
        figure = distributions(one.values[ID], others, known)
        drawn.append(Drawn(text, figure, f"{at}: scores (Figure 2 of the paper)", note))
    for text, one in first.items():
        curves = {
            name: roc_curve(one.values[ID], values)
            for name, values in one.values.items()
            if name in session.sets.unknown
        }
        drawn.append(Drawn(text, roc_lines(curves), f"{at}: ROC", note))
    return drawn


def _first(named: Sequence[str], kept: Collection[str]) -> list[str]:
    """The scores that are drawn, of those that were measured; "all" is no order to draw the first of."""
    order = [*([text for text in named if text != "all"] or ["mood"]), *BESIDE]
    return [text for text in dict.fromkeys(order) if text in kept][:METHODS] or list(kept)[:METHODS]


def _ends(session: Session, scored: Mapping[str, Scored]) -> list[Ends]:
    """Images at both ends of every set under the first score; p is among the test images."""
    text, one = next(((text, one) for text, one in scored.items() if ID in one.values), ("", Scored()))
    if not one.values:
        return []
    from mood.decisions import Conformal
    from mood.scores import info

    among = Conformal(one.values[ID])
    kind = kind_of(info(score_spec(text)[0]).needs)
    found = []
    for name, source in {ID: session.sets.test, **session.sets.unknown}.items():
        values = one.values[name]
        positions = session.network.extracted(source, kind).positions
        p_values = among.p_values(values)
        most, least = (
            tuple(_thumbnail(source, int(positions[row]), values[row], p_values[row]) for row in rows)
            for rows in extremes(values)
        )
        found.append(Ends(f"{session.run.name}: {source.name if name == ID else name}, by {text}", most, least))
    return found


def _thumbnail(source: "Source", position: int, score: float, p_value: float) -> Thumbnail:
    from mood.core.decoding import as_seen

    try:
        pixels = np.asarray(as_seen(source.read(position)))
    except DataError:
        pixels = np.zeros((1, 1, 3), np.uint8)  # it was readable when its features were made
    return Thumbnail(source.manifest.ids[position], pixels, float(score), float(p_value))


def _cards(session: Session) -> list[Card]:
    """What is known of each set of a run."""
    splits = {"fit": session.sets.fit, "test": session.sets.test}
    roles = {name: f"known, {name}" for name in splits} | dict.fromkeys(session.sets.shifted, "known, shifted")
    roles |= {name: f"{group} OOD" for group, names in session.run.groups.items() for name in names}
    made = []
    for name, source in {**splits, **session.sets.shifted, **session.sets.unknown}.items():
        seen = session.seen(name) if name in session.sets.unknown else ""
        warning = f"† seen by the weights of {session.network.plan.name}: {seen}" if seen else ""
        role = f"{session.run.name}: {roles[name]}"
        made.append(set_card(source, name=source.name if name in splits else name, role=role, warning=warning))
    return made


def _merged(cards: Sequence[Card]) -> list[Card]:
    """One card a set, with all its roles and warnings."""
    found: dict[tuple[str, str], Card] = {}
    for card in cards:
        at = (card.name, card.facts["hash"])
        before = found.get(at, Card(card.name, {**card.facts, "role": ""}))
        roles = dict.fromkeys([*filter(None, before.facts["role"].split("; ")), card.facts["role"]])
        warnings = dict.fromkeys(filter(None, [*before.warning.split("; "), card.warning]))
        found[at] = Card(card.name, {**card.facts, "role": "; ".join(roles)}, "; ".join(warnings))
    return list(found.values())


def _seen(session: Session) -> list[str]:
    trial, lines = session.networks.trial, []
    for at, weights in trial.weights.items():
        name = trial.called(at)
        if weights.history is None:
            lines.append(f"{name}: what its weights were trained on is not known")
        elif not weights.history:
            lines.append(f"{name}: nothing; its weights are random")
        lines += [f"{name}: {stage.stage}, {stage.images:,} images of {stage.data}" for stage in weights.history or ()]
    return lines


def _hashes(session: Session) -> dict[str, str]:
    trial, found = session.networks.trial, {}
    for at, weights in trial.weights.items():
        found[f"weights of {trial.called(at)}"] = weights.fingerprint
        found[f"transform of {trial.called(at)}"] = weights.transform
    for source in (session.sets.fit, session.sets.test, *session.sets.shifted.values(), *session.sets.unknown.values()):
        found[f"images of {source.name}"] = source.manifest.fingerprint
    return found


def _slug(text: str) -> str:
    return "-".join("".join(c if c.isalnum() else " " for c in text.lower()).split())[:60]
