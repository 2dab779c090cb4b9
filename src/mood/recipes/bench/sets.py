"""The sets of a benchmark: which are there, which are missing and where they come from, and which share images."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from mood.core.errors import DataError, InputError, MissingExtraError, MoodError
from mood.recipes.bench.plan import RunPlan
from mood.recipes.bench.results import LeftOut
from mood.recipes.familiar import shared_images
from mood.recipes.inputs import NOTHING

if TYPE_CHECKING:
    from mood.data import Source


@dataclass(frozen=True, slots=True)
class Sets:
    """All sets that runs speak of, each opened once.

    Attributes:
        found: by DATA, with ", coarse" behind it where the coarse labels are its classes.
        missing: the same of those that are not there → why, and where to get and put them.
    """

    found: "Mapping[str, Source]"
    missing: Mapping[str, str]


WHOLE = "all of it"
"""What is left out of a run that cannot be run."""


def key_of(data: str, coarse: bool = False) -> str:
    """What a set is called in `Sets`."""
    return f"{data}, coarse" if coarse else data


def open_sets(runs: Sequence[RunPlan], *, roots: Sequence[str], limit: int | None) -> Sets:
    """Open whatever is there.

    Args:
        runs: of the recipe.
        roots: folders in which named sets are looked for.
        limit: images of each set.
    """
    from mood.data import open_source

    found: dict[str, Source] = {}
    missing: dict[str, str] = {}
    for run in runs:
        wanted = [(run.fit, run.coarse), (run.test, run.coarse)]
        wanted += [(data, False) for data in (*run.unknown.values(), *run.exposed.values(), *run.shifted.values())]
        for data, coarse in wanted:
            key = key_of(data, coarse)
            if key in found or key in missing:
                continue
            try:
                found[key] = open_source(data, roots=roots, coarse=coarse, limit=limit)
            except (DataError, InputError, MissingExtraError) as error:
                missing[key] = str(error)
    return Sets(found, missing)


def of_classes(source: "Source", names: Sequence[str] | None) -> bool:
    """Whether the labels of a set are those of these classes; a set that numbers its classes has some of them."""
    own = source.manifest.class_names
    numbers = tuple(str(label) for label in range(len(names or ())))
    return own is not None and names is not None and (own == tuple(names) or own == numbers[: len(own)])


@dataclass(frozen=True, slots=True)
class Opened:
    """The sets of one run.

    Attributes:
        fit: what scores are fitted on.
        test: unseen known images, none of which is in `fit`.
        shifted: sets of shifted known images by the run's names for them, none of which is in `fit` either.
        unknown: OOD sets by the run's names for them, those that are there.
        exposed: sets that few-shot shows images of, likewise.
        unshown: OOD sets of which few-shot can show none, as it was told to → why.
        notes: sentences on what they share, and on what is too small.
    """

    fit: "Source"
    test: "Source"
    shifted: "Mapping[str, Source]"
    unknown: "Mapping[str, Source]"
    exposed: "Mapping[str, Source]"
    unshown: Mapping[str, str]
    notes: tuple[str, ...]


def opened_runs(runs: Sequence[RunPlan], sets: Sets) -> tuple[list[tuple[RunPlan, Opened]], list[LeftOut]]:
    """The runs that can be run, with their sets, and the others, with the reason."""
    ready: list[tuple[RunPlan, Opened]] = []
    left_out = []
    for run in runs:
        try:
            ready.append((run, sets_of(run, sets)))
        except MoodError as error:
            left_out.append(LeftOut(run.name, WHOLE, str(error)))
    return ready, left_out


def sets_of(run: RunPlan, sets: Sets) -> Opened:
    """The sets of a run that are there.

    Test images and shifted ones that are fit images are left out, and so is an OOD set that is nothing but known
    images; all are said.

    Raises:
        DataError: a known set is missing, or no OOD set of a protocol that needs one is left.
        InputError: fit and test know other classes, the protocol needs labels that are not there, or all images of the
            test set or of a shifted one are known already.
    """
    known = {key_of(data, run.coarse): data for data in (run.fit, run.test)}
    known |= {key_of(data): data for data in run.shifted.values()}
    # Why, and where to get them, is told of each missing set once, whatever runs it has a part in.
    if absent := [data for key, data in known.items() if key in sets.missing]:
        raise DataError(f"known sets of it are missing: {', '.join(absent)}")
    fit, test = (sets.found[key_of(data, run.coarse)] for data in (run.fit, run.test))
    shifted = {name: sets.found[key_of(data)] for name, data in run.shifted.items()}
    names = fit.manifest.class_names
    # A test set without labels is as good where nothing is said about its classes.
    if test.manifest.class_names is not None and names is None:
        raise InputError(f"{fit.name} has no labels, and {test.name} has: {fit.unlabelled}")
    if test.manifest.class_names is not None and not of_classes(test, names):
        raise InputError(f"{fit.name} and {test.name} have other classes; a test set has those of the fit")
    if run.protocol in ("one-class", "pairs") and len(names or ()) < 2:
        raise InputError(
            f"{fit.name} has {len(names or ())} classes; the {run.protocol} protocol needs at least two"
            + (f": {fit.unlabelled}" if names is None else "")
        )
    if run.protocol in ("one-class", "pairs") and test.manifest.labels is None:
        raise InputError(f"{test.name} has no labels: {test.unlabelled}")
    notes = []
    shared = shared_images(test, [fit])
    if shared.all:
        raise InputError(f"all {shared.count} images of its test set, {run.test}, are among the fit images")
    if shared.count:
        notes.append(_left_out(run, shared.count, f"{len(test)} test images"))
        test = _new(test, fit)
    for name, source in shifted.items():
        shared = shared_images(source, [fit, test])
        if shared.all:
            raise InputError(f"all {shared.count} images of the shifted set {name} are fit or test images")
        if fitted := shared_images(source, [fit]).count:
            notes.append(_left_out(run, fitted, f"{len(source)} images of {name}"))
            shifted[name] = _new(source, fit)
        if count := shared.count - fitted:
            notes.append(f"{run.name}: {count} of the {len(source)} images of {name} are, byte for byte, test images.")
    unknown, gone = {}, []
    for name, data in run.unknown.items():
        if key_of(data) in sets.missing:
            gone.append(f"{name} is not there")
            continue
        source = sets.found[key_of(data)]
        shared = shared_images(source, [fit, test, *shifted.values()])
        if shared.all:
            gone.append(f"all {shared.count} images of {name} ({data}) are known images")
            notes.append(f"{run.name}: {name} ({data}) is left out: all of its {shared.count} images are known images.")
            continue
        if shared.count:
            notes.append(
                f"{run.name}: {shared.count} of the {len(source)} images of {name} are, byte for byte, known images; "
                "they are counted as OOD all the same."
            )
        unknown[name] = source
    if run.unknown and not unknown:
        raise DataError(f"no OOD set is left: {'; '.join(gone)}")
    exposed, unshown = {}, {}
    for name, data in run.exposed.items():
        if name not in unknown:
            continue
        if key_of(data) in sets.missing:
            unshown[name] = f"the set {data}, of which images are to be shown, is missing"
            continue
        source = sets.found[key_of(data)]
        tested, known_too = shared_images(source, [unknown[name]]), shared_images(source, [fit, test])
        if tested.all:
            unshown[name] = f"all images of {data} are test images of {name}; without `exposed` the shown ones leave it"
            continue
        if known_too.all:
            unshown[name] = f"all images of {data}, of which some are to be shown as unknown, are known images"
            continue
        for part, whose in ((tested, f"test images of {name}"), (known_too, "known images")):
            if part.count:
                notes.append(
                    f"{run.name}: {part.count} of the {len(source)} images of {data}, of which some are shown, are, "
                    f"byte for byte, {whose}."
                )
        exposed[name] = source
    return Opened(fit, test, shifted, unknown, exposed, unshown, tuple(notes))


def _left_out(run: RunPlan, count: int, of: str) -> str:
    return f"{run.name}: {count} of the {of} are left out: they are, byte for byte, among the fit images."


def _new(source: "Source", fit: "Source") -> "Source":
    """The images of a known set that are not fit images.

    A score is at home with what it was fitted on: all figures would gain by these images.
    """
    known, own = {*fit.manifest.hashes}, source.manifest.hashes
    # An array of hashes would take four bytes for each of their characters.
    return source.select(np.fromiter((digest == NOTHING or digest not in known for digest in own), bool, len(own)))
