"""Each protocol on the images of one run and one network: scores and labels in, figures out."""

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from mood.core.errors import InputError, MoodError
from mood.evaluation import (
    aurc_interval,
    auroc_interval,
    compare_auroc,
    compare_mean_auroc,
    evaluate_sets,
    mean_auroc_interval,
    mean_oscr_interval,
    oscr_interval,
)
from mood.evaluation.protocols import (
    TABLE_8,
    accepted_confusion,
    expose,
    full_spectrum,
    largest_cells,
    linear_probe,
    members,
    one_class,
)
from mood.recipes.bench.first_network import Both
from mood.recipes.bench.networks import HEAD, OWN, predictions
from mood.recipes.bench.plan import PROBE
from mood.recipes.bench.results import LESS_THIS, LESS_THIS_NETWORK, Figure
from mood.recipes.bench.scoring import Scored
from mood.recipes.bench.session import ID, METRICS, Session
from mood.recipes.bench.sets import of_classes

if TYPE_CHECKING:
    from mood.data import Source
    from mood.evaluation import Estimate, MetricsOfSets

Side = tuple[str, np.ndarray]
"""Whose images these are, and their scores."""


def multi_class(session: Session) -> list[Figure]:
    """Each OOD set against the test images; means over near, far and all; paired tests of scores and of networks."""
    kept = session.scores({ID: session.sets.test, **session.sets.unknown})
    found = []
    right = _right(session)
    for text, scored in kept.items():
        found += session.made.figures(f"{text}/metrics", partial(_against, session, text, scored))
        if right is not None:
            found += session.made.figures(f"{text}/selective", partial(_selective, session, text, scored, right))
    if right is not None:
        found.append(session.share_right(ID, right))
    return found + _paired(session, kept) + _paired_networks(session, kept)


def _right(session: Session) -> np.ndarray | None:
    """(n,) whether the network says the label of each test image; None where it cannot, or where there are none."""
    if not session.knows_classes or session.sets.test.manifest.labels is None:
        return None
    return np.asarray(predictions(session.network, session.sets.test) == session.labels(session.sets.test, HEAD))


def _against(session: Session, text: str, scored: Scored) -> list[Figure]:
    known, unknown = scored.values[ID], {name: scored.values[name] for name in session.sets.unknown}
    together = evaluate_sets(
        known,
        unknown,
        _means(session),
        replicates=session.replicates,
        confidence=session.confidence,
        seed=session.seed,
    )
    return _over_sets(session, text, together, partial(_comparisons, scored))


def _over_sets(
    session: Session,
    text: str,
    together: "MetricsOfSets",
    comparisons: Callable[[Sequence[str]], Iterable[tuple[Side, Side]]],
) -> list[Figure]:
    """All metrics of every OOD set, and their means.

    Args:
        session: of the figures.
        text: the score.
        together: what it reaches.
        comparisons: behind the mean AUROC over these sets.
    """
    found = []
    for name, metrics in together.sets.items():
        found += session.measured(text, name, metrics, session.seen(name))
    for key, sets in _means(session).items():
        estimates = dict(together.means[key])
        with suppress(InputError):  # one image has no variance
            estimates["auroc"] = mean_auroc_interval(comparisons(sets), confidence=session.confidence)
        found += [session.estimated(text, key, metric, estimates[metric]) for metric in METRICS]
    return found


def _selective(session: Session, text: str, scored: Scored, right: np.ndarray) -> list[Figure]:
    """What a classifier reaches that may abstain: AURC and its excess on known images, OSCR against unknown ones."""
    known = scored.values[ID]
    found = []
    for metric in ("aurc", "excess_aurc"):
        estimate = aurc_interval(
            known,
            ~right,
            excess=metric == "excess_aurc",
            replicates=session.replicates,
            confidence=session.confidence,
            seed=session.seed,
        )
        found.append(session.estimated(text, ID, metric, estimate, n_id=len(known)))
    for name in session.sets.unknown:
        estimate = oscr_interval(known, right, scored.values[name], confidence=session.confidence)
        more = {"n_id": len(known), "n_ood": len(scored.values[name])}
        found.append(session.estimated(text, name, "oscr", estimate, **more))
    for key, sets in _means(session).items():
        estimate = mean_oscr_interval(
            known, right, [scored.values[name] for name in sets], confidence=session.confidence
        )
        found.append(session.estimated(text, key, "oscr", estimate))
    return found


def _means(session: Session) -> dict[str, tuple[str, ...]]:
    """The means over near, far and all sets that can be taken → their sets."""
    return members(session.run.groups, session.sets.unknown)


def _comparisons(scored: Scored, sets: Sequence[str], versions: Sequence[str] = (ID,)) -> list[tuple[Side, Side]]:
    """Test images, and what else counts as known, against each of several sets; all known ones are the same images."""
    under = scored.values
    return [((ID, under[known]), (name, under[name])) for known in versions for name in sets]


def _as_it_is(scored: Scored) -> Scored:
    return scored


def _keys(session: Session, there: Collection[str]) -> dict[str, tuple[str, ...]]:
    """What a paired test may be on → the sets that it is over: each set that is there, and the means over them."""
    return {name: (name,) for name in session.sets.unknown if name in there} | members(session.run.groups, there)


def _paired(session: Session, kept: Mapping[str, Scored], versions: Sequence[str] = (ID,)) -> list[Figure]:
    """DeLong's test of the first score against each other one, on each set and on the means over sets."""
    return [
        figure
        for key, sets in _keys(session, session.sets.unknown).items()
        for figure in _paired_means(session, kept, key, partial(_comparisons, sets=sets, versions=versions))
    ]


def _paired_means(
    session: Session,
    kept: Mapping[str, Scored],
    key: str,
    comparisons: Callable[[Scored], Iterable[tuple[Side, Side]]],
) -> list[Figure]:
    """The test of the first score against each other one, by their mean AUROC over the same comparisons.

    Args:
        session: of the figures.
        kept: the scores.
        key: what the mean is called.
        comparisons: of one score.
    """
    first, *others = kept or [""]
    found = []
    for text in others:
        sides = comparisons(kept[first]), comparisons(kept[text])
        found += _less_this(session, text, key, LESS_THIS.format(first), *sides)
    return found


def _less_this(
    session: Session,
    text: str,
    key: str,
    metric: str,
    first: Iterable[tuple[Side, Side]],
    this: Iterable[tuple[Side, Side]],
) -> list[Figure]:
    """The mean AUROC of what comes first, less that of this session's score, where it has a variance."""
    try:
        compared = compare_mean_auroc(first, this, confidence=session.confidence)
    except InputError:  # one image has none
        return []
    more = {"low": compared.low, "high": compared.high, "p_value": compared.p_value}
    return [session.figure(text, key, metric, compared.difference, **more)]


def _paired_networks(
    session: Session,
    kept: Mapping[str, Scored],
    versions: Sequence[str] = (ID,),
    as_known: Callable[[Scored], Scored] = _as_it_is,
) -> list[Figure]:
    """The test of the run's first network against this one, score by score, on each set and on the means over sets.

    Args:
        session: of this network.
        kept: its scores.
        versions: what of these counts as known …
        as_known: … once this has put it together.
    """

    def each(both: Both, text: str, metric: str) -> list[Figure]:
        first, this = as_known(both.first), as_known(both.this)
        return [
            figure
            for key, sets in _keys(session, both.rows.keys()).items()
            for figure in _less_this(
                session, text, key, metric, *(_comparisons(side, sets, versions) for side in (first, this))
            )
        ]

    return _beside_the_first(session, kept, each)


def _paired_networks_of_classes(
    session: Session, kept: Mapping[str, Scored], pairs: Sequence[tuple[str, str]]
) -> list[Figure]:
    """The same by the mean AUROC over (known, unknown) classes."""
    labels = session.labels(session.sets.test)

    def each(both: Both, text: str, metric: str) -> list[Figure]:
        of_both = labels[next(iter(both.rows.values()))]
        sides = (_pairs(session, of_both, pairs, side) for side in (both.first, both.this))
        return _less_this(session, text, "mean", metric, *sides)

    return _beside_the_first(session, kept, each)


def _beside_the_first(
    session: Session, kept: Mapping[str, Scored], each: Callable[[Both, str, str], list[Figure]]
) -> list[Figure]:
    """What each score on this network is beside the same on the first one; the first one's are kept for that."""
    first, trial = session.first, session.networks.trial
    names = dict.fromkeys(name for scored in kept.values() for name in scored.values)
    positions = {name: session.positions(name) for name in names}
    if first.keep(trial.plan.name, trial.number, kept, positions):
        return []
    metric = LESS_THIS_NETWORK.format(first.name)
    found = []
    for text, both in first.beside(trial.number, kept, positions):
        found += session.made.figures(f"{text}/{metric}/{[*both.rows]}", partial(each, both, text, metric))
    return found


def one_class_each(session: Session) -> list[Figure]:
    """Every class in turn: the mean over the other classes, all of them pooled, each pair, and the means of these."""
    names = session.class_names
    labels = session.labels(session.sets.test)
    classes = {name: index for index, name in enumerate(names)}
    kept = session.scores_of_classes(classes)
    found = []
    for text, scored in kept.items():
        found += session.made.figures(f"{text}/one class", partial(_each_class, session, text, scored, labels))
    every = [(known, unknown) for known in names for unknown in names if unknown != known]
    comparisons = partial(_pairs, session, labels, every)
    # Of these scores: one that was left out is tried again after a kill.
    found += session.made.figures(f"paired {[*kept]}", partial(_paired_means, session, kept, "mean", comparisons))
    return found + _paired_networks_of_classes(session, kept, every)


def _each_class(session: Session, text: str, scored: Scored, labels: np.ndarray) -> list[Figure]:
    names = session.class_names
    result = one_class(np.stack([scored.values[name] for name in names]), labels)
    found = []
    for index, name in enumerate(names):
        inside = int((labels == index).sum())
        more = {"n_id": inside, "n_ood": len(labels) - inside}
        under = scored.values[name]
        others = [(name, other) for other in names if other != name]
        estimate = _mean_of_pairs(session, scored, labels, others)
        found.append(session.estimated(text, name, "auroc", estimate, **more))
        estimate = auroc_interval(under[labels == index], under[labels != index], confidence=session.confidence)
        found.append(session.estimated(text, name, "auroc_pooled", estimate, **more))
        found += [
            session.figure(text, f"{name} / {other}", "auroc", result.pairs[index, column])
            for column, other in enumerate(names)
            if column != index
        ]
    every = [(known, unknown) for known in names for unknown in names if unknown != known]
    found.append(session.estimated(text, "mean", "auroc", _mean_of_pairs(session, scored, labels, every)))
    # All other classes together are each of them, weighing what it has of their images.
    counts = dict(zip(names, np.bincount(labels, minlength=len(names)).tolist(), strict=True))
    weights = [counts[other] / (len(labels) - counts[known]) for known, other in every]
    estimate = mean_auroc_interval(
        _pairs(session, labels, every, scored), weights=weights, confidence=session.confidence
    )
    found.append(session.estimated(text, "mean", "auroc_pooled", estimate))
    return found


def _mean_of_pairs(
    session: Session, scored: Scored, labels: np.ndarray, pairs: Sequence[tuple[str, str]]
) -> "Estimate":
    """Mean AUROC over (known, unknown) classes."""
    return mean_auroc_interval(_pairs(session, labels, pairs, scored), confidence=session.confidence)


def _pairs(
    session: Session, labels: np.ndarray, pairs: Sequence[tuple[str, str]], scored: Scored
) -> Iterator[tuple[Side, Side]]:
    """The images of each pair of classes (known, unknown), under the score of its known class."""
    rows = {name: np.flatnonzero(labels == index) for index, name in enumerate(session.class_names)}
    for known, unknown in pairs:
        under = scored.values[known]
        yield (known, under[rows[known]]), (unknown, under[rows[unknown]])


def pairs_each(session: Session) -> list[Figure]:
    """Chosen pairs of one-class detection, with DeLong's intervals, and their mean."""
    pairs = session.run.pairs or TABLE_8
    names = session.class_names
    for pair in pairs:
        for name in pair:
            if name not in names or pair[0] == pair[1]:
                of = (
                    ""
                    if session.run.pairs
                    else ", one of Table 8's unless the run says pairs = [[ID class, OOD class], …]"
                )
                raise InputError(
                    f"pair ({pair[0]}, {pair[1]}){of}: two different classes of {', '.join(names)} are needed"
                )
    labels = session.labels(session.sets.test)
    classes = {name: names.index(name) for name in dict.fromkeys(known for known, _ in pairs)}
    kept = session.scores_of_classes(classes)
    found = []
    for text, scored in kept.items():
        found += session.made.figures(f"{text}/pairs", partial(_each_pair, session, text, scored, labels, pairs))
    found += _paired_means(session, kept, "mean", partial(_pairs, session, labels, pairs))
    return found + _paired_networks_of_classes(session, kept, pairs)


def _each_pair(
    session: Session, text: str, scored: Scored, labels: np.ndarray, pairs: Sequence[tuple[str, str]]
) -> list[Figure]:
    found = []
    for known, unknown in pairs:
        under = scored.values[known]
        inside, outside = (under[labels == session.class_names.index(name)] for name in (known, unknown))
        estimate = auroc_interval(inside, outside, confidence=session.confidence)
        more = {"n_id": len(inside), "n_ood": len(outside)}
        found.append(session.estimated(text, f"{known} / {unknown}", "auroc", estimate, **more))
    found.append(session.estimated(text, "mean", "auroc", _mean_of_pairs(session, scored, labels, pairs)))
    return found


def confusion(session: Session) -> list[Figure]:
    """How many images of which unknown class are taken for which known one, in the rival's twelve largest cells.

    The rival's network comes first, and the other networks show the same cells.
    """
    kept = session.scores({ID: session.sets.test, **session.sets.unknown})
    run = session.run
    found: list[Figure] = []
    for name, source in session.sets.unknown.items():
        theirs = tuple(source.manifest.class_names or ())
        if not theirs:
            session.left_out(name, f"{source.name} has no labels, and the confusion is of classes: {source.unlabelled}")
            continue
        labels, predicted = session.labels(source), _classes_of(session, source)
        matrices = {
            text: accepted_confusion(
                scored.values[ID], scored.values[name], labels, predicted, shape=(len(theirs), len(session.class_names))
            )
            for text, scored in kept.items()
        }
        if run.rival_score in matrices and run.rival_network in ("", session.network.plan.name):
            session.cells.setdefault(name, largest_cells(matrices[run.rival_score]))
        cells = session.cells.get(name, ())
        if name not in session.cells:
            session.left_out(
                f"{name}: cells", f"they are the largest of {run.rival}, which is not there; all are counted"
            )
        for text, matrix in matrices.items():
            more = {"n_id": len(kept[text].values[ID]), "n_ood": len(labels), "seen": session.seen(name)}
            for unknown, known in cells:
                key = f"{name}: {theirs[unknown]} → {session.class_names[known]}"
                found.append(session.figure(text, key, "accepted", float(matrix[unknown, known]), **more))
            if cells:
                shown = sum(float(matrix[cell]) for cell in cells)
                found.append(session.figure(text, f"{name}: these cells", "accepted", shown, **more))
            found.append(session.figure(text, f"{name}: all", "accepted", float(matrix.sum()), **more))
    return found


def _classes_of(session: Session, source: "Source") -> np.ndarray:
    """(n,) known classes: what the head says, or the class of the nearest mean of h̃ where it knows others."""
    import torch

    if session.knows_classes:
        return predictions(session.network, source)

    def unit(embedding: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.normalize(embedding.double(), dim=1)

    fit = session.network.shards(session.sets.fit, OWN)
    labels = torch.cat([part.need("labels") for part in fit])
    count = len(session.class_names)
    sums = torch.zeros(count, fit[0].embedding.shape[1], dtype=torch.float64)
    sums.index_add_(0, labels, torch.cat([unit(part.embedding) for part in fit]))
    means = sums / torch.bincount(labels, minlength=count).clamp(min=1)[:, None]
    parts = session.network.shards(source, OWN)
    return np.concatenate([torch.cdist(unit(part.embedding), means).argmin(1).numpy() for part in parts])


def few_shot(session: Session) -> list[Figure]:
    """A linear probe that was shown a few OOD images of each class, beside scores that were shown none."""
    import torch

    network, run = session.network, session.run
    kept: dict[str, Scored] = {}
    if 0 in run.shots:
        kept = session.scores({ID: session.sets.test, **session.sets.unknown})
    known, test = (network.shards(source, OWN) for source in (session.sets.fit, session.sets.test))
    embedding = torch.cat([part.embedding for part in known])
    classes = torch.cat([part.need("labels") for part in known])
    tested = torch.cat([part.embedding for part in test])
    found: list[Figure] = []
    for name, source in session.sets.unknown.items():
        seen = session.seen(name)
        for text, scored in kept.items():
            estimate = auroc_interval(scored.values[ID], scored.values[name], confidence=session.confidence)
            more = {"n_id": len(scored.values[ID]), "n_ood": len(scored.values[name]), "seen": seen}
            found.append(session.estimated(text, f"{name}, 0 shown", "auroc", estimate, **more))
        if name in session.sets.unshown:
            session.left_out(f"{name}, {PROBE}", session.sets.unshown[name])
            continue
        apart = session.sets.exposed.get(name)
        shows = source if apart is None else apart
        if shows.manifest.labels is None:
            session.left_out(
                f"{name}, {PROBE}",
                f"{shows.name} has no labels, and images of each class are shown: {shows.unlabelled}",
            )
            continue
        shown_from = network.shards(shows, OWN)
        others = torch.cat([part.embedding for part in network.shards(source, OWN)])
        pool = torch.cat([part.embedding for part in shown_from])
        labels = torch.cat([part.need("labels") for part in shown_from])

        def probed(shots: int, trial: int) -> list[Figure]:
            shown = torch.from_numpy(expose(labels.numpy(), shots, trial=trial, apart=apart is not None))  # noqa: B023
            probe = linear_probe(embedding, classes, pool[shown], labels[shown])  # noqa: B023
            rest = others[~shown] if apart is None else others  # noqa: B023
            estimate = auroc_interval(probe(tested), probe(rest), confidence=session.confidence)
            more = {"n_id": len(tested), "n_ood": len(rest), "seen": seen, "trial": trial}  # noqa: B023
            key = f"{name}, {shots} shown"  # noqa: B023
            made = [session.estimated(PROBE, key, "auroc", estimate, **more)]
            for text, scored in list(kept.items())[:1]:
                # What is shown to the probe is no test image of the score that it stands against either.
                left = scored.values[name] if apart is not None else scored.values[name][~shown.numpy()]  # noqa: B023
                against = (scored.values[ID], left), (probe(tested), probe(rest))
                compared = compare_auroc(*against, confidence=session.confidence)
                more |= {"low": compared.low, "high": compared.high, "p_value": compared.p_value}
                made.append(session.figure(PROBE, key, LESS_THIS.format(text), compared.difference, **more))
            return made

        for shots in run.shots:
            for trial in range(run.trials if shots else 0):
                try:
                    found += session.made.figures(f"{name}/{shots}/{trial}", partial(probed, shots, trial), "probes")
                except MoodError as error:
                    session.left_out(f"{name}, {PROBE} of {shots}", str(error))
                    break
    return found


def shifted_known(session: Session) -> list[Figure]:
    """Full-spectrum: shifted known images count as known; and how far each shift moves scores and accuracy."""
    from mood.data.shifts import shifted

    made = {shift: shifted(session.sets.test, shift) for shift in session.run.shifts}
    moved = {**made, **session.sets.shifted}
    versions = (ID, *(f"{ID}, {shift}" for shift in moved))
    kept = session.scores(
        {**dict(zip(versions, (session.sets.test, *moved.values()), strict=True)), **session.sets.unknown}
    )
    # Images under a shift are what they were; those of a shifted set are so many more known ones.
    as_known, known = (_as_it_is, versions) if made else (partial(_together, known=versions), (ID,))
    found: list[Figure] = []
    for text, scored in kept.items():
        under = {shift: scored.values[f"{ID}, {shift}"] for shift in moved}

        def spectrum(text: str = text, scored: Scored = scored, under: Any = under) -> list[Figure]:
            together = full_spectrum(
                scored.values[ID],
                under,
                {name: scored.values[name] for name in session.sets.unknown},
                _means(session),
                same_images=bool(made),
                replicates=session.replicates,
                confidence=session.confidence,
                seed=session.seed,
            )
            figures = _over_sets(session, text, together, partial(_comparisons, as_known(scored), versions=known))
            for key, sets in _keys(session, session.sets.unknown).items():
                plain = mean_auroc_interval(_comparisons(scored, sets), confidence=session.confidence)
                figures.append(session.estimated(text, key, "auroc_without_shifts", plain))
            for shift, values in under.items():
                # Where both sides are the same images, they are drawn together.
                sides = (ID, scored.values[ID]), (ID if made else shift, values)
                estimate = mean_auroc_interval([sides], confidence=session.confidence)
                figures.append(session.estimated(text, shift, "auroc_of_shift", estimate))
            return figures

        found += session.made.figures(f"{text}/spectrum", spectrum)
    if session.knows_classes and session.sets.test.manifest.labels is not None:
        for shift, source in {ID: session.sets.test, **moved}.items():
            if of_classes(source, session.class_names):
                right = predictions(session.network, source) == session.labels(source, HEAD)
                found.append(session.share_right(shift, right))
    found += _paired(session, {text: as_known(scored) for text, scored in kept.items()}, known)
    return found + _paired_networks(session, kept, known, as_known)


def _together(scored: Scored, known: Sequence[str]) -> Scored:
    """The same with the images of several known sets as those of one."""
    return replace(scored, values={**scored.values, ID: np.concatenate([scored.values[name] for name in known])})


PROTOCOLS: Mapping[str, Callable[[Session], list[Figure]]] = {
    "multi-class": multi_class,
    "one-class": one_class_each,
    "pairs": pairs_each,
    "confusion": confusion,
    "few-shot": few_shot,
    "full-spectrum": shifted_known,
}
