"""Gram matrices against matrices that are really made, one image and one power at a time."""

import numpy as np
import pytest
from scipy.special import softmax

from mood import scores
from mood.core.errors import InputError
from mood.core.features import Features
from mood.scores._sampling import held_out


def made(rows: int = 120, seed: int = 0, classes: int = 3) -> Features:
    rng = np.random.default_rng(seed)
    logits = rng.normal(0, 2, (rows, classes))
    tokens = [rng.normal(0.2, 1, (rows, 6, 5)), rng.normal(0, 2, (rows, 3, 4))]
    ids = [f"{seed}/{row}" for row in range(rows)]
    return Features(np.zeros((rows, 1)), ids=ids, logits=logits, tokens=tokens)


def gram_rows(tokens, powers):
    """(layers, powers × channels) of one image; each G is made."""
    found = []
    for layer in tokens:
        parts = []
        for power in range(1, powers + 1):
            maps = layer.T.astype(np.longdouble) ** power  # channels × positions
            sums = (maps @ maps.T).sum(1)
            parts.append(np.sign(sums) * np.abs(sums) ** (1 / power))
        found.append(np.concatenate(parts).astype(float))
    return found


def reference(fit, queries, powers, fraction):
    rows = [gram_rows([layer[n].numpy() for layer in fit.tokens], powers) for n in range(len(fit))]
    said = fit.logits.numpy().argmax(1)
    apart = held_out(fit.ids, seed=0, fraction=fraction).numpy()

    def deviation(own, label, sure, layer):
        seen = np.stack([rows[n][layer] for n in range(len(fit)) if said[n] == label and not apart[n]])
        low, high = seen.min(0), seen.max(0)
        off = np.maximum(low - own, 0) / np.abs(low + 1e-6) + np.maximum(own - high, 0) / np.abs(high + 1e-6)
        return off.sum() / sure

    sure = softmax(fit.logits.numpy(), axis=1).max(1)
    scales = [
        np.mean([deviation(rows[n][layer], said[n], sure[n], layer) for n in np.flatnonzero(apart)])
        for layer in range(len(fit.tokens))
    ]
    expected = []
    for n in range(len(queries)):
        own = gram_rows([layer[n].numpy() for layer in queries.tokens], powers)
        p = softmax(queries.logits[n].numpy())
        expected.append(
            sum(deviation(own[layer], p.argmax(), p.max(), layer) / scales[layer] for layer in range(len(own)))
        )
    return expected


@pytest.mark.parametrize(("powers", "fraction"), [(10, 0.1), (1, 0.3), (4, 0.2)])
def test_formula(powers, fraction):
    fit, queries = made(), made(20, seed=1)
    found = scores.fit("gram", fit, powers=powers, held_out=fraction)(queries)
    np.testing.assert_allclose(found.numpy(), reference(fit, queries, powers, fraction), rtol=1e-9)


def test_a_merge_touches_the_classes_of_a_batch_alone():
    """Of 1000 classes a batch has a few, and their ranges may be half a gigabyte."""
    fit, (first, _) = made(classes=40), scores.rounds("gram")
    total, batch = first.collect(fit, None), first.collect(made(9, seed=1, classes=40), None)
    both = first.merge(total, batch)
    assert len(total.ranges) > 20
    assert 0 < len(batch.ranges) < 9
    for label in total.ranges.keys() - batch.ranges.keys():
        assert both.ranges[label] is total.ranges[label]
    # A range that were a part of its batch's would keep all of that in memory.
    assert {held.untyped_storage().nbytes() for held in both.ranges.values()} == {2 * 10 * (5 + 4) * 8}


def test_large_values_do_not_overflow():
    fit = made()
    large = Features(fit.embedding, ids=fit.ids, logits=fit.logits, tokens=[300 * layer for layer in fit.tokens])
    found = scores.fit("gram", large)(large)
    assert found.isfinite().all()


def test_an_image_of_a_class_that_was_never_seen_is_measured_by_the_next_one():
    fit = made()
    fit = fit[fit.logits.argmax(1) != 2]
    queries = made(20, seed=1)
    logits = queries.logits.clone()
    logits[:, 2] = -100
    score = scores.fit("gram", fit)
    assert score(queries).isfinite().all()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"powers": 0}, "powers is 0"),
        ({"held_out": 0.0}, "held_out is 0.0"),
        ({"held_out": 1.0}, "held_out is 1.0"),
        ({"held_out": 1e-9}, "the held-out cut took none of the fit rows"),
        ({"held_out": 1 - 1e-9}, "the held-out cut left none of the fit rows"),
        ({"seed": -1}, "seed is -1"),
    ],
)
def test_what_is_out_of_range_is_refused(options, message):
    with pytest.raises(InputError, match=message):
        scores.fit("gram", made(), **options)


def test_a_layer_that_never_varies_is_not_scaled():
    fit = made()
    still = Features(fit.embedding, ids=fit.ids, logits=fit.logits, tokens=[fit.tokens[0], np.ones((120, 3, 4))])
    score = scores.fit("gram", still)
    assert score.scale[1] == 1
    assert score(still).max() < 1e6


def test_tokens_of_other_widths_are_refused():
    fit, other = made(), made(9, seed=1)
    fewer = Features(other.embedding, logits=other.logits, tokens=other.tokens[:1])
    with pytest.raises(InputError, match=r"tokens have layers of widths \[5\]; \[5, 4\] were expected"):
        scores.fit("gram", fit)(fewer)
    with pytest.raises(InputError, match=r"tokens have layers of widths \[5\]"):
        scores.fit("gram", [fit, fewer])
