"""Gram matrices of inner layers: Sastry, Oore: Detecting OOD Examples with In-distribution Examples and Gram Matrices.

ICML 2020. The paper looks at the channels of a CNN over its positions; in a transformer the positions are the patch
tokens. A row sum of G = F^p (F^p)ᵀ needs no G: it is F^p times the sums of F^p over the channels.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from mood.core.errors import InputError
from mood.core.features import Features
from mood.scores._registry import between, fitted
from mood.scores._round import Round
from mood.scores._rows import BLOCK, of_width
from mood.scores._sampling import held_out


@dataclass(frozen=True, slots=True, eq=False)
class Gram:
    """Σ_l δ_l / (mean δ_l of held-out ID images); ≥ 0.

    δ_l = Σ (relu(min − g) / |min + 1e-6| + relu(g − max) / |max + 1e-6|) / max p over all channels and powers of layer
    l, with g = sign(r)·|r|^(1/p), r the row sums of F^p (F^p)ᵀ, min and max those of the predicted class.

    Attributes:
        smallest: (K, ΣC_l · powers) float64; +∞ for a class that no fit image is put into.
        largest: (K, ΣC_l · powers) float64; −∞ there.
        scale: (L,) float64, mean δ_l on held-out images; 1 where it is 0.
        widths: C_l.
        powers: the powers are 1 … this.
    """

    smallest: Tensor
    largest: Tensor
    scale: Tensor
    widths: list[int]
    powers: int

    def __call__(self, features: Features) -> Tensor:
        """(N,) float64, higher = more OOD.

        Raises:
            InputError: no tokens or logits, or of other widths than in the fit.
        """
        return (_deviations(features, self.smallest, self.largest, self.widths, self.powers) / self.scale).sum(1)


@dataclass(frozen=True, slots=True, eq=False)
class _Extremes:
    """Smallest and largest values for each class that was predicted.

    A tensor for each class, so that a merge shares those of the classes that one side has not met: a batch touches a
    few of 1000 classes, and a matrix of all would be copied for each.

    Attributes:
        ranges: class → (2, ΣC_l · powers) float64, the smallest and the largest.
        widths: C_l.
        powers: the powers are 1 … this.
        count: K, how many logits there are.
    """

    ranges: Mapping[int, Tensor]
    widths: list[int]
    powers: int
    count: int

    def merge(self, later: "_Extremes") -> "_Extremes":
        """Of both stretches of data together."""
        _same_widths(later.widths, self.widths)
        if later.count != self.count:
            raise InputError(f"logits has {later.count} values per row in one shard and {self.count} before it")
        both = {label: _wider(self.ranges[label], later.ranges[label]) for label in self.ranges.keys() & later.ranges}
        return _Extremes({**self.ranges, **later.ranges, **both}, self.widths, self.powers, self.count)


@dataclass(frozen=True, slots=True, eq=False)
class _Ranges:
    """The extremes of all K classes, with no range for those that were never predicted: what `Gram` begins with.

    Attributes:
        smallest: (K, ΣC_l · powers) float64.
        largest: the same.
        widths: C_l.
    """

    smallest: Tensor
    largest: Tensor
    widths: list[int]


def _wider(one: Tensor, other: Tensor) -> Tensor:
    """The (2, …) range that holds both."""
    return torch.stack([torch.minimum(one[0], other[0]), torch.maximum(one[1], other[1])])


def _ranges(seen: _Extremes) -> _Ranges:
    smallest = torch.full((seen.count, sum(seen.widths) * seen.powers), torch.inf, dtype=torch.float64)
    largest = -smallest
    for label, (low, high) in seen.ranges.items():
        smallest[label], largest[label] = low, high
    return _Ranges(smallest, largest, seen.widths)


def _same_widths(found: list[int], expected: list[int]) -> None:
    if found != expected:
        raise InputError(f"tokens have layers of widths {found}; {expected} were expected, as in the fit")


def gram_rows(tokens: Tensor, powers: int) -> Tensor:
    """(n, C · powers) float64 g of one layer, all channels of a power together.

    Args:
        tokens: (n, P, C) float64.
        powers: 1 … this.
    """
    raised, found = torch.ones_like(tokens), []
    for power in range(1, powers + 1):
        raised = raised * tokens
        sums = (raised * raised.sum(2, keepdim=True)).sum(1)  # (n, C)
        found.append(sums.sign() * sums.abs().pow(1 / power))
    return torch.cat(found, 1)


def _rows(features: Features, powers: int) -> Tensor:
    """(N, ΣC_l · powers) float64 g of all layers."""
    parts = []
    for layer in features.need_layers("tokens"):
        size = max(1, BLOCK // layer[0].numel()) if len(layer) else 1
        blocks = [gram_rows(layer[i : i + size].to(torch.float64), powers) for i in range(0, len(layer), size)]
        parts.append(torch.cat(blocks) if blocks else torch.zeros(0, layer.shape[2] * powers, dtype=torch.float64))
    return torch.cat(parts, 1)


def _deviations(features: Features, smallest: Tensor, largest: Tensor, widths: list[int], powers: int) -> Tensor:
    """(N, L) δ_l."""
    logits = of_width(features.need("logits"), len(smallest), "logits").to(torch.float64)
    _same_widths([layer.shape[2] for layer in features.need_layers("tokens")], widths)
    # A class that no fit image was put into has no extremes; the next best one has.
    known = smallest[:, 0] < torch.inf
    said = logits.masked_fill(~known, -torch.inf).argmax(1)
    rows, low, high = _rows(features, powers), smallest[said], largest[said]
    off = (low - rows).relu() / (low + 1e-6).abs() + (rows - high).relu() / (high + 1e-6).abs()
    of_layer = torch.stack([part.sum(1) for part in off.split([width * powers for width in widths], dim=1)], 1)
    return of_layer / logits.softmax(1).amax(1, keepdim=True)


def _collect_extremes(features: Features, _: None, *, powers: int, seed: int, fraction: float) -> _Extremes:
    logits = features.need("logits")
    widths = [layer.shape[2] for layer in features.need_layers("tokens")]
    inside = ~held_out(features.ids, seed=seed, fraction=fraction)
    kept = features[inside]
    rows, said = _rows(kept, powers), logits[inside].argmax(1)
    ranges = {label: torch.stack(rows[said == label].aminmax(dim=0)) for label in said.unique().tolist()}
    return _Extremes(ranges, widths, powers, logits.shape[1])


def _collect_scale(features: Features, seen: _Ranges, *, powers: int, seed: int, fraction: float) -> Tensor:
    """(L + 1,) Σ δ_l of held-out rows, and how many there are."""
    apart = features[held_out(features.ids, seed=seed, fraction=fraction)]
    deviations = _deviations(apart, seen.smallest, seen.largest, seen.widths, powers)
    return torch.cat([deviations.sum(0), torch.tensor([float(len(apart))], dtype=torch.float64)])


@fitted("gram", Gram, needs=("logits", "tokens"), source="Sastry & Oore, ICML 2020 (Gram), equations 2 to 5")
def gram(*, powers: int = 10, held_out: float = 0.1, seed: int = 0) -> tuple[Round[Any, Any, Any], ...]:
    """How far correlations of channels in inner layers leave the range that ID images of the predicted class have.

    Needs the tokens of inner layers, which are read in a pass through the network and never stored; the fit takes two.
    For 1000 classes × 1M images and four layers of 768 channels: two matrices of 1000 × 30 720, 490 MB, and twice that
    during the fit.

    Args:
        powers: 1 … 10 in the paper, in float64, since float32 overflows.
        held_out: this share of the fit rows, a cut by the hash of (seed, id), scales the layers and is left out of the
            ranges, in (0, 1).
        seed: of that hash.

    Raises:
        InputError: an option out of range, no tokens or logits, or no row on one side of the cut.
    """
    count = between("powers", powers, 1, 100)
    if not 0 < held_out < 1:
        raise InputError(f"held_out is {held_out!r}; a number between 0 and 1 was expected")
    seed = between("seed", seed, 0, 2**63 - 1)

    def check(seen: _Extremes, _: None) -> _Ranges:
        if not seen.ranges:
            raise InputError("the held-out cut left none of the fit rows; fit on more images, or lower held_out")
        return _ranges(seen)

    def finish(sums: Tensor, seen: _Ranges) -> Gram:
        if not sums[-1]:
            raise InputError("the held-out cut took none of the fit rows; fit on more images, or raise held_out")
        scale = sums[:-1] / sums[-1]
        # A layer whose range no held-out image leaves, but for rounding, stays as it is.
        scale = torch.where(scale > 1e-9, scale, 1.0)
        return Gram(seen.smallest, seen.largest, scale, seen.widths, count)

    return (
        Round(partial(_collect_extremes, powers=count, seed=seed, fraction=held_out), _Extremes.merge, check),
        Round(partial(_collect_scale, powers=count, seed=seed, fraction=held_out), torch.add, finish),
    )
