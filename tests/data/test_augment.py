"""Training batches that depend on (seed, epoch, position) and on nothing else."""

import random

import numpy as np
import pytest
import torch
from PIL import Image
from timm.data.transforms import RandomResizedCropAndInterpolation
from timm.data.transforms_factory import create_transform
from torchvision.transforms import InterpolationMode
from torchvision.transforms.functional import pil_to_tensor, resized_crop

from mood.core.batch import Rejection
from mood.core.decoding import decode
from mood.core.errors import DataError, InputError
from mood.data import Augment, TrainingImages, open_source, training_batches
from mood.data.augment import _numbers, _posterize

MEAN, STD = (0.5, 0.4, 0.3), (0.2, 0.25, 0.3)
CONTRAST = Augment.contrast(blur=0.0)
EVERYTHING = Augment(color_jitter=0.4, erase=0.5, interpolation="random")


@pytest.fixture
def table(tmp_path, png, write_table):
    labels = np.arange(23) % 3
    return open_source(write_table(tmp_path / "x.parquet", [png(n, 16, 20) for n in range(23)], label=labels))


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


@pytest.mark.parametrize("augment", [Augment.mae(), Augment.finetune(), CONTRAST, EVERYTHING])
def test_an_image_is_what_timm_makes_of_it(table, augment):
    theirs = create_transform(
        (3, 16, 16),
        is_training=True,
        scale=augment.scale,
        ratio=augment.ratio,
        hflip=augment.flip,
        color_jitter=augment.color_jitter or None,
        color_jitter_prob=None if augment.color_jitter_share == 1 else augment.color_jitter_share,
        grayscale_prob=augment.grayscale,
        auto_augment=augment.rand_augment,
        interpolation=augment.interpolation,
        mean=MEAN,
        std=STD,
        re_prob=augment.erase,
        re_mode="pixel",
    )
    images = TrainingImages(table, (augment,), (16, 16), MEAN, STD, seed=3)
    for position in range(23):
        (drawn,) = images.draw(2, position)
        _, python, numpy, torch_ = _numbers(3, 2, position)
        random.seed(python)
        np.random.seed(numpy % 2**32)
        torch.manual_seed(torch_)
        assert torch.equal(drawn, theirs(decode(table.read(position))))


@pytest.mark.parametrize("augment", [Augment.mae(), Augment.finetune(), EVERYTHING])
def test_workers_and_resumes_change_no_bit(table, augment):
    images = TrainingImages(table, (augment,), (16, 16), MEAN, STD)
    whole = made(images)
    assert len(whole) == 5
    assert same(made(images, workers=2), whole)
    for start in (2, 5):
        assert same(made(images, start_batch=start), whole[start:])
    assert same(made(images, start_batch=3, workers=2), whole[3:])


def test_each_view_is_varied_on_its_own_and_the_first_as_if_it_were_alone(table):
    pair = (Augment.contrast(), Augment.contrast(blur=1.0, solarize=1.0))
    both = TrainingImages(table, pair, (16, 16), MEAN, STD)
    (first, second), _, positions, *_ = made(both)[0]
    assert first.shape == second.shape == (4, 3, 16, 16)
    (alone,), _, same_positions, *_ = made(TrainingImages(table, pair[:1], (16, 16), MEAN, STD))[0]
    assert torch.equal(first, alone)
    assert torch.equal(positions, same_positions)
    twice = TrainingImages(table, (pair[0], pair[0]), (16, 16), MEAN, STD)
    (one, other), *_ = made(twice)[0]
    assert torch.equal(one, first)
    assert not torch.equal(one, other)
    assert same(made(both, workers=2), made(both))


@pytest.mark.parametrize("size", [(12, 20), (40, 40)])
def test_the_twin_is_the_same_crop_rendered_by_lanczos(table, size):
    images = TrainingImages(table, (Augment.mae(),), (16, 16), MEAN, STD, seed=3, twin_size=size)
    for batch in made(images):
        assert batch.twin.shape == (4, 3, *size)
        for twin, position in zip(batch.twin, batch.positions.tolist(), strict=True):
            image = decode(table.read(position))
            _, python, _, torch_ = _numbers(3, 1, position)
            random.seed(python)
            torch.manual_seed(torch_)
            box = RandomResizedCropAndInterpolation.get_params(image, (0.2, 1.0), (3 / 4, 4 / 3))
            expected = resized_crop(image, *box, size, InterpolationMode.LANCZOS)
            expected = expected.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if torch.rand(1) < 0.5 else expected
            assert torch.equal(twin, pil_to_tensor(expected) / 255)


def test_a_twin_takes_part_in_the_colours_and_disturbs_nothing(table):
    jitter = Augment(color_jitter=0.4)
    images = TrainingImages(table, (jitter, CONTRAST), (16, 16), MEAN, STD, twin_size=(32, 32))
    plain = TrainingImages(table, (jitter, CONTRAST), (16, 16), MEAN, STD)
    undo = torch.tensor(STD).reshape(3, 1, 1), torch.tensor(MEAN).reshape(3, 1, 1)
    for batch, alone, helped in zip(made(images), made(plain), made(images, workers=2), strict=True):
        assert all(torch.equal(view, other) for view, other in zip(batch.views, alone.views, strict=True))
        assert torch.equal(batch.twin, helped.twin)
        assert alone.twin is None
        seen = batch.views[0] * undo[0] + undo[1]
        smaller = torch.nn.functional.avg_pool2d(batch.twin, 2)
        assert (smaller.mean((2, 3)) - seen.mean((2, 3))).abs().max() < 0.02


def test_a_twin_of_the_size_of_the_view_is_the_view(table):
    images = TrainingImages(table, (Augment(erase=1.0),), (16, 16), MEAN, STD, twin_size=(16, 16))
    bare = TrainingImages(table, (Augment(),), (16, 16), (0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
    for batch, expected in zip(made(images), made(bare), strict=True):
        torch.testing.assert_close(batch.twin, expected.views[0], rtol=0, atol=1e-6)


@pytest.mark.parametrize("augment", [Augment.finetune(), Augment(interpolation="random")])
def test_a_twin_of_a_view_whose_draws_depend_on_the_size(table, augment):
    with pytest.raises(InputError, match="leave both out of the first view"):
        made(TrainingImages(table, (augment,), (16, 16), MEAN, STD, twin_size=(8, 8)))


def test_solarization_leaves_no_bright_pixel_and_blur_no_edge():
    edge = np.zeros((1, 40, 40, 3), np.uint8)
    edge[:, :, 20:] = 255
    source = open_source(edge)

    def shown(augment):
        images = TrainingImages(source, (augment,), (40, 40), (0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
        return torch.cat([images.draw(epoch, 0) for epoch in range(8)])

    still = {"scale": (1.0, 1.0), "ratio": (1.0, 1.0), "flip": 0.0}
    assert shown(Augment(**still, solarize=1.0)).max() < 0.5
    blurred = shown(Augment(**still, blur=1.0))
    assert ((blurred > 0.05) & (blurred < 0.95)).any()
    assert not ((shown(Augment(**still)) > 0.05) & (shown(Augment(**still)) < 0.95)).any()


def test_a_batch_is_its_images(table):
    images = TrainingImages(table, (Augment.finetune(),), (16, 12), MEAN, STD, seed=5)
    (pixels,), labels, positions, *_ = made(images)[1]
    assert pixels.shape == (4, 3, 16, 12)
    assert pixels.dtype == torch.float32
    assert positions.dtype == labels.dtype == torch.int64
    assert labels.tolist() == [position % 3 for position in positions.tolist()]
    assert torch.equal(pixels, torch.cat([images.draw(1, position) for position in positions.tolist()]))


def test_an_epoch_is_a_permutation_of_its_own(table):
    images = TrainingImages(table, (Augment.mae(),), (16, 16), MEAN, STD)
    orders = [images.order(epoch).tolist() for epoch in range(3)]
    assert all(sorted(order) == list(range(23)) for order in orders)
    assert len({tuple(order) for order in orders}) == 3
    other = TrainingImages(table, (Augment.mae(),), (16, 16), MEAN, STD, seed=1)
    assert other.order(0).tolist() != orders[0]
    assert not torch.equal(other.draw(0, 0), images.draw(0, 0))
    assert not torch.equal(images.draw(1, 0), images.draw(0, 0))
    left = made(images, drop_last=False)
    assert [len(batch.positions) for batch in left] == [4, 4, 4, 4, 4, 3]
    assert torch.cat([batch.positions for batch in left]).tolist() == orders[1]


def test_the_order_stays_for_ever(table):
    # These numbers are a promise: a checkpoint of today resumes with the same images tomorrow.
    images = TrainingImages(table, (Augment.mae(),), (16, 16), MEAN, STD, seed=7)
    assert images.order(2)[:8].tolist() == [14, 13, 6, 8, 16, 22, 10, 18]
    assert _numbers(7, 2, 0)[0] == 17_583_725_665_236_790_829


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


def test_wrong_numbers(table):
    images = TrainingImages(table, (Augment.mae(),), (8, 8), MEAN, STD)
    for options in ({"batch_size": 0}, {"batch_size": 24}, {"epoch": -1}, {"start_batch": -1}, {"workers": -1}):
        with pytest.raises(InputError, match=next(iter(options))):
            made(images, **options)
    assert len(made(images, batch_size=24, drop_last=False)) == 1
    for wrong, message in (
        ({"scale": (0.5, 0.2)}, "scale is"),
        ({"scale": (0.5, 1.2)}, "scale is"),
        ({"ratio": (0, 1)}, "ratio is"),
        ({"flip": 2}, "flip is 2"),
        ({"erase": -1}, "erase is -1"),
        ({"color_jitter": -1}, "color_jitter is -1"),
        ({"rand_augment": "m9"}, "rand_augment is 'm9'"),
        ({"color_jitter": (0.1, 0.1, 0.1, -0.1)}, "color_jitter is"),
        ({"color_jitter_share": 1.5}, "color_jitter_share is 1.5"),
        ({"grayscale": 2}, "grayscale is 2"),
        ({"blur": 2}, "blur is 2"),
        ({"solarize": 2}, "solarize is 2"),
        ({"interpolation": "nearest"}, "interpolation is 'nearest'"),
    ):
        with pytest.raises(InputError, match=message):
            Augment(**wrong)
    with pytest.raises(InputError, match="timm cannot read rand_augment='rand-zz9'"):
        made(TrainingImages(table, (Augment(rand_augment="rand-zz9"),), (8, 8), MEAN, STD))


def test_full_strength_of_posterize_is_black():
    image = Image.new("RGB", (2, 2), (200, 100, 50))
    assert _posterize(image, 0).getpixel((0, 0)) == (0, 0, 0)
    assert _posterize(image, 1).getpixel((0, 0)) == (128, 0, 0)
    assert _posterize(image, 8) is image
