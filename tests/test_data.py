"""``load_dataset`` and ``Sample``: one way in, one thing that comes out."""

import pickle

import numpy as np
import pytest
import torch
from torchvision import tv_tensors
from torchvision.transforms import v2

from wsol_lib.data import (
    SPLITS,
    Batch,
    LabelsOnly,
    LocalizationDataset,
    Sample,
    Subset,
    limited_per_class,
    load_dataset,
    make_sample,
    scaled_boxes,
    scaled_masks,
)
from wsol_lib.data.sample import resized_mask
from wsol_lib.data.transforms import random_crop
from wsol_lib.pseudo_boxes import WithBoxes


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


class Doubtful(Stripes):
    """The left three columns are not to be judged."""

    def masks(self, index, size):
        ignore = torch.zeros(4, 6, dtype=torch.bool)
        ignore[:, :3] = True
        return super().masks(index, size)[0], resized_mask(ignore, size)


def test_a_sample_has_the_types_and_shapes_of_its_docstring():
    sample = Stripes()[0]
    assert isinstance(sample, Sample)
    assert isinstance(sample.image, tv_tensors.Image) and sample.image.dtype == torch.uint8
    assert isinstance(sample.boxes, tv_tensors.BoundingBoxes) and sample.boxes.dtype == torch.float32
    assert sample.boxes.format.value == "XYXY" and sample.boxes.canvas_size == (4, 6)
    assert isinstance(sample.mask, tv_tensors.Mask) and sample.mask.dtype == torch.bool
    assert (sample.label, type(sample.label), sample.image_id) == (0, int, "first")
    assert Sample._fields == ("image", "label", "boxes", "mask", "image_id", "ignore") and sample.ignore is None
    assert Sample(*sample[:5]) == sample


def test_where_object_and_ignored_overlap_the_object_counts():
    sample = Doubtful()[0]
    assert isinstance(sample.ignore, tv_tensors.Mask) and sample.ignore.dtype == torch.bool
    assert sample.ignore.tolist() == [[False, False, True, False, False, False]] * 4
    assert make_sample(sample.image, 0, sample.boxes, None, "x", sample.ignore).ignore.sum() == 4


def test_transforms_move_what_is_ignored_along():
    sample = Doubtful(transform=v2.RandomHorizontalFlip(p=1))[0]
    assert sample.ignore.tolist() == [[False, False, False, True, False, False]] * 4


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


@pytest.mark.parametrize("size", [(4, 6), (224, 224), (3, 7)])
def test_masks_come_at_any_size_without_the_image(size):
    data = Stripes()
    mask, ignore = data.masks(-2, size)
    assert mask.shape == size and ignore is None and mask[:, 0].all() and not mask[:, -1].any()


@pytest.mark.parametrize("old", [459, 632, 1063, 1066, 1600, 3, 224])
def test_masks_are_resized_as_opencv_does(old):
    cv2 = pytest.importorskip("cv2")
    noise = torch.rand(old, old, generator=torch.Generator().manual_seed(0)) > 0.5
    expected = cv2.resize(noise.numpy().astype(np.uint8), (224, 224), interpolation=cv2.INTER_NEAREST)
    assert torch.equal(resized_mask(noise, (224, 224)), torch.from_numpy(expected > 0))


# --- some images of a data set


def many(counts=(5, 2, 7)):
    labels = torch.arange(len(counts)).repeat_interleave(torch.tensor(counts))
    labels = labels[torch.randperm(len(labels), generator=torch.Generator().manual_seed(3))]
    data = Stripes(transform=v2.RandomHorizontalFlip(p=1))
    data.class_names, data.labels = ("a", "b", "c"), labels
    data.boxes = [torch.tensor([[float(i), 0, i + 1, 4]]) for i in range(len(labels))]
    data.image_sizes, data.image_ids = torch.tensor([[6, 4]] * len(labels)), [str(i) for i in range(len(labels))]
    data._image = lambda i: torch.full((3, 4, 6), i, dtype=torch.uint8)
    data._mask = lambda i: torch.arange(24).reshape(4, 6) == i
    return data


def test_images_per_class():
    assert many().images_per_class.tolist() == [5, 2, 7]


def test_a_subset_has_images_boxes_and_masks_of_its_own_indices():
    data = many()
    subset = Subset(data, [9, 0, -1])
    for sample, i in zip(subset, (9, 0, 13)):
        assert sample.image.unique().tolist() == [i] and sample.label == data.labels[i] and sample.image_id == str(i)
        assert sample.boxes.tolist() == [[5.0 - i, 0, 6 - i, 4]] and torch.equal(sample.mask, data[i].mask)
    assert subset.images([1, 2])[:, 0, 0, 0].tolist() == [0, 13]
    assert len(subset) == 3 and subset.class_names == data.class_names and subset.dataset is data


def test_at_most_so_many_images_of_each_class_drawn_by_the_seed():
    data = many()
    for limit, counts in ((1, [1, 1, 1]), (3, [3, 2, 3]), (99, [5, 2, 7])):
        assert limited_per_class(data, limit).images_per_class.tolist() == counts
    draws = {tuple(limited_per_class(data, 1, seed).image_ids) for seed in range(10)}
    assert len(draws) > 3
    assert set(limited_per_class(data, 1, 5).indices) < set(limited_per_class(data, 3, 5).indices)
    assert limited_per_class(data, 3, 5).indices == sorted(limited_per_class(data, 3, 5).indices)


def test_every_reader_takes_the_limit_in_train_fullsup():
    limited = load_dataset("synthbirds", "train-fullsup", image_size=32, limit_per_class=2)
    assert limited.images_per_class.tolist() == [2] * 12
    assert limited[0].image.shape == (3, 32, 32) and limited[0].mask.any()


@pytest.mark.parametrize("limit", [0, -1, 1.5, True, "3"])
def test_a_limit_is_a_positive_whole_number(limit):
    with pytest.raises(ValueError, match=r"expected limit_per_class as a whole number from 1 up, found"):
        load_dataset("synthbirds", "train-fullsup", image_size=32, limit_per_class=limit)


@pytest.mark.parametrize("split", ["train-weaksup", "test"])
def test_only_full_supervision_is_limited(split):
    with pytest.raises(ValueError, match=rf"expected limit_per_class with train-fullsup, found it with {split}"):
        load_dataset("synthbirds", split, limit_per_class=2)


def test_a_dataset_that_is_sent_to_a_worker_is_the_same():
    data, copy = Stripes(), pickle.loads(pickle.dumps(Stripes()))
    assert [b.tolist() for b in copy.boxes] == [b.tolist() for b in data.boxes]
    assert copy.boxes[1].shape == (0, 4) and copy.image_ids == data.image_ids


@pytest.mark.parametrize("labels", [(0, 2), (0, -1)])
def test_a_label_outside_the_classes_is_named(labels):
    with pytest.raises(ValueError, match=rf"expected labels in 0 ... 1, .* found {labels[1]} for image second"):
        Stripes(labels=labels)


# --- batches


def birds(transform):
    return load_dataset("synthbirds", "test", n_images=20, image_size=32, transform=transform)


def with_gaps(transform):
    """Masks, ignored parts, and no box at all on the last image."""
    data = Doubtful(transform)
    data.boxes[0] = torch.tensor([[0.0, 0, 2, 4], [1, 1, 6, 4]])
    return data


FLIPS = {
    "as they are": None,
    "mirrored": v2.RandomHorizontalFlip(0.5),
    "always mirrored": v2.Compose([v2.Compose([v2.RandomHorizontalFlip(1.0)])]),
}
DATASETS = {
    "of one array": birds,
    "of images by themselves": with_gaps,
    "a subset": lambda transform: Subset(birds(transform), range(3, 19)),
    "labels only": lambda transform: LabelsOnly(Subset(birds(transform), range(3, 19))),
    "other boxes": lambda transform: WithBoxes(
        birds(transform), torch.arange(80).reshape(20, 4) % 4 * 8.0 + torch.tensor([0, 0, 1, 1])
    ),
}


@pytest.mark.parametrize("make", DATASETS.values(), ids=DATASETS)
@pytest.mark.parametrize(
    "transform",
    [*FLIPS.values(), random_crop(36, 32), v2.RandomVerticalFlip(0.5)],
    ids=[*FLIPS, "cropped", "upside down"],
)
def test_a_batch_is_its_samples_to_the_last_draw(make, transform):
    data = make(transform)
    indices = [-1, 0, 1, 1] if len(data) == 2 else [7, 3, -1, 9, 7, 0, 1, 12]
    torch.manual_seed(1)
    samples = [data[i] for i in indices]
    drawn = torch.rand(1)
    torch.manual_seed(1)
    batch = data.batch(indices)
    assert isinstance(batch, Batch) and torch.equal(torch.rand(1), drawn)
    assert (
        torch.equal(batch.images, torch.stack([sample.image for sample in samples]))
        and batch.images.dtype == torch.uint8
    )
    assert batch.labels.tolist() == [sample.label for sample in samples] and batch.labels.dtype == torch.int64
    assert batch.image_ids == [sample.image_id for sample in samples]
    for boxes, sample in zip(batch.boxes, samples, strict=True):
        assert type(boxes) is torch.Tensor and torch.equal(boxes, sample.boxes.as_subclass(torch.Tensor))
    for whole, parts in (
        (batch.masks, [sample.mask for sample in samples]),
        (batch.ignore, [sample.ignore for sample in samples]),
    ):
        assert whole is parts[0] is None or torch.equal(whole, torch.stack(parts).as_subclass(torch.Tensor))
    torch.manual_seed(1)
    assert [one.image_id for one in data.__getitems__(indices)] == batch.image_ids and torch.equal(torch.rand(1), drawn)


@pytest.mark.parametrize("transform", FLIPS.values(), ids=FLIPS)
def test_no_sample_is_made_where_images_are_mirrored_alone(transform, monkeypatch):
    data = LabelsOnly(birds(transform))
    monkeypatch.setattr("wsol_lib.data.sample.make_sample", lambda *_: pytest.fail("a sample by itself"))
    monkeypatch.setattr(type(data.dataset), "_image", lambda *_: pytest.fail("an image by itself"))
    assert data.batch([4, 2]).images.shape == (2, 3, 32, 32)
    assert data.images([4, 2]).shape == (2, 3, 32, 32)


def test_what_a_batch_changes_is_not_the_data_set():
    data = birds(v2.RandomHorizontalFlip(1.0))
    before = data.images(range(20))
    assert torch.equal(data.batch(range(20)).images, before.flip(-1)) and torch.equal(data.images(range(20)), before)
    assert birds(None).boxes[3].tolist() == data.boxes[3].tolist()


@pytest.mark.parametrize("name", ["__getitem__", "__getitems__"])
def test_who_makes_samples_in_another_way_is_asked_for_them(name):
    def several(self, indices):
        return [self[i]._replace(label=1) for i in indices]

    def one(self, index):
        return LocalizationDataset.__getitem__(self, index)._replace(label=1)

    data = type("Other", (Stripes,), {name: one if name == "__getitem__" else several})()
    assert data.batch([0, 1]).labels.tolist() == [1, 1]
    assert [sample.label for sample in data.__getitems__([0, 1])] == [1, 1]


def test_a_batch_of_what_is_not_there():
    for index in (2, -3):
        for ask in (Stripes().batch, Stripes().images, Stripes().__getitems__):
            with pytest.raises(IndexError, match=f"expected an index below 2, found {index}"):
                ask([0, index])


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


def test_boxes_are_scaled_from_the_image_to_its_map():
    stripes = Stripes()
    stripes.boxes[1] = torch.tensor([[0.0, 0, 6, 4], [1, 1, 3, 3]])
    assert scaled_boxes(stripes, 1, (8, 3)).tolist() == [[0, 0, 3, 8], [0.5, 2, 1.5, 6]]
    assert scaled_boxes(stripes, 1, (8, 3)).dtype == torch.float64


def test_masks_of_several_images_come_with_what_is_ignored():
    masks, ignore = scaled_masks(Doubtful(), [0, 1], (2, 3))
    assert masks.tolist() == [[[True, False, False]] * 2] * 2
    assert ignore.tolist() == [[[True, True, False]] * 2] * 2
    assert scaled_masks(Stripes(), [1], (2, 3))[1] is None


def test_what_is_not_there_cannot_be_scaled():
    stripes = Stripes()
    with pytest.raises(
        ValueError, match="expected boxes for every image of stripes test, found none for second: choose"
    ):
        scaled_boxes(stripes, 1, (4, 4))
    stripes.image_sizes[0] = 0
    with pytest.raises(
        ValueError, match=r"expected the size of every image of stripes test .* found none for first: put"
    ):
        scaled_boxes(stripes, 0, (4, 4))
    stripes._mask = lambda i: None
    with pytest.raises(ValueError, match="expected masks in stripes for PxAP, found none for second"):
        scaled_masks(stripes, [1], (4, 4))
