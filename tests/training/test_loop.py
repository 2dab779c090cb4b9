"""The loop: what it optimises, what it writes, and that a killed run ends like an unbroken one."""

import json
import logging
import math
import os
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from mood.core.errors import InputError, MoodError
from mood.training import Optimisation, train, uniform


class Regression:
    """A small task with dropout, so that every draw matters."""

    steps_per_epoch = 7

    def __init__(self, scale=1.0):
        torch.manual_seed(0)
        self.module = nn.Sequential(nn.Linear(4, 16), nn.GELU(), nn.Dropout(0.3), nn.Linear(16, 1))
        self.scale = scale
        self.evaluations = 0

    def batches(self, epoch, start):
        for number in range(start, self.steps_per_epoch):
            yield uniform(0, epoch, torch.arange(number * 8, number * 8 + 8), 4)

    def loss(self, module, batch, epoch):
        return self.scale * (module(batch)[:, 0] - batch.sum(1)).square().mean(), {}

    def after_step(self, done):
        pass

    def evaluate(self, module):
        self.evaluations += 1
        return {"weight": float(module[0].weight.detach().sum())}


SETTINGS = Optimisation(epochs=4, lr=1e-2, warmup_epochs=1, weight_decay=0.1, clip=1.0, ema=0.9, device="cpu")


def lines(folder):
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def test_learns_and_writes_metrics(tmp_path):
    torch.manual_seed(1)
    module = train(Regression(), Optimisation(epochs=60, lr=1e-2, device="cpu"), tmp_path)
    rows = [row for row in lines(tmp_path) if "loss" in row]
    assert rows[-1]["loss"] < 0.2 * rows[0]["loss"]
    assert [row["step"] for row in rows] == [1, *range(50, 421, 50), 420]
    assert isinstance(module, nn.Sequential)


def test_learning_rate_warms_up_and_falls_as_a_cosine(tmp_path):
    task = Regression()
    task.steps_per_epoch = 50
    train(task, Optimisation(epochs=8, lr=1.0e-3, min_lr=1e-5, warmup_epochs=2, device="cpu"), tmp_path)
    rate = {row["step"]: row["lr"] for row in lines(tmp_path) if "lr" in row}
    assert rate[50] == pytest.approx(1e-3 * 49 / 100, rel=1e-6)
    half = 1e-5 + (1e-3 - 1e-5) * (1 + torch.cos(torch.tensor(torch.pi * 199 / 400)).item()) / 2
    assert rate[200] == pytest.approx(half, rel=1e-5)
    assert rate[400] < 2e-5


class Plane(Regression):
    """Linear regression, whose gradient is written in a line."""

    def __init__(self):
        super().__init__()
        self.module = nn.Linear(4, 1)

    def evaluate(self, module):
        return {}


def test_sgd_has_momentum_without_nesterovs_step_and_decays_weights_alone(tmp_path):
    task = Plane()
    weight, bias = task.module.weight.detach().double()[0], task.module.bias.detach().double()
    settings = {"lr": 0.05, "weight_decay": 0.1, "betas": (0.8, 0.999), "device": "cpu"}
    train(task, Optimisation(epochs=3, optimiser="sgd", **settings), tmp_path)
    moved, shifted = torch.zeros(4, dtype=torch.float64), torch.zeros(1, dtype=torch.float64)
    for step in range(21):
        rate = 0.05 * (1 + math.cos(math.pi * step / 21)) / 2
        epoch, number = divmod(step, 7)
        batch = uniform(0, epoch, torch.arange(number * 8, number * 8 + 8), 4).double()
        error = 2 * (batch @ weight + bias - batch.sum(1)) / 8
        moved = 0.8 * moved + batch.T @ error + 0.1 * weight
        shifted = 0.8 * shifted + error.sum()
        weight, bias = weight - rate * moved, bias - rate * shifted
    torch.testing.assert_close(task.module.weight[0].double(), weight, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(task.module.bias.double(), bias, rtol=1e-5, atol=1e-6)


def test_averaged_weights_are_returned_and_evaluated(tmp_path):
    task = Regression()
    averaged = train(task, SETTINGS, tmp_path)
    assert averaged is not task.module
    assert not torch.equal(averaged[0].weight, task.module[0].weight)
    assert task.evaluations == 4
    assert lines(tmp_path)[-1]["weight"] == pytest.approx(float(averaged[0].weight.detach().sum()))


@pytest.mark.parametrize("optimiser", ["adamw", "sgd"])
def test_a_run_that_stopped_anywhere_ends_with_the_same_bytes(tmp_path, optimiser):
    settings = Optimisation(**{**_fields(SETTINGS), "optimiser": optimiser})
    whole = train(Regression(), settings, tmp_path / "whole")

    class StopError(Exception):
        pass

    for at in (1, 7, 12, 14, 27):
        task = Regression()
        counted = task.loss
        seen = []

        def loss(module, batch, epoch, counted=counted, seen=seen, at=at):
            seen.append(1)
            if len(seen) > at:
                raise StopError
            return counted(module, batch, epoch)

        task.loss = loss
        folder = tmp_path / f"broken-{at}"
        with pytest.raises(StopError):
            train(task, Optimisation(**{**_fields(settings), "save_seconds": 0.0}), folder)
        again = train(Regression(), settings, folder)
        for name, value in whole.state_dict().items():
            assert torch.equal(value, again.state_dict()[name]), (at, name)
        assert lines(folder) == lines(tmp_path / "whole")


def _fields(settings):
    return {name: getattr(settings, name) for name in settings.__slots__}


PROGRAM = """
    import sys, pathlib
    sys.path.insert(0, {tests!r})
    from test_loop import LONG, Regression
    from mood.training import train
    train(Regression(), LONG, pathlib.Path({folder!r}))
"""


def test_stopped_between_an_epochs_last_step_and_its_measurement_nothing_is_missing(tmp_path):
    whole = train(Regression(), SETTINGS, tmp_path / "whole")

    class Interrupted(Regression):
        def evaluate(self, module):
            if self.evaluations == 1:
                raise KeyboardInterrupt
            return super().evaluate(module)

    with pytest.raises(KeyboardInterrupt):
        train(Interrupted(), Optimisation(**{**_fields(SETTINGS), "save_seconds": 0.0}), tmp_path / "broken")
    again = train(Regression(), SETTINGS, tmp_path / "broken")
    assert all(torch.equal(value, again.state_dict()[name]) for name, value in whole.state_dict().items())
    assert lines(tmp_path / "broken") == lines(tmp_path / "whole")


def test_a_finished_run_that_starts_again_leaves_its_checkpoint_alone(tmp_path):
    train(Regression(), SETTINGS, tmp_path)
    state = tmp_path / "checkpoint.28" / "state.safetensors"
    before = state.stat().st_mtime_ns
    train(Regression(), SETTINGS, tmp_path)
    assert state.stat().st_mtime_ns == before


LONG = Optimisation(**{**_fields(SETTINGS), "epochs": 40, "save_seconds": 0.0})


def test_kill_nine_in_the_middle_and_start_again(tmp_path):
    code = textwrap.dedent(PROGRAM.format(tests=str(Path(__file__).parent), folder=str(tmp_path / "broken")))
    process = subprocess.Popen([sys.executable, "-c", code], env={**os.environ, "OMP_NUM_THREADS": "1"})
    deadline = time.monotonic() + 600
    while not (tmp_path / "broken" / "checkpoint.json").exists() and time.monotonic() < deadline:
        time.sleep(0.002)
    time.sleep(0.05)
    process.kill()
    process.wait()
    assert int(json.loads((tmp_path / "broken" / "checkpoint.json").read_text())["folder"].split(".")[1]) < 280
    whole = train(Regression(), LONG, tmp_path / "whole").state_dict()
    resumed = train(Regression(), LONG, tmp_path / "broken").state_dict()
    assert all(torch.equal(value, resumed[name]) for name, value in whole.items())
    assert lines(tmp_path / "broken") == lines(tmp_path / "whole")


def test_the_checkpoint_is_safetensors_and_only_the_newest_is_kept(tmp_path):
    train(Regression(), SETTINGS, tmp_path)
    folders = [path for path in tmp_path.iterdir() if path.is_dir()]
    assert [path.name for path in folders] == ["checkpoint.28"]
    tensors = load_file(folders[0] / "state.safetensors")
    assert {name.split(".")[0] for name in tensors} == {"module", "optimizer", "ema"}


def test_refuses_a_set_smaller_than_a_batch(tmp_path):
    task = Regression()
    task.steps_per_epoch = 0
    with pytest.raises(InputError, match="batch size"):
        train(task, SETTINGS, tmp_path)


def test_says_when_the_loss_is_not_finite(tmp_path):
    with pytest.raises(MoodError, match="became inf at step 1"):
        train(Regression(scale=float("inf")), SETTINGS, tmp_path)


def test_weights_that_are_not_finite_are_neither_returned_nor_kept(tmp_path):
    class Spoiled(Regression):
        def loss(self, module, batch, epoch):
            loss, extra = super().loss(module, batch, epoch)
            spoil = module(batch).sum() * (float("nan") if epoch == 2 else 0.0)
            # Nothing that is written says so: the loss itself stays a number.
            return loss + (spoil - spoil.detach()).nan_to_num(0.0), extra

    with pytest.raises(MoodError, match=r"the weights 0.weight are not finite at step \d+: lower the learning rate"):
        train(Spoiled(), Optimisation(**{**_fields(SETTINGS), "clip": 0.0, "save_seconds": 0.0}), tmp_path)
    pointer = json.loads((tmp_path / "checkpoint.json").read_text())["folder"]
    tensors = load_file(tmp_path / pointer / "state.safetensors")
    assert all(torch.isfinite(value).all() for value in tensors.values())


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("epochs", 0),
        ("lr", 0.0),
        ("min_lr", 1.0),
        ("warmup_epochs", -1.0),
        ("warmup_epochs", 4.0),
        ("optimiser", "lion"),
        ("weight_decay", -0.1),
        ("betas", (0.9, 1.0)),
        ("layer_decay", 0.0),
        ("clip", -1.0),
        ("ema", 1.0),
        ("save_seconds", -1.0),
    ],
)
def test_numbers_that_no_training_can_be_done_with_are_refused_by_name(name, value):
    with pytest.raises(InputError, match=rf"{name} is .*; it must be"):
        Optimisation(**{**_fields(SETTINGS), name: value})


def test_nothing_of_fabric_reaches_the_terminal_and_its_logger_is_put_back(tmp_path, capfd):
    logger = logging.getLogger("lightning_fabric")
    before = logger.level
    train(Regression(), Optimisation(epochs=1, lr=1e-2, device="cpu", precision="bf16"), tmp_path)
    assert capfd.readouterr() == ("", "")
    assert logger.level == before


class Watching(Regression):
    """Says in which types a module is given its batch, and multiplies."""

    def __init__(self):
        super().__init__()
        self.module = Watch()


class Watch(nn.Sequential):
    def __init__(self):
        super().__init__(nn.Linear(4, 1))
        self.seen = set()

    def forward(self, batch):
        product = super().forward(batch)
        self.seen.add((batch.dtype, product.dtype))
        return product.float()


def test_mixed_precision_is_of_products_and_not_of_what_a_module_is_given(tmp_path):
    """Pixels that are predicted and draws that are sorted keep all their bits."""
    for precision, dtype in (("bf16", torch.bfloat16), ("fp32", torch.float32)):
        task = Watching()
        settings = Optimisation(epochs=1, lr=1e-2, device="cpu", precision=precision)
        train(task, settings, tmp_path / precision)
        assert task.module.seen == {(torch.float32, dtype)}
