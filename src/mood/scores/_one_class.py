"""What compares classes says nothing where there is one: a softmax of one logit is 1 for every image."""

from torch import Tensor

from mood.core.errors import InputError
from mood.core.features import Features


def compared_logits(features: Features) -> Tensor:
    """(N, K) logits of K ≥ 2 classes.

    Raises:
        InputError: no logits, or one for each image.
    """
    logits = features.need("logits")
    check_several(logits.shape[1])
    return logits


def check_several(classes: int) -> None:
    """Raises `InputError` where the network tells no classes apart."""
    if classes < 2:
        raise InputError(
            "the network has one class, and this score compares what it says of several: it would be the same for "
            "every image; take max_logit, energy or a score of the embedding"
        )
