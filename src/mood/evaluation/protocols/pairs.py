"""Near-distribution pairs of one-class detection: two classes that look alike, one known and one not."""

from collections.abc import Sequence

import numpy as np

from mood.core.errors import InputError

TABLE_8 = (
    ("airplane", "automobile"),
    ("airplane", "ship"),
    ("airplane", "truck"),
    ("bird", "horse"),
    ("cat", "deer"),
    ("cat", "dog"),
    ("cat", "frog"),
    ("cat", "horse"),
    ("deer", "horse"),
    ("dog", "deer"),
    ("dog", "horse"),
    ("truck", "automobile"),
)
"""The pairs (ID, OOD) of CIFAR-10 in Table 8 of the paper: AUROC below 90 % under CSI; its "trunk" is a truck."""


def pair_values(
    matrix: np.ndarray, class_names: Sequence[str], pairs: Sequence[tuple[str, str]] = TABLE_8
) -> dict[tuple[str, str], float]:
    """The cells of a one-class matrix that belong to chosen pairs.

    Args:
        matrix: (C, C) AUROC, row = the known class (`OneClass.pairs`).
        class_names: C names.
        pairs: (ID class, OOD class) each.

    Raises:
        InputError: a class that is not among the names, or a pair of one class with itself.
    """
    names = list(class_names)
    found = {}
    for known, unknown in pairs:
        for name in (known, unknown):
            if name not in names:
                raise InputError(f"pair ({known}, {unknown}): {name!r} is none of the classes {', '.join(names)}")
        if known == unknown:
            raise InputError(f"pair ({known}, {unknown}): a class is not unknown to itself")
        found[known, unknown] = float(matrix[names.index(known), names.index(unknown)])
    return found


def hardest_pairs(matrix: np.ndarray, class_names: Sequence[str], count: int = 12) -> tuple[tuple[str, str], ...]:
    """The pairs of the smallest AUROC, the smallest first; ties in the order of the classes.

    The pairs of a rival's matrix, as in Table 8, are chosen by nothing that the method shown beside it had a say in.

    Args:
        matrix: (C, C) AUROC of the rival, row = the known class.
        class_names: C names.
        count: how many.
    """
    # NaN, on the diagonal, sorts behind every number.
    order = np.argsort(matrix, axis=None, kind="stable")[: min(count, matrix.size - len(matrix))]
    rows, columns = np.unravel_index(order, matrix.shape)
    return tuple((class_names[row], class_names[column]) for row, column in zip(rows, columns, strict=True))
