"""Several scores as one number, by a fixed rule: `mood,msp`.

A detector calibrates that one number, once, on images that nothing was fitted on: whatever the rule, a new ID image and
the calibration images are exchangeable, so the promise is exact, with nothing to be corrected for looking twice. Each
score flagging by a threshold of its own would flag up to the sum of their alphas.

Scores have scales of their own. What brings them to one is taken from fit rows that no part was fitted on: the second
hash cut of the fit split, of which at most `ROWS` are kept. Calibration images were cut off before.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from mood.core.errors import ArtifactError, InputError
from mood.core.features import Features, Head
from mood.scores import _fitting
from mood.scores._given import checked
from mood.scores._names import SEPARATOR
from mood.scores._registry import Entry, ScoreInfo, entry
from mood.scores._round import Round
from mood.scores._sampling import Bank, bank_round, held_out

if TYPE_CHECKING:
    from mood.scores._fitting import Score

ROWS = 10_000
PURPOSE = b"combination"
"""A cut of its own: a part that holds out images by the usual one would find none of them among the others."""


def _standardised(columns: Tensor, reference: Tensor) -> Tensor:
    return (columns - reference.mean(1, keepdim=True)) / reference.std(1, correction=0, keepdim=True)


def _mean(columns: Tensor, reference: Tensor) -> Tensor:
    return _standardised(columns, reference).mean(0)


def _max(columns: Tensor, reference: Tensor) -> Tensor:
    return _standardised(columns, reference).amax(0)


def _fisher(columns: Tensor, reference: Tensor) -> Tensor:
    """Fisher, Statistical Methods for Research Workers, 1932: −2 Σ ln p, of ranks p = (1 + #{r ≥ s}) / (R + 1)."""
    size = reference.shape[1]
    above = size - torch.searchsorted(reference, columns.contiguous(), side="left")
    return -2 * ((1 + above).to(torch.float64) / (size + 1)).log().sum(0)


RULES: Mapping[str, Callable[[Tensor, Tensor], Tensor]] = {"mean": _mean, "max": _max, "fisher": _fisher}
"""(M, N) scores and (M, R) scores of other ID rows, ascending → (N,)."""


@dataclass(frozen=True, slots=True, eq=False)
class Combined:
    """One number from M scores.

    Attributes:
        names: of the scores.
        parts: the ready scores.
        rule: one of `RULES`.
        reference: (M, R) float64, ascending: their scores of ID rows that none of them was fitted on.
    """

    names: tuple[str, ...]
    parts: "tuple[Score, ...]"
    rule: str
    reference: Tensor

    def __call__(self, features: Features) -> Tensor:
        """(N,) float64, higher = more OOD."""
        return RULES[self.rule](torch.stack([part(checked(features)) for part in self.parts]), self.reference)


def names_of(name: str) -> tuple[str, ...]:
    """`mood,msp` → its parts.

    Raises:
        InputError: a part comes twice or is nothing.
    """
    names = tuple(part.strip() for part in name.split(SEPARATOR))
    if len({*names}) < len(names) or "" in names:
        raise InputError(f"score {name!r}: different names with a comma between them were expected")
    return names


@cache
def composite(name: str) -> Entry:
    """What the registry would hold of a combination: needs and options of its parts, an option k of knn as `knn.k`.

    Raises:
        InputError: an unknown part, one that comes twice, or two that move the images.
    """
    names = names_of(name)
    entries = {part: entry(part) for part in names}
    options = {f"{part}.{key}": value for part, found in entries.items() for key, value in found.info.options.items()}
    types = {f"{part}.{key}": kinds for part, found in entries.items() for key, kinds in found.types.items()}
    needs = tuple(dict.fromkeys(need for found in entries.values() for need in found.info.needs))
    return Entry(
        ScoreInfo(
            summary=f"{' and '.join(names)} as one number",
            source="; ".join(found.info.source for found in entries.values()),
            needs=needs,
            options=MappingProxyType({"combine": "mean", **options}),
            fitted=True,
            memory="; ".join(f"{part}: {found.info.memory}" for part, found in entries.items()),
        ),
        lambda head=None, **given: _rounds(names, head, **given),
        {"combine": (str,), **types},
        Combined,
    )


def _rounds(
    names: tuple[str, ...], head: Head | None, *, combine: str, **options: Any
) -> tuple[Round[Any, Any, Any], ...]:
    """The passes of all parts side by side, and one that collects the reference."""
    if combine not in RULES:
        raise InputError(f"combine is {combine!r}; {', '.join(RULES)} was expected")
    own = {part: of_part(part, options) for part in names}
    for part, given in own.items():
        if given.get("epsilon", 0) > 0:
            raise InputError(
                f"score {part!r} moves the images before it looks at them, and a combination looks once: set "
                f"{part}.epsilon=0, or leave it out"
            )
    passes = {part: _fitting.rounds(part, head, **given) for part, given in own.items()}
    start: tuple[Any, ...] = tuple(None if passes[part] else _fitting.Stateless(part, own[part]) for part in names)
    longest = max(len(found) for found in passes.values())

    def side_by_side(step: int) -> Round[Any, Any, Any]:
        now = [passes[part][step] if step < len(passes[part]) else None for part in names]

        def collect(features: Features, before: Any) -> list[Any]:
            rows = features[~held_out(features.ids, purpose=PURPOSE)]
            states = before or start
            return [each and each.collect(rows, state) for each, state in zip(now, states, strict=True)]

        def merge(earlier: Sequence[Any], later: Sequence[Any]) -> list[Any]:
            return [
                each and each.merge(*pair) for each, pair in zip(now, zip(earlier, later, strict=True), strict=True)
            ]

        def finish(found: Sequence[Any], before: Any) -> tuple[Any, ...]:
            states = before or start
            return tuple(
                state if each is None else each.finish(statistics, state)
                for each, statistics, state in zip(now, found, states, strict=True)
            )

        return Round(collect, merge, finish)

    kept = _reference_round(lambda features: (features.embedding[:, :0],))

    def collect(features: Features, before: Any) -> Bank:
        parts = before or start
        scored = _reference_round(lambda rows: (torch.stack([part(rows) for part in parts], dim=1),))
        found: Bank = scored.collect(features[held_out(features.ids, purpose=PURPOSE)], None)
        return found

    def finish(bank: Bank, before: Any) -> Combined:
        (columns,) = kept.finish(bank, None)
        reference = columns.T.sort(dim=1).values.contiguous()
        for part, values in zip(names, reference, strict=True):
            if combine != "fisher" and not float(values.std(correction=0)) > 0:
                raise InputError(
                    f"score {part!r} is the same for all {len(values)} images that its scale is taken from: it adds "
                    "nothing to a combination; leave it out, or fit on more images"
                )
        return Combined(names, before or start, combine, reference)

    return (*(side_by_side(step) for step in range(longest)), Round(collect, kept.merge, finish))


def _reference_round(columns: Callable[[Features], tuple[Tensor, ...]]) -> Round[Any, Any, Any]:
    return bank_round(lambda bank: bank.columns, size=ROWS, seed=0, names=("scores",), columns=columns)


def of_part(part: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """The options `part.key` as `key`."""
    return {key.removeprefix(f"{part}."): value for key, value in options.items() if key.startswith(f"{part}.")}


def pack(score: Combined) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """As plain data; the tensors of part i are named `i.name`."""
    states = [_fitting.state(part) for part in score.parts]
    tensors = {f"{index}.{name}": tensor for index, (held, _) in enumerate(states) for name, tensor in held.items()}
    meta = {"combine": score.rule, "parts": [meta for _, meta in states]}
    return {"reference": score.reference, **tensors}, meta


def unpack(name: str, tensors: Mapping[str, Tensor], meta: Mapping[str, Any]) -> Combined:
    """The inverse of `pack`.

    Raises:
        ArtifactError: these are not the parts of such a combination.
    """
    names = names_of(name)
    held: list[dict[str, Tensor]] = [{} for _ in names]
    for key, tensor in tensors.items():
        index, dot, field = key.partition(".")
        if dot and index.isdecimal() and int(index) < len(names):
            held[int(index)][field] = tensor
        elif key != "reference":
            raise ArtifactError(f"score {name!r} has no part that {key!r} belongs to")
    parts, rule, reference = meta.get("parts"), str(meta.get("combine")), tensors.get("reference")
    if (
        not isinstance(parts, list)
        or len(parts) != len(names)
        or rule not in RULES
        or reference is None
        or reference.dim() != 2
        or len(reference) != len(names)
    ):
        raise ArtifactError(f"score {name!r} consists of {len(names)} parts, a rule and a reference; others were found")
    ready = tuple(_fitting.restore(*part) for part in zip(names, held, parts, strict=True))
    return Combined(names, ready, rule, reference.clone(memory_format=torch.contiguous_format))
