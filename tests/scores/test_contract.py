"""What every score promises, checked for every name in the registry."""

import dataclasses
import json
import weakref
from itertools import pairwise

import numpy as np
import pytest
import torch
from safetensors.torch import load, save

from mood import scores
from mood.core.errors import ArtifactError, InputError
from mood.core.features import Features, Head
from mood.scores import _names, _registry

NAMES = tuple(scores.available())
D, K, N, QUERIES = 12, 5, 203, 37
# Neighbours, tails and random features for 203 rows, where the defaults are for thousands.
OPTIONS = {
    "knn": {"k": 10},
    "openmax": {"tail": 3},
    "kpca_corp": {"width": 64},
    "gmm": {"components": 2},
    "isolation_forest": {"trees": 10},
}


def fitted(name: str, *arguments, **options):
    return scores.fit(name, *arguments, **{**OPTIONS.get(name, {}), **options})


def centres(width: int, classes: int) -> torch.Tensor:
    return 3 * torch.randn(classes, width, generator=torch.Generator().manual_seed(99), dtype=torch.float64)


def made(rows: int = N, *, seed: int = 0, width: int = D, classes: int = K, dtype: torch.dtype = torch.float64):
    """Separated classes on a shifted, unevenly scaled cloud, with the logits of `head`."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(rows)[torch.randperm(rows, generator=generator)] % classes
    noise = torch.randn(rows, width, generator=generator, dtype=torch.float64) * torch.linspace(0.5, 2, width)
    embedding = (centres(width, classes)[labels] + noise + 1).to(dtype)
    linear = head(width, classes)
    logits = embedding.double() @ linear.weight.T + linear.bias
    # Inner layers are parts of the embedding; tokens are four positions around it.
    offsets = torch.randn(rows, 4, width, generator=generator, dtype=torch.float64)
    tokens = embedding.double()[:, None] + 0.3 * offsets
    return Features(
        embedding,
        ids=[f"{seed}/{row}" for row in range(rows)],
        logits=logits.to(dtype),
        labels=labels,
        layers=[embedding[:, : width // 2 + 1], embedding],
        reconstruction=embedding.double().square().mean(1).to(dtype),
        tokens=[tokens.to(dtype), tokens[:, :2].to(dtype)],
    )


COLUMNS = ("logits", "labels", "layers", "reconstruction", "tokens")


def columns(features: Features, names) -> dict:
    return {name: getattr(features, name) for name in names if name in COLUMNS}


def head(width: int = D, classes: int = K) -> Head:
    """One that puts most rows into their classes."""
    weight = centres(width, classes) / 3
    return Head(weight, -1.5 * weight.square().sum(1) - weight.sum(1))


def shards(features: Features, cuts: tuple[int, ...] = (1, 60, 61, 150)) -> list[Features]:
    bounds = [0, *cuts, len(features)]
    return [features[start:stop] for start, stop in pairwise(bounds)]


def close(found: torch.Tensor, expected: torch.Tensor) -> None:
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("rows", [QUERIES, 1, 0])
def test_shape_dtype_and_finiteness(name, rows):
    found = fitted(name, made(), head=head())(made(rows, seed=1))
    assert found.shape == (rows,)
    assert found.dtype == torch.float64
    assert found.isfinite().all()
    assert not found.requires_grad


@pytest.mark.parametrize("name", NAMES)
def test_labels_are_indices_of_logits_where_they_are_compared_and_any_elsewhere(name):
    rows = made()
    other = Features(
        rows.embedding, ids=rows.ids, labels=1000 + 7 * rows.labels, **columns(rows, set(COLUMNS) - {"labels"})
    )
    if scores.compares(name):
        with pytest.raises(InputError, match=r"label 10\d\d in row 0 has no logit: there are 5"):
            fitted(name, other, head=head())
        return
    close(
        fitted(name, other, head=head())(made(QUERIES, seed=1)), fitted(name, rows, head=head())(made(QUERIES, seed=1))
    )


@pytest.mark.parametrize(
    ("name", "options", "parts"),
    [
        ("she", {}, ("she",)),
        ("openmax", {}, ("openmax",)),
        ("msp", {"temperature": 2.0}, ()),
        ("msp", {"temperature": "fitted"}, ("msp",)),
        ("mahalanobis,msp", {}, ()),
        ("mahalanobis, energy", {"energy.temperature": "fitted"}, ("energy",)),
        ("mood,she,openmax", {}, ("she", "openmax")),
    ],
)
def test_which_parts_compare_labels_with_logits(name, options, parts):
    assert scores.compares(name, **options) == parts


@pytest.mark.parametrize("name", NAMES)
def test_a_row_is_scored_alone(name):
    score, queries = fitted(name, made(), head=head()), made(QUERIES, seed=1)
    whole = score(queries)
    order = torch.randperm(QUERIES, generator=torch.Generator().manual_seed(2))
    close(score(queries[order]), whole[order])
    for size in (1, 10):
        close(torch.cat([score(queries[start : start + size]) for start in range(0, QUERIES, size)]), whole)


@pytest.mark.parametrize("name", NAMES)
def test_blocks_do_not_show(name, monkeypatch):
    fit_rows, queries = made(), made(QUERIES, seed=1)
    whole = fitted(name, fit_rows, head=head())(queries)
    monkeypatch.setattr("mood.scores._rows.BLOCK", 64)
    close(fitted(name, fit_rows, head=head())(queries), whole)


@pytest.mark.parametrize("name", NAMES)
def test_shards_merge_to_the_whole(name):
    fit_rows, queries = made(), made(QUERIES, seed=1)
    expected = fitted(name, fit_rows, head=head())(queries)
    cut = shards(fit_rows)
    close(fitted(name, cut, head=head())(queries), expected)
    close(fitted(name, [*cut, fit_rows[:0]], head=head())(queries), expected)
    close(fitted(name, [fit_rows[:0], *cut], head=head())(queries), expected)
    close(fitted(name, cut[::-1], head=head())(queries), expected)


@pytest.mark.parametrize("name", NAMES)
def test_shards_sorted_by_class_merge_to_the_whole(name):
    fit_rows, queries = made(), made(QUERIES, seed=1)
    by_class = [fit_rows[fit_rows.labels == label] for label in (3, 0, 4, 1, 2)]
    close(
        fitted(name, by_class, head=head())(queries),
        fitted(name, fit_rows, head=head())(queries),
    )


@pytest.mark.parametrize("name", NAMES)
def test_the_same_shards_give_the_same_bytes_whoever_calls_the_rounds(name):
    """Another engine collects in any order, merges in shard order, and gets what `fit` gets."""
    cut = shards(made())
    reached = None
    for step in scores.rounds(name, head(), **OPTIONS.get(name, {})):
        collected = {index: step.collect(cut[index], reached) for index in (3, 1, 4, 0, 2)}
        merged = collected[0]
        for index in range(1, len(cut)):
            merged = step.merge(merged, collected[index])
        reached = step.finish(merged, reached)
    once = fitted(name, cut, head=head())
    for other in (fitted(name, cut, head=head()), reached):
        if other is not None:
            assert save_bytes(other) == save_bytes(once)


def test_what_was_merged_is_let_go_before_the_next_shard(monkeypatch):
    """Statistics of 1000 classes may be gigabytes: one total lives while a shard is collected, two in a merge."""

    class Statistics:
        pass

    alive, most = weakref.WeakSet(), {"collect": 0, "merge": 0}

    def made_in(step):
        most[step] = max(most[step], len(alive))
        statistics = Statistics()
        alive.add(statistics)
        return statistics

    step = scores.Round(lambda *_: made_in("collect"), lambda *_: made_in("merge"), lambda *_: "a score")
    monkeypatch.setattr("mood.scores._fitting.rounds", lambda *_, **options: (step,))
    assert scores.fit("mood", shards(made())) == "a score"
    assert most == {"collect": 1, "merge": 2}


def save_bytes(score) -> tuple[bytes, str]:
    tensors, meta = scores.state(score)
    return save(tensors), json.dumps(meta)


@pytest.mark.parametrize("name", NAMES)
def test_state_and_restore_are_exact(name):
    score, queries = fitted(name, made(), head=head()), made(QUERIES, seed=1)
    tensors, meta = scores.state(score)
    again = scores.restore(name, load(save(tensors)), json.loads(json.dumps(meta)))
    assert type(again) is type(score)
    assert torch.equal(again(queries), score(queries))


@pytest.mark.parametrize("name", NAMES)
def test_a_planted_outlier_scores_higher(name):
    """Far from every ID image, in a direction that none takes, and with logits that say nothing."""
    # Elsewhere in angle and closer to the origin than any fit row: flat logits for the head, alone for the distances.
    fit_rows = made()
    away = torch.linalg.svd(fit_rows.embedding).Vh[-1:] * 0.5 * fit_rows.embedding.norm(dim=1).mean()
    outlier = Features(
        away,
        logits=torch.zeros(1, K, dtype=torch.float64),
        layers=[away[:, : D // 2 + 1], away],
        reconstruction=[1e3],
        tokens=[away[:, None].expand(-1, 4, -1), away[:, None].expand(-1, 2, -1)],
    )
    score = fitted(name, fit_rows, head=head())
    assert score(outlier)[0] > score(made(QUERIES, seed=1)).quantile(0.9)


@pytest.mark.parametrize("name", NAMES)
def test_a_missing_column_is_named_at_fit(name):
    info = scores.available()[name]
    whole = made()
    for column in set(info.needs) - {"embedding", "head"}:
        rest = columns(whole, set(COLUMNS) - {column})
        with pytest.raises(InputError, match=f"'{column}' is missing"):
            fitted(name, Features(whole.embedding, **rest), head=head())
    if "head" in info.needs:
        with pytest.raises(InputError, match=f"'{name}' needs the linear head"):
            fitted(name, whole)


@pytest.mark.parametrize("name", NAMES)
def test_options_out_of_range_are_refused_before_a_row_is_read(name):
    info = scores.available()[name]
    scores.check(name)
    for option in info.options:
        with pytest.raises(InputError, match=option):
            scores.rounds(name, head(), **{option: -1})
        if "head" not in info.needs:
            with pytest.raises(InputError, match=option):
                scores.check(name, **{option: -1})


@pytest.mark.parametrize("name", [name for name in NAMES if "logits" in scores.available()[name].needs])
def test_a_missing_column_is_named_at_scoring(name):
    with pytest.raises(InputError, match="'logits' is missing"):
        fitted(name, made(), head=head())(Features(made().embedding))


@pytest.mark.parametrize("name", NAMES)
def test_what_is_not_needed_is_not_asked_for(name):
    """`needs` is the whole truth: labels and head never at scoring, nothing undeclared at the fit."""
    needs, whole = scores.available()[name].needs, made()
    given = columns(whole, needs)
    score = fitted(name, Features(whole.embedding, **given), head=head() if "head" in needs else None)
    given.pop("labels", None)
    assert len(score(Features(whole.embedding, **given))) == N


@pytest.mark.parametrize("name", NAMES)
def test_inputs_are_left_as_they_were(name):
    fit_rows, queries, linear = made(), made(QUERIES, seed=1), head()
    before = [column.clone() for column in (*fit_rows.columns.values(), *queries.columns.values(), linear.weight)]
    fitted(name, fit_rows, head=linear)(queries)
    after = (*fit_rows.columns.values(), *queries.columns.values(), linear.weight)
    assert all(torch.equal(one, other) for one, other in zip(before, after, strict=True))


@pytest.mark.parametrize("name", NAMES)
def test_a_score_cannot_be_changed_and_a_second_fit_leaves_the_first(name):
    queries = made(QUERIES, seed=1)
    first = fitted(name, made(), head=head())
    expected = first(queries)
    fitted(name, made(seed=5), head=head())
    assert torch.equal(first(queries), expected)
    with pytest.raises(dataclasses.FrozenInstanceError):
        setattr(first, dataclasses.fields(first)[0].name, None)


@pytest.mark.parametrize("name", NAMES)
def test_a_thousand_classes(name):
    fit_rows = made(2500, width=24, classes=1000)
    found = fitted(name, fit_rows, head=head(24, 1000))(made(QUERIES, seed=1, width=24, classes=1000))
    assert found.shape == (QUERIES,)
    assert found.isfinite().all()


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.bfloat16])
def test_narrow_floats_are_widened_before_any_arithmetic(name, dtype):
    """The score of float16 features is the score of the same numbers in float64."""
    narrow_fit, narrow = made(dtype=dtype), made(QUERIES, seed=1, dtype=dtype)
    wide_fit, wide = (
        Features(
            f.embedding.double(),
            ids=f.ids,
            logits=f.logits.double(),
            labels=f.labels,
            layers=[layer.double() for layer in f.layers],
            reconstruction=f.reconstruction.double(),
            tokens=[layer.double() for layer in f.tokens],
        )
        for f in (narrow_fit, narrow)
    )
    found = fitted(name, narrow_fit, head=head())(narrow)
    assert found.dtype == torch.float64
    close(found, fitted(name, wide_fit, head=head())(wide))


@pytest.mark.parametrize("name", NAMES)
def test_its_memory_is_stated(name):
    """For 1000 classes × 1M images; a score that learns nothing, or keeps one number an image, keeps nothing."""
    info = scores.available()[name]
    assert bool(info.memory) == info.fitted
    assert info.memory.endswith(".") or not info.fitted


LABELLED = [name for name in NAMES if "labels" in scores.available()[name].needs]
LOGITS = {name for name in NAMES if "logits" in scores.available()[name].needs}


@pytest.mark.parametrize("name", [name for name in LABELLED if name not in LOGITS])
def test_labels_may_skip_classes_and_be_in_any_range(name):
    fit_rows, queries = made(), made(QUERIES, seed=1)
    labels = torch.tensor([900, 3, 10**12, 40, 7])[fit_rows.labels]
    renamed = Features(fit_rows.embedding, labels=labels, layers=fit_rows.layers)
    close(fitted(name, renamed)(queries), fitted(name, fit_rows)(queries))


@pytest.mark.parametrize("name", LABELLED)
def test_negative_labels_are_refused(name):
    labels = torch.zeros(4, dtype=torch.int64)
    labels[2] = -1
    with pytest.raises(InputError, match="label -1 in row 2 is negative"):
        fitted(name, Features(torch.randn(4, 3), logits=torch.randn(4, 2), labels=labels, layers=[torch.randn(4, 3)]))


@pytest.mark.parametrize("name", [name for name in LABELLED if name in LOGITS])
def test_labels_outside_the_head_are_refused(name):
    with pytest.raises(InputError, match="label 2 in row 1 has no logit: there are 2"):
        fitted(name, Features(torch.randn(3, 3), logits=torch.randn(3, 2), labels=[1, 2, 0]))


COMPARES_CLASSES = {
    "logits": {"entropy", "fdbd", "gen", "gradnorm", "kl_matching", "msp", "odin"},
    "labels": {"relative_mahalanobis", "relative_mahalanobis++"},
}
"""Whose value would be the same for every image, were there one of these alone."""


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("alone", ["logits", "labels"])
def test_one_class_alone_leaves_a_score_that_varies_or_is_refused(name, alone):
    if alone == "logits":
        fit_rows, queries, linear = made(classes=1), made(QUERIES, seed=1, classes=1), head(classes=1)
        refused = name in COMPARES_CLASSES["logits"] | COMPARES_CLASSES["labels"]
    else:
        whole, queries, linear = made(), made(QUERIES, seed=1), head()
        one_label = columns(whole, set(COLUMNS)) | {"labels": torch.zeros(N, dtype=torch.int64)}
        fit_rows = Features(whole.embedding, ids=whole.ids, **one_label)
        refused = name in COMPARES_CLASSES["labels"]
    if refused:
        with pytest.raises(InputError, match="for every image; take"):
            fitted(name, fit_rows, head=linear)
    else:
        assert fitted(name, fit_rows, head=linear)(queries).std() > 1e-9


FITTED = [name for name in NAMES if scores.available()[name].fitted]


@pytest.mark.parametrize("name", FITTED)
def test_one_dimension(name):
    fit_rows, queries = made(width=1), made(QUERIES, seed=1, width=1)
    assert fitted(name, fit_rows, head=head(1))(queries).isfinite().all()


@pytest.mark.parametrize("name", FITTED)
def test_another_width_is_refused(name):
    score = fitted(name, made(), head=head())
    needs = scores.available()[name].needs
    if "embedding" in needs:
        column, found, size, other = "embedding", 7, D, {"width": 7}
    elif "layers" in needs:
        column, found, size, other = "layers.0", 4, D // 2 + 1, {"width": 7}
    else:
        column, found, size, other = "logits", 7, K, {"classes": 7}
    with pytest.raises(InputError, match=f"{column} has {found} values per row; {size} were expected"):
        score(made(3, **other))
    with pytest.raises(InputError, match=f"{column} has {found} values per row"):
        fitted(name, [made(), made(**other)], head=head())


@pytest.mark.parametrize("name", FITTED)
def test_no_rows_are_refused(name):
    with pytest.raises(InputError, match="rows"):
        fitted(name, made()[:0], head=head())
    with pytest.raises(InputError, match="no shards"):
        fitted(name, [], head=head())


@pytest.mark.parametrize("name", [*NAMES, "mood,knn"])
def test_something_else_than_features_is_refused(name):
    with pytest.raises(
        InputError, match=r"^Tensor \(3, 4\) came where Features are expected: mood.Features\(embedding="
    ):
        scores.fit(name, [torch.randn(3, 4)], head=head())
    for given, told in ((np.zeros((3, 4)), r"ndarray \(3, 4\)"), (torch.zeros(3, 4), r"Tensor \(3, 4\)"), ("a", "str")):
        with pytest.raises(InputError, match=f"^{told} came where Features, or an iterable of them, are expected"):
            scores.fit(name, given, head=head())
        score = fitted(name, made(), head=head())
        with pytest.raises(InputError, match=f"^{told} came where Features are expected"):
            score(given)


@pytest.mark.parametrize("given", [np.zeros((3, 4)), 3, None])
def test_something_else_than_features_is_refused_by_folds_and_choice_too(given):
    message = "came where Features, or an iterable of them, are expected"
    with pytest.raises(InputError, match=message):
        scores.fit_folds("mood", [given, given])
    with pytest.raises(InputError, match=message):
        scores.select("mood", given)
    with pytest.raises(InputError, match=message):
        scores.norm_dispersion(given)
    for refused in (lambda: scores.fit_folds("mood", [[given], [given]]), lambda: scores.select("mood", [given])):
        with pytest.raises(InputError, match="came where Features are expected"):
            refused()


def test_an_iterator_is_enough_for_one_round_and_refused_for_two():
    close(scores.fit("mood", iter(shards(made())))(made(3)), scores.fit("mood", made())(made(3)))
    with pytest.raises(InputError, match="reads the fit data 2 times"):
        scores.fit("vim", iter(shards(made())), head=head())


def test_the_names_are_those_of_the_registry_and_are_known_before_it_is_loaded():
    assert _names.names() == NAMES
    for name in (*NAMES, "mood, knn", "mood,"):
        scores.check_name(name)
    for name, word in (("mahalanobiss", "mahalanobiss"), ("mood, knnn", "knnn")):
        with pytest.raises(InputError, match=f"^unknown score '{word}'; did you mean '{word[:-1]}'"):
            scores.check_name(name)


def test_every_name_of_the_room_is_there():
    assert all(hasattr(scores, name) for name in scores.__all__)
    assert dir(scores) == scores.__all__
    with pytest.raises(AttributeError, match="no attribute 'fitt'"):
        _ = scores.fitt


def test_an_unknown_score_names_the_nearest():
    with pytest.raises(InputError, match=r"unknown score 'mahalonobis'; did you mean 'mahalanobis'\?"):
        scores.fit("mahalonobis", made())
    with pytest.raises(InputError, match=r"known: .*energy"):
        scores.fit("os.system", made())


@pytest.mark.parametrize("name", NAMES)
def test_an_unknown_option_names_the_known_ones(name):
    with pytest.raises(InputError, match=f"score {name!r} has no option 'zzz'; known: ".replace("+", r"\+")):
        fitted(name, made(), head=head(), zzz=1)


def test_an_unknown_option_names_the_nearest():
    with pytest.raises(InputError, match="did you mean 'temperature'"):
        scores.fit("energy", made(), temprature=2)


@pytest.mark.parametrize("name", ["energy", "entropy", "gradnorm", "msp"])
@pytest.mark.parametrize("value", [0, -1.0, float("inf"), float("nan"), "2", True])
def test_a_temperature_out_of_range_is_refused(name, value):
    with pytest.raises(
        InputError, match=r"temperature is .*; (a number above 0, or 'fitted',|float or str) was expected"
    ):
        fitted(name, made(), temperature=value)


@pytest.mark.parametrize("name", NAMES)
def test_restore_refuses_what_is_not_the_score(name):
    tensors, meta = scores.state(fitted(name, made(), head=head()))
    with pytest.raises(ArtifactError, match=f"score {name!r} consists of".replace("+", r"\+")):
        scores.restore(name, {**tensors, "more": torch.zeros(1)}, meta)
    for field in tensors:
        with pytest.raises(ArtifactError, match="consists of"):
            scores.restore(name, {other: value for other, value in tensors.items() if other != field}, meta)
    with pytest.raises(InputError, match="unknown score"):
        scores.restore("mood.scores.mood.Mood", tensors, meta)


def test_restore_refuses_unknown_options():
    with pytest.raises(InputError, match="no option 'zzz'"):
        scores.restore("energy", {}, {"zzz": 1})


@pytest.mark.parametrize("name", NAMES)
def test_the_registry_says_what_one_must_know(name):
    info = scores.available()[name]
    assert info.summary.endswith(".")
    assert "\n" not in info.summary
    assert any(character.isdigit() for character in info.source)
    assert set(info.needs) <= {"embedding", "head", *COLUMNS}
    json.dumps(dict(info.options))


def test_a_name_is_registered_once():
    with pytest.raises(InputError, match="'msp' is registered twice"):
        _registry.stateless("msp", needs=("logits",), source="nobody, 2000")(lambda features: None)


def test_numpy_in_torch_out():
    rng = np.random.default_rng(0)
    score = scores.fit("mood", Features(embedding=rng.normal(size=(50, 4)).astype(np.float32)))
    assert score(Features(embedding=rng.normal(size=(3, 4)))).shape == (3,)
