"""Scores on the features of a network: one pass for all scores that one pass can serve, and none for what is kept."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from mood.core.errors import InputError, MoodError
from mood.recipes.bench.kept import Kept, SetScores
from mood.recipes.bench.networks import INNER, OWN, Network, kind_of
from mood.recipes.bench.plan import score_spec

if TYPE_CHECKING:
    from mood.core.features import Features
    from mood.data import Source
    from mood.detector import View
    from mood.scores import Score

SKLEARN = frozenset({"gmm", "ocsvm", "isolation_forest", "lof"})
"""Scores that scikit-learn fits, whose cost is counted apart."""


@dataclass(frozen=True, slots=True, eq=False)
class Scored:
    """What one score says.

    Attributes:
        values: set → (n,) higher = more OOD, in the order of its readable images; empty where the score was left out.
        reason: why it was left out, or "".
        chosen: what was chosen for it on known images and why, or "".
        kind: "stored" (no further pass), "scikit-learn", or "further pass".
        fit_seconds: of fitting it.
        score_seconds: of scoring all sets.
    """

    values: Mapping[str, np.ndarray] = field(default_factory=dict)
    reason: str = ""
    chosen: str = ""
    kind: str = "stored"
    fit_seconds: float = 0.0
    score_seconds: float = 0.0


@dataclass(frozen=True, slots=True, eq=False)
class _Asked:
    """A score as a recipe has it: which pass it wants, on what it is fitted, and where what it says is kept."""

    name: str
    options: Mapping[str, Any]
    choose: bool
    kind: str
    fit: "Source"
    label: int | None
    kept: Kept


@dataclass(frozen=True, slots=True, eq=False)
class _Fitted:
    """A fitted score with how it looks at images, what was chosen for it, and what the fit took."""

    asked: _Asked
    view: "View"
    chosen: str
    seconds: float

    @property
    def score(self) -> "Score":
        assert self.view.score is not None
        return self.view.score


def score_sets(
    network: Network, texts: Sequence[str], fit: "Source", sets: "Mapping[str, Source]", *, knows_classes: bool
) -> dict[str, Scored]:
    """What scores say of sets; those that want the images again share one further pass.

    A set that a score has met after this fit, in whatever run, is not scored again; where that is so of all sets,
    nothing is fitted.

    Args:
        network: whose features they are scores of.
        texts: scores as a recipe has them.
        fit: known images.
        sets: what to score.
        knows_classes: whether the logits are of the known classes.
    """
    from mood import scores

    found: dict[str, Scored] = {}
    parts: dict[str, dict[str, SetScores]] = {}
    again: dict[str, _Fitted] = {}
    inner = any(kind_of(scores.info(score_spec(text)[0]).needs) == INNER for text in texts)
    for text in texts:
        try:
            asked = _asked(network, text, fit, None, knows_classes)
            parts[text] = {key: one for key, source in sets.items() if (one := _had(network, asked, source))}
            if parts[text].keys() == sets.keys():
                continue
            fitted = _fitted(network, asked)
            if fitted.view.live:
                # A score of moved images that reads logits alone may look through the eyes of the others.
                needs = scores.info(fitted.view.score_name).needs
                shared = inner and "embedding" not in needs and asked.kind == OWN
                view = replace(fitted.view, embedder=network.embedder(INNER)) if shared else fitted.view
                again[text] = replace(fitted, view=view)
                continue
            for key, source in sets.items():
                if key not in parts[text]:
                    parts[text][key] = _scored(network, fitted, source)
        except MoodError as error:
            found[text] = Scored(reason=str(error))
    found |= _further_pass(network, again, sets, parts)
    return {text: found[text] if text in found else of_sets({key: parts[text][key] for key in sets}) for text in texts}


def score_class(
    network: Network, text: str, fit: "Source", test: "Source", name: str, label: int, *, knows_classes: bool
) -> Scored:
    """Fit a score on the images of one class alone, and apply it to all test images.

    Args:
        network: whose features it is a score of.
        text: a score as a recipe has it.
        fit: known images with labels.
        test: what to score.
        name: of the class.
        label: of the class.
        knows_classes: whether the logits are of the classes of the whole set.

    Returns:
        Scores under the name of the class, or the reason why there are none.
    """
    try:
        if network.plan.of_each_class:
            # No other class asks for features of this network.
            fit = fit.select(np.asarray(fit.manifest.labels) == label)
        try:
            asked = _asked(network, text, fit, label, knows_classes)
        except MoodError as error:
            return Scored(reason=str(error))  # so it is under every class
        return of_sets({name: _had(network, asked, test) or _scored(network, _fitted(network, asked), test)})
    except MoodError as error:
        return Scored(reason=f"class {name}: {error}")


def _asked(network: Network, text: str, fit: "Source", label: int | None, knows_classes: bool) -> _Asked:
    """A score that is to be fitted on a set, or on one class of it.

    Raises:
        MoodError: this network has not what it reads, or does not allow its options; or it looks at the images again
            for one class.
    """
    from mood import scores

    name, options, choose = score_spec(text)
    info = scores.info(name)
    kind = kind_of(info.needs)
    if {"logits", "head"} & {*info.needs} and not knows_classes:
        raise InputError(
            "it reads logits, and the head of a network of one class has met no other label to tell it from"
            if network.plan.of_each_class
            else "its head knows other classes; a network that `mood finetune` trained on the known ones has theirs"
        )
    if "labels" in info.needs and fit.manifest.labels is None and not network.plan.six_numbers:
        raise InputError(f"it reads labels, and {fit.name} has none: {fit.unlabelled}")
    if label is not None:
        _check_for_one_class(name, options)
    # Before the pass: the head is there, and what it does not allow costs nothing.
    scores.rounds(name, network.embedder(kind).head, **options)
    key = {
        "pass": network.key(kind),
        "fit": fit.manifest.fingerprint,
        "class": label,
        "labels": not network.plan.six_numbers,
        "score": name,
        "options": {**info.options, **options},
        "chosen": choose,
    }
    return _Asked(name, options, choose, kind, fit, label, Kept(key))


def _had(network: Network, asked: _Asked, source: "Source") -> SetScores | None:
    """What is kept of a set; what the passes behind it took is part of this network's costs."""
    one = asked.kept.of(source)
    if one is not None:
        for at, seconds in one.passes.items():
            network.seconds.setdefault(at, seconds)
    return one


def _fitted(network: Network, asked: _Asked) -> _Fitted:
    """A score on its set, or on one class of it.

    Raises:
        MoodError: it cannot be fitted on these features.
    """
    from mood import scores
    from mood.detector import View

    embedder = network.embedder(asked.kind)
    name, options, why = asked.name, asked.options, ""

    def rows() -> Any:
        shards = network.shards(asked.fit, asked.kind)
        if asked.label is not None:
            shards = [part[part.need("labels") == asked.label] for part in shards]
        return [as_one_class(part) for part in shards] if network.plan.six_numbers else shards

    def fit(source: Any) -> "Score":
        return scores.fit(name, source, head=embedder.head, **options)

    if asked.choose:
        choice = scores.select(name, rows())
        name, options, why = choice.name, dict(choice.options), choice.why
    view = View(embedder, name)
    if view.live:
        images = view.of(asked.fit, batch_size=network.batch_size, workers=network.workers)
        score, seconds = asked.kept.fit(name, lambda: fit(images))
    else:
        source = rows()
        began = time.perf_counter()
        score = fit(source)
        seconds = time.perf_counter() - began
    view = View(embedder, name, score)
    found = scores.fitted_temperatures(score, **options)
    why = why or "; ".join(f"temperature of {part} {t:.4g}, fitted on held-out images" for part, t in found.items())
    return _Fitted(asked, view, why, seconds)


def _scored(network: Network, fitted: _Fitted, source: "Source") -> SetScores:
    """A score on stored features of a set, and kept.

    Raises:
        InputError: a score is NaN.
        OutputError: nothing can be written to the cache.
    """
    shards = network.shards(source, fitted.asked.kind)
    began = time.perf_counter()
    values = applied(fitted.score, shards)
    kind = "scikit-learn" if fitted.view.score_name in SKLEARN else "stored"
    return _keep(network, fitted, source, values, kind, time.perf_counter() - began)


def _keep(
    network: Network, fitted: _Fitted, source: "Source", values: np.ndarray, kind: str, seconds: float
) -> SetScores:
    read = (network.at(fitted.asked.kind, images) for images in (fitted.asked.fit, source))
    one = SetScores(
        values=values,
        chosen=fitted.chosen,
        kind=kind,
        fit_seconds=fitted.seconds,
        score_seconds=seconds,
        passes={at: network.seconds[at] for at in read if at in network.seconds},
    )
    fitted.asked.kept.keep(source, one)
    return one


def _further_pass(
    network: Network, again: Mapping[str, _Fitted], sets: "Mapping[str, Source]", parts: dict[str, dict[str, SetScores]]
) -> dict[str, Scored]:
    """One pass over the images for all scores that want them: each image is decoded once for all of them.

    Args:
        network: that looks at them.
        again: the scores.
        sets: what to score.
        parts: what each score says of which set; whatever a score lacks is filled in, and kept set by set, so that
            a kill costs no more than the set that is being scored.

    Returns:
        The scores that are left out, with the reason.
    """
    from mood.core.progress import progress
    from mood.data import batches
    from mood.detector import seen_by

    left_out: dict[str, Scored] = {}
    for key, source in sets.items():
        lacking = {text: one for text, one in again.items() if key not in parts[text] and text not in left_out}
        if not lacking:
            continue
        values: dict[str, list[np.ndarray]] = {text: [np.empty(0)] for text in lacking}
        spent = 0.0
        with progress(len(source), f"look again at {source.name}") as bar:
            for batch in batches(
                source, network.model.transform, batch_size=network.batch_size, workers=network.workers
            ):
                if len(batch):
                    began = time.perf_counter()
                    seen = seen_by([one.view for one in lacking.values()], batch.ids, batch.pixels)
                    for (text, one), features in zip(lacking.items(), seen, strict=True):
                        values[text].append(one.score(features).numpy())
                    spent += time.perf_counter() - began
                bar.advance(len(batch) + len(batch.rejections))
        for text, one in lacking.items():
            try:
                # Nobody can say whose a shared pass is: each carries the same part of it.
                each = spent / len(lacking)
                parts[text][key] = _keep(
                    network, one, source, numbers(np.concatenate(values[text])), "further pass", each
                )
            except MoodError as error:
                left_out[text] = Scored(reason=str(error))
    return left_out


def of_sets(parts: Mapping[str, SetScores]) -> Scored:
    """What one score says of sets, as one; of several fits, which were the same, the one that took longest counts.

    Args:
        parts: set → what it says of it.
    """
    return Scored(
        values={key: one.values for key, one in parts.items()},
        chosen=next((one.chosen for one in parts.values()), ""),
        kind=next((one.kind for one in parts.values()), "stored"),
        fit_seconds=max((one.fit_seconds for one in parts.values()), default=0.0),
        score_seconds=sum(one.score_seconds for one in parts.values()),
    )


def over_classes(parts: "Mapping[str, Scored]") -> Scored:
    """What a score says under each class, as one; left out where it was left out of one of them.

    Args:
        parts: class → what it says under that class.
    """
    for one in parts.values():
        if one.reason:
            return one
    return Scored(
        values={name: one.values[name] for name, one in parts.items()},
        chosen="; ".join(f"{name}: {one.chosen}" for name, one in parts.items() if one.chosen),
        kind=next(one.kind for one in parts.values()),
        fit_seconds=sum(one.fit_seconds for one in parts.values()),
        score_seconds=sum(one.score_seconds for one in parts.values()),
    )


def as_one_class(shard: "Features") -> "Features":
    """The same embeddings, all of one class."""
    import torch

    from mood.core.features import Features

    return Features(shard.embedding, ids=shard.ids, labels=torch.zeros(len(shard), dtype=torch.int64))


def _check_for_one_class(name: str, options: Mapping[str, Any]) -> None:
    """A score that looks at the images again is for the known world as a whole.

    Raises:
        InputError: it does, for tokens or to move the images.
    """
    from mood import scores

    info = scores.info(name)
    if "tokens" in info.needs or {**info.options, **options}.get("epsilon", 0) > 0:
        raise InputError("it looks at the images again for each class, which one-class detection leaves out")


def applied(score: "Score", shards: "Sequence[Features]") -> np.ndarray:
    """(N,) scores of shards in their order.

    Raises:
        InputError: some are NaN.
    """
    return numbers(np.concatenate([score(part).numpy() for part in shards]))


def numbers(scores: np.ndarray) -> np.ndarray:
    """The same scores, (N,): one that is no number would end the run in its figures, and the other scores with it.

    Raises:
        InputError: some are NaN.
    """
    if bad := int(np.isnan(scores).sum()):
        raise InputError(f"{bad} of {len(scores)} images get a score that is not a number")
    return scores
