"""Tiny-ImageNet: the conventions read off its files, on a stand-in of three classes and on the real data."""

import os
import pickle
import random
import shutil

import numpy as np
import pytest
import standins
import torch
from torch.utils.data import DataLoader
from torchvision.transforms import v2

from wsol_lib.boxes import box_iou
from wsol_lib.cache import cache_dir
from wsol_lib.data import SPLITS, load_dataset, tiny_imagenet

real = standins.needs("tiny-imagenet-200")


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("WSOL_CACHE", str(tmp_path / "cache"))
    return standins.tiny_imagenet(tmp_path / "data")


def load(folder, split="test", **options):
    return load_dataset("tiny-imagenet", split, root=folder.parent, **options)


def test_classes_are_the_sorted_wordnet_ids_named_by_their_first_word(folder):
    data = load(folder)
    assert data.wnids == ("n01", "n02", "n03")
    assert data.class_names == ("goldfish", "bullfrog", "brain coral")
    assert data.labels.tolist() == [2, 0, 1, 2, 0, 1]


def test_one_is_added_to_the_printed_lower_right_corner(folder):
    assert load(folder).boxes[0].tolist() == [[0, 0, 31, 64]]


def test_a_sample_has_the_pixels_of_its_own_file(folder):
    data = load(folder)
    for i in (0, 3, -1):
        sample = data[i]
        assert sample.image.shape == (3, 64, 64) and sample.image.dtype == torch.uint8
        expected = standins.colour_of(range(6)[i])
        assert np.abs(standins.colour_at_centre(sample.image) - expected).max() <= 4
        assert sample.image_id == f"val_{range(6)[i]}.JPEG"
    assert data.image_sizes.tolist() == [[64, 64]] * 6


def test_images_of_several_indices_are_those_of_the_samples(folder):
    data = load(folder)
    assert torch.equal(data.images([4, 0, -1]), torch.stack([data[i].image for i in (4, 0, 5)]))
    with pytest.raises(IndexError):
        data.images([6])


def test_train_fullsup_is_the_first_ten_solid_boxes_of_a_class_and_weaksup_the_rest(folder):
    full, weak = load(folder, "train-fullsup"), load(folder, "train-weaksup")
    assert full.image_ids[:10] == [f"n01_{n}.JPEG" for n in (0, *range(2, 11))]
    assert torch.bincount(full.labels).tolist() == [10, 10, 10]
    assert weak.image_ids[:2] == ["n01_1.JPEG", "n01_11.JPEG"]
    assert not set(full.image_ids) & set(weak.image_ids)


def test_a_sliver_stays_in_weaksup_one_pixel_high(folder):
    assert load(folder, "train-weaksup").boxes[0].tolist() == [[0, 0, 64, 1]]


@pytest.mark.parametrize("split", SPLITS)
def test_the_zip_gives_what_the_folder_gives(folder, split):
    from_folder = load(folder, split)
    standins.zipped(folder)
    shutil.rmtree(folder)
    from_zip = load(folder, split)
    assert from_zip.image_ids == from_folder.image_ids
    assert torch.equal(torch.cat(from_zip.boxes), torch.cat(from_folder.boxes))
    everything = range(len(from_zip))
    assert torch.equal(from_zip.images(everything), from_folder.images(everything))


def test_annotations_alone_decode_nothing(folder):
    shutil.rmtree(folder / "val" / "images")
    data = load(folder)
    assert len(data.boxes) == 6 and data.labels.tolist() == [2, 0, 1, 2, 0, 1]
    assert not cache_dir().exists()


def test_workers_that_start_together_decode_once(folder, monkeypatch):
    calls = folder.parent / "calls"  # beside: the folder's own time is part of the key
    decode_all = tiny_imagenet._decode_all

    def counted(*arguments):
        decode_all(*arguments)
        with open(calls, "a") as file:
            file.write("x")

    monkeypatch.setattr(tiny_imagenet, "_decode_all", counted)
    loader = DataLoader(load(folder), 3, collate_fn=list, num_workers=2, multiprocessing_context="fork")
    assert [len(samples) for samples in loader] == [3, 3]
    assert calls.read_text() == "x"


def test_a_batch_has_the_samples_one_by_one(folder):
    data = load(folder, transform=v2.RandomHorizontalFlip(p=1))
    for batch, index in zip(data.__getitems__([4, -1]), (4, 5)):
        assert torch.equal(batch.image, data[index].image) and torch.equal(batch.boxes, data[index].boxes)
        assert (batch.label, batch.image_id) == (data[index].label, data[index].image_id)
    assert torch.equal(data.batch([4, -1]).images, data.images([4, 5]).flip(-1))


def cached_files():
    return [path for path in cache_dir().rglob("*") if path.is_file()]


@pytest.fixture
def decoded(monkeypatch):
    """The images that are decoded, one after the other."""
    members, decode = [], tiny_imagenet._decode
    monkeypatch.setattr(
        tiny_imagenet, "_decode", lambda source, member: members.append(member) or decode(source, member)
    )
    return members


@pytest.mark.parametrize("kept_as", ["folder", "zip"])
def test_images_are_decoded_once(folder, decoded, kept_as):
    if kept_as == "zip":
        standins.zipped(folder)
        shutil.rmtree(folder)
    for _ in range(2):
        data = load(folder)
        assert np.abs(standins.colour_at_centre(data[2].image) - standins.colour_of(2)).max() <= 4
        assert torch.equal(data.images([5])[0], data[5].image)
    assert len(decoded) == 6 and len(cached_files()) == 1


def written_in_place(path, content):
    path.write_bytes(content)


def moved_there(path, content):
    path.with_suffix(".new").write_bytes(content)
    path.with_suffix(".new").replace(path)


@pytest.mark.parametrize("replace", [written_in_place, moved_there])
def test_an_image_that_was_replaced_is_decoded_anew_and_the_old_pixels_go(folder, decoded, replace):
    load(folder).images([0])
    replace(folder / "val" / "images" / "val_4.JPEG", standins.jpeg((1, 2, 3)))
    assert np.abs(standins.colour_at_centre(load(folder)[4].image) - (1, 2, 3)).max() <= 4
    assert len(decoded) == 12 and len(cached_files()) == 1
    load(folder, "train-fullsup").images([0])
    assert len(cached_files()) == 2, "another split is not outdated"


def test_another_order_in_the_list_is_another_array(folder):
    """Even of images that no size and no time tells apart."""
    for n in range(6):
        image = folder / "val" / "images" / f"val_{n}.JPEG"
        image.write_bytes(image.read_bytes().ljust(2000, b"\0"))
        os.utime(image, (0, 0))
    load(folder).images([0])
    rows = (folder / "val" / "val_annotations.txt").read_text().splitlines()
    (folder / "val" / "val_annotations.txt").write_text("\n".join(rows[::-1]))
    assert np.abs(standins.colour_at_centre(load(folder)[0].image) - standins.colour_of(5)).max() <= 4


def cut(content):
    return content[: len(content) // 2]


def emptied(content):
    return b""


def lengthened(content):
    return content + b"x"


def header_changed(content):
    return content.replace(b"(6, 64", b"(5, 64", 1)


def zeroed_at_the_end(content):
    return content[:-5000] + bytes(5000)


def pixel_changed(content):
    return content[:5000] + bytes([content[5000] ^ 1]) + content[5001:]


@pytest.mark.parametrize("damage", [cut, emptied, lengthened, header_changed, zeroed_at_the_end, pixel_changed])
def test_a_damaged_array_is_made_again(folder, decoded, damage):
    right = load(folder).images(range(6)).clone()
    (path,) = cached_files()
    content = path.read_bytes()
    path.write_bytes(damage(content))
    assert torch.equal(load(folder).images(range(6)), right)
    assert len(decoded) == 12 and path.read_bytes() == content and cached_files() == [path]


def test_the_array_can_be_read_by_numpy_alone(folder):
    right = load(folder).images(range(6))
    (path,) = cached_files()
    assert np.array_equal(np.load(path), right.permute(0, 2, 3, 1))


@pytest.mark.parametrize("opened", [False, True])
def test_a_damaged_image_is_found_when_it_is_read_and_not_before(folder, decoded, opened):
    """Also in a file that is open already."""
    data = load(folder, "train-fullsup")
    right = data.images(range(30))
    (path,) = cached_files()
    content, size = path.read_bytes(), 64 * 64 * 3
    for image in (0, 17, 29):
        data = load(folder, "train-fullsup")
        place = len(tiny_imagenet._header(30)) + image * size + 7
        if opened:
            data.images([image - 1])
        with open(path, "r+b") as file:
            file.seek(place)
            file.write(bytes([content[place] ^ 1]))
        decoded.clear()
        others = [i for i in range(30) if i != image]
        assert torch.equal(data.images(others), right[others]) and not decoded
        assert torch.equal(data.images([3, image]), right[[3, image]]) and len(decoded) == 30
        assert torch.equal(data.images(range(30)), right) and len(decoded) == 30
        assert path.read_bytes() == content


def test_no_flipped_byte_is_believed(folder, decoded):
    right = load(folder).images(range(6))
    (path,) = cached_files()
    content, draw = path.read_bytes(), random.Random(0)
    ends = [*range(200), *range(len(content) - 60, len(content))]  # header and checksums, which few draws would meet
    for place in [*draw.sample(range(len(content)), 20), *draw.sample(ends, 20)]:
        flipped = bytearray(content)
        flipped[place] ^= draw.randint(1, 255)
        path.write_bytes(flipped)
        decoded.clear()
        assert torch.equal(load(folder).images(range(6)), right)
        assert len(decoded) == 6 and path.read_bytes() == content


def test_of_two_processes_that_find_the_damage_one_decodes(folder, decoded):
    right = load(folder).images(range(6))
    (path,) = cached_files()
    first, second = load(folder), load(folder)
    first.images([0]), second.images([0])
    with open(path, "r+b") as file:
        file.seek(-200, os.SEEK_END)
        file.write(bytes(9))
    decoded.clear()
    assert torch.equal(first.images([5]), right[[5]]) and torch.equal(second.images([5]), right[[5]])
    assert len(decoded) == 6


def test_a_disk_that_keeps_nothing_right(folder, monkeypatch):
    monkeypatch.setattr(tiny_imagenet._Pixels, "read", lambda *_: None)
    with pytest.raises(
        ValueError, match=r"expected the images that were just written to .*\.npy, found others: look at"
    ):
        load(folder).images([0])


def test_greyscale_and_cmyk_files_come_out_as_rgb_and_exif_is_not_followed(folder):
    images = folder / "val" / "images"
    (images / "val_0.JPEG").write_bytes(standins.jpeg((90, 90, 90), mode="L"))
    (images / "val_1.JPEG").write_bytes(standins.jpeg((200, 30, 30), mode="CMYK"))
    half = np.zeros((64, 64, 3), np.uint8)
    half[:32] = 255
    standins.Image.fromarray(half).save(images / "val_2.JPEG", exif=standins.sideways())
    data = load(folder)
    assert np.abs(standins.colour_at_centre(data[0].image) - 90).max() <= 4
    assert np.abs(standins.colour_at_centre(data[1].image) - (200, 30, 30)).max() <= 8
    assert data[2].image[:, 5].min() > 200 and data[2].image[:, 60].max() < 50


def test_workers_get_the_annotations_and_map_the_pixels_themselves(folder):
    data = load(folder)
    data.images([0])  # maps them here
    content = pickle.dumps(data)
    assert len(content) < 6 * 64 * 64 * 3
    copy = pickle.loads(content)
    assert torch.equal(torch.cat(copy.boxes), torch.cat(data.boxes)) and len(copy.boxes) == 6
    assert torch.equal(copy[3].image, data[3].image)
    samples = next(iter(DataLoader(data, 4, collate_fn=list, num_workers=1)))
    assert torch.equal(torch.stack([sample.image for sample in samples]), data.images(range(4)))


# --- bad input


def test_without_folder_or_zip_the_message_says_how_to_fetch(tmp_path):
    with pytest.raises(
        FileNotFoundError, match=r"found neither: fetch the data with `python data_scripts/tiny_imagenet.py"
    ):
        load_dataset("tiny-imagenet", "test", root=tmp_path)


@pytest.mark.parametrize("keep", [0.0, 0.5, 0.95])
def test_a_truncated_zip_is_named(folder, keep):
    archive = standins.zipped(folder)
    shutil.rmtree(folder)
    content = archive.read_bytes()
    archive.write_bytes(content[: int(keep * len(content))])
    with pytest.raises(ValueError, match=r"expected a whole zip at .*tiny-imagenet-200.zip, found one that is damaged"):
        load(folder)


def test_a_zip_of_a_version_that_nobody_made_is_named(folder):
    archive = standins.zipped(folder)
    shutil.rmtree(folder)
    content = bytearray(archive.read_bytes())
    content[content.find(b"PK\1\2") + 6] = 251
    archive.write_bytes(content)
    with pytest.raises(ValueError, match=r"expected a whole zip at .*, found one that is damaged .*version 25.1"):
        load(folder)


@pytest.mark.parametrize("byte", [0x00, 0xFF])  # a wrong checksum, a stream that cannot be inflated
def test_a_zip_with_overwritten_bytes_in_an_image_names_it(folder, byte):
    archive = standins.zipped(folder)
    shutil.rmtree(folder)
    with standins.zipfile.ZipFile(archive) as opened:
        start = opened.getinfo("tiny-imagenet-200/val/images/val_3.JPEG").header_offset
    content = bytearray(archive.read_bytes())
    content[start + 120 : start + 160] = bytes([byte]) * 40
    archive.write_bytes(content)
    with pytest.raises(ValueError, match=r"val/images/val_3.JPEG in .*zip, found it damaged"):
        load(folder).images([0])


def test_an_unreadable_image_is_named_and_leaves_no_half_written_cache(folder):
    (folder / "val" / "images" / "val_4.JPEG").write_bytes(standins.jpeg()[:300])
    with pytest.raises(ValueError, match=r"expected an image in val/images/val_4.JPEG, found 300 bytes"):
        load(folder).images([0])
    assert not [path for path in cache_dir().rglob("*") if path.is_file()]
    (folder / "val" / "images" / "val_4.JPEG").write_bytes(standins.jpeg())
    assert len(load(folder)) == 6


def test_an_interrupted_decode_leaves_nothing(folder, monkeypatch):
    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("wsol_lib.data.tiny_imagenet._decode", interrupt)
    with pytest.raises(KeyboardInterrupt):
        load(folder).images([0])
    assert not [path for path in cache_dir().rglob("*") if path.is_file()]


def test_an_image_of_another_size_is_refused(folder):
    (folder / "val" / "images" / "val_4.JPEG").write_bytes(standins.jpeg(size=(64, 60)))
    with pytest.raises(ValueError, match=r"expected 64 x 64 pixels in val/images/val_4.JPEG, found 64 x 60"):
        load(folder).images([0])


@pytest.mark.parametrize("instead", [None, os.mkdir, os.mkfifo])
def test_a_listed_image_that_is_missing_is_named(folder, instead):
    (folder / "val" / "images" / "val_4.JPEG").unlink()
    if instead:
        instead(folder / "val" / "images" / "val_4.JPEG")
    with pytest.raises(FileNotFoundError, match=r"expected val/images/val_4.JPEG in .*, found no such file"):
        load(folder).images([0])


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("val_0.JPEG\tn09\t0\t0\t5\t5", r"expected a class out of the 3 in wnids.txt for val_0.JPEG .*found 'n09'"),
        ("val_0.JPEG\tn01\t0\t0\t5", r"for val_0.JPEG, found \['0', '0', '5'\]"),
        ("val_0.JPEG\tn01\t9\t0\t5\t5", r"for val_0.JPEG, found \['9', '0', '5', '5'\]"),
        ("val_0.JPEG\tn01\t0\t0\t5\t64", r"in 0 ... 63 for val_0.JPEG"),
        ("val_0.JPEG\tn01\t0\t0\t64\t5", r"in 0 ... 63 for val_0.JPEG"),
        ("val_0.JPEG\tn01\t0\t0\t5\tx", r"for val_0.JPEG"),
        ("", "expected a list in val/val_annotations.txt"),
        ("\0\xff", "expected a class out of the 3"),
    ],
)
def test_a_damaged_list_is_named(folder, row, message):
    (folder / "val" / "val_annotations.txt").write_text(row + "\n")
    with pytest.raises(ValueError, match=message):
        load(folder)


@pytest.mark.parametrize("instead", [os.mkdir, os.mkfifo])
def test_a_list_that_is_no_file_is_named(folder, instead):
    (folder / "wnids.txt").unlink()
    instead(folder / "wnids.txt")
    with pytest.raises(FileNotFoundError, match=r"expected wnids.txt in .*, found no such file: fetch"):
        load(folder)


def test_a_zip_whose_members_are_encrypted_is_named(folder):
    archive = standins.zipped(folder)
    shutil.rmtree(folder)
    content = bytearray(archive.read_bytes())
    for signature, flags in ((b"PK\3\4", 6), (b"PK\1\2", 8)):
        place = content.find(signature)
        while place >= 0:
            content[place + flags] |= 1
            place = content.find(signature, place + 4)
    archive.write_bytes(content)
    with pytest.raises(ValueError, match=r"expected wnids.txt in .*zip, found it damaged .*encrypted"):
        load(folder)


# --- the real data


@real
def test_real_validation_set():
    data = load_dataset("tiny-imagenet", "test")
    boxes = torch.cat(data.boxes)
    assert len(data) == len(boxes) == 10_000
    assert torch.bincount(data.labels).tolist() == [50] * 200
    whole = box_iou(torch.tensor([[0.0, 0.0, 64.0, 64.0]]), boxes)[0]
    assert f"{(whole >= 0.5).float().mean():.1%}" == "52.1%"
    assert int(((boxes[:, 2:] - boxes[:, :2]) == 1).any(1).sum()) == 41
    assert data[0].image.shape == (3, 64, 64)


@real
def test_real_training_splits():
    weak, full = (load_dataset("tiny-imagenet", split) for split in SPLITS[:2])
    assert (len(weak), len(full)) == (98_000, 2_000)
    assert torch.bincount(full.labels).tolist() == [10] * 200
    assert not set(weak.image_ids) & set(full.image_ids)
    assert ((torch.cat(full.boxes)[:, 2:] - torch.cat(full.boxes)[:, :2]) > 1).all()
