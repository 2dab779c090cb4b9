"""Full-spectrum: known images under a shift that leaves their meaning, such as blur, still count as known.

Yang, Zhou, Liu: Full-Spectrum Out-of-Distribution Detection, IJCV 2023; OpenOOD v1.5 has it for ImageNet.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from mood.core.errors import InputError
from mood.core.score_vector import score_vector
from mood.evaluation.intervals import MetricsOfSets, evaluate_sets


def full_spectrum(
    id_scores: Any,
    shifted_scores: Mapping[str, Any],
    ood_scores: Mapping[str, Any],
    means: Mapping[str, Sequence[str]],
    *,
    same_images: bool = True,
    replicates: int = 1000,
    confidence: float = 0.95,
    seed: int = 0,
) -> MetricsOfSets:
    """Metrics where ID is the plain images and all shifted ones together.

    The intervals are over the images, not over all their versions: the same image under five shifts is one image. Sets
    of shifted images that were taken or chosen by themselves, such as ImageNet-R, are so many more images.

    Args:
        id_scores: (n_id,) higher = more OOD.
        shifted_scores: (n_id,) scores of the same images in the same order under each shift, or (n,) scores of other
            images.
        ood_scores: (n_ood,) of each OOD set.
        means: over which of them, as `evaluate_sets` has them.
        same_images: whether the shifted images are the plain ones.
        replicates: of the bootstrap.
        confidence: of the intervals.
        seed: of the draws.

    Raises:
        InputError: no shift, a set without scores, another number of them under a shift of the same images, NaN, a
            mean over a set that is not there, or an argument out of range.
    """
    if not shifted_scores:
        raise InputError("full-spectrum needs at least one shift; without any it is the multi-class protocol")
    known, versions = id_scores, tuple(shifted_scores.values())
    if not same_images:
        named = {"id_scores": id_scores, **shifted_scores}
        known, versions = np.concatenate([score_vector(scores, name) for name, scores in named.items()]), ()
    return evaluate_sets(
        known, ood_scores, means, versions=versions, replicates=replicates, confidence=confidence, seed=seed
    )
