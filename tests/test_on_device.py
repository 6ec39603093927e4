"""Images that live on the GPU are those that a batch has; the same code runs here on the CPU."""

import pytest
import standins
import tiny
import torch
from torchvision.transforms import v2

from wsol_lib import localizers
from wsol_lib.data import LabelsOnly, Subset, load_dataset, on_device
from wsol_lib.data.on_device import OnDevice, Views, views_of
from wsol_lib.data.transforms import random_crop, square
from wsol_lib.train import _Batches

CPU = torch.device("cpu")
TRANSFORMS = {
    "none": None,
    "mirrored": v2.Compose([v2.RandomHorizontalFlip(0.3)]),
    "cropped": v2.Compose([random_crop(36, 32)]),
    "resized": square(24),
    "cut alone": v2.RandomCrop(20),
}


def birds(transform=None):
    return LabelsOnly(load_dataset("synthbirds", "train-weaksup", n_images=14, image_size=32, transform=transform))


def photographs(folder, transform=None):
    standins.tiny_imagenet(folder)
    return LabelsOnly(Subset(load_dataset("tiny-imagenet", "test", folder, transform=transform), [5, 0, 3, 1]))


@pytest.fixture
def moved(monkeypatch):
    """As on a machine whose GPU is its CPU."""
    monkeypatch.setattr(on_device, "DEVICES", ("cpu",))


@pytest.mark.parametrize("transform", TRANSFORMS.values(), ids=TRANSFORMS)
@pytest.mark.parametrize("name", ["birds", "photographs"])
def test_a_batch_is_that_of_the_data_set_to_the_last_draw(name, transform, tmp_path):
    data = birds(transform) if name == "birds" else photographs(tmp_path, transform)
    indices = [3, 0, 1, 1, 2] * 4
    torch.manual_seed(1)
    expected, drawn = data.batch(indices), torch.rand(1)
    torch.manual_seed(1)
    images, labels = OnDevice(data, CPU).batch(indices)
    assert torch.equal(torch.rand(1), drawn)
    assert torch.equal(images, expected.images) and torch.equal(labels, expected.labels)
    assert images.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here on which images could live")
@pytest.mark.parametrize("transform", TRANSFORMS.values(), ids=TRANSFORMS)
def test_the_gpu_sees_the_same_pictures_but_for_rounding(transform):
    data, indices = birds(transform), list(range(14))
    torch.manual_seed(1)
    expected = data.batch(indices)
    torch.manual_seed(1)
    images, labels = on_device.on_device(data, torch.device("cuda")).batch(indices)
    assert images.is_cuda and torch.equal(labels.cpu(), expected.labels)
    assert (images.cpu().int() - expected.images.int()).abs().max() <= 2


def test_what_a_transform_does_is_known_or_it_is_not():
    assert views_of(None) == Views()
    assert views_of(random_crop(36, 32)) == Views((36, 36), (32, 32), 0.5)
    for other in (
        v2.RandomVerticalFlip(),
        v2.RandomResizedCrop(32),
        v2.RandomCrop(32, padding=2),
        v2.Resize((8, 8)),  # not bicubic
        v2.Compose([v2.RandomHorizontalFlip(), v2.RandomCrop(8)]),  # drawn in another order
        v2.Compose([v2.RandomCrop(8), square(8)]),
        lambda sample: sample,
    ):
        assert views_of(other) is None


def test_who_stays_where_it_is(moved, tmp_path, monkeypatch):
    assert on_device.on_device(birds(), torch.device("cuda", 3)) is None  # is no kind that images move to
    assert on_device.on_device(birds(v2.RandomVerticalFlip()), CPU) is None
    assert on_device.on_device([], CPU) is None
    files = standins.photographs(tmp_path / "folder", ["cat/0.png", "dog/1.png"])
    assert on_device.on_device(load_dataset("folder", "train-weaksup", files), CPU) is None
    other = birds()
    other.__class__ = type("Other", (LabelsOnly,), {"batch": lambda self, indices: None})
    assert on_device.on_device(other, CPU) is None
    assert on_device.on_device(birds(), CPU) is not None
    for memory, stays in ((14 * 32 * 32 * 3 * 4, False), (14 * 32 * 32 * 3 * 4 - 1, True)):
        monkeypatch.setattr(on_device, "memory_of", lambda device, memory=memory: memory)
        assert (on_device.on_device(birds(), CPU) is None) is stays


@pytest.mark.parametrize("augment", ["crop", "flip"])
def test_a_training_on_the_device_is_one_beside_it(augment, monkeypatch):
    """To the last bit of its weights; and no other process is asked for images."""
    with tiny.registered():
        settings = tiny.settings("cam", augment=augment)
        plain = localizers.fit("cam", birds(), **settings)
        monkeypatch.setattr(on_device, "DEVICES", ("cpu",))
        monkeypatch.setattr(
            "wsol_lib.data.LocalizationDataset.batch", lambda *_: pytest.fail("a batch of the data set")
        )
        monkeypatch.setattr(_Batches, "loader", workers_of(_Batches.loader, seen := []))
        moved = localizers.fit("cam", birds(), **settings, num_workers=2)
    assert seen == [0] and moved.history == plain.history
    for name, value in plain.network.state_dict().items():
        assert torch.equal(moved.network.state_dict()[name], value)


def workers_of(loader, seen):
    def kept(self, *arguments):
        made = loader(self, *arguments)
        seen.append(made.num_workers)
        return made

    return kept
