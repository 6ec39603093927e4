"""``load_dataset`` and ``Sample``: one way in, one thing that comes out."""

import pickle

import pytest
import torch
from torchvision import tv_tensors
from torchvision.transforms import v2

from wsol_lib.data import SPLITS, LocalizationDataset, Sample, load_dataset, make_sample


class Stripes(LocalizationDataset):
    """Two images, 6 wide and 4 high, the object in the left two columns."""

    def __init__(self, transform=None, labels=(0, 1)):
        super().__init__(
            name="stripes",
            split="test",
            class_names=("a", "b"),
            labels=torch.tensor(labels),
            boxes=[torch.tensor([[0.0, 0, 2, 4]]), torch.zeros(0, 4)],
            image_sizes=torch.tensor([[6, 4], [6, 4]]),
            image_ids=["first", "second"],
            transform=transform,
        )

    def _image(self, i):
        image = torch.full((3, 4, 6), 10 * i, dtype=torch.uint8)
        image[:, :, :2] = 255
        return image

    def _mask(self, i):
        return self._image(i)[0] == 255


def test_a_sample_has_the_types_and_shapes_of_its_docstring():
    sample = Stripes()[0]
    assert isinstance(sample, Sample)
    assert isinstance(sample.image, tv_tensors.Image) and sample.image.dtype == torch.uint8
    assert isinstance(sample.boxes, tv_tensors.BoundingBoxes) and sample.boxes.dtype == torch.float32
    assert sample.boxes.format.value == "XYXY" and sample.boxes.canvas_size == (4, 6)
    assert isinstance(sample.mask, tv_tensors.Mask) and sample.mask.dtype == torch.bool
    assert (sample.label, type(sample.label), sample.image_id) == (0, int, "first")


@pytest.mark.parametrize("index", range(2))
def test_transforms_move_boxes_and_mask_along(index):
    sample = Stripes(transform=v2.Compose([v2.RandomHorizontalFlip(p=1), v2.Resize((8, 12))]))[index]
    assert sample.image.shape == (3, 8, 12) and sample.mask.shape == (8, 12)
    assert sample.boxes.tolist() == ([[8, 0, 12, 8]] if index == 0 else [])
    assert sample.mask[:, 9:].all() and not sample.mask[:, :7].any() and sample.mask.dtype == torch.bool
    assert sample.image[:, :, 10].min() == 255
    assert (sample.label, sample.image_id) == (index, ("first", "second")[index])


def test_a_sample_without_mask_goes_through_a_transform():
    plain = make_sample(torch.zeros(3, 4, 6, dtype=torch.uint8), 1, torch.zeros(0, 4), None, "x")
    flipped = v2.RandomHorizontalFlip(p=1)(plain)
    assert flipped.mask is None and isinstance(flipped, Sample)


def test_a_dataset_is_a_sequence():
    data = Stripes()
    assert len(data) == 2 and data[-1].image_id == "second"
    assert [sample.image_id for sample in data] == ["first", "second"]
    for index in (2, -3):
        with pytest.raises(IndexError, match="expected an index below 2, found"):
            data[index]


def test_images_of_several_indices_come_without_the_transform():
    data = Stripes(transform=v2.RandomHorizontalFlip(p=1))
    assert torch.equal(data.images([1, -2]), torch.stack([data._image(1), data._image(0)]))


def test_a_dataset_that_is_sent_to_a_worker_is_the_same():
    data, copy = Stripes(), pickle.loads(pickle.dumps(Stripes()))
    assert [b.tolist() for b in copy.boxes] == [b.tolist() for b in data.boxes]
    assert copy.boxes[1].shape == (0, 4) and copy.image_ids == data.image_ids


@pytest.mark.parametrize("labels", [(0, 2), (0, -1)])
def test_a_label_outside_the_classes_is_named(labels):
    with pytest.raises(ValueError, match=rf"expected labels in 0 ... 1, .* found {labels[1]} for image second"):
        Stripes(labels=labels)


# --- bad input to load_dataset


@pytest.mark.parametrize("name", ["imagenette", "", None, "CUB"])
def test_an_unknown_name_lists_the_known(name):
    with pytest.raises(ValueError, match=r"expected a data set out of synthbirds, tiny-imagenet, .* choose one"):
        load_dataset(name, "test")


@pytest.mark.parametrize("split", ["train", "val", None])
def test_an_unknown_split_lists_the_known(split):
    with pytest.raises(ValueError, match=rf"expected a split out of {', '.join(SPLITS)}, found"):
        load_dataset("synthbirds", split)


@pytest.mark.parametrize("name", ["synthbirds", "tiny-imagenet", "cub", "folder"])
def test_an_unknown_option_lists_the_known(name, tmp_path):
    with pytest.raises(ValueError, match=rf"expected options of {name} out of .*transform.*, found colour"):
        load_dataset(name, "test", tmp_path, colour="red")


@pytest.mark.parametrize("name", ["tiny-imagenet", "cub", "imagenet", "openimages", "folder"])
def test_a_missing_root_says_how_to_name_it(name, tmp_path, monkeypatch):
    monkeypatch.delenv("WSOL_DATA", raising=False)
    with pytest.raises(FileNotFoundError, match="or in the environment variable WSOL_DATA, found neither: name it"):
        load_dataset(name, "test")
    for root in (tmp_path / "none", str(tmp_path / "none")):
        with pytest.raises(FileNotFoundError, match=r"expected a folder that holds .* at .*none, found none"):
            load_dataset(name, "test", root)
    with pytest.raises(FileNotFoundError):
        load_dataset(name, "test", tmp_path)


def test_root_overrides_the_environment(tmp_path, monkeypatch):
    monkeypatch.setenv("WSOL_DATA", str(tmp_path))
    with pytest.raises(FileNotFoundError, match=f"in {tmp_path}, found neither"):
        load_dataset("tiny-imagenet", "test")
    (tmp_path / "other").mkdir()
    with pytest.raises(FileNotFoundError, match=f"in {tmp_path / 'other'}, found neither"):
        load_dataset("tiny-imagenet", "test", tmp_path / "other")
