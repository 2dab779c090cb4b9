"""scikit-learn where it is wanted: it fits, its arrays are kept, and nothing of it is needed to score."""

import importlib
import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from mood.core.errors import InputError, MissingExtraError
from mood.scores._round import Round
from mood.scores._rows import l2_normalised
from mood.scores._sampling import Bank, bank_round


def bank_fitted(
    build: Callable[[Any, Any], Any], module: str, *, size: int, seed: int, fewest: int
) -> tuple[Round[Any, Any, Any], ...]:
    """The round that gives `build` a module of scikit-learn and the (M, D) float64 h̃ of a bank, as an array.

    Args:
        build: module and rows → score.
        module: such as "svm".
        size: cap of the bank.
        seed: of its hash.
        fewest: rows that the fit needs.

    Raises:
        InputError: size or seed out of range, or, later, too few rows.
        MissingExtraError: scikit-learn is not installed.
    """
    try:
        learner = importlib.import_module(f"sklearn.{module}")
    except ModuleNotFoundError as error:
        raise MissingExtraError(
            "this score is fitted by scikit-learn, which is not installed here: add the package scikit-learn; "
            "a detector that was fitted with it needs it no more"
        ) from error

    def finish(bank: Bank) -> Any:
        (rows,) = bank.columns
        if len(rows) < fewest:
            raise InputError(f"there are {len(rows)} rows to fit on, and at least {fewest} are needed")
        with warnings.catch_warnings():
            # What it warns of (an early stop, equal rows) leaves a score that is as defined.
            warnings.simplefilter("ignore")
            return build(learner, l2_normalised(rows.to(torch.float64)).numpy())

    return (bank_round(finish, size=size, seed=seed),)


def tensor(array: Any) -> Tensor:
    """A float64 copy of an array."""
    return torch.tensor(array, dtype=torch.float64)
