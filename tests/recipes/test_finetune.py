"""Fine-tuning: what it learns, that every setting reaches it, what it refuses, and a kill that changes nothing."""

import json
import random
from dataclasses import replace

import pytest
import torch

from mood.core.errors import DataError, InputError, ModelError, OutputError, PromiseError
from mood.data import TrainingBatch, held_out
from mood.models import load_model, open_model, save_model
from mood.recipes.accuracy import accuracy
from mood.recipes.finetune import FinetuneConfig, finetune
from mood.recipes.fit import FitConfig, fit
from mood.recipes.inputs import model_options
from mood.recipes.pretrain import PretrainConfig, pretrain
from mood.recipes.tasks import ClassifierTask
from mood.training import processes


@pytest.fixture
def config(tiny, tmp_path):
    def config(**changes):
        settings = {
            "data": "stripes",
            "output": tmp_path / "out",
            "model": "mood_vit_patch4_32",
            "model_options": tiny,
            "random_weights": True,
            "epochs": 1,
            "batch_size": 8,
            "warmup_epochs": 0.0,
            "held_out": 0.0,
            "workers": 0,
        }
        return FinetuneConfig(**{**settings, **changes})

    return config


def weights(result):
    return (result.output / "model.safetensors").read_bytes()


def contents(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_learns_two_easy_classes_of_sixty_four_images(config, stripes_folder, tmp_path):
    data = str(stripes_folder(tmp_path / "data", 64))
    result = finetune(config(data=data, eval=data, epochs=12, batch_size=16, lr=5e-3, ema=0.8, crop_scale=0.8))
    assert result.metrics["accuracy"] > 0.95
    assert result.metrics["train_accuracy"] > 0.8
    assert f"fine-tuned on 64 images of 2 classes, loss {result.metrics['loss']:.4f}, accuracy" in result.summary()
    rows = [json.loads(line) for line in (result.output / "metrics.jsonl").read_text().splitlines()]
    assert sum("accuracy" in row for row in rows) == 12
    model = load_model(result.output)
    assert model.class_names == ("class 0", "class 1")
    assert model.head().weight.shape == (2, 32)


def test_a_choice_of_embedding_stays_with_the_weights_that_it_was_made_for(config, stripes_folder, tiny, tmp_path):
    start = open_model("mood_vit_patch4_32", options=model_options(tiny), random_weights=True)
    save_model(tmp_path / "start", replace(start, pool="avg", layer="0"))
    data = str(stripes_folder(tmp_path / "data", 16))
    given = {"model": str(tmp_path / "start"), "model_options": (), "random_weights": False}
    model = load_model(finetune(config(data=data, **given)).output)
    assert (model.pool, model.layer) == ("model", "last")


def test_a_pretrained_network_is_fine_tuned_at_another_size(config, stripes, tiny, tmp_path):
    made = PretrainConfig(
        data=("stripes",),
        output=tmp_path / "pretrained",
        model="mood_vit_patch4_32",
        model_options=tiny,
        epochs=1,
        batch_size=8,
        workers=0,
    )
    small = load_model(pretrain(made, source=stripes(32)).output)
    larger = {"model": str(made.output), "random_weights": False, "model_options": ("img_size=32",)}
    model = load_model(finetune(config(**larger), source=stripes(32)).output)
    assert (small.transform.size, model.transform.size) == ((16, 16), (32, 32))
    assert model.module.pos_embed.shape == (1, 64, 32)
    assert "resized from 16 x 16 to 32 x 32 pixels" in model.source


@pytest.mark.parametrize(
    "change",
    [
        {"mixup": 0.8},
        {"cutmix": 1.0},
        {"mixup": 0.8, "cutmix": 1.0},
        {"rand_augment": "rand-m9-mstd0.5-inc1"},
        {"erasing": 1.0},
        {"crop_scale": 1.0},
        {"ema": 0.0},
        {"layer_decay": 1.0},
        {"drop_path": 0.0},
        {"label_smoothing": 0.0},
        {"init_scale": 1.0},
        {"clip": 0.01},
        {"weight_decay": 0.5},
        {"min_lr": 1e-3},
        {"warmup_epochs": 0.5},
        {"seed": 1},
        {"precision": "bf16"},
    ],
    ids="+".join,
)
def test_each_setting_reaches_the_training(config, stripes, tmp_path, change):
    base = {"lr": 5e-3, "ema": 0.5, "drop_path": 0.5, "model_options": ("embed_dim=32", "depth=2", "num_heads=2")}
    source = stripes(32)
    plain = finetune(config(**base, precision="fp32", output=tmp_path / "a"), source=source)
    other = finetune(config(**{**base, "precision": "fp32", **change}, output=tmp_path / "b"), source=source)
    assert weights(plain) != weights(other)
    assert all(torch.isfinite(value).all() for value in load_model(other.output).module.state_dict().values())


def test_an_odd_batch_is_never_mixed_and_refused(config, stripes):
    with pytest.raises(InputError, match="mixup and cutmix take them in pairs: set it to 8"):
        finetune(config(mixup=0.8, batch_size=7), source=stripes(21))


def test_a_batch_that_an_unreadable_image_made_odd_is_trained_on_unmixed(config, stripes_folder, tmp_path):
    folder = stripes_folder(tmp_path / "data", 23)
    (folder / "class 0" / "broken.png").write_bytes(b"no image")
    result = finetune(config(mixup=0.8, batch_size=24, held_out=0.0, data=str(folder)))
    assert (result.images, result.rejected) == (24, 1)


def test_starts_from_the_weights_it_is_given_and_a_small_new_head(config, stripes, tiny_network):
    start = open_model(str(tiny_network)).module.state_dict()
    given = {"model": str(tiny_network), "model_options": (), "random_weights": False}
    result = finetune(config(**given, lr=1e-9, min_lr=0.0, ema=0.0, drop_path=0.0), source=stripes(16, classes=3))
    end = load_model(result.output).module.state_dict()
    for name, value in start.items():
        if not name.startswith("head."):
            torch.testing.assert_close(end[name], value, rtol=0, atol=1e-7)
    assert end["head.weight"].shape == (3, 32)
    assert end["head.weight"].abs().max() < 1e-3
    assert load_model(result.output).source.startswith("mood finetune, 1 epochs, from random weights")


def test_killed_anywhere_it_ends_with_the_bytes_of_an_unbroken_run(config, stripes_folder, tmp_path, kill_when):
    data = str(stripes_folder(tmp_path / "data", 32))
    long = {"data": data, "eval": data, "epochs": 25, "mixup": 0.5, "save_seconds": 0.0}
    at = random.randrange(1, 50)

    def reached():
        steps = [int(path.suffix[1:]) for path in tmp_path.glob("broken/.net.*.partial/scratch/checkpoint.[0-9]*")]
        return bool(steps) and max(steps) >= at

    kill_when(reached, finetune, config(**long, output=tmp_path / "broken" / "net"))
    assert not (tmp_path / "broken" / "net").exists()
    resumed = finetune(config(**long, output=tmp_path / "broken" / "net"))
    whole = finetune(config(**long, output=tmp_path / "whole" / "net"))
    assert resumed.metrics == whole.metrics
    assert contents(tmp_path / "broken") == contents(tmp_path / "whole")


def test_finished_it_is_reused_and_kept_from_other_settings(config, stripes):
    first = finetune(config(), source=stripes(16))
    again = finetune(config(), source=stripes(16))
    assert again.reused
    assert (again.images, again.classes, again.metrics) == (16, 2, first.metrics)
    assert "already finished" in again.summary()
    with pytest.raises(OutputError, match="mixup"):
        finetune(config(mixup=0.1), source=stripes(16))


def test_calibration_images_are_seen_by_no_stage(config, stripes_folder, tmp_path, tiny):
    data = str(stripes_folder(tmp_path / "data", 300))
    cut = {"held_out": 0.2, "seed": 3}
    pretrained = pretrain(
        PretrainConfig(
            data=(data,),
            output=tmp_path / "pretrained",
            model="mood_vit_patch4_32",
            model_options=tiny,
            decoder_width=16,
            epochs=1,
            batch_size=64,
            workers=0,
            **cut,
        )
    )
    given = {"model": str(pretrained.output), "model_options": (), "random_weights": False, "batch_size": 64}
    tuned = finetune(config(data=data, **given, **cut))
    settings = {"data": data, "model": str(tuned.output), "alpha": 0.1, "workers": 0, **cut}
    detector = fit(FitConfig(**settings)).detector
    assert detector.promise.verified

    from mood.data import open_source

    hashes = open_source(data).manifest.hashes
    outside = ~held_out(hashes, seed=3, fraction=0.2)
    model = load_model(tuned.output)
    assert [stage.stage for stage in model.history] == ["pretrain", "finetune"]
    assert load_model(pretrained.output).beside is not None
    assert model.beside is None, "its decoder is of another encoder"
    assert not (tuned.output / "pretext.safetensors").exists()
    assert model.seen_among(hashes).tolist() == outside.tolist()
    assert len(model.seen) == outside.sum() == detector.card["fit_images"]
    assert len(detector.calibration) == 300 - outside.sum()
    for other in ({"seed": 4}, {"held_out": 0.3}):
        with pytest.raises(PromiseError, match="were seen in the training of out.*seed 3 and held_out 0.2"):
            fit(FitConfig(**{**settings, **other}))


def test_what_an_unknown_start_has_seen_stays_unknown(config, stripes, tmp_path, tiny_network):
    from mood.models import save_model

    stranger = replace(open_model(str(tiny_network)), history=None, seen=None)
    save_model(tmp_path / "stranger", stranger)
    given = {"model": str(tmp_path / "stranger"), "model_options": (), "random_weights": False}
    model = load_model(finetune(config(**given), source=stripes(16)).output)
    assert model.history is None
    assert model.seen is None


def test_only_some_classes_are_learned_and_measured(config, stripes_folder, tmp_path):
    data = str(stripes_folder(tmp_path / "data", 60, classes=3))
    result = finetune(config(data=data, eval=data, classes=("class 2", "class 0")))
    assert (result.images, result.classes) == (40, 2)
    model = load_model(result.output)
    assert model.class_names == ("class 0", "class 2")
    assert model.history[0].class_names == ("class 0", "class 2")
    assert "accuracy" in result.metrics


def test_images_that_cannot_be_read_are_left_out(config, stripes_folder, tmp_path):
    folder = stripes_folder(tmp_path / "data", 30)
    (folder / "class 0" / "broken.png").write_bytes(b"no image")
    result = finetune(config(data=str(folder), epochs=2, mixup=0.8))
    assert result.metrics["loss"] > 0


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"random_weights": False}, ModelError, "no weights|could not be fetched"),
        ({"model": "deit_tiny_distilled_patch16_224", "model_options": ("depth=1",)}, ModelError, "more than one head"),
        ({"model": "vgg11", "model_options": ()}, ModelError, "does not take these options"),
        ({"rand_augment": "autumn"}, InputError, "rand_augment is 'autumn'"),
        ({"batch_size": 17}, InputError, "batch_size is 17, and 16 images are left"),
        ({"model_options": ("img_size=30",)}, ModelError, "patches of 4 pixels do not fill 30"),
        (
            {"head_classes": 1},
            InputError,
            "2 classes, and the head would have 1 outputs: set head_classes to at least 2",
        ),
        ({"freeze": 2}, InputError, "freeze is 2; .* from 0 to 1, the blocks"),
        ({"freeze": -2}, InputError, "'freeze' is -2"),
        ({"l2_sp": -1.0}, InputError, "'l2_sp' is -1.0"),
        ({"batch_size": 0}, InputError, "'batch_size' is 0"),
        ({"lr": -1.0}, InputError, "'lr' is -1.0"),
        ({"layer_decay": 1.5}, InputError, "'layer_decay' is 1.5"),
        ({"warmup_epochs": 1.0}, InputError, "warmup_epochs is 1.0; it must be from 0 to below epochs"),
        ({"epochs": 0}, InputError, "'epochs' is 0"),
        ({"held_out": 1.0}, InputError, "'held_out' is 1.0"),
    ],
)
def test_what_cannot_be_done_is_told_and_leaves_nothing_behind(config, stripes, tmp_path, change, error, message):
    with pytest.raises(error, match=message):
        finetune(config(**change), source=stripes(16))
    assert not (tmp_path / "out").exists()


def start_and_end(config, stripes, **changes):
    """Weights before and after, by name."""
    result = finetune(config(ema=0.0, epochs=2, lr=1e-2, **changes), source=stripes(32))
    options = {key: int(value) for key, value in (pair.split("=") for pair in config().model_options)}
    start = open_model("mood_vit_patch4_32", options=options, random_weights=True).module.state_dict()
    end = load_model(result.output).module.state_dict()
    return {name: (value, end[name]) for name, value in start.items() if not name.startswith("head.")}


def test_one_class_is_learned_with_the_head_of_the_whole_set(config, stripes):
    result = finetune(config(head_classes=5, label_smoothing=0.1, init_scale=1.0), source=stripes(32, classes=1))
    model = load_model(result.output)
    assert model.head().weight.shape == (5, 32)
    assert (model.class_names, result.classes) == ((), 1)
    # Equation 1: without smoothing the loss of a single class goes to zero; with it, to the entropy of the target.
    rows = [json.loads(line) for line in (result.output / "metrics.jsonl").read_text().splitlines()]
    assert rows[-1]["loss"] > 0.3
    again = finetune(config(head_classes=5, label_smoothing=0.1, init_scale=1.0), source=stripes(32, classes=1))
    assert (again.reused, again.classes) == (True, 1)


def test_frozen_weights_stay_and_the_others_move(config, stripes):
    pairs = start_and_end(config, stripes, freeze=-1)
    assert all(torch.equal(before, after) for before, after in pairs.values())


def test_the_lowest_blocks_stay_and_the_others_move(config, stripes, tmp_path):
    two = {"model_options": ("embed_dim=32", "depth=2", "num_heads=2", "img_size=16")}
    result = finetune(config(ema=0.0, lr=1e-2, freeze=1, **two), source=stripes(32))
    options = {"embed_dim": 32, "depth": 2, "num_heads": 2, "img_size": 16}
    start = open_model("mood_vit_patch4_32", options=options, random_weights=True).module.state_dict()
    end = load_model(result.output).module.state_dict()
    moved = {name for name, value in start.items() if not torch.equal(value, end[name])}
    assert not any(name.startswith(("pos_embed", "patch_embed", "blocks.0.")) for name in moved)
    assert "blocks.1.attn.qkv.weight" in moved


def test_l2_sp_keeps_the_weights_where_they_started(config, stripes, tmp_path):
    def way(**changes):
        pairs = start_and_end(config, stripes, **changes)
        return sum(float((after - before).square().sum()) for before, after in pairs.values())

    free = way(output=tmp_path / "free", weight_decay=0.0)
    assert way(output=tmp_path / "held", weight_decay=0.0, l2_sp=10.0) < 0.5 * free


def test_images_without_labels_and_of_one_class_are_refused(config, stripes, stripes_folder, tmp_path):
    with pytest.raises(InputError, match="folder of its own"):
        finetune(config(data=str(stripes_folder(tmp_path / "data", 8) / "class 0")))
    with pytest.raises(InputError, match=r"1 class \(class 0\).*head would have 1 outputs.*the head of the whole"):
        finetune(config(), source=stripes(8, classes=1))


def test_images_to_measure_on_must_have_the_same_classes(
    config, stripes, stripes_folder, tmp_path, write_classes, monkeypatch
):
    monkeypatch.setattr("mood.models.open_model", lambda *_, **__: pytest.fail("weights were loaded before"))
    with pytest.raises(InputError, match="none of the 1 classes"):
        finetune(config(eval=str(stripes_folder(tmp_path / "one", 8, classes=1))), source=stripes(16))
    with pytest.raises(InputError, match="has no labels"):
        finetune(config(eval=str(tmp_path / "one" / "class 0")), source=stripes(16))
    turned = write_classes(tmp_path / "turned.parquet", ["class 1", "class 0"])
    with pytest.raises(InputError, match="turned come in another order than those of stripes"):
        finetune(config(eval=str(turned)), source=stripes(16))


@pytest.fixture
def write_classes(stripes):
    import io

    import pyarrow as pa
    import pyarrow.parquet as pq
    from PIL import Image

    def write(path, names):
        source, images = stripes(8), []
        for position in range(8):
            buffer = io.BytesIO()
            Image.fromarray(source.read(position)).save(buffer, "PNG")
            images.append(buffer.getvalue())
        table = pa.table({"image": pa.array(images, pa.binary()), "label": pa.array([0, 1] * 4, pa.int32())})
        pq.write_table(table.replace_schema_metadata({"class_names": json.dumps(names)}), path)
        return path

    return write


def test_accuracy_counts_readable_images_alone(stripes_folder, tiny_network, tmp_path):
    from mood.data import open_source

    folder = stripes_folder(tmp_path / "data", 10)
    model = open_model(str(tiny_network))
    module = model.module
    with torch.no_grad():
        module.head.weight.zero_()
        module.head.bias.copy_(torch.tensor([1.0, 0.0]))
    assert accuracy(module, model.transform, open_source(str(folder)), "fp32", 0) == 0.5
    (folder / "class 1" / "broken.png").write_bytes(b"no image")
    source = open_source(str(folder))
    assert accuracy(module, model.transform, source, "fp32", 0) == 0.5
    with pytest.raises(DataError, match="not one image of data could be read"):
        accuracy(module, model.transform, source.select([source.manifest.ids.index("class 1/broken.png")]), "fp32", 0)


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.5])
def test_the_loss_is_that_of_equation_1(config, smoothing, tmp_path):
    """y_c (1 - alpha) + alpha / N_c over the whole head, also where one label occurs."""
    outputs, labels = 5, torch.tensor([3, 3, 3])
    logits = torch.randn(3, outputs, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    settings = replace(config(), label_smoothing=smoothing)
    alone = processes("auto", "cpu")
    task = ClassifierTask(lambda images: logits, range(256), settings, tmp_path, outputs, None, None, "fp32", {}, alone)
    loss, _ = task.loss(task.module, TrainingBatch((torch.zeros(3, 3, 8, 8),), labels, labels), 0)
    target = torch.full((3, outputs), smoothing / outputs, dtype=torch.float64)
    target[:, 3] += 1 - smoothing
    expected = -(target * logits.log_softmax(dim=1)).sum(1).mean()
    assert loss.item() == pytest.approx(expected.item(), abs=1e-6)
