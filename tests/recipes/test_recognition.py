"""Is a classifier better than chance? Against dealing answers out at random, and at the door of `mood fit`."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from mood.core.errors import ModelError
from mood.models import open_model
from mood.recipes.finetune import FinetuneConfig, finetune
from mood.recipes.fit import FitConfig, fit
from mood.recipes.recognition import recognition

TINY = ("embed_dim=32", "depth=1", "num_heads=2", "img_size=16")


def confusion_of(answers, labels, classes):
    table = np.zeros((classes + 1, classes), dtype=np.int64)
    np.add.at(table, (answers, labels), 1)
    return table


def test_chance_is_what_dealing_the_answers_out_at_random_gives():
    draws = np.random.default_rng(0)
    labels = draws.choice(4, 60, p=[0.6, 0.2, 0.15, 0.05])
    answers = draws.choice(5, 60, p=[0.5, 0.1, 0.1, 0.1, 0.2])
    found = recognition(confusion_of(answers, labels, 4))
    dealt = np.array([(draws.permutation(answers) == labels).sum() for _ in range(20000)])
    assert found.right == (answers == labels).sum()
    assert found.chance == pytest.approx(dealt.mean(), abs=0.1)
    assert found.spread == pytest.approx(dealt.std(), rel=0.02)


def test_luck_is_taken_for_knowledge_once_in_a_hundred():
    draws = np.random.default_rng(1)
    taken = [
        recognition(confusion_of(draws.integers(0, 10, 500), draws.integers(0, 10, 500), 10)).beats_chance
        for _ in range(2000)
    ]
    assert 0.002 < np.mean(taken) < 0.025


def test_always_the_same_answer_knows_nothing_however_common_the_class():
    labels = np.array([0] * 95 + [1] * 5)
    found = recognition(confusion_of(np.zeros(100, int), labels, 2))
    assert found.right == 95
    assert not found.beats_chance
    assert recognition(confusion_of(labels, labels, 2)).beats_chance


@pytest.fixture(scope="module")
def learned(stripes, tmp_path_factory):
    """A network that has learned the stripes, and its weights as a foreign file."""
    folder = tmp_path_factory.mktemp("learned")
    settings = FinetuneConfig(
        data="", output=folder / "network", model="mood_vit_patch4_32", model_options=TINY, random_weights=True,
        epochs=30, batch_size=32, lr=3e-3, layer_decay=1.0, drop_path=0.0, ema=0.0, warmup_epochs=1.0, workers=0,
        crop_scale=0.9, init_scale=1.0,
    )  # fmt: skip
    result = finetune(settings, source=stripes(256, 4))
    torch.save(open_model(str(result.output)).module.state_dict(), folder / "good.pth")
    return folder


def settings(checkpoint, **changes):
    start = {"data": "", "model": "mood_vit_patch4_32", "model_options": TINY, "checkpoint": checkpoint}
    return FitConfig(**{**start, "alpha": 0.2, "workers": 0, **changes})


def shuffled_head(learned):
    state = torch.load(learned / "good.pth", weights_only=True)
    state["head.weight"] = state["head.weight"].roll(1, 0)
    state["head.bias"] = state["head.bias"].roll(1, 0)
    torch.save(state, learned / "shuffled.pth")
    return learned / "shuffled.pth"


def test_a_foreign_classifier_that_knows_its_classes_is_let_in_and_its_accuracy_told(learned, stripes):
    result = fit(settings(learned / "good.pth"), data=stripes(200, 4, 5))
    said = result.detector.card["classifier"]
    assert said.startswith("its classifier names ")
    assert float(said.split()[3].rstrip("%")) > 80
    assert f"network: {said}" in result.summary().splitlines()
    assert "recognised as timm" in result.summary()


def test_a_foreign_classifier_at_chance_is_refused_before_anything_is_fitted(learned, stripes, tmp_path, monkeypatch):
    from mood import scores

    monkeypatch.setattr(scores, "fit", lambda *_, **__: pytest.fail("a score was fitted"))
    with pytest.raises(ModelError, match=r"names .*% of .* images \(by chance: .*another order.*--other-classes"):
        fit(settings(shuffled_head(learned), output=tmp_path / "d"), data=stripes(200, 4, 5))
    assert not (tmp_path / "d").exists()


def test_whoever_says_that_the_outputs_are_other_classes_is_believed(learned, stripes):
    other = settings(shuffled_head(learned), other_classes=True)
    assert fit(other, data=stripes(200, 4, 5)).detector.card["classifier"] is None
    reading = fit(replace(other, score="energy"), data=stripes(200, 4, 5)).detector.card["classifier"]
    assert "could not be checked" in reading


def test_other_numbers_of_classes_are_not_compared(learned, stripes):
    source = stripes(200, 2, 5)
    assert fit(settings(learned / "good.pth"), data=source).detector.card["classifier"] is None
    said = fit(settings(learned / "good.pth", score="msp"), data=source)
    assert "its outputs are not the classes of these images" in said.summary()


def test_a_control_and_an_encoder_are_not_asked(stripes):
    control = FitConfig(
        data="", model="mood_vit_patch4_32", model_options=(*TINY, "num_classes=4"), alpha=0.2, workers=0
    )
    card = fit(replace(control, random_weights=True), data=stripes(200, 4, 5)).detector.card
    assert card["classifier"] is None


def test_a_network_of_mood_s_own_at_chance_is_told_and_not_refused(learned, stripes, tmp_path):
    from mood.models import load_model, save_model

    model = load_model(learned / "network")
    with torch.no_grad():
        model.module.head.weight.copy_(model.module.head.weight.roll(1, 0))
        model.module.head.bias.copy_(model.module.head.bias.roll(1, 0))
    save_model(tmp_path / "worse", model)
    result = fit(settings(None, model=str(tmp_path / "worse"), model_options=()), data=stripes(200, 4, 5))
    assert "network: CAUTION: its classifier is at chance" in result.summary()
