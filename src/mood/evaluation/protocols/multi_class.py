"""Multi-class: all classes of a set are known, other sets are not; means over near sets, far sets, and all of them."""

from collections.abc import Collection, Mapping, Sequence

from mood.core.errors import InputError

MEAN = "mean"


def members(groups: Mapping[str, Sequence[str]], measured: Collection[str] | None = None) -> dict[str, tuple[str, ...]]:
    """The sets of each mean: for each of several groups "mean, GROUP" and, over the sets of all groups, "mean".

    The means are not weighted, as the paper and OpenOOD v1.5 have them.

    Args:
        groups: sets by group ("near", "far").
        measured: the sets that were measured; all unless said. A group of which one was not has no mean, and neither
            has the whole: the mean of fewer sets would be another figure under the same name.

    Raises:
        InputError: a group without sets, or a set that is in two groups.
    """
    every = [name for sets in groups.values() for name in sets]
    if not every or not all(groups.values()):
        raise InputError("a group of OOD sets is empty; name at least one set in each, or leave the group out")
    if len({*every}) < len(every):
        twice = next(name for name in every if every.count(name) > 1)
        raise InputError(f"the set {twice!r} is in two groups; it can be near or far")
    parts = {f"{MEAN}, {name}": tuple(sets) for name, sets in groups.items()} if len(groups) > 1 else {}
    found = {**parts, MEAN: tuple(every)}
    return {key: sets for key, sets in found.items() if measured is None or {*sets} <= {*measured}}
