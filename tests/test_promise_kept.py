"""The promise over many splits of real photographs, for every kind of calibration; benchmarks/promise.py in small."""

import math

import numpy as np
import pytest

import mood
from mood.data import held_out, open_source
from mood.decisions import Conditional, Conformal, Cross, Mondrian, deal, discoveries, false_alarm_range, proven_rate
from mood.recipes.finetune import FinetuneConfig, finetune
from mood.recipes.fit import FitConfig, fit

SPLITS = 400


@pytest.fixture(scope="module")
def known():
    """Features of the clothes that come with mood, which the embedded network has not seen, and of blood cells."""
    clothes = mood.extract(open_source("clothing"), layer="last")
    order = np.random.default_rng(0).permutation(len(clothes))
    cells = mood.extract(open_source("bccd"), layer="last")
    return clothes[order[:300].copy()], clothes[order[300:].copy()], cells


@pytest.fixture(scope="module", params=["mood", "msp", "mood,msp"])
def scored(request, known):
    """Scores of images that nothing was fitted on, their predicted classes, and scores of cells."""
    fitted_on, others, cells = known
    score = mood.scores.fit(request.param, fitted_on)
    classes = others.need("logits").argmax(1).numpy() % 4
    return score(others).numpy(), classes, score(cells).numpy()


def splits(count, n):
    for seed in range(SPLITS):
        order = np.random.default_rng(seed).permutation(count)
        yield order[:n], order[n:]


def at_most(rates, alpha):
    """The mean is at most alpha, but for the error of so many splits."""
    return np.mean(rates) <= alpha + 4 * np.std(rates) / math.sqrt(len(rates))


@pytest.mark.parametrize("n", [50, 100])
def test_on_average_for_one_set_and_by_class(scored, n):
    scores, classes, _ = scored
    marginal, conditional, by_class = {0.05: [], 0.1: []}, [], [[] for _ in range(4)]
    for inside, outside in splits(len(scores), n):
        p = Conformal(scores[inside]).p_values(scores[outside])
        for alpha, rates in marginal.items():
            rates.append((p <= alpha).mean())
        sure = Conditional(scores[inside]).p_values(scores[outside])
        conditional.append((sure <= 0.1).mean() <= 0.1)
        made = Mondrian(scores[inside], classes[inside], alpha=0.1)
        flagged = made.p_values(scores[outside], classes=classes[outside]) <= 0.1
        for label in made.alone:
            if (rows := classes[outside] == label).any():
                by_class[label].append(flagged[rows].mean())
    for alpha, rates in marginal.items():
        assert at_most(rates, alpha)
        assert np.mean(rates) > 0.6 * alpha
    assert np.mean(conditional) >= 0.9 - 4 * math.sqrt(0.09 / SPLITS)
    assert sum(len(rates) > SPLITS / 4 for rates in by_class) >= 2
    for rates in by_class:
        if len(rates) > SPLITS / 4:
            assert at_most(rates, 0.1)


@pytest.mark.parametrize("share", [0.1, 0.5])
def test_false_discoveries_of_mixed_batches(scored, share):
    scores, _, cells = scored
    size = 60
    unknown, wrong = int(share * size), {"bh": [], "storey": []}
    for seed, (inside, outside) in enumerate(splits(len(scores), 180)):
        draws = np.random.default_rng(seed).permutation(len(cells))[:unknown]
        p = Conformal(scores[inside]).p_values(np.concatenate([scores[outside[: size - unknown]], cells[draws]]))
        for method, rates in wrong.items():
            flagged = discoveries(p, 0.2, method=method)
            rates.append(flagged[: size - unknown].sum() / max(1, flagged.sum()))
    for rates in wrong.values():
        assert at_most(rates, 0.2)


def test_folds_of_few_images(known):
    _, others, _ = known
    rates, folds = [], deal(100, 5)
    for inside, outside in splits(len(others), 100):
        if len(rates) == 25:
            break
        parts = [others[inside[folds == fold].copy()] for fold in range(5)]
        _, without = mood.scores.fit_folds("knn", parts, k=3)
        held = np.concatenate([score(part).numpy() for score, part in zip(without, parts, strict=True)])
        new = others[outside.copy()]
        p = Cross(held, folds).p_values(np.stack([score(new).numpy() for score in without], axis=1))
        rates.append((p <= 0.1).mean())
    assert np.mean(rates) <= proven_rate(0.1, 100, 5)
    # Near alpha, where it is known to be.
    assert np.mean(rates) == pytest.approx(0.1, abs=0.05)


def test_from_fine_tuning_to_verdicts_for_msp_as_for_mood(tmp_path):
    """Calibrated on what fine-tuning left out the promise is kept; what it saw would not do, and is refused."""
    clothes = open_source("clothing")
    test = held_out(clothes.manifest.hashes, seed=5, fraction=0.3)
    train, new = clothes.select(~test), clothes.select(test)
    network = finetune(
        FinetuneConfig(
            data="clothing", output=tmp_path / "network", epochs=2, batch_size=32, ema=0.9, held_out=0.4, workers=0
        ),
        source=train,
    ).output
    for score in ("msp", "mood"):
        settings = {"data": "clothing", "model": str(network), "score": score, "alpha": 0.1, "workers": 0}
        detector = fit(FitConfig(**settings, held_out=0.4), data=train).detector
        assert detector.promise.verified
        rate = np.mean(detector(new)["is_ood"].to_pylist())
        low, high = false_alarm_range(0.1, len(detector.calibration), len(new), confidence=0.999)
        assert low <= rate <= high
        with pytest.raises(mood.PromiseError, match="were seen in the training of network"):
            fit(FitConfig(**settings, held_out=0.5), data=train)
