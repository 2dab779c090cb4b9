"""Few images for a covariance: what that costs, measured, and whether the score shrinks.

With n images and D dimensions, distances of the images of the fit are 1 − D/n times those of new ones: at n = 1300 and
D = 1024 a threshold taken from them would flag nearly everything. Thresholds here come from images that the fit has not
seen, so the promise stands; what is lost is power, and shrinkage brings much of it back.
"""

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from mood.core.features import Features
    from mood.scores import Score

ENOUGH = 10
"""Images for each dimension from which nothing is said; the scores' own `auto` shrinks below it."""


def few_images(
    name: str,
    options: Mapping[str, Any],
    score: "Score",
    rows: "Features | Iterable[Features]",
    held_out: np.ndarray,
    alpha: float,
) -> dict[str, Any] | None:
    """Compare the images of the fit with others where they are few for a score's covariance.

    Args:
        name: of the score, or of several with commas between them.
        options: that it was fitted with.
        score: fitted.
        rows: the images that it was fitted on.
        held_out: (n,) scores of images that it was not fitted on.
        alpha: the promised rate.

    Returns:
        Counts, what each score does about it, mean scores of both kinds of images, and the rate of false alarms that a
        threshold from the images of the fit would have; None where there are enough images, or no covariance.
    """
    from mood import scores
    from mood.core.features import Features

    parts = [part.strip() for part in name.split(",")]
    shrinking = {
        part: options.get("shrinkage" if len(parts) == 1 else f"{part}.shrinkage", info.options["shrinkage"])
        for part in parts
        if "shrinkage" in (info := scores.info(part)).options
    }
    if not shrinking:
        return None
    shards = [rows] if isinstance(rows, Features) else rows
    count, width, classes = 0, 0, set()
    for shard in shards:
        layers = [layer.shape[1] for layer in shard.layers]
        count, width = count + len(shard), max([shard.embedding.shape[1], *layers])
        if shard.labels is not None:
            classes |= {*shard.labels.unique().tolist()}
    # These two have a covariance for each class, or for each cluster.
    each = max(len(classes), 1) if "mahalanobis_per_class" in shrinking else int(options.get("clusters", 1))
    if count / each >= ENOUGH * width:
        return None
    of_fit = np.concatenate([score(shard).numpy() for shard in shards])
    # What somebody would take who has no other images.
    threshold = np.quantile(of_fit, 1 - alpha)
    return {
        "images": count,
        "covariances": each,
        "dimensions": width,
        "shrinkage": {part: "oas" if amount == "auto" else amount for part, amount in shrinking.items()},
        "mean_score_of_fit": float(of_fit.mean()),
        "mean_score_held_out": float(held_out.mean()),
        "flagged_by_fit_threshold": float((held_out > threshold).mean()),
    }


def told(found: Mapping[str, Any], alpha: float) -> str:
    """The same in a sentence or two."""
    each = "" if found["covariances"] == 1 else f" in each of {found['covariances']} covariances"
    plain = [part for part, amount in found["shrinkage"].items() if amount in ("none", 0)]
    shrunk = {part: amount for part, amount in found["shrinkage"].items() if part not in plain}
    done = "; ".join(
        [f"{part} shrinks its covariance ({amount})" for part, amount in shrunk.items()]
        + [f"{part} does not shrink its covariance" for part in plain]
    )
    further = (
        f"images held out score {found['mean_score_held_out'] / found['mean_score_of_fit']:.2g} times what those of "
        "the fit do, and "
        if found["mean_score_of_fit"] > 0
        else ""
    )
    advice = f"; for more power try shrinkage=oas for {', '.join(plain)}" if plain else ""
    return (
        f"few images: {found['images']} for {found['dimensions']} dimensions{each}, under {ENOUGH} for each; {done}. "
        f"Measured: {further}a threshold from the images of the fit would flag {found['flagged_by_fit_threshold']:.1%} "
        f"of known images, not {alpha:.1%}. Ours is from images held out, so the promise stands{advice}"
    )
