"""How well one number per image tells ID from OOD: AUROC, FPR at a TPR, average precision, the ROC curve.

All of them look at nothing but the order of the scores. So the two sets are sorted together once, into G distinct
values and how many ID and OOD images have each (`tally`), and every metric is a cumulative sum over these counts. A
bootstrap replicate is other counts over the same order: the counts may have leading axes, (..., G).
"""

from typing import Any, Literal

import numpy as np

from mood.core.errors import InputError
from mood.core.score_vector import score_vector

Positive = Literal["id", "ood"]


def auroc(id_scores: Any, ood_scores: Any) -> float:
    """P(score of a random OOD image > score of a random ID image), ties counted half.

    The area under the ROC curve is the Mann-Whitney U statistic over n_id · n_ood (Hanley, McNeil: Radiology 143,
    1982). Which side is called positive does not matter.

    Args:
        id_scores: (n_id,) list, array or tensor, higher = more OOD.
        ood_scores: (n_ood,), likewise. Infinite scores are the most or the least unusual of all, and tie.

    Returns:
        A share in [0, 1]: 1 where every OOD image has a higher score than every ID image, 0.5 for guessing.

    Raises:
        InputError: a set is empty, or a score is NaN.
    """
    return float(auroc_of(*tally(id_scores, ood_scores)))


def fpr_at_tpr(id_scores: Any, ood_scores: Any, tpr: float = 0.95, *, positive: Positive = "id") -> float:
    """The share of one side that is taken for the other where at least `tpr` of that other side is right.

    `positive="id"` (MOOD, SSD, ViM, Energy, KNN; our headline): images with score ≤ t are accepted, t is the smallest
    score that accepts at least `tpr` of ID, and the answer is the share of OOD that is accepted.
    `positive="ood"` (OpenOOD v1.5, pytorch-ood): images with score ≥ t are flagged, t is the largest score that flags
    at least `tpr` of OOD, and the answer is the share of ID that is flagged.

    Args:
        id_scores: (n_id,), higher = more OOD.
        ood_scores: (n_ood,), higher = more OOD.
        tpr: the share of the positive side that must be right, in (0, 1].
        positive: which side that is.

    Returns:
        A share in [0, 1]; lower is better.

    Raises:
        InputError: a set is empty, a score is NaN, `tpr` is out of range, or `positive` is another word.
    """
    if not 0 < tpr <= 1:
        raise InputError(f"tpr is {tpr}; it must be above 0 and at most 1")
    return float(fpr_of(*positives_first(positive, *tally(id_scores, ood_scores)), tpr))


def aupr(id_scores: Any, ood_scores: Any, *, positive: Positive = "ood") -> float:
    """Average precision: Σ over distinct thresholds of (recall gained there) · (precision there).

    The area under the precision-recall curve in steps, as scikit-learn's average_precision_score; straight lines
    between its points would be too hopeful (Davis, Goadrich: ICML 2006). Tied images enter together.

    Args:
        id_scores: (n_id,), higher = more OOD.
        ood_scores: (n_ood,), higher = more OOD.
        positive: the side to find: "ood" from the highest score down, "id" from the lowest up.

    Returns:
        A share in (0, 1]; guessing gives about the share of the positive side among all images.

    Raises:
        InputError: a set is empty, a score is NaN, or `positive` is another word.
    """
    return float(average_precision_of(*positives_first(positive, *tally(id_scores, ood_scores))))


def detection_error(id_scores: Any, ood_scores: Any) -> float:
    """The smallest ½ (share of ID flagged + share of OOD accepted) that any threshold reaches.

    Both sides weigh the same, whatever their numbers (Liang, Li, Srikant: ODIN, ICLR 2018, section 4.2, there at one
    threshold; Lee et al., NeurIPS 2018, at the best one, as here).

    Args:
        id_scores: (n_id,), higher = more OOD.
        ood_scores: (n_ood,), higher = more OOD.

    Returns:
        A share in [0, 0.5]; lower is better.

    Raises:
        InputError: a set is empty, or a score is NaN.
    """
    return float(detection_error_of(*tally(id_scores, ood_scores)))


def roc_curve(id_scores: Any, ood_scores: Any) -> tuple[np.ndarray, np.ndarray]:
    """The ROC curve of flagging images from a score upwards: OOD is positive.

    Args:
        id_scores: (n_id,), higher = more OOD.
        ood_scores: (n_ood,), higher = more OOD.

    Returns:
        The share of ID flagged (fpr) and the share of OOD flagged (tpr), (G+1,) each for G distinct scores, from
        (0, 0) to (1, 1). The area under the straight lines between these points is `auroc`.

    Raises:
        InputError: a set is empty, or a score is NaN.
    """
    flagged_ood, flagged_id = positives_first("ood", *tally(id_scores, ood_scores))
    fpr, tpr = (np.concatenate(([0.0], np.cumsum(counts) / counts.sum())) for counts in (flagged_id, flagged_ood))
    return fpr, tpr


def tally(id_scores: Any, ood_scores: Any) -> tuple[np.ndarray, np.ndarray]:
    """Sort both sets together, once.

    Args:
        id_scores: (n_id,), higher = more OOD.
        ood_scores: (n_ood,), higher = more OOD.

    Returns:
        How many ID and how many OOD images have each of the G distinct scores, ascending: (G,) twice, whole numbers
        in float64, where sums and quotients need no conversion.

    Raises:
        InputError: a set is empty, or a score is NaN.
    """
    known, unknown = score_vector(id_scores, "id_scores"), score_vector(ood_scores, "ood_scores")
    for name, scores in (("id_scores", known), ("ood_scores", unknown)):
        if not len(scores):
            raise InputError(f"{name} is empty; a metric needs at least one image on each side")
    distinct, place = np.unique(np.concatenate((known, unknown)), return_inverse=True)
    groups = len(distinct)
    sides = place[: len(known)], place[len(known) :]
    id_counts, ood_counts = (np.bincount(side, minlength=groups).astype(np.float64) for side in sides)
    return id_counts, ood_counts


def positives_first(positive: Positive, id_counts: np.ndarray, ood_counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The counts (..., G) of (positives, negatives), from the score that speaks most for the positive side on.

    Raises:
        InputError: `positive` is another word.
    """
    if positive == "id":
        return id_counts, ood_counts
    if positive == "ood":
        return ood_counts[..., ::-1], id_counts[..., ::-1]
    raise InputError(f'positive is {positive!r}; it must be "id" or "ood"')


def auroc_of(id_counts: np.ndarray, ood_counts: np.ndarray) -> np.ndarray:
    """AUROC (...) of ascending counts (..., G): Σ_g ood_g (id below g + id_g / 2) / (n_id n_ood)."""
    up_to = np.cumsum(id_counts, axis=-1)
    twice = np.einsum("...g,...g->...", ood_counts, 2 * up_to - id_counts)
    return np.asarray(twice / (2 * up_to[..., -1] * ood_counts.sum(-1)))


def fpr_of(positives: np.ndarray, negatives: np.ndarray, tpr: float) -> np.ndarray:
    """Share of negatives (...) met from the first score on until `tpr` of the positives are, of counts (..., G)."""
    right, wrong = np.cumsum(positives, axis=-1), np.cumsum(negatives, axis=-1)
    reached = (right >= enough(tpr, right[..., -1:])).argmax(-1)[..., None]
    return np.asarray((np.take_along_axis(wrong, reached, -1) / wrong[..., -1:])[..., 0])


def enough(tpr: float, n: np.ndarray) -> np.ndarray:
    """The smallest whole numbers k with k/n ≥ tpr as floats, of whole numbers n.

    7 of 100 are enough for 0.07, though 0.07 · 100 is a little more than 7.
    """
    k = np.ceil(tpr * n)
    k = k - ((k - 1) / n >= tpr)
    return np.asarray(k + (k / n < tpr))


def detection_error_of(id_counts: np.ndarray, ood_counts: np.ndarray) -> np.ndarray:
    """Detection error (...) of ascending counts (..., G)."""
    kept, let_in = np.cumsum(id_counts, axis=-1), np.cumsum(ood_counts, axis=-1)
    n = kept[..., -1]
    # In images of ID, and in place: a quotient of every count would cost twice as much.
    let_in *= (n / let_in[..., -1])[..., None]
    gain = np.subtract(kept, let_in, out=let_in).max(-1) / n
    # At the last threshold all are accepted and the gain is 0, which n_ood · (n_id / n_ood) may pass by its rounding.
    return np.asarray((1 - np.maximum(gain, 0)) / 2)


def average_precision_of(positives: np.ndarray, negatives: np.ndarray) -> np.ndarray:
    """Average precision (...) of counts (..., G), the score that speaks most for the positive side first."""
    right = np.cumsum(positives, axis=-1)
    found = np.cumsum(negatives, axis=-1)
    found += right
    # Where nothing is found yet there are no positives either: 0 / 1.
    np.maximum(found, 1, out=found)
    return np.asarray(np.einsum("...g,...g->...", positives, right / found) / right[..., -1])
