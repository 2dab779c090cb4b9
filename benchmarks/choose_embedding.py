"""Which pooling and layers does a network give its scores? Chosen on known images alone; no OOD set is read.

    python benchmarks/choose_embedding.py --data-root DIR

A good embedding tells two kinds of stranger from known images, and both can be made of known images:

* Classes left out: of ten classes two at a time are withheld, the score is fitted on the training images of the other
  eight, and held-out images of the two are told from held-out images of the eight.
* Shifts: held-out images are told from the same images once their patches are shuffled, their colours turned, their
  tones inverted, their details blurred, noise added, or another image laid over them.

CIFAR-10's training images serve: the embedded network has seen nine in ten of them without labels, and none of the
tenth that the hash cut holds out, on which everything is measured. Wide embeddings want many images, so a thousand and
ten thousand are fitted on by turns. What has the highest mean of all is chosen, both kinds of stranger alike.
"""

import argparse
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

import mood.scores
from mood.core.features import Features
from mood.data import Source, batches, held_out, open_source
from mood.evaluation import auroc
from mood.models import Embedder, Model, open_model

KNOWN = "cifar10:train"
BATCH = 256
SHUFFLED = 8
"""Pixels along a patch that is shuffled: a quarter of a side of 32."""


def shuffled(images: np.ndarray, draws: np.random.Generator) -> np.ndarray:
    """Patches of each image in another order."""
    count, height, width, channels = images.shape
    rows, columns = height // SHUFFLED, width // SHUFFLED
    patches = images[:, : rows * SHUFFLED, : columns * SHUFFLED].reshape(count, rows, SHUFFLED, columns, SHUFFLED, -1)
    patches = patches.transpose(0, 1, 3, 2, 4, 5).reshape(count, rows * columns, SHUFFLED, SHUFFLED, channels)
    order = draws.permuted(np.tile(np.arange(rows * columns), (count, 1)), axis=1)
    moved = np.take_along_axis(patches, order[:, :, None, None, None], 1).reshape(
        count, rows, columns, SHUFFLED, SHUFFLED, channels
    )
    return moved.transpose(0, 1, 3, 2, 4, 5).reshape(count, rows * SHUFFLED, columns * SHUFFLED, channels)


def blurred(images: np.ndarray, _: np.random.Generator) -> np.ndarray:
    """The mean of 5 × 5 pixels."""
    pixels = torch.from_numpy(images).permute(0, 3, 1, 2).float()
    padded = torch.nn.functional.pad(pixels, (2, 2, 2, 2), mode="reflect")
    return torch.nn.functional.avg_pool2d(padded, 5, 1).round().byte().permute(0, 2, 3, 1).numpy()


def noisy(images: np.ndarray, draws: np.random.Generator) -> np.ndarray:
    """Gaussian noise, a tenth of the range."""
    noise: np.ndarray = (images + draws.normal(0, 25.5, images.shape)).round().clip(0, 255).astype(np.uint8)
    return noise


def overlaid(images: np.ndarray, _: np.random.Generator) -> np.ndarray:
    """The mean of an image and the next one."""
    mean: np.ndarray = ((images.astype(np.uint16) + np.roll(images, 1, axis=0)) // 2).astype(np.uint8)
    return mean


SHIFTS: dict[str, Callable[[np.ndarray, np.random.Generator], np.ndarray]] = {
    "shuffled": shuffled,
    "turned": lambda images, _: np.ascontiguousarray(np.roll(images, 1, axis=3)),
    "inverted": lambda images, _: 255 - images,
    "blurred": blurred,
    "noisy": noisy,
    "overlaid": overlaid,
}


@dataclass(frozen=True, slots=True)
class Pieces:
    """What one network gives in two passes: every embedding that is compared is some of these side by side."""

    inner: tuple[str, ...]
    embedders: tuple[Embedder, Embedder]

    @classmethod
    def of(cls, model: Model, device: str) -> "Pieces":
        """Blocks on the way to the last layer, and the last layer by either pooling."""
        blocks = len(model.module.blocks)
        inner = tuple(str(index) for index in sorted({0, 1, blocks // 2, blocks - 2}))
        first = Embedder(model, pool="model", layer="+".join([*inner, "last"]), device=device)
        return cls(inner, (first, Embedder(model, pool="mean+std", layer="last", device=device)))

    def candidates(self) -> list[tuple[str, str]]:
        """(pool, layer): the last layer, a block, and the last layer with a block or two."""
        layers = [*self.inner, *(f"{way}+last" for way in (*self.inner, *map("+".join, pairwise(self.inner))))]
        # Blocks before the last are pooled alike by "model" and "mean+std".
        return [(pool, layer) for pool in ("model", "mean+std") for layer in ("last", *layers) if "last" in layer] + [
            ("model", layer) for layer in self.inner
        ]

    def embedded(self, images: np.ndarray) -> dict[str, Tensor]:
        """(N, D) float32 of each piece: blocks by number, the last layer by pooling."""
        joined, last = (
            torch.cat([embedder(images[start : start + BATCH])[0] for start in range(0, len(images), BATCH)])
            for embedder in self.embedders
        )
        width = last.shape[1]
        inner = joined.split([width] * len(self.inner) + [joined.shape[1] - width * len(self.inner)], dim=1)
        return dict(zip((*self.inner, "model"), inner, strict=True)) | {"mean+std": last}


def joined(pieces: dict[str, Tensor], pool: str, layer: str) -> Tensor:
    """(N, D) as `Embedder(pool=pool, layer=layer)` gives it."""
    return torch.cat([pieces[pool if part == "last" else part] for part in layer.split("+")], dim=1)


def pixels_of(source: Source, model: Model, workers: int) -> tuple[np.ndarray, np.ndarray]:
    """(N, H, W, 3) uint8 as the network is shown them, and (N,) labels."""
    parts = list(batches(source, model.transform, batch_size=BATCH, workers=workers))
    labels = [part.labels for part in parts if part.labels is not None]
    return np.concatenate([part.pixels for part in parts]), np.concatenate(labels)


def measured(
    fitted_on: tuple[Tensor, np.ndarray], known: tuple[Tensor, np.ndarray], shifts: Iterable[Tensor], score: str
) -> tuple[float, list[float]]:
    """Mean AUROC over the pairs of classes left out, and the AUROC against each shift."""
    rows, labels = fitted_on
    others, other_labels = known
    classes = np.unique(labels)
    left_out = []
    for pair in zip(classes[::2], classes[1::2], strict=False):
        kept, strange = ~np.isin(labels, pair), np.isin(other_labels, pair)
        found = mood.scores.fit(score, Features(rows[kept], labels=torch.from_numpy(labels[kept])))(Features(others))
        left_out.append(auroc(found[~strange], found[strange]))
    whole = mood.scores.fit(score, Features(rows, labels=torch.from_numpy(labels)))
    on_known = whole(Features(others))
    return float(np.mean(left_out)), [auroc(on_known, whole(Features(shift))) for shift in shifts]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-root", required=True)
    parser.add_argument("--model", default="embedded", help="a network's name or folder")
    parser.add_argument("--score", default="mood")
    parser.add_argument(
        "--rows",
        type=int,
        nargs="+",
        default=[1000, 10_000],
        help="training images that the score is fitted on, by turns",
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--workers", type=int, default=1)
    given = parser.parse_args()
    model = open_model(given.model)
    draws = np.random.default_rng(given.seed)
    source = open_source(KNOWN, roots=[given.data_root])
    cut = held_out(source.manifest.hashes, seed=given.seed)
    order = draws.permutation(np.flatnonzero(~cut))[: max(given.rows)]
    training, labels = pixels_of(source.select(order), model, given.workers)
    unseen, unseen_labels = pixels_of(source.select(cut), model, given.workers)
    shifted = {name: shift(unseen, draws) for name, shift in SHIFTS.items()}
    print(f"{given.model}, score {given.score}: fitted on {given.rows} images, measured on {len(unseen)} held out")
    print(f"| pool | layer | width | mean | images | classes left out | {' | '.join(SHIFTS)} |")
    print(f"|---|---|---:|---:|---:|---:|{'---:|' * len(SHIFTS)}")
    best: tuple[float, str, str] = (0.0, "", "")
    pieces = Pieces.of(model, given.device)
    on_training, on_unseen = pieces.embedded(training), pieces.embedded(unseen)
    on_shifted = [pieces.embedded(images) for images in shifted.values()]
    for pool, layer in pieces.candidates():
        fitted_on, known = joined(on_training, pool, layer), joined(on_unseen, pool, layer)
        strange = [joined(images, pool, layer) for images in on_shifted]
        found = [
            measured((fitted_on[:rows], labels[:rows]), (known, unseen_labels), strange, given.score)
            for rows in given.rows
        ]
        mean = float(np.mean([(left_out + np.mean(shifts)) / 2 for left_out, shifts in found]))
        for rows, (left_out, shifts) in zip(given.rows, found, strict=True):
            cells = " | ".join(f"{100 * value:.1f}" for value in (left_out, *shifts))
            print(f"| {pool} | {layer} | {known.shape[1]} | {100 * mean:.2f} | {rows} | {cells} |", flush=True)
        best = max(best, (mean, pool, layer))
    print(f"chosen: --pool {best[1]} --layer {best[2]}")


if __name__ == "__main__":
    main()
