"""Few-shot outlier exposure: a few labelled OOD images of each class are shown, and a linear probe learns them.

Fort, Ren, Lakshminarayanan: Exploring the Limits of Out-of-Distribution Detection, NeurIPS 2021, section 4: embeddings
stay as they are; a linear classifier learns the K known and the O shown OOD classes, classes of few images weighing as
much as the others; the score is the probability of all OOD classes together. Table 9 of MOOD compares with theirs.
This is a protocol and no score: it looks at OOD images, so nothing else in mood may use it.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from mood.core.errors import InputError

STEPS = 100
"""L-BFGS iterations of the probe, at most."""


def expose(labels: np.ndarray, shots: int, *, trial: int, apart: bool = False) -> np.ndarray:
    """(N,) bool: the OOD images that one trial shows, `shots` of each class; the others are left for the test.

    More shots of one trial show the same images and some more.

    Args:
        labels: (N,) OOD classes.
        shots: images per class, ≥ 1.
        trial: number of the trial, ≥ 0: the seed of the draw.
        apart: the test images are another set; else every class must keep one for the test.

    Raises:
        InputError: a class of too few images, or an argument out of range.
    """
    labels = np.asarray(labels)
    if shots < 1 or trial < 0:
        raise InputError(f"shots is {shots} and trial {trial}; at least 1 and 0 were expected")
    classes, counts = np.unique(labels, return_counts=True)
    needed = shots if apart else shots + 1
    if not len(classes) or counts.min() < needed:
        raise InputError(
            f"{shots} images of each class cannot be shown{'' if apart else ' and others tested'}: the smallest class "
            f"has {counts.min() if len(counts) else 0}"
        )
    order = np.random.default_rng(trial).permutation(len(labels))
    shown = np.zeros(len(labels), bool)
    for label in classes:
        shown[order[labels[order] == label][:shots]] = True
    return shown


@dataclass(frozen=True, slots=True, eq=False)
class Probe:
    """A fitted linear classifier of known and shown OOD classes.

    Attributes:
        weight: (K + O, D) float64.
        bias: (K + O,) float64.
        mean: (D,) float64, taken from the embeddings first …
        scale: (D,) float64, … which are divided by this.
        known: K.
    """

    weight: Tensor
    bias: Tensor
    mean: Tensor
    scale: Tensor
    known: int

    def __call__(self, embedding: Tensor) -> np.ndarray:
        """(N,) log p(OOD) − log p(ID): the order of p(OOD), without its rounding at 1."""
        rows = (embedding.double() - self.mean) / self.scale
        log_p = torch.log_softmax(rows @ self.weight.T + self.bias, 1)
        return (log_p[:, self.known :].logsumexp(1) - log_p[:, : self.known].logsumexp(1)).numpy()


def linear_probe(
    id_embedding: Tensor, id_labels: Tensor, ood_embedding: Tensor, ood_labels: Tensor, *, decay: float = 1e-3
) -> Probe:
    """Fit softmax regression on known images and the shown OOD ones, every class with the same weight.

    Args:
        id_embedding: (N, D) of known images.
        id_labels: (N,) int64.
        ood_embedding: (M, D) of the shown images.
        ood_labels: (M,) int64.
        decay: ½ decay ‖weight‖² is added to the loss, on embeddings with unit variance.

    Raises:
        InputError: a side without images, widths that differ, or a decay that is not above 0.
    """
    if not len(id_embedding) or not len(ood_embedding) or id_embedding.shape[1] != ood_embedding.shape[1]:
        raise InputError("a probe needs embeddings of one width, at least one known and one shown OOD image")
    if not decay > 0:
        raise InputError(f"decay is {decay}; without any, weights of classes that can be told apart have no end")
    known_classes, known = id_labels.unique(return_inverse=True)
    ood_classes, shown = ood_labels.unique(return_inverse=True)
    rows = torch.cat([id_embedding, ood_embedding]).double()
    targets = torch.cat([known, shown + len(known_classes)])
    mean, scale = id_embedding.double().mean(0), id_embedding.double().std(0, correction=0)
    scale = torch.where(scale > 0, scale, torch.ones_like(scale))
    rows = (rows - mean) / scale
    counts = torch.bincount(targets).double()
    share = 1 / (counts[targets] * len(counts))
    classes, width = len(known_classes) + len(ood_classes), rows.shape[1]
    weight = torch.zeros(classes, width, dtype=torch.float64, requires_grad=True)
    bias = torch.zeros(classes, dtype=torch.float64, requires_grad=True)
    optimiser = torch.optim.LBFGS(
        [weight, bias], max_iter=STEPS, tolerance_grad=1e-7, tolerance_change=1e-10, line_search_fn="strong_wolfe"
    )

    def loss() -> Tensor:
        optimiser.zero_grad()
        errors = torch.nn.functional.cross_entropy(rows @ weight.T + bias, targets, reduction="none")
        value: Tensor = (share * errors).sum() + decay / 2 * weight.square().sum()
        value.backward()
        return value

    optimiser.step(loss)
    return Probe(weight.detach(), bias.detach(), mean, scale, len(known_classes))
