"""Images as a person sees them, and timm's evaluation transform to the last bit."""

import io
import pickle
import struct
import subprocess
import sys
import threading
import warnings
import zlib
from contextlib import suppress

import numpy as np
import pytest
from PIL import Image, ImageCms, ImageFile
from timm.data.transforms_factory import create_transform

from mood.core.decoding import FORMATS, as_seen, decode
from mood.core.errors import DataError, InputError
from mood.core.transform import Transform


def encoded(image, format="PNG", **options):
    buffer = io.BytesIO()
    image.save(buffer, format, **options)
    return buffer.getvalue()


def picture(height=12, width=20, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def smooth(height=48, width=64):
    """A picture that lossy formats keep."""
    rows, columns = np.mgrid[:height, :width]
    return np.stack([rows * 5, columns * 4, (rows + columns) * 2], -1).astype(np.uint8)


def seen(data):
    image = decode(data)
    assert image.mode == "RGB"
    return np.asarray(image)


# --- decode ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("format", ["PNG", "BMP", "TIFF", "PPM"])
def test_lossless_colour_is_kept(format):
    pixels = picture()
    assert np.array_equal(seen(encoded(Image.fromarray(pixels), format)), pixels)


@pytest.mark.parametrize("format", ["JPEG", "WEBP", "JPEG2000", "AVIF"])
def test_lossy_colour_is_near(format):
    pixels = smooth()
    assert np.abs(seen(encoded(Image.fromarray(pixels), format)).astype(int) - pixels).max() < 30


def test_grey_and_one_bit():
    grey = picture()[..., 0]
    assert np.array_equal(seen(encoded(Image.fromarray(grey))), np.repeat(grey[..., None], 3, -1))
    bits = grey > 127
    expected = np.repeat((bits * 255).astype(np.uint8)[..., None], 3, -1)
    assert np.array_equal(seen(encoded(Image.fromarray(bits))), expected)


def test_palette_and_its_transparent_entry():
    image = Image.new("P", (2, 1))
    image.putpalette([255, 0, 0, 0, 0, 255])
    image.putpixel((1, 0), 1)
    assert seen(encoded(image)).tolist() == [[[255, 0, 0], [0, 0, 255]]]
    assert seen(encoded(image, transparency=1)).tolist() == [[[255, 0, 0], [255, 255, 255]]]
    # Bytes of opacity, one for each entry, are what Pillow warns of.
    assert seen(encoded(image, transparency=bytes([255, 0]))).tolist() == [[[255, 0, 0], [255, 255, 255]]]


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_transparency_lies_on_white(mode):
    image = Image.new(mode, (3, 1))
    for column, opacity in enumerate((0, 128, 255)):
        image.putpixel((column, 0), (0,) * (len(mode) - 1) + (opacity,))
    assert seen(encoded(image))[0, :, 0].tolist() == [255, 127, 0]


def test_transparent_colour_and_grey_values():
    colour = Image.fromarray(np.array([[[10, 20, 30], [40, 50, 60]]], np.uint8))
    assert seen(encoded(colour, transparency=(10, 20, 30))).tolist() == [[[255] * 3, [40, 50, 60]]]
    deep = Image.fromarray(np.array([[1000, 40000]], np.uint16))
    assert seen(encoded(deep, transparency=1000))[0, :, 0].tolist() == [255, 40000 >> 8]


def test_cmyk_with_and_without_adobes_inversion():
    ink = np.zeros((8, 8, 4), np.uint8)
    ink[:, 4:, 0] = 255  # White beside full cyan.
    image = Image.frombytes("CMYK", (8, 8), ink.tobytes())
    for format, options in (("JPEG", {"quality": 100, "subsampling": 0}), ("TIFF", {})):
        pixels = seen(encoded(image, format, **options)).astype(int)
        assert np.abs(pixels[:, 0] - [255, 255, 255]).max() < 4
        assert np.abs(pixels[:, -1] - [0, 255, 255]).max() < 4


@pytest.mark.parametrize("format", ["PNG", "TIFF"])
def test_sixteen_bits_of_grey_are_scaled(format):
    values = np.array([[0, 256, 32768, 65535]], np.uint16)
    assert seen(encoded(Image.fromarray(values), format))[0, :, 0].tolist() == [0, 1, 128, 255]


def test_sixteen_bits_of_grey_agree_with_sixteen_bits_of_colour():
    values = np.array([[0, 255, 300, 32895, 65535]], ">u2")

    def png(kind, samples):
        def chunk(name, body):
            return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))

        header = struct.pack(">IIBBBBB", 5, 1, 16, kind, 0, 0, 0)
        body = zlib.compress(b"\0" + samples.tobytes())
        return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", body) + chunk(b"IEND", b"")

    assert np.array_equal(seen(png(0, values)), seen(png(2, np.repeat(values[..., None], 3, -1))))


def test_sixteen_bit_tiff_where_zero_is_white():
    image = Image.fromarray(np.array([[0, 65535]], np.uint16))
    assert seen(encoded(image, "TIFF", tiffinfo={262: 0}))[0, :, 0].tolist() == [255, 0]


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (np.array([[0, 0.5, 0.8]], np.float32), [0, 128, 204]),
        (np.array([[0, 100, 255]], np.float32), [0, 100, 255]),
        (np.array([[-1, 0, 1]], np.float32), [0, 128, 255]),
        (np.array([[5, 5, 5]], np.float32), [5, 5, 5]),
        (np.array([[-7, -7, -7]], np.float32), [0, 0, 0]),
        (np.array([[0, 1, 255]], np.int32), [0, 1, 255]),
        (np.array([[0, 32768, 65535]], np.int32), [0, 128, 255]),
        (np.array([[0, 500_000, 1_000_000]], np.int32), [0, 128, 255]),
    ],
)
def test_samples_of_32_bits(values, expected):
    assert seen(encoded(Image.fromarray(values), "TIFF"))[0, :, 0].tolist() == expected


def test_samples_that_are_no_numbers():
    with pytest.raises(DataError, match="no numbers"):
        decode(encoded(Image.fromarray(np.array([[0, np.nan]], np.float32)), "TIFF"))


def test_lab_is_shown_in_its_colours():
    profile = ImageCms.buildTransform(ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB"), "RGB", "LAB")
    lab = ImageCms.applyTransform(Image.new("RGB", (4, 4), (200, 40, 30)), profile)
    assert np.abs(seen(encoded(lab, "TIFF"))[0, 0].astype(int) - [200, 40, 30]).max() < 6


@pytest.mark.parametrize("format", ["JPEG", "PNG", "TIFF", "WEBP"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_turns_the_image_upright(format, orientation):
    upright = np.zeros((16, 32, 3), np.uint8)
    upright[:8, :8] = 255  # White in the upper left corner.
    # How a camera that was held so stores the scene: EXIF 2.32, table 6.
    stored = {
        1: upright,
        2: upright[:, ::-1],
        3: upright[::-1, ::-1],
        4: upright[::-1],
        5: upright.transpose(1, 0, 2),
        6: np.rot90(upright, 1),
        7: upright.transpose(1, 0, 2)[::-1, ::-1],
        8: np.rot90(upright, -1),
    }[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    pixels = seen(encoded(Image.fromarray(np.ascontiguousarray(stored)), format, exif=exif))
    assert np.array_equal(pixels > 127, upright > 127)


def test_damaged_exif_is_no_reason_to_refuse():
    data = encoded(Image.fromarray(smooth()), "JPEG", exif=b"Exif\0\0II*\0\xff\xff\xff\x7fbroken")
    assert seen(data).shape == (48, 64, 3)


def test_the_first_frame_of_an_animation():
    frames = [Image.new("RGB", (4, 4), colour) for colour in ("red", "lime", "blue")]
    for format in ("GIF", "PNG", "WEBP", "TIFF"):
        lossless = {"lossless": True} if format == "WEBP" else {}
        data = encoded(frames[0], format, save_all=True, append_images=frames[1:], **lossless)
        assert seen(data)[0, 0].tolist() == [255, 0, 0]


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "It is empty"),
        (b"hello, I am a text", "It is not an image"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n", "It is not an image"),
        (bytes(range(256)) * 10, "It is not an image"),
        (encoded(Image.fromarray(picture(64, 64)))[:2000], "It is cut short"),
        (encoded(Image.fromarray(picture(64, 64)), "JPEG")[:2000], "It is cut short"),
    ],
)
def test_what_cannot_be_read_has_a_reason(data, reason):
    with pytest.raises(DataError, match=reason) as raised:
        decode(data)
    assert str(raised.value).endswith(".")
    assert "\n" not in str(raised.value)


def test_a_png_whose_end_was_never_written_is_no_picture():
    # Zeros are code words as well here: Pillow alone reads a picture, and 72 of its rows are wrong.
    rows, columns = np.mgrid[:96, :80]
    whole = encoded(Image.fromarray(np.stack([columns * 3 % 256, rows * 2 % 256, rows + columns], -1).astype(np.uint8)))
    half = whole[: len(whole) // 2] + bytes(len(whole) - len(whole) // 2)
    Image.open(io.BytesIO(half)).load()
    with pytest.raises(DataError, match="damaged PNG: the checksum of its pixels"):
        decode(half)


def test_every_cut_and_every_flipped_byte_is_read_or_refused():
    random = np.random.default_rng(0)
    for format in FORMATS:
        whole = encoded(Image.fromarray(smooth(24, 24)), format)
        for _ in range(15):
            broken = bytearray(whole[: random.integers(1, len(whole))])
            broken[random.integers(len(broken))] ^= int(random.integers(1, 256))
            with suppress(DataError):
                assert decode(bytes(broken)).mode == "RGB"


def bomb(width, height):
    """A PNG whose header promises more than its body holds."""
    data = bytearray(encoded(Image.new("L", (1, 1))))
    data[16:24] = struct.pack(">II", width, height)
    data[29:33] = struct.pack(">I", zlib.crc32(data[12:29]))
    return bytes(data)


@pytest.mark.parametrize(
    ("side", "reason"), [(10_000, "over the limit of 89478485"), (60_000, "larger than Pillow opens")]
)
def test_bombs_are_refused_by_their_header(side, reason):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(DataError, match=reason):
            decode(bomb(side, side))


def test_the_limit_is_the_callers():
    data = encoded(Image.fromarray(picture(10, 10)))
    assert decode(data, max_pixels=100).size == (10, 10)
    with pytest.raises(DataError, match="It is 10 x 10 = 100 pixels, over the limit of 99"):
        decode(data, max_pixels=99)


def test_long_and_thin_images_do_not_become_bombs():
    with pytest.raises(DataError, match="long and thin"):
        Transform((224, 224), 256, max_pixels=10**6).pixels(np.zeros((1, 40_000, 3), np.uint8))


def test_pillow_is_left_as_it_was():
    limit, truncated, filters = Image.MAX_IMAGE_PIXELS, ImageFile.LOAD_TRUNCATED_IMAGES, list(warnings.filters)
    decode(encoded(Image.fromarray(picture())))
    assert (limit, truncated) == (Image.MAX_IMAGE_PIXELS, ImageFile.LOAD_TRUNCATED_IMAGES)
    assert list(warnings.filters) == filters


def test_threads_decode_side_by_side():
    image = Image.new("P", (64, 64))
    image.putpalette([255, 0, 0] * 256)
    data, filters, wrong = encoded(image, transparency=bytes([255, 0])), list(warnings.filters), []

    def work():
        for _ in range(100):
            if seen(data)[0, 0].tolist() != [255, 0, 0]:
                wrong.append(1)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
    assert list(warnings.filters) == filters


def test_every_form_of_an_image_is_seen_alike():
    exif = Image.Exif()
    exif[0x0112] = 6
    data = encoded(Image.fromarray(picture()), "PNG", exif=exif)
    expected = seen(data)
    assert np.array_equal(as_seen(Image.open(io.BytesIO(data))), expected)
    assert np.array_equal(as_seen(expected), expected)
    grey = picture()[..., 0]
    assert np.array_equal(as_seen(grey), as_seen(grey[..., None]))
    clear = np.dstack([picture(), np.zeros((12, 20), np.uint8)])
    assert np.asarray(as_seen(clear)).min() == 255


@pytest.mark.parametrize(
    ("image", "message"),
    [
        ("cat.jpg", "came as str"),
        (np.zeros((4, 4, 3)), "array of float64"),
        (np.zeros((3, 4, 5), np.uint8), r"shape \(3, 4, 5\)"),
        (np.zeros(4, np.uint8), r"shape \(4,\)"),
    ],
)
def test_what_is_no_image(image, message):
    with pytest.raises(InputError, match=message):
        as_seen(image)


def test_an_array_without_pixels():
    with pytest.raises(DataError, match="no pixels"):
        as_seen(np.zeros((0, 4, 3), np.uint8))


# --- Transform ------------------------------------------------------------------------------------------------------

SHAPES = [(32, 32), (28, 28), (5, 7), (100, 67), (67, 101), (2, 30), (300, 230)]


@pytest.mark.parametrize("size", [32, 224, 256, (64, 96)])
@pytest.mark.parametrize("crop_mode", ["center", "squash", "border"])
@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear"])
def test_every_bit_is_timms(size, crop_mode, interpolation):
    sides = size if isinstance(size, tuple) else (size, size)
    for height, width in SHAPES:
        for crop_pct in (0.875, 0.9, 1.0, 1.2):
            image = Image.fromarray(picture(height, width))
            theirs = create_transform((3, *sides), crop_pct=crop_pct, crop_mode=crop_mode, interpolation=interpolation)
            config = {"crop_mode": crop_mode, "interpolation": interpolation}
            ours = Transform.from_pretrained_cfg(config, size=size, crop_pct=crop_pct)
            pixels = ours.pixels(image)
            assert pixels.dtype == np.uint8
            assert pixels.shape == (*sides, 3)
            values = ours.normalise(pixels)
            assert values.dtype == np.float32
            assert values.flags.c_contiguous
            assert np.array_equal(values, theirs(image).numpy())


def test_a_line_is_squeezed_and_not_lost():
    assert Transform((8, 8), 8, crop="border").pixels(np.full((1, 100, 3), 9, np.uint8)).shape == (8, 8, 3)


def test_normalise_takes_any_batch():
    transform = Transform((4, 6), 6)
    pixels = np.random.default_rng(0).integers(0, 256, (2, 3, 4, 6, 3), dtype=np.uint8)
    values = transform.normalise(pixels)
    assert values.shape == (2, 3, 3, 4, 6)
    assert np.array_equal(values[1, 2], transform.normalise(pixels[1, 2]))
    for wrong in (pixels.astype(np.float32), pixels[..., :2], pixels[0, 0, 0]):
        with pytest.raises(InputError, match="uint8"):
            transform.normalise(wrong)


def test_timms_defaults_stand_in():
    transform = Transform.from_pretrained_cfg({"mean": None, "classifier": "head", "input_size": (3, 32, 48)})
    assert transform == Transform((32, 48), (36, 54), "bicubic", "center", (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    beit = {"crop_pct": 0.9, "mean": (0.5, 0.5, 0.5), "std": (0.5, 0.5, 0.5), "input_size": [3, 224, 224]}
    assert Transform.from_pretrained_cfg(beit).resize == 248
    assert Transform.from_pretrained_cfg(beit, crop_pct=0.875).resize == 256


def test_equal_transforms_are_written_in_one_way():
    assert Transform((8, 8), (9, 9)) == Transform((8, 8), 9)
    assert Transform((8, 8), 9, crop="squash") == Transform([8, 8], [9, 9], crop="squash")
    assert Transform((8, 8), (9, 9)).fingerprint == Transform((8, 8), 9).fingerprint
    assert Transform((8, 8), 9).fingerprint != Transform((8, 8), 8).fingerprint


def test_dictionary_and_pickle_bring_it_back():
    for transform in (
        Transform((8, 6), 9),
        Transform((8, 6), (9, 10), "lanczos", "border", (0.5,) * 3, (0.25,) * 3, 77),
    ):
        assert Transform.from_dict(transform.to_dict()) == transform
        assert pickle.loads(pickle.dumps(transform)) == transform
    values = Transform((8, 6), 9).to_dict()
    values["cropp"] = values.pop("crop")
    with pytest.raises(InputError, match=r"missing \['crop'\], unknown \['cropp'\]"):
        Transform.from_dict(values)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"size": 8}, "size is 8"),
        ({"size": (8, 0)}, r"size is \(8, 0\)"),
        ({"resize": 0}, "resize is 0"),
        ({"resize": (8, 8, 8)}, "resize is"),
        ({"resize": True}, "resize is True"),
        ({"interpolation": "random"}, "interpolation is 'random'; it must be one of nearest"),
        ({"crop": "centre"}, "crop is 'centre'; it must be one of center, squash, border"),
        ({"mean": (0.5, 0.5)}, "mean is"),
        ({"std": (1, 1, 0)}, "must be positive"),
        ({"std": (1, 1, float("nan"))}, "std is"),
        ({"max_pixels": 0}, "max_pixels is 0"),
    ],
)
def test_wrong_fields(wrong, message):
    with pytest.raises(InputError, match=message):
        Transform(**{"size": (8, 8), "resize": 8, **wrong})


def test_changed_it_is_what_the_changed_config_gives():
    config = {"input_size": (3, 224, 224), "crop_pct": 0.9, "interpolation": "bicubic", "mean": (0.5,) * 3}
    theirs = Transform.from_pretrained_cfg(config)
    assert theirs.resize == 248
    settings = {"crop_pct": 0.875, "interpolation": "bilinear", "crop_mode": "squash", "std": [0.2, 0.3, 0.4]}
    assert theirs.changed(settings) == Transform.from_pretrained_cfg({**config, **settings})
    assert theirs.changed({"crop_pct": 0.875}).resize == 256
    assert theirs.changed({}) == theirs
    for wrong, message in (
        ({"crop": "center"}, "transform has no setting 'crop'; it has crop_pct"),
        ({"crop_pct": 0}, "crop_pct is 0"),
        ({"crop_pct": True}, "crop_pct is True"),
        ({"interpolation": "magic"}, "interpolation is 'magic'"),
        ({"std": 1}, "std is 1"),
    ):
        with pytest.raises(InputError, match=message):
            theirs.changed(wrong)


def test_wrong_pretrained_cfg():
    with pytest.raises(InputError, match="takes 1 channels"):
        Transform.from_pretrained_cfg({"input_size": (1, 28, 28)})
    with pytest.raises(InputError, match="crop_pct is 0"):
        Transform.from_pretrained_cfg({}, crop_pct=0)


def test_no_torch_is_needed():
    code = (
        "import io, sys, numpy as np; from PIL import Image; from mood.core.transform import Transform\n"
        "buffer = io.BytesIO(); Image.new('CMYK', (9, 9)).save(buffer, 'JPEG')\n"
        "t = Transform.from_pretrained_cfg({}, size=8); t.normalise(t.pixels(buffer.getvalue()))\n"
        "assert not {'torch', 'torchvision', 'timm', 'pyarrow'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-W", "error", "-c", code], check=True)
