"""A network of a benchmark and its features: one pass for each kind of score."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from mood.core.errors import InputError
from mood.recipes.bench.plan import NetworkPlan
from mood.recipes.extract import extract_features, pass_key

if TYPE_CHECKING:
    from mood.core.features import Features
    from mood.data import Source
    from mood.models import Embedder, Model
    from mood.recipes.extract import Extracted

OWN, HEAD, INNER, RECONSTRUCTION = "own", "head", "inner", "reconstruction"
"""What a score may want of a pass: the network's own pooling, what its head sees, inner layers, the decoder."""


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
        self._keys: dict[str, dict[str, Any]] = {}
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
                masks=self.plan.masks,
                mask_seed=self.plan.mask_seed,
            )
        return self._embedders[kind]

    def extracted(self, source: "Source", kind: str) -> "Extracted":
        """Features of a set, from the cache or made now."""
        at = (kind, source.manifest.fingerprint)
        if at not in self._extracted:
            embedder = self.embedder(kind)
            found = extract_features(source, embedder, batch_size=self.batch_size, workers=self.workers)
            self._extracted[at] = found
            self.seconds[self.at(kind, source)] = found.seconds
        return self._extracted[at]

    def at(self, kind: str, source: "Source") -> str:
        """The key of a pass in `seconds`."""
        embedder = self.embedder(kind)
        looks = f"{embedder.pool} {embedder.layer} {embedder.inner} {embedder.decoder is not None}"
        return f"{looks} {source.manifest.fingerprint}"

    def shards(self, source: "Source", kind: str) -> "list[Features]":
        """The same as a list: the arrays stay mapped from disk, so that it costs their ids."""
        at = (kind, source.manifest.fingerprint)
        if at not in self._shards:
            self._shards[at] = list(self.extracted(source, kind).store)
        return self._shards[at]

    def key(self, kind: str) -> dict[str, Any]:
        """All that decides what a pass of this kind gives but the images, as JSON."""
        if kind not in self._keys:
            self._keys[kind] = pass_key(self.embedder(kind), self.batch_size)
        return self._keys[kind]


def kind_of(needs: Sequence[str]) -> str:
    """The kind of pass that a score with these needs wants."""
    if {"layers", "tokens"} & {*needs}:
        return INNER
    if "reconstruction" in needs:
        return RECONSTRUCTION
    # A score that reads the head wants what the head sees, whatever a network gives by its own choice.
    return HEAD if "head" in needs else OWN


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
