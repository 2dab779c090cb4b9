"""From a name and ID features to a ready score, and from a score to plain tensors and back."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, fields
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor

from mood.core.errors import ArtifactError, InputError
from mood.core.features import Features, Head
from mood.scores._given import checked, shards_of
from mood.scores._names import SEPARATOR
from mood.scores._registry import checked_options, entry
from mood.scores._round import Round
from mood.scores._sampling import held_out
from mood.scores._temperature import FITTED, images_behind, temperature_round


@runtime_checkable
class Score(Protocol):
    """A ready score: `score(features)` gives (N,) float64, higher = more OOD, and leaves the features as they were."""

    def __call__(self, features: Features, /) -> Tensor:
        """Scores every row.

        Raises:
            InputError: these are no features, or a column that the score reads is missing or has another width than in
                the fit.
        """
        ...


@dataclass(frozen=True, slots=True, eq=False)
class Stateless:
    """A registered function with its options: ready without a fit."""

    name: str
    options: Mapping[str, Any]

    def __call__(self, features: Features) -> Tensor:
        """(N,) float64, higher = more OOD."""
        scores: Tensor = entry(self.name).function(checked(features), **self.options)
        return scores


def rounds(name: str, head: Head | None = None, **options: Any) -> tuple[Round[Any, Any, Any], ...]:
    """The passes that fit a score, for an engine that calls them itself; none for a stateless score.

    A stateless score whose temperature is to be fitted has one.

    Every engine must merge the statistics in the order of the shards: then all of them give the same bytes.

    Args:
        name: a name from `available()`.
        head: the linear head, for scores that need it; the others ignore it.
        options: of the score; see `available()[name].options`.

    Raises:
        InputError: an unknown score or option, an option out of range, or no head where one is needed.
        MissingExtraError: the score is fitted by a package that is not installed.
    """
    chosen = entry(name)
    given = checked_options(name, options)
    if not chosen.info.fitted:
        if given.get("temperature") != FITTED:
            _try(Stateless(name, given))
            return ()
        return (temperature_round(lambda found: Stateless(name, {**given, "temperature": found})),)
    if "head" not in chosen.info.needs:
        return tuple(chosen.function(**given))
    if head is None:
        raise InputError(f"score {name!r} needs the linear head; pass head=Head(weight, bias)")
    return tuple(chosen.function(head, **given))


def check(name: str, **options: Any) -> None:
    """Refuses a score, or options of it, that no fit would take, while there is neither an image nor a network.

    What depends on the linear head (how many dimensions a space may have) is for `rounds` to see.

    Raises:
        InputError: an unknown score or option, or an option out of range.
        MissingExtraError: the score is fitted by a package that is not installed.
    """
    given = checked_options(name, options)
    if "head" not in entry(name).info.needs:
        rounds(name, **given)


def compares(name: str, **options: Any) -> tuple[str, ...]:
    """Which parts of a score compare labels with logits in their fit, so that labels must be indices of logits.

    Those that read both, and those whose temperature is to be fitted. All others take whatever labels there are.

    Args:
        name: as in `fit`.
        options: as in `fit`.

    Returns:
        Names of the parts, the score itself where it has none; empty where nothing is compared.

    Raises:
        InputError: an unknown score or option.
    """
    from mood.scores._combined import names_of, of_part

    given = checked_options(name, options)
    if SEPARATOR in name:
        return tuple(part for part in names_of(name) if compares(part, **of_part(part, given)))
    both = {"labels", "logits"} <= {*entry(name).info.needs}
    return (name,) if both or given.get("temperature") == FITTED else ()


def fitted_temperatures(score: Score, **options: Any) -> dict[str, float]:
    """The temperatures that a fit has found, by the part of the score that has one.

    Args:
        score: from `fit`.
        options: that it was fitted with.
    """
    from mood.scores._combined import Combined, of_part

    if isinstance(score, Combined):
        parts = zip(score.names, score.parts, strict=True)
        return {name: t for name, part in parts for t in fitted_temperatures(part, **of_part(name, options)).values()}
    if isinstance(score, Stateless) and options.get("temperature") == FITTED:
        return {score.name: score.options["temperature"]}
    return {}


def temperature_images(name: str, ids: tuple[str, ...]) -> int:
    """How many images of a fit a fitted temperature is taken from.

    Args:
        name: as in `fit`.
        ids: of the images that the score is fitted on.
    """
    from mood.scores._combined import PURPOSE

    if SEPARATOR in name:
        cut = held_out(ids, purpose=PURPOSE).tolist()
        ids = tuple(image for image, out in zip(ids, cut, strict=True) if not out)
    return images_behind(ids)


def _try(score: Stateless) -> None:
    """Lets a stateless score look at no rows of any column: what it then refuses are its options."""
    columns: Any = {"logits": torch.empty(0, 2), "reconstruction": torch.empty(0)}
    score(Features(torch.empty(0, 1), **columns))


def fit(name: str, features: Features | Iterable[Any], *, head: Head | None = None, **options: Any) -> Score:
    """Fits a score on ID features, in this process.

    Args:
        name: a name from `available()`, or several with commas between them, which give one number by the rule
            `combine` (mean or max of what is standardised, fisher of ranks); an option k of a part knn is `knn.k`.
        features: the fit split, whole or in shards (a list, a `FeatureStore`); they are read once per round, so a
            score with more than one round refuses an iterator that can be read only once.
        head: the linear head of the network, for scores that need it.
        options: of the score; see `available()[name].options`. `temperature="fitted"`, where a score has a
            temperature, takes the one with the largest likelihood of the labels of held-out images, a second hash cut
            of `features` (a fifth, at most 10 000 of them).

    Labels are whatever classes the images have, but for the scores that `compares` names: there label k is the class
    of logit k. Features have no names of classes, so nobody can check it here, apart from a label that has no logit:
    with the labels of other classes the score is of no use. `mood fit` finds the outputs by the names of the classes.

    Returns:
        A ready score. It does not depend on anything fitted before.

    Raises:
        InputError: an unknown score or option, something else than features, a missing column or head, no rows, rows
            that determine no score, or labels that have no logit where the two are compared.
        MissingExtraError: the score is fitted by a package that is not installed.
    """
    passes = rounds(name, head, **options)
    shards = shards_of(features)
    if not passes:
        return _ready(name, checked_options(name, options), shards)
    if len(passes) > 1 and isinstance(shards, Iterator):
        raise InputError(
            f"score {name!r} reads the fit data {len(passes)} times, and an iterator can be read once; "
            "pass Features, a list of them, or a FeatureStore"
        )
    reached: Any = None
    for step in passes:
        before = reached
        collected = (step.collect(checked(shard), before) for shard in shards)
        try:
            statistics = merged(step, collected)
        except StopIteration:
            raise InputError(f"score {name!r} got no shards to fit on") from None
        reached = step.finish(statistics, before)
    score: Score = reached
    return score


def merged(step: Round[Any, Any, Any], collected: Iterator[Any]) -> Any:
    """All statistics as one; `StopIteration` where there are none.

    What was merged is let go before the next shard is collected: of 1000 classes it may be gigabytes.
    """
    total, end = next(collected), object()
    while (more := next(collected, end)) is not end:
        total = step.merge(total, more)
        del more
    return total


def _ready(name: str, options: Mapping[str, Any], shards: Iterable[Any]) -> Score:
    """A stateless score; trying it on no rows of each shard checks columns and options where the user gave them."""
    score = Stateless(name, options)
    for shard in shards:
        score(checked(shard)[:0])
    return score


def state(score: Score) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """A score as plain data: its tensors by name, and the rest as JSON. `restore` is the inverse, to the bit."""
    from mood.scores._combined import Combined, pack

    if isinstance(score, Combined):
        return pack(score)
    if isinstance(score, Stateless):
        return {}, dict(score.options)
    values = {field.name: getattr(score, field.name) for field in fields(score)}  # type: ignore[arg-type]
    tensors = {name: value for name, value in values.items() if isinstance(value, Tensor)}
    return tensors, {name: value for name, value in values.items() if name not in tensors}


def restore(name: str, tensors: Mapping[str, Tensor], meta: Mapping[str, Any]) -> Score:
    """Rebuilds a score from what `state` gave. Only registered names are looked up; nothing is executed or imported.

    Raises:
        InputError: an unknown score or option.
        ArtifactError: tensors or values that are not the ones this score consists of.
    """
    from mood.scores._combined import Combined, unpack

    kind = entry(name).kind
    if kind is Combined:
        return unpack(name, tensors, meta)
    expected = set() if kind is None else {field.name for field in fields(kind)}
    found = set(tensors) if kind is None else {*tensors, *meta}
    if found != expected:
        raise ArtifactError(
            f"score {name!r} consists of {', '.join(sorted(expected)) or 'no tensors'}; "
            f"found {', '.join(sorted(found)) or 'nothing'}"
        )
    if kind is None:
        return Stateless(name, checked_options(name, meta))
    # Copies: the score must outlive a mapped file, and products are the same to the bit only on aligned memory.
    copies = {field: tensor.clone(memory_format=torch.contiguous_format) for field, tensor in tensors.items()}
    score: Score = kind(**copies, **meta)
    return score
