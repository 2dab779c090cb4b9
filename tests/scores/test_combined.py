"""Several scores as one: against the rules written out, through disk, and exactly valid once calibrated."""

import math

import numpy as np
import pytest
import scipy.stats
import torch

from mood import scores
from mood.core.errors import ArtifactError, InputError
from mood.core.features import Features
from mood.decisions import Conformal
from mood.scores._combined import PURPOSE, Combined
from mood.scores._sampling import held_out


def reference(world, names, **options):
    """Each part fitted on the rows outside of the second cut, with its scores of the rows inside and of the queries."""
    cut = held_out(world.fit.ids, purpose=PURPOSE)
    columns = {}
    for name in names:
        part = scores.fit(name, world.fit[~cut], head=world.head, **options.get(name, {}))
        columns[name] = part(world.fit[cut]).numpy(), part(world.test).numpy()
    return columns


def test_mean_and_max_of_what_is_standardised(world):
    columns = reference(world, ("mood", "msp"))
    z = [(queries - held.mean()) / held.std() for held, queries in columns.values()]
    for rule, expected in (("mean", np.mean(z, 0)), ("max", np.max(z, 0))):
        found = scores.fit("mood,msp", world.fit, head=world.head, combine=rule)(world.test)
        np.testing.assert_allclose(found.numpy(), expected, rtol=1e-10, atol=1e-10)


def test_fisher_is_that_of_scipy_on_ranks(world):
    columns = reference(world, ("vim", "energy", "knn"), knn={"k": 3})
    p = [[(1 + (held >= s).sum()) / (len(held) + 1) for s in queries] for held, queries in columns.values()]
    expected = [scipy.stats.combine_pvalues(column, method="fisher").statistic for column in zip(*p, strict=True)]
    found = scores.fit("vim, energy, knn", world.fit, head=world.head, combine="fisher", **{"knn.k": 3})(world.test)
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-12)


@pytest.mark.parametrize("rule", ["mean", "max", "fisher"])
def test_it_is_exactly_valid_once_calibrated(rule):
    """Two thresholds flag up to twice alpha; one number flags k / (n + 1) of known rows on average."""
    rng, n, alpha = np.random.default_rng(0), 99, 0.1
    rows = rng.normal(size=(200, 6))
    score = scores.fit("mood,gmm", Features(rows), combine=rule, **{"gmm.components": 1})
    parts = [scores.fit("mood", Features(rows[:, :2])), scores.fit("mood", Features(rows[:, 2:]))]
    one, two = [], []
    for _ in range(400):
        drawn = rng.normal(size=(n + 100, 6))
        values = score(Features(drawn)).numpy()
        one.append((Conformal(values[:n]).p_values(values[n:]) <= alpha).mean())
        each = [
            part(Features(columns)).numpy() for part, columns in zip(parts, (drawn[:, :2], drawn[:, 2:]), strict=True)
        ]
        two.append(np.any([Conformal(v[:n]).p_values(v[n:]) <= alpha for v in each], axis=0).mean())
    error = 4 * np.std(one) / math.sqrt(400)
    # Ranks tie where all of them are largest, and ties flag less.
    assert (0.05 if rule == "fisher" else 0.1 - error) <= np.mean(one) <= 0.1 + error
    assert np.mean(two) > 0.17


def test_it_comes_back_from_plain_data(world):
    made = scores.fit("mood,knn,energy", world.fit, head=world.head, combine="fisher", **{"knn.k": 4})
    tensors, meta = scores.state(made)
    back = scores.restore("mood,knn,energy", tensors, meta)
    assert isinstance(back, Combined)
    assert torch.equal(back(world.test), made(world.test))
    assert meta["combine"] == "fisher"
    assert meta["parts"][1]["k"] == 4


def test_shards_give_what_the_whole_gives(world):
    parts = [world.fit[start : start + 41] for start in range(0, len(world.fit), 41)]
    made = scores.fit("mood,vim,msp", parts, head=world.head)
    whole = scores.fit("mood,vim,msp", world.fit, head=world.head)
    np.testing.assert_allclose(made(world.test).numpy(), whole(world.test).numpy(), rtol=1e-9)


@pytest.mark.parametrize(
    ("part", "options"),
    [("msp", {"temperature": "fitted"}), ("energy", {"temperature": "fitted"}), ("kl_matching", {})],
)
def test_a_part_that_holds_out_images_of_its_own_finds_some(world, part, options):
    columns = reference(world, ("mood", part), **{part: options})
    expected = np.mean([(queries - held.mean()) / held.std() for held, queries in columns.values()], 0)
    given = {f"{part}.{key}": value for key, value in options.items()}
    found = scores.fit(f"mood,{part}", world.fit, head=world.head, **given)(world.test)
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-10, atol=1e-10)


def test_what_the_registry_says_of_it():
    info = scores.info("vim,msp")
    assert set(info.needs) == {"embedding", "logits", "head"}
    assert info.options["combine"] == "mean"
    assert "vim.dim" in info.options or any(key.startswith("vim.") for key in info.options)
    assert info.fitted
    assert "vim,msp" not in scores.available()


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("mood,mood", {}, "different names with a comma between them"),
        ("mood,", {}, "different names"),
        ("mood,mspp", {}, "unknown score 'mspp'; did you mean 'msp'"),
        ("mood,msp", {"combine": "product"}, "combine is 'product'; mean, max, fisher was expected"),
        ("mood,knn", {"k": 5}, "score 'mood,knn' has no option 'k'"),
        ("mood,knn", {"knn.k": "many"}, "knn.k is 'many'; int was expected"),
        ("mood,odin", {}, "score 'odin' moves the images .* set odin.epsilon=0"),
        ("mood,vim", {}, "needs the linear head"),
    ],
)
def test_what_cannot_be_combined(world, name, options, message):
    with pytest.raises(InputError, match=message):
        scores.fit(name, world.fit, **options)


def test_a_part_that_tells_nothing_apart_is_refused(world):
    same = Features(world.rows, logits=np.zeros_like(world.logits), labels=world.labels)
    with pytest.raises(InputError, match="score 'msp' is the same for all .* images that its scale is taken from"):
        scores.fit("mood,msp", same)


def test_no_row_is_left_for_the_reference(world):
    few = world.fit[torch.where(~held_out(world.fit.ids, purpose=PURPOSE))[0][:30].tolist()]
    with pytest.raises(InputError, match="there are no rows to fit on"):
        scores.fit("mood,msp", few)


@pytest.mark.parametrize("change", ["rule", "parts", "reference", "stranger"])
def test_damaged_data_is_refused(world, change):
    tensors, meta = scores.state(scores.fit("mood,msp", world.fit))
    if change == "rule":
        meta["combine"] = "product"
    elif change == "parts":
        meta["parts"] = meta["parts"][:1]
    elif change == "reference":
        del tensors["reference"]
    else:
        tensors["2.mean"] = tensors["reference"]
    with pytest.raises(ArtifactError, match="score 'mood,msp'"):
        scores.restore("mood,msp", tensors, meta)
