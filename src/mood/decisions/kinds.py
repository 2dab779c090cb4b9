"""The kinds of calibration by name: what a detector saves, and finds again."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from mood.core.errors import ArtifactError, MoodError
from mood.decisions.conditional import Conditional
from mood.decisions.conformal import Conformal
from mood.decisions.cross import Cross
from mood.decisions.guarantee import Calibration
from mood.decisions.mondrian import Mondrian

_KINDS: dict[str, type] = {"split": Conformal, "conditional": Conditional, "by-class": Mondrian, "cross": Cross}
# Of each kind the arrays, and the plain values, that it is made from.
_PARTS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "split": (("scores",), ("ties",)),
    "conditional": (("scores",), ("confidence", "bound", "ties")),
    "by-class": (("scores", "classes"), ("alpha", "ties")),
    "cross": (("scores", "folds"), ("ties",)),
}


def kind_of(calibration: Calibration) -> str:
    """The name of its kind: split, conditional, by-class or cross."""
    return next(name for name, kind in _KINDS.items() if isinstance(calibration, kind))


def state(calibration: Calibration) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """A calibration as plain data: its arrays by name, and the rest as JSON. `restore` is the inverse."""
    kind = kind_of(calibration)
    arrays, values = _PARTS[kind]
    return (
        {name: np.ascontiguousarray(getattr(calibration, name)) for name in arrays},
        {"kind": kind, **{name: getattr(calibration, name) for name in values}},
    )


def restore(arrays: Mapping[str, np.ndarray], meta: Mapping[str, Any]) -> Calibration:
    """Rebuild a calibration from what `state` gave.

    Raises:
        ArtifactError: an unknown kind, or other arrays and values than it consists of.
    """
    kind = meta.get("kind")
    if kind not in _KINDS:
        raise ArtifactError(f"calibration of kind {kind!r}; this mood knows {', '.join(_KINDS)}: use a newer one")
    expected = {*_PARTS[kind][0], *_PARTS[kind][1]}
    found = {*arrays, *meta} - {"kind"}
    if found != expected:
        listed = [", ".join(sorted(names)) for names in (expected, found)]
        raise ArtifactError(f"a calibration of kind {kind!r} consists of {listed[0]}; found {listed[1]}")
    try:
        made: Calibration = _KINDS[kind](**arrays, **{name: meta[name] for name in _PARTS[kind][1]})
    except (MoodError, TypeError) as error:
        raise ArtifactError(f"this is no calibration of kind {kind!r}: {error}") from error
    return made
