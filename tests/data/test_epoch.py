"""The batches of an epoch, whatever the workers and wherever one starts."""

import random

import numpy as np
import pytest
import torch

from mood.core.batch import Rejection
from mood.core.errors import DataError, InputError
from mood.data import Augment, TrainingImages, open_source, training_batches

MEAN, STD = (0.5, 0.4, 0.3), (0.2, 0.25, 0.3)
CONTRAST = Augment.contrast()
EVERYTHING = Augment(color_jitter=0.4, erase=0.5, interpolation="random")


def made(images, **options):
    return list(training_batches(images, **{"epoch": 1, "batch_size": 4, **options}))


def tensors(batch):
    return [*batch.views, batch.labels, batch.positions]


def same(ones, others):
    return len(ones) == len(others) and all(
        torch.equal(a, b)
        for one, other in zip(ones, others, strict=True)
        for a, b in zip(tensors(one), tensors(other), strict=True)
    )


@pytest.mark.parametrize("augments", [(Augment.mae(),), (Augment.finetune(),), (EVERYTHING,), (CONTRAST, EVERYTHING)])
def test_workers_and_resumes_change_no_bit(table, augments):
    images = TrainingImages(table, augments, (16, 16), MEAN, STD)
    whole = made(images)
    assert len(whole) == 5
    assert same(made(images, workers=2), whole)
    for start in (2, 5):
        assert same(made(images, start_batch=start), whole[start:])
    assert same(made(images, start_batch=3, workers=2), whole[3:])


def test_a_batch_is_its_images(table):
    images = TrainingImages(table, (Augment.finetune(),), (16, 12), MEAN, STD, seed=5)
    (pixels,), labels, positions, *_ = made(images)[1]
    assert pixels.shape == (4, 3, 16, 12)
    assert pixels.dtype == torch.float32
    assert positions.dtype == labels.dtype == torch.int64
    assert labels.tolist() == [position % 3 for position in positions.tolist()]
    assert torch.equal(pixels, torch.cat([images.draw(1, position) for position in positions.tolist()]))


def test_the_global_generators_are_left_alone(table):
    images = TrainingImages(table, (Augment.finetune(),), (16, 16), MEAN, STD)
    before = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()
    made(images)
    made(images, workers=1)
    images.draw(0, 0)
    assert before == (random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist())


def test_arrays_and_images_without_labels():
    pixels = np.random.default_rng(0).integers(0, 256, (4, 8, 8, 3), dtype=np.uint8)
    still = Augment(scale=(1.0, 1.0), ratio=(1.0, 1.0), flip=0.0)
    images = TrainingImages(open_source(pixels), (still,), (8, 8), MEAN, STD)
    (((values,), labels, positions, *_),) = made(images)
    assert labels is None
    expected = (pixels[positions.numpy()].transpose(0, 3, 1, 2) / 255 - np.reshape(MEAN, (3, 1, 1))) / np.reshape(
        STD, (3, 1, 1)
    )
    assert np.allclose(values.numpy(), expected, atol=1e-5)


@pytest.mark.parametrize("workers", [0, 2])
def test_an_image_that_cannot_be_read_is_left_out_and_named(pets, workers):
    (pets / "dog" / "b.png").write_bytes(b"")
    images = TrainingImages(open_source(pets), (Augment.mae(),), (8, 8), MEAN, STD)
    (((pixels,), _, positions, _, rejections),) = made(images, batch_size=6, workers=workers)
    assert len(pixels) == 5
    assert sorted(positions.tolist()) == [0, 1, 2, 4, 5]
    assert rejections == (Rejection(3, "dog/b.png", "It is empty (0 bytes)."),)


def test_a_batch_without_a_readable_image(tmp_path):
    (tmp_path / "x.png").write_bytes(b"")
    images = TrainingImages(open_source(tmp_path), (Augment.mae(),), (8, 8), MEAN, STD)
    with pytest.raises(DataError, match=r"None of the 1 images .* x\.png: It is empty"):
        made(images, batch_size=1)
    with pytest.raises(DataError, match="It is empty"):
        images.draw(0, 0)


def test_numbers_that_no_batches_can_be_made_with(table):
    images = TrainingImages(table, (Augment.mae(),), (8, 8), MEAN, STD)
    for options in ({"batch_size": 0}, {"batch_size": 24}, {"epoch": -1}, {"start_batch": -1}, {"workers": -1}):
        with pytest.raises(InputError, match=next(iter(options))):
            made(images, **options)
    assert len(made(images, batch_size=24, drop_last=False)) == 1
