"""Image files as ImageNet and others really have them: every kind comes out as RGB, or is named."""

import io
import os
import random
import struct

import numpy as np
import pytest
import standins
import torch
from PIL import Image, features
from skimage import data as photographs

from wsol_lib.data.images import decode_mask, decode_rgb, image_bytes, image_size, read_square
from wsol_lib.data.transforms import resize_images


def encoded(image, file_format, **save):
    content = io.BytesIO()
    image.save(content, file_format, **save)
    return content.getvalue()


def flat(colour, mode):
    return Image.new("RGB", (12, 8), colour).convert(mode)


@pytest.mark.parametrize(
    ("content", "colour"),
    [
        (encoded(flat((200, 30, 30), "RGB"), "JPEG", quality=95), (200, 30, 30)),
        (encoded(flat((200, 30, 30), "CMYK"), "JPEG", quality=95), (200, 30, 30)),
        (encoded(flat((90, 90, 90), "L"), "JPEG"), (90, 90, 90)),
        (encoded(flat((200, 30, 30), "RGB"), "PNG"), (200, 30, 30)),
        (encoded(flat((200, 30, 30), "RGB").quantize(4), "PNG"), (200, 30, 30)),
        (encoded(flat((255, 255, 255), "1"), "PNG"), (255, 255, 255)),
        (encoded(Image.new("RGBA", (12, 8), (200, 30, 30, 0)), "PNG"), (200, 30, 30)),
        (encoded(Image.new("LA", (12, 8), (90, 0)), "PNG"), (90, 90, 90)),
        (encoded(Image.fromarray(np.full((8, 12), 200 * 256 + 7, np.uint16)), "PNG"), (200, 200, 200)),
        (encoded(flat((200, 30, 30), "RGB"), "BMP"), (200, 30, 30)),
    ],
    ids=["rgb", "cmyk", "grey", "png-named-jpeg", "palette", "1-bit", "rgba", "grey-alpha", "16-bit", "bmp"],
)
def test_every_kind_of_file_is_rgb(content, colour):
    pixels = decode_rgb(content, "n01440764_1.JPEG", turn=False)
    assert pixels.shape == (8, 12, 3) and pixels.dtype == np.uint8 and pixels.flags.writeable
    assert np.abs(pixels.astype(int) - colour).max() <= 8


def test_16_bits_keep_their_order():
    ramp = np.arange(0, 65536, 512, dtype=np.uint16)[None]
    pixels = decode_rgb(encoded(Image.fromarray(ramp), "PNG"), "x")
    assert pixels[0, :, 0].tolist() == [value >> 8 for value in ramp[0].tolist()]


@pytest.mark.parametrize("mode", ["1", "L", "RGB", "RGBA", "P"])
def test_a_mask_is_what_is_not_black(mode):
    image = Image.new("RGB", (12, 8))
    image.paste("white", (3, 2, 7, 6))
    image = image.convert(mode)
    if mode == "RGBA":
        image.putalpha(255)  # opaque black is no object
    expected = np.zeros((8, 12), bool)
    expected[2:6, 3:7] = True
    assert np.array_equal(decode_mask(encoded(image, "PNG"), "x"), expected)


def test_a_damaged_mask_is_named():
    with pytest.raises(ValueError, match=r"expected an image in m.png, found 3 bytes"):
        decode_mask(b"PNG", "m.png")


def test_exif_turns_only_if_asked(tmp_path):
    path = tmp_path / "x.jpg"
    path.write_bytes(encoded(flat((9, 9, 9), "RGB"), "JPEG", exif=standins.sideways()))
    for turn, shape in ((True, (12, 8, 3)), (False, (8, 12, 3))):
        assert decode_rgb(path.read_bytes(), "x", turn=turn).shape == shape
        assert image_size(path, turn=turn) == shape[1::-1]


@pytest.mark.parametrize("exif", [b"Exif\0\0garbage", b"Exif\0\0MM\0*\0\0\0\x08\xff\xff"])
def test_an_exif_that_cannot_be_read_does_not_matter_where_it_is_not_followed(exif):
    assert decode_rgb(encoded(flat((9, 9, 9), "RGB"), "JPEG", exif=exif), "x", turn=False).shape == (8, 12, 3)


@pytest.mark.parametrize("content", [b"", b"<html>not found</html>", standins.jpeg()[:300]])
def test_what_is_no_whole_image_is_named(content, tmp_path):
    with pytest.raises(ValueError, match=rf"expected an image in a/b.jpg, found {len(content)} bytes .* replace"):
        decode_rgb(content, "a/b.jpg")
    path = tmp_path / "b.jpg"
    path.write_bytes(content[:20])
    with pytest.raises(ValueError, match=r"expected an image in .*b.jpg, found something"):
        image_size(path)


def test_a_jpeg_is_decoded_at_a_fraction_whose_sides_are_long_enough():
    content = standins.jpeg(size=(640, 480))
    shapes = {least: decode_rgb(content, "a.jpg", least=least).shape[:2] for least in (481, 240, 239, 120, 60, 1)}
    assert shapes == {481: (480, 640), 240: (240, 320), 239: (240, 320), 120: (120, 160), 60: (60, 80), 1: (60, 80)}
    assert decode_rgb(encoded(Image.new("RGB", (640, 480)), "PNG"), "a.png", least=60).shape == (480, 640, 3)


@pytest.mark.parametrize(("side", "tolerance"), [(224, 0.01), (60, 1.0)], ids=["whole", "at a half"])
def test_a_square_is_the_image_resized_as_everywhere(tmp_path, side, tolerance):
    """The cat is 451 x 300 pixels: decoded at a half it can fill 2 x 60 pixels, at a whole 2 x 224."""
    Image.fromarray(photographs.chelsea()).save(tmp_path / "cat.jpg", quality=95)
    square, size = read_square(tmp_path / "cat.jpg", side)
    whole = torch.from_numpy(decode_rgb((tmp_path / "cat.jpg").read_bytes(), "cat.jpg")).permute(2, 0, 1)
    expected = resize_images(whole, (side, side)).permute(1, 2, 0).numpy()
    assert size == (451, 300) and square.dtype == np.uint8
    assert np.abs(square.astype(int) - expected).mean() < tolerance


def test_a_square_is_turned_as_the_exif_says(tmp_path):
    picture = Image.new("RGB", (800, 400))
    picture.paste((255, 255, 255), (0, 0, 400, 400))  # the left half; turned a quarter to the right, the upper one
    picture.save(tmp_path / "turned.jpg", exif=standins.sideways())
    square, size = read_square(tmp_path / "turned.jpg", 32)
    assert size == (400, 800)
    assert square[:12].min() > 240 and square[20:].max() < 15


def test_a_square_of_no_image_is_named(tmp_path):
    (tmp_path / "cut.jpg").write_bytes(standins.jpeg(size=(300, 300))[:-200])
    for name in ("cut.jpg", "none.jpg"):
        with pytest.raises(ValueError, match=rf"expected an image in .*{name}"):
            read_square(tmp_path / name, 32)


@pytest.mark.parametrize("error", [RuntimeError, KeyError, TypeError, IndexError, ZeroDivisionError, struct.error])
def test_whatever_pillow_trips_over_is_said_in_one_sentence(tmp_path, monkeypatch, error):
    """Its formats have errors of their own: AVIF's is a RuntimeError, TIFF's are of many kinds."""

    def trip(_):
        raise error("over this")

    path = tmp_path / "b.avif"
    path.write_bytes(b"avif")
    monkeypatch.setattr(Image, "open", trip)
    for read in (decode_rgb, decode_mask):
        with pytest.raises(ValueError, match=r"expected an image in b\.avif, found 4 bytes .*over this"):
            read(b"avif", "b.avif")
    with pytest.raises(ValueError, match=r"expected an image in .*b\.avif, found something .*over this"):
        image_size(path)


@pytest.mark.filterwarnings("ignore::UserWarning")  # of TIFF's tags
@pytest.mark.parametrize("file_format", ["AVIF", "TIFF", "WEBP", "JPEG", "PNG"])
def test_bytes_changed_anywhere_give_pixels_or_one_sentence(file_format):
    if file_format == "AVIF" and not features.check("avif"):
        pytest.skip("this Pillow has no AVIF")
    content, draw = encoded(flat((200, 30, 30), "RGB"), file_format), random.Random(0)
    for _ in range(100):
        changed = bytearray(content)
        for place in draw.sample(range(len(content)), draw.randint(1, 4)):
            changed[place] = draw.randrange(256)
        try:
            assert decode_rgb(bytes(changed), "x").dtype == np.uint8
        except ValueError as error:
            assert str(error).startswith("expected an image in x, found")


@pytest.mark.parametrize("most", [1.0, 255.0])
def test_floating_point_pixels_are_refused(most):
    """Of [0, 1] all would become black."""
    content = encoded(Image.fromarray(np.linspace(0, most, 96, dtype=np.float32).reshape(8, 12)), "TIFF")
    for read in (decode_rgb, decode_mask):
        with pytest.raises(ValueError, match=r"expected an image in x.tif, .*floating-point numbers, save them with 8"):
            read(content, "x.tif")


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir, lambda path: None])
def test_what_is_no_file_is_named_and_not_waited_for(tmp_path, make):
    path = tmp_path / "p.jpg"
    make(path)
    for read in (image_size, image_bytes, lambda path: read_square(path, 8)):
        with pytest.raises(ValueError, match=r"expected an image in .*p\.jpg, found .*no file, but a folder, a pipe"):
            read(path)
