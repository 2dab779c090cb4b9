"""Which unknown classes are taken for which known ones where 95 % of the known images are accepted (Figure 3)."""

import numpy as np

from mood.core.errors import InputError
from mood.core.score_vector import score_vector
from mood.evaluation.metrics import enough


def accepted_confusion(
    id_scores: np.ndarray,
    ood_scores: np.ndarray,
    ood_labels: np.ndarray,
    predicted: np.ndarray,
    *,
    shape: tuple[int, int],
    tpr: float = 0.95,
) -> np.ndarray:
    """Numbers of accepted OOD images by their own class and by the known class that they are taken for.

    Args:
        id_scores: (n_id,) higher = more OOD; the threshold is the smallest score that accepts at least `tpr` of them.
        ood_scores: (n_ood,).
        ood_labels: (n_ood,) OOD classes, 0..O-1.
        predicted: (n_ood,) known classes that the network says, 0..C-1.
        shape: (O, C).
        tpr: share of the ID images that are accepted, in (0, 1].

    Returns:
        (O, C) whole numbers.

    Raises:
        InputError: no ID images, lengths that differ, classes out of range, NaN, or `tpr` out of range.
    """
    known, unknown = score_vector(id_scores, "id_scores"), score_vector(ood_scores, "ood_scores")
    if not 0 < tpr <= 1 or not len(known):
        raise InputError(f"tpr is {tpr} and there are {len(known)} ID images; (0, 1] and at least one were expected")
    pairs = (("ood_labels", np.asarray(ood_labels), shape[0]), ("predicted", np.asarray(predicted), shape[1]))
    for name, classes, count in pairs:
        if classes.shape != unknown.shape or (len(classes) and not (classes.min() >= 0 and classes.max() < count)):
            raise InputError(f"{name} must be {len(unknown)} classes from 0 to {count - 1}, one for each OOD score")
    last = int(enough(tpr, np.asarray(len(known)))) - 1
    accepted = unknown <= np.partition(known, last)[last]
    cells = pairs[0][1][accepted] * shape[1] + pairs[1][1][accepted]
    return np.bincount(cells.astype(np.int64), minlength=shape[0] * shape[1]).reshape(shape)


def largest_cells(confusion: np.ndarray, count: int = 12) -> tuple[tuple[int, int], ...]:
    """The (OOD class, known class) of the largest numbers, the largest first; empty cells are left out.

    The paper names one of the twelve pairs of its Figure 3. Here they are the twelve largest cells of the *rival's*
    confusion, so that the method which is shown beside it has no say in the choice; ties go in the order of the cells.

    Args:
        confusion: (O, C) of the rival.
        count: how many.
    """
    order = np.argsort(-confusion, axis=None, kind="stable")[:count]
    rows, columns = np.unravel_index(order, confusion.shape)
    return tuple((int(o), int(c)) for o, c in zip(rows, columns, strict=True) if confusion[o, c])
