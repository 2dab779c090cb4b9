"""Class indices as a fit may use them."""

from torch import Tensor

from mood.core.errors import InputError
from mood.core.features import Features


def class_labels(features: Features) -> Tensor:
    """(N,) int64 labels of ID images.

    Raises:
        InputError: no labels, or a negative one, which marks an OOD image elsewhere.
    """
    labels = features.need("labels")
    if len(labels) and labels.min() < 0:
        row = int((labels < 0).nonzero()[0])
        raise InputError(f"label {int(labels[row])} in row {row} is negative; fit on ID images with labels ≥ 0")
    return labels


def head_labels(features: Features) -> Tensor:
    """(N,) int64 labels that are indices of logits, for a fit that compares the two.

    That label k is the class of logit k is for the caller to see to: there are no names here.

    Raises:
        InputError: no labels or logits, a negative label, or one that has no logit.
    """
    labels, classes = class_labels(features), features.need("logits").shape[1]
    if len(labels) and labels.max() >= classes:
        row = int((labels >= classes).nonzero()[0])
        raise InputError(
            f"label {int(labels[row])} in row {row} has no logit: there are {classes}, and this score compares "
            "labels with the class that the network says"
        )
    return labels
