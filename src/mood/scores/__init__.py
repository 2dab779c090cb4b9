"""Scores: from what a network says about an image to one number, higher = more OOD.

```python
score = mood.scores.fit("mahalanobis", features)      # Features, or shards of them from disk
score(test_features)                                  # (N,) float64
```

One idea is one file of this package, found by itself; `available()` lists them. A score that needs no fit is a
registered function. A fitted one is a frozen dataclass whose tensor fields are the fit, made in one or more rounds:

```
collect(shard, state) → statistics         float64; counts, sums, outer products, banks
merge(statistics, statistics) → statistics
finish(statistics, state) → state          the last state is the score
```

`fit` runs them in one process, over shards in their order; `rounds` hands them to any other engine; `check` refuses
options that no fit would take, and `check_name` a name, before anything is loaded; `compares` names the parts that
compare labels with logits; `fit_folds` leaves out one part of the data after the other; `select` chooses options on
known images alone, and `check_choice` tells for which scores. Names with commas between them, `mood,msp`, are one score
of several.
"""

import importlib
from typing import TYPE_CHECKING, Any

from mood.scores._names import check_name

if TYPE_CHECKING:
    from mood.scores._fitting import (
        Score,
        check,
        compares,
        fit,
        fitted_temperatures,
        restore,
        rounds,
        state,
        temperature_images,
    )
    from mood.scores._folds import fit_folds
    from mood.scores._moving import Moving
    from mood.scores._registry import ScoreInfo, available, info
    from mood.scores._round import Round
    from mood.scores._selecting import Choice, check_choice, norm_dispersion, select

__all__ = [
    "Choice",
    "Moving",
    "Round",
    "Score",
    "ScoreInfo",
    "available",
    "check",
    "check_choice",
    "check_name",
    "compares",
    "fit",
    "fit_folds",
    "fitted_temperatures",
    "info",
    "norm_dispersion",
    "restore",
    "rounds",
    "select",
    "state",
    "temperature_images",
]

# Whatever needs torch is loaded by its first use, so that a slip in a name is answered before.
_HOMES = {
    "_fitting": (
        "Score",
        "check",
        "compares",
        "fit",
        "fitted_temperatures",
        "restore",
        "rounds",
        "state",
        "temperature_images",
    ),
    "_folds": ("fit_folds",),
    "_moving": ("Moving",),
    "_registry": ("ScoreInfo", "available", "info"),
    "_round": ("Round",),
    "_selecting": ("Choice", "check_choice", "norm_dispersion", "select"),
}


def __getattr__(name: str) -> Any:
    home = next((home for home, names in _HOMES.items() if name in names), None)
    if home is None:
        raise AttributeError(f"module 'mood.scores' has no attribute {name!r}")
    return getattr(importlib.import_module(f"mood.scores.{home}"), name)


def __dir__() -> list[str]:
    return __all__
