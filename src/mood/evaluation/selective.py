"""Metrics of a classifier that may abstain: accuracy, risk over coverage, right known images against unknown ones.

A score sorts the images from the most usual one up; the classifier answers on the first ones and abstains on the rest.
"""

from typing import Any

import numpy as np

from mood.core.errors import InputError
from mood.core.score_vector import score_vector
from mood.evaluation.metrics import auroc


def accuracy(predicted: Any, labels: Any) -> float:
    """The share of images whose predicted class is their label.

    Args:
        predicted: (N,) class indices.
        labels: (N,) class indices.

    Raises:
        InputError: no images, or lengths that differ.
    """
    return float(_right(predicted, labels).mean())


def aurc(scores: Any, wrong: Any) -> float:
    """Area under the risk-coverage curve: (1/N) Σ_k (share of errors among the k images of the lowest scores).

    Geifman, Uziel, El-Yaniv: Bias-Reduced Uncertainty Estimation for Deep Neural Classifiers, ICLR 2019. Tied images
    count as if in random order: each carries the mean number of errors of its group.

    Args:
        scores: (N,) higher = less sure; a score of OOD detection is one.
        wrong: (N,) booleans, whether the classifier errs. To count unknown images as errors, put them in as wrong.

    Returns:
        A share in [0, 1]; lower is better.

    Raises:
        InputError: no images, lengths that differ, NaN, or another kind than booleans.
    """
    vector, errors = score_vector(scores, "scores"), np.asarray(wrong)
    if errors.dtype != bool or errors.shape != vector.shape or not len(vector):
        raise InputError(f"wrong is {errors.dtype} {errors.shape}; bool {vector.shape} with at least one was expected")
    _, group = np.unique(vector, return_inverse=True)
    sizes = np.bincount(group)
    expected = np.repeat(np.bincount(group, errors) / sizes, sizes)
    return float((np.cumsum(expected) / np.arange(1, len(vector) + 1)).mean())


def excess_aurc(scores: Any, wrong: Any) -> float:
    """`aurc` less that of the best order, which puts every error last; 0 where none is ahead of a right answer.

    Args and errors are those of `aurc`.
    """
    value = aurc(scores, wrong)
    return value - aurc(np.asarray(wrong, np.float64), wrong)


def oscr(id_scores: Any, id_right: Any, ood_scores: Any) -> float:
    """Open-set classification rate: area under (ID both right and accepted) over (OOD accepted).

    Dhamija, Günther, Boult: Reducing Network Agnostophobia, NeurIPS 2018. The area is P(an ID image is right and its
    score is below that of an OOD image), ties counted half: accuracy times the AUROC of the right ones.

    Args:
        id_scores: (n_id,) higher = more OOD.
        id_right: (n_id,) booleans, whether the predicted class is the label.
        ood_scores: (n_ood,).

    Returns:
        A share in [0, accuracy]; higher is better.

    Raises:
        InputError: a set is empty, a score is NaN, or lengths that differ.
    """
    known, right = score_vector(id_scores, "id_scores"), np.asarray(id_right)
    if right.dtype != bool or right.shape != known.shape:
        raise InputError(f"id_right is {right.dtype} {right.shape}; bool {known.shape} was expected")
    # With no right answer at all the area is 0, whatever the scores are; empty sets are told by auroc.
    return float(right.mean()) * auroc(known[right], ood_scores) if right.any() else 0.0 * auroc(known, ood_scores)


def _right(predicted: Any, labels: Any) -> np.ndarray:
    said, true = np.asarray(predicted), np.asarray(labels)
    if said.ndim != 1 or said.shape != true.shape or not len(said):
        raise InputError(f"predicted is {said.shape} and labels {true.shape}; the same (N,), N ≥ 1, was expected")
    return np.asarray(said == true)
