"""How a score looks at images: which features the network gives it, and in how many passes."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from mood import scores
from mood.core.features import Features
from mood.core.progress import progress
from mood.data import Source, batches
from mood.models import Embedder, Seen


@dataclass(frozen=True, slots=True)
class View:
    """How a score looks at images: most take what one pass leaves on disk, some want more of the network.

    Attributes:
        embedder: the network.
        score_name: registry name.
        score: the fitted score; None while it is being fitted, when no image is moved.
    """

    embedder: Embedder
    score_name: str
    score: scores.Score | None = None

    @property
    def live(self) -> bool:
        """Whether images must pass through the network for this score: no stored feature will do."""
        return self._tokens or self._moving is not None

    @property
    def _tokens(self) -> bool:
        return "tokens" in scores.info(self.score_name).needs

    @property
    def _moving(self) -> scores.Moving | None:
        return self.score if isinstance(self.score, scores.Moving) and self.score.epsilon > 0 else None

    def __call__(self, ids: tuple[str, ...], pixels: np.ndarray, labels: np.ndarray | None = None) -> Features:
        """The features that the score is to see of these images."""
        if (moving := self._moving) is None:
            return embed(self.embedder, ids, pixels, labels, tokens=self._tokens)
        moved = self.embedder.look_moved(pixels, moving.objectives, moving.epsilon)
        return moving.of_moved([_features(seen, ids, labels) for seen in moved])

    def of(self, source: Source, *, batch_size: int, workers: int) -> "LiveFeatures":
        """Features of the readable images of a source, again at each iteration."""
        return LiveFeatures(self, source, batch_size, workers)


@dataclass(frozen=True, slots=True)
class LiveFeatures:
    """Features straight from the network, a batch at a time, again at each iteration."""

    view: View
    source: Source
    batch_size: int
    workers: int

    def __iter__(self) -> Iterator[Features]:
        transform = self.view.embedder.model.transform
        with progress(len(self.source), f"embed {self.source.name}") as bar:
            for batch in batches(self.source, transform, batch_size=self.batch_size, workers=self.workers):
                if len(batch):
                    yield self.view(batch.ids, batch.pixels, batch.labels)
                bar.advance(len(batch) + len(batch.rejections))


def embed(
    embedder: Embedder,
    ids: tuple[str, ...],
    pixels: "np.ndarray | torch.Tensor",
    labels: np.ndarray | None = None,
    *,
    tokens: bool = False,
) -> Features:
    """Pixels through the network, as features; with the tokens of inner layers where they are asked for."""
    return _features(embedder.look(pixels, tokens=tokens), ids, labels)


def seen_by(views: Sequence[View], ids: tuple[str, ...], pixels: np.ndarray) -> list[Features]:
    """What each of several views is to see of the same images, in as few passes as can give it.

    Views of one embedder that move no image share one pass; those that move it equally far share the passes forward and
    back, whatever each moves it for.

    Args:
        views: of fitted scores.
        ids: N names.
        pixels: (N, H, W, 3) uint8.
    """
    found: list[Features | None] = [None] * len(views)
    groups: dict[tuple[int, float | None], list[int]] = {}
    for place, view in enumerate(views):
        far = None if view._moving is None else view._moving.epsilon
        groups.setdefault((id(view.embedder), far), []).append(place)
    for (_, far), places in groups.items():
        embedder = views[places[0]].embedder
        movings = [moving for place in places if (moving := views[place]._moving) is not None]
        if far is None:
            features = embed(embedder, ids, pixels, tokens=any(views[place]._tokens for place in places))
            for place in places:
                found[place] = features
            continue
        counts: list[int] = []

        def objectives(
            columns: Mapping[str, torch.Tensor], movings: Sequence[scores.Moving] = movings, counts: list[int] = counts
        ) -> list[torch.Tensor]:
            each = [list(moving.objectives(columns)) for moving in movings]
            counts[:] = map(len, each)
            return [objective for part in each for objective in part]

        moved = iter(embedder.look_moved(pixels, objectives, far))
        for place, moving, count in zip(places, movings, counts, strict=True):
            found[place] = moving.of_moved([_features(next(moved), ids, None) for _ in range(count)])
    return [features for features in found if features is not None]


def _features(seen: Seen, ids: tuple[str, ...], labels: np.ndarray | None) -> Features:
    return Features(
        seen.embedding,
        ids=ids,
        logits=seen.logits,
        labels=labels,
        layers=seen.layers,
        reconstruction=seen.reconstruction,
        tokens=seen.tokens,
    )
