"""The page of a monitor: its evidence over the stream, and what each window looked like."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from mood.report import figures
from mood.report.markup import Html, element
from mood.report.parts import document, heading

COLUMNS = ("images", "unreadable", "flagged", "drift", "by chance", "evidence")


def monitor_page(windows: Sequence[Mapping[str, Any]], *, level: float, alpha: float) -> str:
    """The page as text, to be written as UTF-8.

    Args:
        windows: at least one, in their order, the fields of `mood.decisions.Window`.
        level: probability of a false alarm over the whole stream.
        alpha: what counts as flagged.
    """
    last = windows[-1]
    ends = np.array([item["first"] + item["images"] for item in windows])
    evidence = np.array([item["log10_evidence"] for item in windows])
    if not windows[0]["first"]:
        # From the start, where the capital is 1.
        ends, evidence = np.concatenate(([0], ends)), np.concatenate(([0.0], evidence))
    alarm = last["alarm"]
    told = (
        f"No alarm in {int(ends[-1]):,} images. Of streams that stay like the calibration images, at most {level:.2%} "
        "ever raise one."
        if alarm is None
        else f"Alarm at image {alarm:,}: here or before, the images have stopped being like the calibration images, "
        "and the promised rate of false alarms does not hold for them."
    )
    rows = [element("tr", (element("td", cell, class_="number") for cell in _cells(item))) for item in windows]
    table = element(
        "table",
        element("thead", element("tr", (heading(name, False, number=True) for name in COLUMNS))),
        element("tbody", rows),
    )
    return document(
        "Monitor",
        (
            element("header", element("p", "mood · monitor", class_="eyebrow"), element("h1", "Is it still the same?")),
            element("p", told, class_="note"),
            element("figure", figures.evidence_curve(ends, evidence, level, alarm)),
            element(
                "p",
                f"Flagged: share with p ≤ {alpha:g}. Drift: of the mean embedding from that of the calibration images, "
                "in standard deviations, beside what chance gives.",
            ),
            element("div", table, class_="scroll"),
        ),
    )


def _cells(window: Mapping[str, Any]) -> list[str | Html]:
    drift, chance = ("–" if window[name] is None else f"{window[name]:.2f}" for name in ("drift", "drift_by_chance"))
    return [
        f"{window['first']:,}–{window['first'] + window['images']:,}",
        f"{window['unreadable']:,}",
        f"{window['flagged']:.1%}",
        drift,
        chance,
        f"10^{window['log10_evidence']:.1f}",
    ]
