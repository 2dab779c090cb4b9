"""Shares of a batch and draws of an image; two processes are launched in tests/recipes/test_together.py."""

import pytest
import torch
from timm.layers import DropPath
from torch import nn

from mood.core.errors import InputError
from mood.training import Optimisation, Share, processes, train, uniform
from mood.training.depth import DrawnDropPath, draw, place
from mood.training.processes import scale_of


class Groups:
    """Rows of unequal weight: a loss that is the mean over what a part has."""

    steps_per_epoch, batch_size = 5, 12

    def __init__(self, width=1):
        torch.manual_seed(0)
        self.module = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), DropPath(0.5), nn.Linear(8, width))
        self.asked = []

    def parts(self, epoch, start, share):
        for step in range(start, self.steps_per_epoch):
            items = torch.arange(step * 12, step * 12 + 12)
            rows = uniform(0, epoch, items, 4)
            # Four of the twelve rows do not count, three of them in one part.
            counts = torch.tensor([1, 1, 1, 0, 0, 0, 1, 1, 1, 1, 1, 0])
            for part in share.parts:
                own = slice(part * 12 // share.of, (part + 1) * 12 // share.of)
                yield rows[own], counts[own], items[own]

    def batches(self, epoch, start):
        return self.parts(epoch, start, Share())

    def loss(self, module, batch, epoch):
        rows, counts, _ = batch
        error = (module(rows)[:, 0] - rows.sum(1)).square()
        return (error * counts).sum() / counts.sum(), {"error": (error.detach() * counts).sum() / counts.sum()}

    def weight(self, part):
        return float(part[1].sum())

    def items(self, part):
        return part[2]

    def after_step(self, done):
        pass

    def evaluate(self, module):
        return {}


SETTINGS = {"epochs": 3, "lr": 1e-2, "device": "cpu", "clip": 0.5}


@pytest.mark.parametrize("accumulate", [2, 3])
def test_added_gradients_are_those_of_the_whole_batch_whatever_its_parts_weigh(tmp_path, accumulate):
    whole = train(Groups(), Optimisation(**SETTINGS), tmp_path / "whole")
    parts = train(Groups(), Optimisation(**SETTINGS, accumulate=accumulate), tmp_path / "parts")
    for name, value in whole.state_dict().items():
        torch.testing.assert_close(parts.state_dict()[name], value, rtol=1e-4, atol=1e-5)
    first, second = ((tmp_path / name / "metrics.jsonl").read_text() for name in ("whole", "parts"))
    assert len(first.splitlines()) == len(second.splitlines())


def test_it_matters_how_parts_are_weighted(tmp_path):
    class Careless(Groups):
        def weight(self, part):
            return 1.0

    whole = train(Groups(), Optimisation(**SETTINGS), tmp_path / "whole")
    parts = train(Careless(), Optimisation(**SETTINGS, accumulate=2), tmp_path / "parts")
    assert any((whole.state_dict()[name] - value).abs().max() > 1e-3 for name, value in parts.state_dict().items())


def test_stopped_anywhere_added_gradients_end_with_the_same_bytes(tmp_path):
    settings = {**SETTINGS, "accumulate": 3, "ema": 0.9}
    whole = train(Groups(), Optimisation(**settings), tmp_path / "whole").state_dict()
    for at in (2, 10, 28):
        task = Groups()
        counted, seen = task.loss, []

        def loss(module, batch, epoch, counted=counted, seen=seen, at=at):
            seen.append(1)
            if len(seen) > at:
                raise KeyboardInterrupt
            return counted(module, batch, epoch)

        task.loss = loss
        with pytest.raises(KeyboardInterrupt):
            train(task, Optimisation(**settings, save_seconds=0.0), tmp_path / f"{at}")
        again = train(Groups(), Optimisation(**settings), tmp_path / f"{at}").state_dict()
        assert all(torch.equal(value, again[name]) for name, value in whole.items())


def test_a_task_that_cannot_be_cut_is_told(tmp_path):
    class Whole:
        steps_per_epoch = 1
        module = nn.Linear(1, 1)

    with pytest.raises(InputError, match="in one process, without accumulated gradients"):
        train(Whole(), Optimisation(**SETTINGS, accumulate=2), tmp_path)
    with pytest.raises(InputError, match="accumulate is 0"):
        Optimisation(**SETTINGS, accumulate=0)
    normalised = Groups()
    normalised.module.append(nn.BatchNorm1d(1))
    with pytest.raises(InputError, match="batch normalisation needs the whole batch"):
        train(normalised, Optimisation(**SETTINGS, accumulate=2), tmp_path)


def test_a_share_is_an_equal_part_or_refused_with_the_remedy(monkeypatch):
    assert Share.of_batch(12, 3) == Share(0, 3, 3)
    assert Share.of_batch(12, 3).parts == (0, 1, 2)
    for size, accumulate, remedy in ((10, 4, "8 or 12"), (2, 4, "set it to 4,")):
        with pytest.raises(InputError, match=f"batch_size is {size}.*{remedy}"):
            Share.of_batch(size, accumulate)
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "1")
    assert Share.of_batch(12, 3) == Share(3, 3, 6)
    with pytest.raises(InputError, match="2 processes with accumulate 1 cut it into 2 equal parts"):
        Share.of_batch(13, 1)


def test_several_processes_do_not_share_one_gpu(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(InputError, match="device is cuda:1, and each of 2 processes has one of its own"):
        processes(device="cuda:1")


def test_scales_make_the_mean_over_processes_that_of_the_batch():
    weights, losses = [3.0, 0.0, 5.0], [1.0, 7.0, 2.0]
    scales = [scale_of(weight, sum(weights), len(weights)) for weight in weights]
    mean = sum(scale * loss for scale, loss in zip(scales, losses, strict=True)) / len(weights)
    assert mean == pytest.approx((3 * 1 + 5 * 2) / 8)
    assert scale_of(0.0, 0.0, 2) == 0.0


def test_paths_are_dropped_by_image_and_layer_and_as_often_as_asked():
    module = nn.Sequential(DropPath(0.25), DropPath(0.5, scale_by_keep=False), DropPath(0.0))
    layers = place(module)
    assert [type(child) for child in module] == [DrawnDropPath, DrawnDropPath, DropPath]
    items = torch.arange(4000)
    draw(layers, 0, 0, items, torch.device("cpu"))
    first, second = (layer.factors for layer in layers)
    assert sorted(set(first.tolist())) == pytest.approx([0.0, 4 / 3])
    assert sorted(set(second.tolist())) == [0.0, 1.0]
    assert abs((first > 0).float().mean() - 0.75) < 0.03
    assert abs((second > 0).float().mean() - 0.5) < 0.03
    assert abs(torch.corrcoef(torch.stack((first, second)))[0, 1]) < 0.06
    draw(layers, 0, 0, items[100:200], torch.device("cpu"))
    assert torch.equal(layers[0].factors, first[100:200])
    draw(layers, 0, 1, items, torch.device("cpu"))
    assert not torch.equal(layers[0].factors, first)


def test_views_of_an_image_share_its_draw_and_evaluation_drops_nothing():
    (layer,) = place(nn.Sequential(DropPath(0.5)))
    draw((layer,), 0, 0, torch.arange(8), torch.device("cpu"))
    rows = torch.ones(16, 3, 2)
    shown = layer(rows)
    assert torch.equal(shown[:8], shown[8:])
    assert torch.equal(shown[:8], layer.factors[:, None, None].expand(8, 3, 2))
    assert torch.equal(layer.eval()(rows), rows)
