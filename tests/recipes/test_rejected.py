"""What training cannot read is written down once, whatever the number of epochs, kills and workers."""

import pytest
import torch

from mood.core.batch import Rejection
from mood.data import TrainingBatch
from mood.recipes.finetune import FinetuneConfig, finetune
from mood.recipes.pretrain import PretrainConfig, pretrain
from mood.recipes.rejected import REJECTIONS, noted, rejections


def batch(*names):
    return TrainingBatch((), None, torch.empty(0), rejections=tuple(Rejection(0, name, f"{name}.") for name in names))


def test_each_image_has_one_line_and_the_first_is_told(tmp_path, caplog):
    passed = list(noted([batch("a"), batch(), batch("b", "a"), batch("b")], tmp_path))
    assert [item.rejections for item in passed] == [()] * 4
    assert rejections(tmp_path) == {"a": "a.", "b": "b."}
    assert caplog.messages == ["a is left out of training: a. The list goes to rejections.jsonl."]


def test_nothing_is_written_where_all_was_read(tmp_path):
    list(noted([batch(), batch()], tmp_path))
    assert not (tmp_path / REJECTIONS).exists()
    assert rejections(tmp_path) == {}


def test_a_line_that_a_kill_cut_short_is_written_again(tmp_path):
    list(noted([batch("a", "b")], tmp_path))
    whole = (tmp_path / REJECTIONS).read_bytes()
    (tmp_path / REJECTIONS).write_bytes(whole[:-5])
    list(noted([batch("a", "b")], tmp_path))
    assert (tmp_path / REJECTIONS).read_bytes() == whole


@pytest.mark.parametrize("command", ["pretrain", "finetune"])
def test_both_stages_keep_the_list_and_count_it(command, stripes_folder, tiny, tmp_path):
    data = stripes_folder(tmp_path / "data", 30)
    (data / "class 0" / "bad.png").write_bytes(b"")
    shared = {
        "model": "mood_vit_patch4_32",
        "model_options": tiny,
        "output": tmp_path / "out",
        "epochs": 2,
        "batch_size": 8,
        "device": "cpu",
        "held_out": 0.0,
        "workers": 0,
    }
    if command == "pretrain":
        result = pretrain(PretrainConfig(data=(str(data),), **shared))
    else:
        result = finetune(FinetuneConfig(data=str(data), random_weights=True, **shared))
    assert result.rejected == 1
    assert [name.rpartition("/")[2] for name in rejections(tmp_path / "out")] == ["bad.png"]
    assert f"{result.images - 1} images" in result.summary()
    assert "1 image could not be read, see rejections.jsonl there" in result.summary()
