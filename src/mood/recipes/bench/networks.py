"""A network of a benchmark, its features, and scores on them: one pass for all scores that one pass can serve."""

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from mood.core.errors import InputError, MoodError
from mood.recipes.bench.plan import NetworkPlan, score_spec
from mood.recipes.extract import extract_features

if TYPE_CHECKING:
    from mood.core.features import Features
    from mood.data import Source
    from mood.detector import View
    from mood.models import Embedder, Model
    from mood.recipes.extract import Extracted
    from mood.scores import Score

OWN, HEAD, INNER, RECONSTRUCTION = "own", "head", "inner", "reconstruction"
"""What a score may want of a pass: the network's own pooling, what its head sees, inner layers, the decoder."""

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
        passes: what each pass took that its network had made by then, as in `Network.seconds`; empty until it is kept.
    """

    values: Mapping[str, np.ndarray] = field(default_factory=dict)
    reason: str = ""
    chosen: str = ""
    kind: str = "stored"
    fit_seconds: float = 0.0
    score_seconds: float = 0.0
    passes: Mapping[str, float | None] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class _Fitted:
    """A fitted score, how it looks at images, which pass it wants, what was chosen for it, and what the fit took."""

    view: "View"
    kind: str
    chosen: str
    seconds: float

    @property
    def score(self) -> "Score":
        assert self.view.score is not None
        return self.view.score

    def scored(self, values: Mapping[str, np.ndarray], seconds: float) -> Scored:
        kind = "scikit-learn" if self.view.score_name in SKLEARN else "stored"
        return Scored(values, "", self.chosen, kind, self.seconds, seconds)


class Network:
    """An opened network, with one embedder for each kind of pass that its scores want.

    Args:
        plan: of the recipe.
        model: opened, one trial of the plan.
        device: "auto", "cpu", "cuda", …
        batch_size: images a pass.
        workers: processes that decode.
    """

    def __init__(self, plan: NetworkPlan, model: "Model", *, device: str, batch_size: int, workers: int) -> None:
        self.plan = plan
        self.model = model
        self.device = device
        self.batch_size = batch_size
        self.workers = workers
        self._embedders: dict[str, Embedder] = {}
        self._extracted: dict[tuple[str, str], Extracted] = {}
        self._shards: dict[tuple[str, str], list[Features]] = {}
        self.seconds: dict[str, float | None] = {}
        """What each pass took when it was made, by what its features are of: kinds that give the same share it."""

    def knows(self, classes: Sequence[str] | None) -> bool:
        """Whether the logits are of these classes, in this order."""
        if self.plan.of_each_class:
            return False
        if self.model.class_names:
            return classes is not None and tuple(self.model.class_names) == tuple(classes)
        if self.model.history and self.model.history[-1].stage == "finetune":
            # Such outputs have no names where there are more of them than classes: some have never met a label.
            return False
        head = self.model.head()
        return head is not None and classes is not None and len(head.weight) == len(classes)

    def embedder(self, kind: str) -> "Embedder":
        """The network as one kind of score looks through it.

        Raises:
            InputError: a pooling or layer that it does not have.
            ModelError: it has no decoder, where one is asked for.
        """
        from mood.models import Embedder

        if kind not in self._embedders:
            to_head = kind in (HEAD, INNER)
            self._embedders[kind] = Embedder(
                self.model,
                pool="model" if to_head else self.plan.pool,
                layer="last" if to_head else self.plan.layer,
                device=self.device,
                precision=self.plan.precision,
                inner=self.plan.inner if kind == INNER else "",
                reconstruction=kind == RECONSTRUCTION,
            )
        return self._embedders[kind]

    def extracted(self, source: "Source", kind: str) -> "Extracted":
        """Features of a set, from the cache or made now."""
        at = (kind, source.manifest.fingerprint)
        if at not in self._extracted:
            embedder = self.embedder(kind)
            found = extract_features(source, embedder, batch_size=self.batch_size, workers=self.workers)
            self._extracted[at] = found
            looks = f"{embedder.pool} {embedder.layer} {embedder.inner} {embedder.decoder is not None}"
            self.seconds[f"{looks} {at[1]}"] = found.seconds
        return self._extracted[at]

    def shards(self, source: "Source", kind: str) -> "list[Features]":
        """The same as a list: the arrays stay mapped from disk, so that it costs their ids."""
        at = (kind, source.manifest.fingerprint)
        if at not in self._shards:
            self._shards[at] = list(self.extracted(source, kind).store)
        return self._shards[at]

    def score(
        self, texts: Sequence[str], fit: "Source", sets: "Mapping[str, Source]", *, knows_classes: bool
    ) -> "Iterator[tuple[str, Scored]]":
        """Fit scores and apply them, one after the other; those that want the images again share one further pass.

        Args:
            texts: scores as a recipe has them.
            fit: known images.
            sets: what to score.
            knows_classes: whether the logits are of the known classes.
        """
        from mood import scores
        from mood.detector import View

        again: dict[str, tuple[View, float]] = {}
        inner = any(kind_of(scores.info(score_spec(text)[0]).needs) == INNER for text in texts)
        for text in texts:
            try:
                fitted = self._fitted(text, fit, None, knows_classes)
                if fitted.view.live:
                    # A score of moved images that reads logits alone may look through the eyes of the others.
                    needs = scores.info(fitted.view.score_name).needs
                    shared = inner and "embedding" not in needs and fitted.kind == OWN
                    view = replace(fitted.view, embedder=self.embedder(INNER)) if shared else fitted.view
                    again[text] = (view, fitted.seconds)
                    continue
                shards = {key: self.shards(source, fitted.kind) for key, source in sets.items()}
                began = time.perf_counter()
                values = {key: applied(fitted.score, parts) for key, parts in shards.items()}
                yield text, fitted.scored(values, time.perf_counter() - began)
            except MoodError as error:
                yield text, Scored(reason=str(error))
        if again:
            yield from self._further_pass(again, sets)

    def score_class(
        self, text: str, fit: "Source", test: "Source", name: str, label: int, *, knows_classes: bool
    ) -> Scored:
        """Fit a score on the images of one class alone, and apply it to all test images.

        Args:
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
            if self.plan.of_each_class:
                # No other class asks for features of this network.
                fit = fit.select(np.asarray(fit.manifest.labels) == label)
            fitted = self._fitted(text, fit, label, knows_classes)
            if fitted.view.live:
                raise InputError("it looks at the images again for each class, which one-class detection leaves out")
            shards = self.shards(test, fitted.kind)
            began = time.perf_counter()
            values = {name: applied(fitted.score, shards)}
            return fitted.scored(values, time.perf_counter() - began)
        except MoodError as error:
            return Scored(reason=f"class {name}: {error}")

    def _fitted(self, text: str, fit: "Source", label: int | None, knows_classes: bool) -> "_Fitted":
        """A score on a set, or on one class of it.

        Raises:
            MoodError: it cannot be fitted on these features.
        """
        from mood import scores
        from mood.detector import View

        name, options, choose = score_spec(text)
        needs = scores.info(name).needs
        kind = kind_of(needs)
        if {"logits", "head"} & {*needs} and not knows_classes:
            raise InputError(
                "it reads logits, and the head of a network of one class has met no other label to tell it from"
                if self.plan.of_each_class
                else "its head knows other classes; a network that `mood finetune` trained on the known ones has theirs"
            )
        embedder = self.embedder(kind)
        # Before the pass: the head is there, and what it does not allow costs nothing.
        scores.rounds(name, embedder.head, **options)

        def rows() -> Any:
            shards = self.shards(fit, kind)
            if label is not None:
                shards = [part[part.need("labels") == label] for part in shards]
            return [as_one_class(part) for part in shards] if self.plan.six_numbers else shards

        why = ""
        if choose:
            choice = scores.select(name, rows())
            name, options, why = choice.name, dict(choice.options), choice.why
        view = View(embedder, name)
        if view.live and label is not None:
            return _Fitted(view, kind, why, 0.0)
        source: Any = view.of(fit, batch_size=self.batch_size, workers=self.workers) if view.live else rows()
        began = time.perf_counter()
        score = scores.fit(name, source, head=embedder.head, **options)
        found = scores.fitted_temperatures(score, **options)
        why = why or "; ".join(f"temperature of {part} {t:.4g}, fitted on held-out images" for part, t in found.items())
        return _Fitted(View(embedder, name, score), kind, why, time.perf_counter() - began)

    def _further_pass(
        self, again: "Mapping[str, tuple[Any, float]]", sets: "Mapping[str, Source]"
    ) -> "Iterator[tuple[str, Scored]]":
        """One pass over the images for all scores that want them: each image is decoded once for all of them."""
        from mood.core.progress import progress
        from mood.data import batches
        from mood.detector import seen_by

        values: dict[str, dict[str, np.ndarray]] = {text: {} for text in again}
        spent = dict.fromkeys(again, 0.0)
        for key, source in sets.items():
            parts: dict[str, list[np.ndarray]] = {text: [np.empty(0)] for text in again}
            with progress(len(source), f"look again at {source.name}") as bar:
                for batch in batches(source, self.model.transform, batch_size=self.batch_size, workers=self.workers):
                    if len(batch):
                        began = time.perf_counter()
                        seen = seen_by([view for view, _ in again.values()], batch.ids, batch.pixels)
                        for (text, (view, _)), features in zip(again.items(), seen, strict=True):
                            parts[text].append(view.score(features).numpy())
                        # Nobody can say whose a shared pass is: each carries the same part of it.
                        for text in again:
                            spent[text] += (time.perf_counter() - began) / len(again)
                    bar.advance(len(batch) + len(batch.rejections))
            for text, found in parts.items():
                values[text][key] = np.concatenate(found)
        for text, (_, fitted) in again.items():
            try:
                every = {key: numbers(found) for key, found in values[text].items()}
                yield text, Scored(every, "", "", "further pass", fitted, spent[text])
            except MoodError as error:
                yield text, Scored(reason=str(error))


def kind_of(needs: Sequence[str]) -> str:
    """The kind of pass that a score with these needs wants."""
    if {"layers", "tokens"} & {*needs}:
        return INNER
    if "reconstruction" in needs:
        return RECONSTRUCTION
    # A score that reads the head wants what the head sees, whatever a network gives by its own choice.
    return HEAD if "head" in needs else OWN


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


def open_network(
    plan: NetworkPlan, trial: str, *, brought: "Mapping[str, Model]", device: str, batch_size: int, workers: int
) -> Network:
    """Open one trial of a network.

    Args:
        plan: of the network.
        trial: one of its models.
        brought: networks in memory by what the recipe calls them; all other models are looked for.
        device: "auto", "cpu", "cuda", …
        batch_size: images a pass.
        workers: processes that decode.

    Raises:
        MoodError: it cannot be had, or not with these options.
    """
    from mood.models import open_model, six_numbers
    from mood.recipes.inputs import model_options

    if trial in brought:
        for name in ("checkpoint", "model_options", "random_weights", "transform_options"):
            if getattr(plan, name):
                raise InputError(f"{name} is for networks that mood builds, and {trial!r} was brought in Python")
        model = brought[trial]
    else:
        model = open_model(
            trial,
            checkpoint=plan.checkpoint,
            options=model_options(plan.model_options),
            random_weights=plan.random_weights,
            transform=model_options(plan.transform_options),
        )
    if plan.six_numbers:
        plan = replace(plan, pool=None, layer=None, precision="fp32")
        model, device = six_numbers(model.transform), "cpu"
    return Network(plan, model, device=device, batch_size=batch_size, workers=workers)


def predictions(network: Network, source: "Source") -> np.ndarray:
    """(n,) classes that the network says of the readable images.

    Raises:
        InputError: it has no logits.
    """
    said = []
    for part in network.shards(source, HEAD):
        if part.logits is None:
            raise InputError(f"{network.plan.name} has no logits: it cannot say a class")
        said.append(part.logits.argmax(1).numpy())
    return np.concatenate(said)
