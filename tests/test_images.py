"""Image files as ImageNet and others really have them: every kind comes out as RGB, or is named."""

import io

import numpy as np
import pytest
import standins
from PIL import Image

from wsol_lib.data.images import decode_mask, decode_rgb, image_size


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
