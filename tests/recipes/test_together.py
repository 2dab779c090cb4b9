"""Several processes, added gradients and streams: the network of one process, and a kill that changes nothing."""

import json
import os
import shutil
import signal
import subprocess
import sys
import tarfile
import time
from pathlib import Path

import pytest
from safetensors.torch import load_file

from mood.core.errors import InputError
from mood.data import held_out, open_source
from mood.models import image_keys, load_model
from mood.recipes.finetune import FinetuneConfig, finetune
from mood.recipes.pretrain import PretrainConfig, pretrain
from mood.recipes.tokenizer import TokenizerConfig, tokenizer
from mood.training import checkpoint

NETWORK = {
    "model": "vit_tiny_patch16_224",
    "model_options": ("img_size=16", "patch_size=4", "embed_dim=32", "depth=2", "num_heads=2"),
    "epochs": 2,
    "batch_size": 16,
    "warmup_epochs": 0.0,
    "workers": 0,
    "precision": "fp32",
    "device": "cpu",
    "drop_path": 0.5,
    "clip": 1.0,
    "seed": 1,
}
PRETEXTS = {
    "mae": {"decoder_width": 16, "decoder_heads": 2},
    "beit": {},
    "simmim": {},
    "moco_v3": {"hidden_width": 32},
    "supcon": {},
    "classification": {},
}
FINETUNE = {"random_weights": True, "ema": 0.9, "layer_decay": 0.7}
TOKENIZER = {
    "image_size": (16,),
    "grid": (4,),
    "codes": 8,
    "width": 4,
    "code_width": 8,
    "measured": 0.3,
    "epochs": 1,
} | {
    "batch_size": 16,
    "workers": 0,
    "device": "cpu",
}
# Long enough to be killed in the middle.
LONG = {"epochs": 15, "save_seconds": 0.0}
MIXED = {"mixup": 0.8, "cutmix": 1.0}
SGD = {"optimiser": "sgd", "base_lr": 0.1}

PROGRAM = """
import json, os, pathlib, sys
import typer
from mood.cli.running import run
from mood.recipes.finetune import FinetuneConfig, finetune
from mood.recipes.pretrain import PretrainConfig, pretrain
from mood.recipes.tokenizer import TokenizerConfig, tokenizer

RECIPES = {
    "pretrain": (PretrainConfig, pretrain),
    "finetune": (FinetuneConfig, finetune),
    "tokenizer": (TokenizerConfig, tokenizer),
}
code = 0
pathlib.Path(sys.argv[1]).with_name(f"{os.getpid()}.pid").touch()
for name, settings in json.loads(pathlib.Path(sys.argv[1]).read_text()):
    config, recipe = RECIPES[name]
    try:
        run(lambda: config(**settings), recipe, debug=False)
    except typer.Exit as end:
        code = end.exit_code
sys.exit(code)
"""


def launched(folder, cases):
    """Two processes of torchrun, which do the cases one after the other; what one is told is not the end of the others.

    A start costs seconds, so that of a test is shared wherever it can be.
    """
    (folder / "cases.json").write_text(json.dumps(cases, default=str))
    (folder / "program.py").write_text(PROGRAM)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    return subprocess.Popen(
        [*command, str(folder / "program.py"), str(folder / "cases.json")],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def together(folder, cases):
    process = launched(folder, cases)
    told, _ = process.communicate(timeout=900)
    return process.returncode, told


def losses(folder):
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [(row["step"], pytest.approx(row["loss"], rel=1e-4)) for row in rows if "loss" in row]


def weights(folder):
    return load_file(folder / "model.safetensors")


def assert_alike(one, other):
    """Losses and weights, up to how Adam magnifies the rounding of gradients that are almost nothing."""
    assert losses(one) == losses(other)
    found = weights(other)
    for name, value in weights(one).items():
        off = (value - found[name]).abs()
        assert (off > 2e-5).float().mean() < 0.02, (name, off.max())


@pytest.fixture(scope="module")
def data(stripes_folder, tmp_path_factory):
    folder = stripes_folder(tmp_path_factory.mktemp("together") / "data", 42, classes=4)
    # A batch with it has a part that is smaller than the other.
    (folder / "class 0" / "broken.png").write_bytes(b"no image")
    return folder


@pytest.fixture(scope="module")
def readable(stripes_folder, tmp_path_factory):
    """Mixup pairs the images of a batch, and leaves out what cannot be paired: here all can."""
    return stripes_folder(tmp_path_factory.mktemp("together") / "readable", 40, classes=4)


@pytest.fixture(scope="module")
def shards(data, tmp_path_factory):
    """The same images as tar shards of 12."""
    folder = tmp_path_factory.mktemp("shards")
    files = sorted(path for path in data.rglob("*.png"))
    for shard in range(4):
        with tarfile.open(folder / f"{shard}.tar", "w") as archive:
            for path in files[shard * 12 : shard * 12 + 12]:
                archive.add(path, f"{path.parent.name}-{path.name}")
                label = folder / "label"
                label.write_text(path.parent.name[-1])
                archive.add(label, f"{path.parent.name}-{path.stem}.cls")
    return str(folder / "*.tar")


def case(folder, name, recipe, images, **changes):
    chosen = {"mae": {"pretext": "mae"}}
    settings = {**NETWORK, "output": folder / name}
    if recipe == "tokenizer":
        return ("tokenizer", {"data": (str(images),), "output": folder / name, **TOKENIZER, **changes})
    if recipe == "finetune":
        return ("finetune", {**settings, "data": str(images), "eval": str(images), **FINETUNE, **changes})
    pretext = {"pretext": recipe, **PRETEXTS[recipe], **chosen.get(recipe, {})}
    if recipe == "beit":
        pretext["tokenizer"] = folder / "tokenizer"
    return ("pretrain", {**settings, "data": (str(images),), **pretext, **changes})


def done(case):
    recipe, settings = case
    if recipe == "tokenizer":
        return tokenizer(TokenizerConfig(**settings))
    if recipe == "finetune":
        return finetune(FinetuneConfig(**settings))
    return pretrain(PretrainConfig(**settings))


ALL = (*PRETEXTS, "finetune")


@pytest.fixture(scope="module")
def of_two(data, readable, shards, tokenizer_folder, tmp_path_factory):
    """Everything that two processes train, and what they refuse, in one start: its folder, exit code and words."""
    folder = tmp_path_factory.mktemp("two")
    shutil.copytree(tokenizer_folder, folder / "tokenizer")
    cases = [case(folder, f"{name}-ddp", name, data, strategy="ddp") for name in ALL]
    cases += [
        case(folder, f"{name}-fsdp", name, data, strategy="fsdp") for name in ("mae", "beit", "moco_v3", "finetune")
    ]
    cases += [case(folder, "accumulated", "beit", data, accumulate=2, checkpoint_activations=True)]
    cases += [case(folder, f"sgd-{kind}", "supcon", data, strategy=kind, **SGD) for kind in ("ddp", "fsdp")]
    cases += [case(folder, "streamed", "classification", shards, stream=True)]
    cases += [case(folder, "mixed", "finetune", readable, **MIXED)]
    cases += [case(folder, "norm", "finetune", data, **RESNET)]
    cases += [case(folder, "long", "mae", data, **LONG)]
    done(case(folder, "tokens", "tokenizer", data))
    cases += [case(folder, "tokens", "tokenizer", data)]
    refused = [
        case(folder, "no tokens", "tokenizer", data),
        case(folder, "torn", "mae", torn(shards, folder / "shards"), stream=True),
    ]
    code, told = together(folder, cases + refused)
    for _, settings in cases:
        assert (settings["output"] / "config.json").exists(), told
    assert not any(settings["output"].exists() for _, settings in refused)
    return folder, code, told


def torn(shards, folder):
    """Two of the shards, of which the second breaks off."""
    folder.mkdir()
    for number in range(2):
        content = Path(shards.replace("*", str(number))).read_bytes()
        (folder / f"{number}.tar").write_bytes(content[: 600 if number else None])
    return folder / "*.tar"


# A whole head, so that the first loss tells of the statistics, and small steps: what Adam makes of gradients that are
# almost nothing would hide them.
RESNET = {"model": "resnet10t", "model_options": (), "drop_path": 0.0, "layer_decay": 1.0} | {
    "init_scale": 1.0,
    "lr": 2e-6,
    "ema": 0.0,
}


@pytest.mark.parametrize("name", ALL)
def test_two_processes_give_the_network_of_one(of_two, data, tmp_path, tokenizer_folder, name):
    shutil.copytree(tokenizer_folder, tmp_path / "tokenizer")
    done(case(tmp_path, "one", name, data))
    assert_alike(tmp_path / "one", of_two[0] / f"{name}-ddp")
    rejected = [json.loads(line) for line in (of_two[0] / f"{name}-ddp" / "rejections.jsonl").read_text().splitlines()]
    assert [row["id"] for row in rejected] == ["class 0/broken.png"]
    fsdp = of_two[0] / f"{name}-fsdp"
    if fsdp.exists():
        assert_alike(tmp_path / "one", fsdp)


@pytest.mark.parametrize("strategy", ["ddp", "fsdp"])
def test_two_processes_take_the_steps_of_sgd_that_one_takes(of_two, data, tmp_path, strategy):
    done(case(tmp_path, "one", "supcon", data, **SGD))
    assert_alike(tmp_path / "one", of_two[0] / f"sgd-{strategy}")


def test_two_processes_mix_the_pairs_of_one(of_two, readable, tmp_path):
    done(case(tmp_path, "one", "finetune", readable, **MIXED))
    assert_alike(tmp_path / "one", of_two[0] / "mixed")


def test_two_processes_normalise_one_batch(of_two, data, tmp_path):
    done(case(tmp_path, "one", "finetune", data, **RESNET))
    assert_alike(tmp_path / "one", of_two[0] / "norm")


def test_added_gradients_and_inner_values_computed_again_change_nothing(of_two, data, tmp_path, tokenizer_folder):
    shutil.copytree(tokenizer_folder, tmp_path / "tokenizer")
    done(case(tmp_path, "one", "beit", data))
    done(case(tmp_path, "four", "beit", data, accumulate=4, checkpoint_activations=True))
    assert_alike(tmp_path / "one", tmp_path / "four")
    assert_alike(tmp_path / "one", of_two[0] / "accumulated")


def test_one_summary_and_one_network_of_two_processes(of_two):
    assert of_two[2].count(f"the network is in {of_two[0] / 'mae-ddp'}") == 1


def test_a_stream_trains_on_what_the_list_keeps_and_knows_what_it_saw(of_two, shards, tmp_path):
    done(case(tmp_path, "one", "classification", shards, stream=True))
    assert_alike(tmp_path / "one", of_two[0] / "streamed")
    model, source = load_model(tmp_path / "one"), open_source(shards)
    kept = ~held_out(source.manifest.hashes, seed=1, fraction=0.1)
    hashes = [digest for digest, stays in zip(source.manifest.hashes, kept, strict=True) if stays]
    assert model.seen.tolist() == image_keys(hashes).sort().values.tolist()
    assert model.history[-1].images == len(hashes)


def test_killed_both_they_go_on_to_the_same_bytes_and_as_one_process_to_the_same_network(of_two, data, tmp_path):
    whole = of_two[0] / "long"
    broken, alone = (case(tmp_path / name, "long", "mae", data, **LONG) for name in ("broken", "alone"))
    (tmp_path / "broken").mkdir()
    process = launched(tmp_path / "broken", [broken])
    partial = tmp_path / "broken"
    while process.poll() is None:
        steps = [int(path.suffix[1:]) for path in partial.glob(".long.*.partial/scratch/checkpoint.[0-9]*")]
        if steps and max(steps) >= 13:
            break
        time.sleep(0.002)
    workers = [int(path.stem) for path in partial.glob("*.pid")]
    assert len(workers) == 2
    # torchrun gives each a session of its own.
    for number in (process.pid, *workers):
        os.kill(number, signal.SIGKILL)
    process.communicate()
    assert not (tmp_path / "broken" / "long").exists()
    shutil.copytree(tmp_path / "broken", tmp_path / "alone")
    code, told = together(tmp_path / "broken", [broken])
    assert code == 0, told
    for name in ("model.safetensors", "pretext.safetensors", "metrics.jsonl"):
        assert (tmp_path / "broken/long" / name).read_bytes() == (whole / name).read_bytes()
    first = checkpoint.read(next((tmp_path / "alone").glob(".long.*.partial")) / "scratch").step
    # The one that was being written may have been lost.
    assert 12 <= first < 30
    done(alone)
    assert_alike(tmp_path / "alone/long", whole)


def test_killed_while_it_streams_and_adds_gradients_it_ends_with_the_bytes_of_an_unbroken_run(
    shards, tmp_path, kill_when
):
    long = {"epochs": 15, "save_seconds": 0.0, "stream": True, "accumulate": 2}
    whole, broken = (case(tmp_path / name, "net", "mae", shards, **long) for name in ("whole", "broken"))

    def reached():
        steps = [int(path.suffix[1:]) for path in (tmp_path / "broken").glob(".net.*/scratch/checkpoint.[0-9]*")]
        return bool(steps) and max(steps) >= 9

    kill_when(reached, pretrain, PretrainConfig(**broken[1]))
    done(broken)
    done(whole)
    for name in ("model.safetensors", "pretext.safetensors", "metrics.jsonl"):
        assert (tmp_path / "broken/net" / name).read_bytes() == (tmp_path / "whole/net" / name).read_bytes()


def test_an_error_of_one_process_ends_both_with_its_message(of_two):
    _, code, told = of_two
    assert code != 0
    assert "error: process 1 of 2:" in told
    assert "1.tar" in told
    # torchrun itself ends with one.
    assert "Traceback" not in told.rpartition("error: process 1 of 2:")[0]


def test_a_tokenizer_is_trained_by_one_process_and_found_by_several(of_two):
    folder, _, told = of_two
    assert f"{folder / 'tokens'} was already finished" in told
    assert "a tokenizer is trained by one process, and torchrun started 2" in told


@pytest.mark.parametrize(
    ("recipe", "changes", "error", "message"),
    [
        (
            "mae",
            {"accumulate": 3},
            InputError,
            "batch_size is 16, and 1 process with accumulate 3 .* set it to 15 or 18",
        ),
        ("mae", {"accumulate": 0}, InputError, "'accumulate' is 0"),
        ("moco_v3", {"accumulate": 2}, InputError, "pretext moco_v3 compares all images of a batch"),
        ("mae", {"strategy": "fsdp"}, InputError, "start them with torchrun --no-python"),
        (
            "finetune",
            {"accumulate": 2, "batch_size": 18, **MIXED},
            InputError,
            "mixup and cutmix take them in pairs: set it to 20",
        ),
        ("finetune", {**RESNET, "accumulate": 2}, InputError, "batch normalisation needs the whole batch"),
        ("finetune", {"l2_sp": 0.1, "strategy": "fsdp"}, InputError, "l2_sp compares whole weights"),
        ("mae", {"stream": True, "limit": 4}, InputError, "limit picks images from a list"),
        ("mae", {"stream": True, "data": ("a", "b")}, InputError, "one glob of shards can be streamed"),
        ("finetune", {"stream": True, "coarse": True}, InputError, "coarse and classes pick from a list"),
    ],
)
def test_what_cannot_be_done_is_told(data, tmp_path, recipe, changes, error, message):
    with pytest.raises(error, match=message):
        done(case(tmp_path, "net", recipe, data, **changes))
    assert not (tmp_path / "net").exists()
