"""Share of labelled images that a classifier names rightly."""

from typing import TYPE_CHECKING, Any

import torch

from mood.core.errors import DataError
from mood.data import batches

if TYPE_CHECKING:
    from mood.core.transform import Transform
    from mood.data import Source


def accuracy(module: Any, transform: "Transform", source: "Source", precision: str, workers: int) -> float:
    """Top-1 accuracy over the readable images of a source with labels.

    Raises:
        DataError: not one of them can be read.
    """
    right, total = right_ones(module, transform, source, precision, workers)
    if not total:
        raise DataError(f"not one image of {source.name} could be read")
    return right / total


@torch.no_grad()
def right_ones(
    module: Any,
    transform: "Transform",
    source: "Source",
    precision: str,
    workers: int,
    process: tuple[int, int] = (0, 1),
) -> tuple[int, int]:
    """How many images a classifier names rightly, and how many there are that can be read.

    Args:
        module: gives logits.
        transform: of its images.
        source: images with labels.
        precision: "fp32" or "bf16".
        workers: processes that decode.
        process: its number, and how many share the work. All of them pass as many batches through the module, which
            one that is spread over them needs; where their stretches overlap, an image counts in the later one.
    """
    module.eval()
    device = next(module.parameters()).device
    number, count = process
    length = -(-len(source) // count)
    own = number * length
    start = max(0, min(own, len(source) - length))
    right = total = 0
    for batch in batches(source, transform, batch_size=256, workers=workers, start=start, stop=start + length):
        pixels = transform.normalise(batch.pixels)
        images = torch.from_numpy(pixels) if len(batch) else torch.zeros(1, 3, *transform.size)
        with torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16"):
            logits = module(images.to(device))
        counts = batch.positions >= own
        right += int((logits.argmax(1).cpu().numpy()[: len(batch)] == batch.labels)[counts].sum())
        total += int(counts.sum())
    return right, total
