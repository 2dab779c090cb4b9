"""Share of labelled images that a classifier names rightly."""

from typing import TYPE_CHECKING, Any

import torch

from mood.core.errors import DataError
from mood.data import batches

if TYPE_CHECKING:
    from mood.core.transform import Transform
    from mood.data import Source


@torch.inference_mode()
def accuracy(module: Any, transform: "Transform", source: "Source", precision: str, workers: int) -> float:
    """Top-1 accuracy over the readable images of a source with labels.

    Raises:
        DataError: not one of them can be read.
    """
    module.eval()
    device = next(module.parameters()).device
    right = total = 0
    for batch in batches(source, transform, batch_size=256, workers=workers):
        if not len(batch):
            continue
        images = torch.from_numpy(transform.normalise(batch.pixels)).to(device)
        with torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16"):
            logits = module(images)
        right += int((logits.argmax(1).cpu().numpy() == batch.labels).sum())
        total += len(batch)
    if not total:
        raise DataError(f"not one image of {source.name} could be read")
    return right / total
