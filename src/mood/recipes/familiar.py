"""Which images of an evaluation are not new to the weights: figures on them say less."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mood.data import Source
    from mood.models import Model


def familiar(model: "Model | None", source: "Source | None") -> str:
    """Why a network's weights are not new to a set; empty where they are, or where nobody knows."""
    if model is None or source is None or model.history is None or model.seen is None:
        return ""
    count = int(model.seen_among(source.manifest.hashes).sum())
    if count:
        return f"{count} of these images were trained on"
    base, names = source.name.split(":")[0], set(source.manifest.class_names or ())
    stages = [
        stage
        for stage in model.history
        # Another part of the same set is as familiar as the part that was trained on, unless its classes were left out.
        if stage.data.split(":")[0] == base and (not names or not stage.class_names or names & set(stage.class_names))
    ]
    return "; ".join(f"{stage.stage} on {stage.data}" for stage in stages)


def too_good(model: "Model | None", known: "Source | None") -> tuple[str, ...]:
    """A word on ID images that are not new to the weights: they look more usual than new ones will."""
    count = (
        0
        if model is None or known is None or model.seen is None
        else int(model.seen_among(known.manifest.hashes).sum())
    )
    return (f"id: {count} of these images were trained on, so that the figures are too good",) if count else ()
