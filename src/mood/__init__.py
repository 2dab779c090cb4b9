"""mood: out-of-distribution detection for images.

```python
import mood

detector = mood.fit("photos/", alpha=0.05)     # images of the known world
table = detector("new-photos/")                # id, score, p_value, is_ood, error
detector.save("detector/")
mood.load("detector/")
```

Nothing heavy is imported before it is used: `import mood` does not load torch.
"""

import importlib
import json
import warnings
from collections.abc import Mapping, Sequence
from os import PathLike, fspath
from typing import TYPE_CHECKING, Any

from mood.core.errors import (
    ArtifactError,
    DataError,
    InputError,
    MissingExtraError,
    ModelError,
    MoodError,
    OutputError,
    PromiseError,
)
from mood.core.version import __version__

if TYPE_CHECKING:
    from torch import nn

    from mood import data, decisions, evaluation, models, recipes, report, scores, training
    from mood.core.features import Features, Head
    from mood.core.transform import Transform
    from mood.detector import Detector, load
    from mood.models import Model
    from mood.recipes.bench import BenchResult
    from mood.recipes.evaluate import Evaluation
    from mood.recipes.monitor import watch

__all__ = [
    "ArtifactError",
    "DataError",
    "Detector",
    "Features",
    "Head",
    "InputError",
    "MissingExtraError",
    "ModelError",
    "MoodError",
    "OutputError",
    "PromiseError",
    "Transform",
    "__version__",
    "bench",
    "calibrate",
    "data",
    "decisions",
    "evaluate",
    "evaluation",
    "extract",
    "fit",
    "load",
    "models",
    "recipes",
    "report",
    "scores",
    "training",
    "watch",
]

_ROOMS = ("data", "decisions", "evaluation", "models", "recipes", "report", "scores", "training")
_NAMES = {
    "Detector": "mood.detector",
    "Features": "mood.core.features",
    "Head": "mood.core.features",
    "Transform": "mood.core.transform",
    "load": "mood.detector",
    "watch": "mood.recipes.monitor",
}


def fit(
    data: Any,
    *,
    score: str | Sequence[str] = "mood",
    model: "str | PathLike[str] | Model | nn.Module" = "embedded",
    transform: "Transform | None" = None,
    head: "str | Head | None" = None,
    calibration: Any = None,
    options: Mapping[str, Any] | None = None,
    **settings: Any,
) -> "Detector":
    """Fit a detector on images of the known world.

    Args:
        data: a folder, a Parquet file or glob, a named set, or images in memory; or `Features`, or a file of them,
            and then no network.
        score: one of `mood.scores.available()`, or several (`["mood", "msp"]`), which become one number by the rule
            `combine` ("mean", "max" or "fisher").
        model: a timm name, a folder that mood wrote, `embedded`, an opened `mood.models.Model`, or your own module.
        transform: how a file becomes the input of your own module; needed with one.
        head: dotted name of the last linear layer of your own module; without it the module gives the embedding.
            Beside features the `Head` of the network that they come from, for scores that read it.
        calibration: images that nothing has seen, in any form that `data` has; without it, a part of `data` is held
            out.
        options: options of the score, such as `{"k": 50}`; of several scores `{"knn.k": 50}`.
        **settings: the other fields of `mood.recipes.fit.FitConfig`: `alpha`, `conformal`, `guarantee`, `seed`,
            `device`, `precision`, `output`, …

    Warns:
        UserWarning: the images are few for the covariance of the score; it says what that costs, as measured.

    Raises:
        InputError: a setting that does not exist, or has a wrong value.
        PromiseError: too few calibration images for `alpha`, or images that the network was trained on.
        MoodError: images or a network that cannot be had, an output that is taken.
    """
    from mood.core.features import Head
    from mood.recipes.fit import FitConfig
    from mood.recipes.fit import fit as run

    memory = _in_memory(data=data, calibration=calibration)
    if isinstance(head, Head):
        memory["head"], head = head, None
    _check_own(model, transform, head)
    settings |= {"data": _in_words(data), "calibration": _in_words(calibration)}
    if isinstance(model, str | PathLike):
        settings["model"] = fspath(model)
    else:
        memory["model"] = _network(model, transform, head)
        settings["model"] = memory["model"].name
    try:
        pairs = tuple(f"{key}={json.dumps(value)}" for key, value in (options or {}).items())
    except TypeError as error:
        raise InputError(f"options are numbers, words and lists of them: {error}") from error
    names: Any = ",".join(map(str, score)) if isinstance(score, list | tuple) else score
    result = run(FitConfig(**settings, score=names, options=pairs), **memory)
    if result.warning is not None:
        warnings.warn(result.warning, stacklevel=2)
    return result.detector


def bench(
    recipe: "str | PathLike[str]",
    output: "str | PathLike[str]",
    *,
    networks: "Mapping[str, Model] | None" = None,
    **settings: Any,
) -> "BenchResult":
    """Measure scores under a protocol, as a recipe lists them; also on networks that only your code can build.

    ```python
    model = mood.models.own_model(module, mood.Transform(size=(32, 32), resize=32), head="fc")
    found = mood.bench("photos.toml", "benchmark", networks={"mine": model})   # model = "mine" in the recipe
    found.results.of("photos", metric="auroc")
    ```

    Args:
        recipe: a TOML file, as `mood bench` takes it.
        output: folder for the report, the tables and the figures.
        networks: networks in memory, by what the recipe has as their `model`.
        **settings: the other fields of `mood.recipes.bench.BenchConfig`: `only`, `limit`, `replicates`, `device`, …

    Returns:
        `results`, every figure, and where they were written.

    Raises:
        InputError: the recipe is wrong somewhere, or has no such model; a setting that does not exist.
        OutputError: the output is taken.
    """
    from pathlib import Path

    from mood.recipes.bench import BenchConfig
    from mood.recipes.bench import bench as run

    return run(BenchConfig(plan=Path(recipe), output=Path(output), **settings), networks=networks)


def calibrate(detector: "Detector | str | PathLike[str]", data: Any, **settings: Any) -> "Detector":
    """Promise a detector's false-alarm rate anew, on other images and without another fit.

    Args:
        detector: one in memory, or its folder; it stays as it is.
        data: images of the known world that neither the network nor the score has seen, in any form that `fit` takes,
            or `Features` of them.
        **settings: the other fields of `mood.recipes.calibrate.CalibrateConfig`: `alpha`, `guarantee`, `conformal`, …

    Raises:
        PromiseError: too few images for `alpha`, or images that the network or the score has seen.
        MoodError: no detector there, images that cannot be had, an output that is taken.
    """
    from mood.recipes.calibrate import CalibrateConfig
    from mood.recipes.calibrate import calibrate as run

    settings |= {"detector": _in_words(detector), "data": _in_words(data)}
    return run(CalibrateConfig(**settings), **_in_memory(detector=detector, data=data)).detector


def evaluate(
    detector: "Detector | str | PathLike[str]", id: Any, ood: Mapping[str, Any], **settings: Any
) -> "Evaluation":
    """Measure a detector on unseen known images and on sets of unknown ones, with intervals.

    ```python
    found = mood.evaluate(detector, "new-photos", {"strange": "strange-photos"})
    print(found.summary())
    found.report.ood[0].metrics["auroc"]
    ```

    Args:
        detector: one in memory, or its folder.
        id: known images that nothing was fitted or calibrated on, in any form that `fit` takes.
        ood: sets of unknown images by name, likewise.
        **settings: the other fields of `mood.recipes.evaluate.EvaluateConfig`: `controls`, `replicates`, `output`, …

    Raises:
        DataError: images that cannot be had, or no known image that is new to the detector.
        MoodError: no detector there, an output that is taken.
    """
    from mood.recipes.evaluate import EvaluateConfig
    from mood.recipes.evaluate import evaluate as run

    if not isinstance(ood, Mapping) or any(not isinstance(name, str) or "=" in name for name in ood):
        raise InputError("ood is {name: images} of each unknown set, with names that have no = in them")
    pairs = tuple(f"{name}={_in_words(data)}" for name, data in ood.items())
    settings |= {"detector": _in_words(detector), "id": _in_words(id), "ood": pairs}
    return run(
        EvaluateConfig(**settings), **_in_memory(detector=detector, known=id), unknown=_in_memory(**ood)
    ).evaluation


def extract(
    data: Any,
    *,
    model: "str | PathLike[str] | Model | nn.Module" = "embedded",
    transform: "Transform | None" = None,
    head: str | None = None,
    pool: str | None = None,
    layer: str | None = None,
    device: str = "auto",
    precision: str = "auto",
    batch_size: int = 64,
    workers: int = 0,
) -> "Features":
    """Features of images, for scores of your own: one pass through the network, or none where the cache has it.

    ```python
    known, new = mood.extract("cifar10:train"), mood.extract("cifar10:test")
    score = mood.scores.fit("mood", known)
    score(new)                                     # (N,) float64, higher = more OOD
    ```

    Args:
        data: a folder, a Parquet file or glob, a named set, images in memory, or an opened `mood.data.Source`.
        model: as in `fit`; `mood.models.open_model(...).head()` is what some scores want as their `head`.
        transform: how a file becomes the input of your own module; needed with one.
        head: dotted name of the last linear layer of your own module.
        pool: as in `mood.models.Embedder`.
        layer: likewise.
        device: likewise.
        precision: likewise.
        batch_size: images a pass.
        workers: processes that decode.

    Returns:
        A row for each image that can be read, in their order: ids, embedding, logits and labels where there are any.

    Raises:
        DataError: not one image can be read.
        MoodError: images or a network that cannot be had.
    """
    from mood.core.features import Features
    from mood.data import Source, open_source
    from mood.models import Embedder, open_model
    from mood.recipes.extract import extract_features

    _check_own(model, transform, head)
    network = open_model(fspath(model)) if isinstance(model, str | PathLike) else _network(model, transform, head)
    source = data if isinstance(data, Source) else open_source(data)
    embedder = Embedder(network, pool=pool, layer=layer, device=device, precision=precision)
    return Features.concat(list(extract_features(source, embedder, batch_size=batch_size, workers=workers).store))


def _in_words(given: Any) -> str | None:
    """A path or a name as it is, what stands in a configuration for what has none, and None for None."""
    from mood.core.features import Features
    from mood.detector import Detector
    from mood.recipes.fit import DETECTOR_IN_MEMORY, FEATURES_IN_MEMORY, IN_MEMORY

    if given is None or isinstance(given, str | PathLike):
        return None if given is None else fspath(given)
    if isinstance(given, Detector):
        return DETECTOR_IN_MEMORY
    return FEATURES_IN_MEMORY if isinstance(given, Features) else IN_MEMORY


def _in_memory(**given: Any) -> dict[str, Any]:
    """What has neither a path nor a name."""
    return {name: it for name, it in given.items() if it is not None and not isinstance(it, str | PathLike)}


def _check_own(model: Any, transform: "Transform | None", head: str | None) -> None:
    """Refuse what is no network, and words about the user's own module where another network is named."""
    from torch import nn

    from mood.models import Model

    if not isinstance(head, str | None):
        raise InputError(
            f"head is a {type(head).__name__}; expected the dotted name of the last linear layer of your own module, "
            "or beside features mood.Head(weight, bias)"
        )
    if isinstance(model, nn.Module):
        return
    if not isinstance(model, str | PathLike | Model):
        raise InputError(
            f"model is a {type(model).__name__}; expected the name or folder of a network, an opened one, or a "
            "torch.nn.Module"
        )
    if transform is not None or head is not None:
        raise InputError(
            "transform and head describe a module of your own, and this network brings both; to change how its input "
            'is made, open it yourself: mood.models.open_model(..., transform={"crop_pct": 0.875})'
        )


def _network(model: "Model | nn.Module", transform: "Transform | None", head: str | None) -> "Model":
    from mood.core.transform import Transform
    from mood.models import Model, own_model

    if isinstance(model, Model):
        return model
    if not isinstance(transform, Transform):
        came = "" if transform is None else f", got a {type(transform).__name__}"
        raise InputError(
            "your own module needs transform=mood.Transform(...), which makes its input and is saved with the "
            f"detector{came}"
        )
    return own_model(model, transform, head=head)


def __getattr__(name: str) -> Any:
    if name in _ROOMS:
        return importlib.import_module(f"mood.{name}")
    if name in _NAMES:
        return getattr(importlib.import_module(_NAMES[name]), name)
    raise AttributeError(f"module 'mood' has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
