"""Mahalanobis distances in several layers, of images moved along the gradient.

Lee, Lee, Lee, Shin: A Simple Unified Framework for Detecting Out-of-Distribution Samples and Adversarial Attacks,
NeurIPS 2018, algorithm 1. There the layers are weighted by a logistic regression on ID *and* OOD images; here they
count alike unless weights are given.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from mood.core.errors import InputError
from mood.core.features import Features
from mood.scores import _gaussian
from mood.scores._gaussian import Moments, check_shrinkage, nearest
from mood.scores._labels import class_labels
from mood.scores._registry import fitted
from mood.scores._round import Round
from mood.scores._rows import of_width, row_by_row
from mood.scores.odin import step_of


@dataclass(frozen=True, slots=True, eq=False)
class LeeMahalanobis:
    """Σ_l α_l min_c (f_l − μ_lc)ᵀ Σ_l⁺ (f_l − μ_lc), f_l of x − (ε / std)·sign(∇ₓ d²_l); ≥ 0.

    Attributes:
        origins: (ΣD_l,) float64, the mean of all fit rows, layer after layer.
        whiteners: (ΣD_l · D_l,) float64, a (D_l, D_l) matrix for each layer, filled up with columns of zeros:
            whitener · whitenerᵀ = α_l Σ_l⁺.
        means: (C · ΣD_l,) float64, a (C, D_l) matrix for each layer: the class means about the origin, whitened.
        widths: D_l.
        epsilon: ε, in units of pixels from 0 to 1.
    """

    origins: Tensor
    whiteners: Tensor
    means: Tensor
    widths: list[int]
    epsilon: float

    def __call__(self, features: Features) -> Tensor:
        """(N,) float64, higher = more OOD, of images that were moved for each layer.

        Raises:
            InputError: no layers, or of other widths than in the fit.
        """
        layers = features.need_layers("layers")
        if len(layers) != len(self.widths):
            raise InputError(f"there are {len(layers)} layers; {len(self.widths)} were expected, as in the fit")
        total = torch.zeros(len(features), dtype=torch.float64)
        for index, layer in enumerate(layers):
            of_width(layer, self.widths[index], f"layers.{index}")
            origin, whitener, means = self._layer(index)
            total += row_by_row(
                lambda rows, at=origin, by=whitener, to=means: _distance(rows, at, by, to),
                layer,
                width=max(self.widths[index], len(means)),
            )
        return total

    def objectives(self, columns: Mapping[str, Tensor]) -> Sequence[Tensor]:
        """The distance in each layer: every layer has its own moved image, as in algorithm 1."""
        layers = [columns[f"layers.{index}"].cpu().double() for index in range(len(self.widths))]
        return [_distance(layer, *self._layer(index)) for index, layer in enumerate(layers)]

    def of_moved(self, moved: Sequence[Features]) -> Features:
        """Each layer from the image that was moved for it."""
        return Features(
            moved[0].embedding, ids=moved[0].ids, layers=[part.layers[index] for index, part in enumerate(moved)]
        )

    def _layer(self, index: int) -> tuple[Tensor, Tensor, Tensor]:
        """(D,) origin, (D, D) whitener, (C, D) means."""
        width = self.widths[index]
        origin = self.origins.split(self.widths)[index]
        whitener = self.whiteners.split([size * size for size in self.widths])[index].reshape(width, width)
        classes = len(self.means) // sum(self.widths)
        means = self.means.split([classes * size for size in self.widths])[index].reshape(classes, width)
        return origin, whitener, means


def _distance(rows: Tensor, origin: Tensor, whitener: Tensor, means: Tensor) -> Tensor:
    whitened = (rows - origin) @ whitener
    with torch.no_grad():
        closest = nearest(whitened, means)
    return (whitened - means[closest]).square().sum(1)


def _check_weights(weights: Sequence[Any]) -> None:
    """Raises `InputError` where they are not numbers from 0 on, one of them above 0."""
    numbers = all(type(weight) in (int, float) and 0 <= weight < float("inf") for weight in weights)
    if not numbers or not any(weights):
        raise InputError(
            f"weights is {weights!r}; one number from 0 on for each layer was expected, not all of them 0, as [1, 0.5]"
        )


@fitted("lee_mahalanobis", LeeMahalanobis, needs=("layers", "labels"), source="Lee et al., NeurIPS 2018, algorithm 1")
def lee_mahalanobis(
    *,
    epsilon: float = 0.0014,
    shrinkage: str | float = "auto",
    weights: list[float] | tuple[float, ...] | None = None,
) -> tuple[Round[Any, Any, Any], ...]:
    """Sum over layers of the squared Mahalanobis distance from the nearest class, of images moved to where it is less.

    A detector moves the images, once for
    each layer. For 1000 classes × 1M images and four layers of 768 values: 43 MB.

    Args:
        epsilon: ε ≥ 0, in units of pixels from 0 to 1; the paper chooses among 0 and 0.0005 to 0.01 on OOD images.
        shrinkage: of each layer's covariance (÷ N): "none" (pseudo-inverse), "oas", "auto" ("oas" under ten rows
            for a dimension, else "none"), or a number in [0, 1].
        weights: α_l ≥ 0 of each layer, not all of them 0; None: 1 of each. The paper takes them from a regression on
            OOD images.

    Raises:
        InputError: an option out of range, another number of weights than of layers, no layers or labels, or a layer
            without spread.
    """
    step = step_of(epsilon)
    if weights is not None:
        _check_weights(weights)
    check_shrinkage(shrinkage, ("auto", "none", "oas"))

    def collect(features: Features, _: None) -> tuple[Moments, ...]:
        labels, layers = class_labels(features), features.need_layers("layers")
        if weights is not None and len(weights) != len(layers):
            raise InputError(f"there are {len(weights)} weights and {len(layers)} layers; give one for each layer")
        return tuple(_gaussian.moments_of(layer, labels, layer.shape[1], lambda rows: rows) for layer in layers)

    def merge(earlier: tuple[Moments, ...], later: tuple[Moments, ...]) -> tuple[Moments, ...]:
        if len(earlier) != len(later):
            raise InputError(f"there are {len(later)} layers in one shard and {len(earlier)} before it")
        for index, (one, other) in enumerate(zip(earlier, later, strict=True)):
            of_width(other.means, one.means.shape[1], f"layers.{index}")
        return tuple(one.merge(other) for one, other in zip(earlier, later, strict=True))

    def finish(layers: tuple[Moments, ...], _: None) -> LeeMahalanobis:
        origins, whiteners, means = [], [], []
        for moments, weight in zip(layers, weights or [1.0] * len(layers), strict=True):
            gaussian = _gaussian.ready(moments)
            whitener, origin = gaussian.whitener(shrinkage), moments.pooled().means[0]
            square = torch.zeros(len(origin), len(origin), dtype=torch.float64)
            square[:, : whitener.shape[1]] = whitener * weight**0.5
            origins.append(origin)
            whiteners.append(square.reshape(-1))
            means.append(((moments.means - origin) @ square).reshape(-1))
        widths = [len(origin) for origin in origins]
        return LeeMahalanobis(torch.cat(origins), torch.cat(whiteners), torch.cat(means), widths, step)

    return (Round(collect, merge, finish),)
