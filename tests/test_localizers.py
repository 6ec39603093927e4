"""The door: all thirteen by name and one of one's own, fitted, asked, saved, loaded, and gone on with after a kill."""

import functools
import hashlib
import io
import json
import os
import pickle
import shutil
from collections import Counter

import killed
import pytest
import standins
import tiny
import torch
from torch import nn

from wsol_lib import localizers
from wsol_lib.cam import CAM
from wsol_lib.data import LocalizationDataset, Subset, load_dataset
from wsol_lib.data.transforms import resize_images
from wsol_lib.localizer import FACTS, FORMAT, Localizer
from wsol_lib.localizers import NAMES

BIRDS = {"image_size": 40, "species_per_family": 1}
WITHOUT_MAPS = ("psol", "slt", "lchp-i", "lchp-r")
WITHOUT_LOGITS = ("centre", "few-shot", "ddt", "psol", "slt")


@pytest.fixture(autouse=True, scope="module")
def _tiny():
    with tiny.registered():
        yield


class Untouchable(LocalizationDataset):
    """A data set whose boxes and masks nobody may look at."""

    def __init__(self, dataset):
        self.dataset = dataset
        vars(self).update({name: value for name, value in vars(dataset).items() if name != "boxes"})

    @property
    def boxes(self):
        raise AssertionError("expected labels to be looked at alone, found boxes looked at")

    def masks(self, index, size):
        raise AssertionError("expected labels to be looked at alone, found masks looked at")

    def __getstate__(self):
        return vars(self)

    def __setstate__(self, state):
        vars(self).update(state)

    def _image(self, i):
        return self.dataset._image(i)


@pytest.fixture(scope="module")
def birds():
    return load_dataset("synthbirds", "train-weaksup", n_images=10, **BIRDS)


@pytest.fixture(scope="module")
def boxed():
    return load_dataset("synthbirds", "train-fullsup", n_images=8, **BIRDS)


@pytest.fixture(scope="module")
def images(birds):
    return birds.images(range(len(birds)))


@pytest.fixture(scope="module")
def fitted(birds, boxed, _tiny):
    """Localizers by their names, each fitted once; all that they saw of the training images are labels."""
    untouchable = Untouchable(birds)

    @functools.cache
    def fit(name):
        return localizers.fit(name, untouchable, boxed, **tiny.settings(name))

    return fit


def weights(localizer):
    return localizer.network.state_dict()


def assert_equal(first, second):
    """Networks, thresholds, settings."""
    assert (first.tau, first.settings, first.class_names) == (second.tau, second.settings, second.class_names)
    assert weights(first).keys() == weights(second).keys()
    for name, value in weights(first).items():
        assert torch.equal(value, weights(second)[name]), name


# -- asked ---------------------------------------------------------------------------------------------------------------


def test_there_are_thirteen():
    assert len(NAMES) == 13
    assert [localizers.find(name).makes_maps for name in NAMES] == [name not in WITHOUT_MAPS for name in NAMES]


@pytest.mark.parametrize("name", NAMES)
def test_everything_that_a_localizer_says(name, fitted, birds, images):
    found = fitted(name).predict(images, birds.labels)
    number, (height, width) = len(images), images.shape[-2:]
    assert found.boxes.shape == (number, 4) and found.boxes.dtype == torch.float32
    assert (found.boxes >= 0).all() and (found.boxes <= torch.tensor([width, height] * 2)).all()
    assert (found.boxes[:, 2:] >= found.boxes[:, :2]).all()
    assert found.scores.shape == (number,) and found.scores.dtype == torch.float32
    assert (found.scores >= 0).all() and (found.scores <= 1).all()
    assert (found.logits is None) is (name in WITHOUT_LOGITS)
    assert found.logits is None or found.logits.shape == (number, 4)
    assert (found.score_maps is None) is (name in WITHOUT_MAPS)
    if found.score_maps is not None:
        assert found.score_maps.shape == (number, height, width) and found.score_maps.dtype == torch.float32
        assert 0 <= found.score_maps.min() < found.score_maps.max() <= 1
    assert not any(value is not None and (value.requires_grad or value.is_cuda) for value in found)


@pytest.mark.parametrize("name", NAMES)
def test_boxes_and_score_maps_are_those_of_predict(name, fitted, birds, images):
    localizer = fitted(name)
    found = localizer.predict(images, birds.labels)
    boxes, scores = localizer.boxes(images, birds.labels)
    assert torch.equal(boxes, found.boxes) and torch.equal(scores, found.scores)
    if name in WITHOUT_MAPS:
        with pytest.raises(
            ValueError, match=f"expected a localizer that makes score maps, found {name}: ask it for box"
        ):
            localizer.score_maps(images, birds.labels)
    else:
        assert torch.equal(localizer.score_maps(images, birds.labels), found.score_maps)


@pytest.mark.parametrize("name", NAMES)
def test_no_images_and_no_labels(name, fitted, images):
    boxes, scores = fitted(name).boxes(images)
    assert boxes.shape == (len(images), 4) and scores.shape == (len(images),)
    boxes, scores = fitted(name).boxes(images[:0])
    assert boxes.shape == (0, 4) and scores.shape == (0,)
    boxes, scores = fitted(name).boxes(images[:0], torch.zeros(0, dtype=torch.int64))
    assert boxes.shape == (0, 4) and scores.shape == (0,)


@pytest.mark.parametrize("name", NAMES)
def test_what_is_asked_together_is_what_is_asked_apart(name, fitted, birds, images):
    together = fitted(name).predict(images, birds.labels)
    for i in range(len(images)):
        alone = fitted(name).predict(images[i : i + 1], birds.labels[i : i + 1])
        torch.testing.assert_close(alone.scores, together.scores[i : i + 1], rtol=0, atol=1e-5)
        if together.score_maps is None:
            torch.testing.assert_close(alone.boxes, together.boxes[i : i + 1], rtol=0, atol=1e-3)
        else:
            torch.testing.assert_close(alone.score_maps, together.score_maps[i : i + 1], rtol=0, atol=1e-4)


@pytest.mark.parametrize("name", [name for name in NAMES if name != "centre"])
def test_half_precision_is_another_network_of_the_same_kind(name, fitted, birds, boxed, images):
    half = localizers.fit(name, birds, boxed, **tiny.settings(name), precision="bfloat16")
    assert not all(torch.equal(value, weights(half)[key]) for key, value in weights(fitted(name)).items())
    assert {value.dtype for value in weights(half).values()} == {
        value.dtype for value in weights(fitted(name)).values()
    }
    found = half.predict(images, birds.labels)
    assert all(field is None or (field.dtype == torch.float32 and torch.isfinite(field).all()) for field in found)


@pytest.mark.parametrize("name", NAMES)
def test_one_seed_one_network(name, fitted, birds, boxed):
    torch.manual_seed(99)  # what came before does not matter
    assert_equal(localizers.fit(name, birds, boxed, **tiny.settings(name)), fitted(name))


@pytest.mark.parametrize("name", [name for name in NAMES if name not in ("centre", "ddt")])
def test_another_seed_another_network(name, fitted, birds, boxed):
    other = localizers.fit(name, birds, boxed, **tiny.settings(name, seed=1))
    assert any(not torch.equal(value, weights(fitted(name))[key]) for key, value in weights(other).items())


@pytest.mark.parametrize("name", NAMES)
def test_it_says_what_went_into_it(name, fitted):
    localizer = fitted(name)
    assert localizer.name == name and len(localizer.class_names) == 4
    asked = {key: value for key, value in tiny.settings(name).items() if value is not None}
    assert {key: localizer.settings[key] for key in asked} == asked
    assert json.loads(json.dumps(localizer.settings)) == localizer.settings
    assert localizer.settings.keys() == localizers.find(name).defaults().keys()
    assert (localizer.tau is None) is (name in WITHOUT_MAPS)


# -- photographs of several sizes ----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def photographs(tmp_path_factory):
    """Three sizes, two classes; two images have boxes, one of them two."""
    names = [f"{kind}/{n}.png" for kind in ("cat", "dog") for n in range(3)]
    folder = standins.photographs(tmp_path_factory.mktemp("data") / "photographs", names)
    for n, (name, size) in enumerate(zip(names, [(48, 36), (30, 44), (40, 40)] * 2)):
        with standins.Image.open(folder / name) as image:
            image.resize(size).rotate(10 * n).save(folder / name)
    images = [{"id": 1, "file_name": "cat/1.png"}, {"id": 2, "file_name": "dog/2.png"}]
    boxes = [[3, 4, 20, 30], [0, 0, 20, 20], [10, 10, 30, 25]]
    rows = [{"id": n, "image_id": i, "category_id": i, "bbox": box} for n, (i, box) in enumerate(zip((1, 2, 2), boxes))]
    categories = [{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}]
    coco = {"images": images, "categories": categories, "annotations": rows}
    (folder / "annotations.json").write_text(json.dumps(coco))
    return folder


@pytest.mark.parametrize("name", NAMES)
def test_images_of_several_sizes(name, photographs):
    """Boxed are images without any box, too: they are not looked at for thresholds, and not learnt as empty."""
    train = load_dataset("folder", "train-weaksup", photographs)
    localizer = localizers.fit(name, Untouchable(train), train, **tiny.settings(name))
    boxes, scores = localizer.predict_dataset(train)
    assert boxes.shape == (6, 4) and scores.shape == (6,)
    assert (boxes >= 0).all() and (boxes <= train.image_sizes.repeat(1, 2)).all()
    for i in range(len(train)):
        image = resize_images(train.images([i]), (tiny.SIZE, tiny.SIZE))  # what is seen of it
        own = localizer.boxes(image, train.labels[i : i + 1])[0][0]
        share = own / torch.tensor(image.shape[:-3:-1]).repeat(2) * train.image_sizes[i].repeat(2)
        torch.testing.assert_close(share, boxes[i], rtol=0, atol=0.05)


# -- saved ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_what_is_loaded_is_what_was_saved(name, fitted, birds, images, tmp_path):
    localizer = fitted(name)
    localizer.save(tmp_path / "model")
    torch.manual_seed(5)
    loaded = localizers.load(tmp_path / "model")
    assert type(loaded) is type(localizer) and loaded.name == name
    assert_equal(loaded, localizer)
    for ours, theirs in zip(localizer.predict(images, birds.labels), loaded.predict(images, birds.labels)):
        assert (ours is None and theirs is None) or torch.equal(ours, theirs)
    files = sorted(path.name for path in (tmp_path / "model").iterdir())
    assert files[0] == FACTS and len(files) == 2
    loaded.save(tmp_path / "again")  # and what is loaded can be saved
    assert sorted(path.name for path in (tmp_path / "again").iterdir()) == files
    assert (tmp_path / "again" / FACTS).read_text() == (tmp_path / "model" / FACTS).read_text()


@pytest.fixture
def folder(fitted, tmp_path):
    """A saved CAM."""
    fitted("cam").save(tmp_path / "model")
    return tmp_path / "model"


def contents(folder):
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_one_that_is_there_is_replaced(folder, fitted):
    (folder / "training.json").write_text("{}")  # others may keep something beside it
    (folder / "weights-mine.pt").write_text("mine")
    fitted("has").save(folder)
    assert_equal(localizers.load(folder), fitted("has"))
    assert len(contents(folder)) == 4 and (folder / "weights-mine.pt").read_text() == "mine"
    fitted("has").save(folder)
    assert_equal(localizers.load(folder), fitted("has"))


@pytest.mark.parametrize("stranger", ["notes.txt", ".hidden", "weights.pt", "weights-mine.pt", "folder/file"])
def test_a_folder_with_other_things_is_left_alone(fitted, tmp_path, stranger):
    (tmp_path / stranger).parent.mkdir(exist_ok=True)
    (tmp_path / stranger).write_text("mine")
    with pytest.raises(
        ValueError, match=r"expected a new or empty folder, or one of a localizer, found .* other things"
    ):
        fitted("cam").save(tmp_path)
    assert contents(tmp_path) == {stranger: b"mine"}


def test_a_file_is_no_folder(fitted, tmp_path):
    (tmp_path / "model").write_text("mine")
    with pytest.raises(ValueError, match="expected a new or empty folder"):
        fitted("cam").save(tmp_path / "model")
    assert (tmp_path / "model").read_text() == "mine"


SAVING = [("half", 1), ("written", 1), ("replaced", 1), ("half", 2), ("written", 2), ("replaced", 2)]


@pytest.mark.parametrize("fatal", SAVING, ids=lambda value: "-".join(map(str, value)))
def test_a_save_that_is_killed(fatal, folder, fitted, tmp_path):
    """Where there was none, there is none or all of it; where there was one, it is the old or the new one."""
    fitted("has").save(tmp_path / "has")
    new, old = tmp_path / "new", tmp_path / "old"
    shutil.copytree(folder, old)
    for there in (new, old):
        assert killed.run(killed.save_again, tmp_path / "has", there, fatal) == killed.KILLED
    if fatal == SAVING[-1]:
        assert_equal(localizers.load(new), fitted("has"))
        assert_equal(localizers.load(old), fitted("has"))
    else:
        assert_equal(localizers.load(old), fitted("cam"))
        with pytest.raises(FileNotFoundError, match="expected a saved localizer"):
            localizers.load(new)
    for there in (new, old):
        fitted("has").save(there)
        assert_equal(localizers.load(there), fitted("has"))
        assert len(contents(there)) == 2


# -- what cannot be loaded -----------------------------------------------------------------------------------------------


def test_a_folder_without_a_localizer(tmp_path):
    for path in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(
            FileNotFoundError, match=f"expected a saved localizer, a folder with {FACTS}, at .*, found none"
        ):
            localizers.load(path)


def changed(**facts):
    return lambda text: json.dumps(json.loads(text) | facts)


def without(name):
    return lambda text: json.dumps({key: value for key, value in json.loads(text).items() if key != name})


def with_settings(**settings):
    return lambda text: json.dumps(json.loads(text) | {"settings": json.loads(text)["settings"] | settings})


DAMAGED = r"expected the facts of a localizer in .*localizer.json, found them damaged"
BAD_FACTS = {
    "empty": (lambda text: "", DAMAGED),
    "half": (lambda text: text[: len(text) // 2], DAMAGED),
    "a list": (lambda text: "[1, 2]", DAMAGED),
    "a number": (lambda text: "3", DAMAGED),
    "no format": (without("format"), DAMAGED),
    "no name": (without("name"), DAMAGED),
    "no classes": (without("class_names"), DAMAGED),
    "no settings": (without("settings"), DAMAGED),
    "no weights": (without("weights"), DAMAGED),
    "no checksum": (without("sha256"), DAMAGED),
    "no tau": (without("tau"), DAMAGED),
    "settings that are none": (changed(settings=3), DAMAGED),
    "classes that are none": (changed(class_names=3), DAMAGED),
    "another format": (
        lambda text: json.dumps({"format": FORMAT + 1, "wsol_lib": "9.9"}),
        rf"expected a localizer of format {FORMAT} in .*, found format {FORMAT + 1} of wsol_lib 9.9: fit it again",
    ),
    "an unknown name": (changed(name="camm"), "expected a localizer out of centre, .*, found 'camm'"),
    "a name that is none": (changed(name=["cam"]), r"expected a localizer out of centre, .*, found \['cam'\]"),
    "nobody's module": (changed(name="nobodys.module:It"), "expected a localizer at nobodys.module:It, found none"),
    "another method": (changed(name="has"), None),  # whose network is the same
    "a method of other parts": (
        changed(name="acol"),
        "expected settings of acol out of .*, found|expected the weights",
    ),
    "more settings": (with_settings(colour="red"), "expected settings of cam out of .*, found colour"),
    "another kind of setting": (with_settings(freeze=True), "expected freeze as a number of stages"),
    "another backbone": (
        with_settings(backbone="efficientnet_lite0"),
        "expected the weights of cam in .*, found something else",
    ),
    "an unknown backbone": (with_settings(backbone="alexnet"), "expected a backbone out of .*, found 'alexnet'"),
    "more classes": (changed(class_names=list("abcde")), "expected the weights of cam in .*, found something else"),
    "one class": (changed(class_names=["a"]), "expected at least 2 classes for cam, found 1"),
    "other weights": (changed(weights="weights-1.pt"), "expected the weights weights-1.pt as they were saved"),
    "weights elsewhere": (changed(weights="../../other.pt"), "expected the weights .* as they were saved"),
    "weights that are none": (changed(weights=None), "expected the weights None as they were saved"),
    "another checksum": (changed(sha256="0" * 64), "expected the weights .*, found them gone or damaged"),
}


@pytest.mark.parametrize("kind", BAD_FACTS)
def test_facts_that_are_not_right(kind, folder):
    change, message = BAD_FACTS[kind]
    (folder / FACTS).write_text(change((folder / FACTS).read_text()))
    before = contents(folder)
    if message is None:
        assert isinstance(localizers.load(folder), localizers.find("has"))
    else:
        with pytest.raises(ValueError, match=message):
            localizers.load(folder)
    assert contents(folder) == before


class Stranger:
    """Unpickled, it would write a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


def saved(value) -> bytes:
    file = io.BytesIO()
    torch.save(value, file)
    return file.getvalue()


def legacy(value) -> bytes:
    file = io.BytesIO()
    torch.save(value, file, _use_new_zipfile_serialization=False)
    return file.getvalue()


STRANGE_WEIGHTS = {
    "nothing": lambda path: b"",
    "text": lambda path: b"weights",
    "a stranger's pickle": lambda path: pickle.dumps(Stranger(path), protocol=2),
    "a stranger's torch file": lambda path: saved({"backbone.head.weight": Stranger(path)}),
    "a stranger's old torch file": lambda path: legacy(Stranger(path)),
    "a list": lambda path: saved([1, 2]),
    "None": lambda path: saved(None),
    "other weights": lambda path: saved({"weight": torch.zeros(3)}),
    "a whole network": lambda path: saved(nn.Linear(2, 2)),
}


@pytest.mark.parametrize("kind", STRANGE_WEIGHTS)
def test_weights_of_a_stranger_are_not_unpickled(kind, folder, tmp_path):
    """Their checksum is right: whoever writes the one file can write the other."""
    facts = json.loads((folder / FACTS).read_text())
    content = STRANGE_WEIGHTS[kind](tmp_path / "marker")
    (folder / facts["weights"]).write_bytes(content)
    (folder / FACTS).write_text(json.dumps(facts | {"sha256": hashlib.sha256(content).hexdigest()}))
    before = contents(folder)
    with pytest.raises(
        ValueError, match=r"expected the weights of cam in .*, found something else .*: save the localizer"
    ):
        localizers.load(folder)
    assert contents(folder) == before and not (tmp_path / "marker").exists()


@pytest.mark.parametrize("change", [None, lambda content: content[:-100], lambda content: content[:-1] + b"?"])
def test_weights_that_are_gone_or_damaged(folder, change):
    path = folder / json.loads((folder / FACTS).read_text())["weights"]
    path.unlink() if change is None else path.write_bytes(change(path.read_bytes()))
    with pytest.raises(ValueError, match=f"expected the weights {path.name} as they were saved in .* gone or damaged"):
        localizers.load(folder)


def test_weights_of_another_save_are_not_taken_for_these(folder, fitted, tmp_path):
    fitted("has").save(tmp_path / "other")
    for path in (tmp_path / "other").glob("weights-*"):
        shutil.copy(path, folder)
    assert_equal(localizers.load(folder), fitted("cam"))


# -- by a dotted path ----------------------------------------------------------------------------------------------------


class Sharper(CAM):
    """CAM, to a power."""

    def __init__(self, backbone, *, power: float = 2.0):
        super().__init__(backbone)
        self.power = power

    def score_maps(self, inputs, classes=None):
        maps, logits = super().score_maps(inputs, classes)
        return (maps - maps.amin((1, 2), keepdim=True)) ** self.power, logits


class Mine(Localizer):
    network_class = Sharper


class Demanding(Localizer):
    """Its network has an argument without a default."""

    class network_class(Sharper):
        def __init__(self, backbone, *, power):
            super().__init__(backbone, power=power)


MINE = f"{__name__}:Mine"


def test_one_of_your_own(birds, boxed, images, tmp_path):
    mine = localizers.fit(MINE, birds, boxed, power=3.0, **tiny.SETTINGS)
    assert mine.name == MINE and mine.settings["power"] == 3.0 and mine.network.power == 3.0
    mine.save(tmp_path / "mine")
    loaded = localizers.load(tmp_path / "mine")
    assert isinstance(loaded, Mine) and loaded.network.power == 3.0
    assert torch.equal(loaded.boxes(images)[0], mine.boxes(images)[0])
    with pytest.raises(ValueError, match=rf"expected settings of {MINE} out of .*power.*, found sharpness: leave out"):
        localizers.fit(MINE, birds, sharpness=1, **tiny.SETTINGS)


def test_a_value_without_a_default_has_to_be_given(birds):
    demanding = f"{__name__}:Demanding"
    with pytest.raises(
        ValueError, match=f"expected a value of power, for which {demanding} has no default, found none"
    ):
        localizers.fit(demanding, birds, **tiny.SETTINGS)
    assert localizers.fit(demanding, birds, power=1.0, **tiny.SETTINGS).network.power == 1.0


@pytest.mark.parametrize(
    "name, message",
    [
        (
            "camm",
            r"expected a localizer out of centre, cam, .*, or the path of your own as package.module:Class, found 'camm'",
        ),
        ("", "expected a localizer out of centre"),
        (None, "expected a localizer out of centre, .*, found None"),
        (":Mine", "expected a localizer out of centre"),
        (f"{__name__}:", "expected a localizer out of centre"),
        (f"{__name__}:Nobody", f"expected a localizer at {__name__}:Nobody, found none .*has no attribute 'Nobody'"),
        ("no.such.module:Mine", r"expected a localizer at no.such.module:Mine, found none \(No module named 'no'\)"),
        ("..module:Mine", "expected a localizer at ..module:Mine, found none"),
        (f"{__name__}:Sharper", "expected a class derived from wsol_lib.localizers.Localizer at .*, found <class"),
        (f"{__name__}:changed", "expected a class derived from wsol_lib.localizers.Localizer at .*, found <function"),
        (f"{__name__}:MINE", "expected a class derived from wsol_lib.localizers.Localizer at .*, found 'test_local"),
    ],
)
def test_a_path_that_leads_nowhere(name, message):
    with pytest.raises(ValueError, match=message):
        localizers.find(name)


# -- data that cannot be learnt from -------------------------------------------------------------------------------------


def test_no_training_images(birds):
    with pytest.raises(ValueError, match="expected images in synthbirds train-weaksup, found none: choose another"):
        localizers.fit("cam", Subset(birds, []), **tiny.SETTINGS)


def test_few_shot_wants_boxed_images(birds):
    with pytest.raises(ValueError, match="expected boxed images for few-shot, which learns from them, found none"):
        localizers.fit("few-shot", birds, **tiny.SETTINGS)


def test_few_shot_does_not_learn_an_image_without_boxes_as_empty(birds, boxed):
    """Where there are masks, all images have one."""
    some = Subset(boxed, [0, *range(len(boxed))])
    some.boxes = [torch.zeros(0, 4), *boxed.boxes]
    given = tiny.settings("few-shot", augment="none", masks=False)
    first, second = (localizers.fit("few-shot", birds, chosen, **given) for chosen in (some, boxed))
    assert_equal(first, second)
    with_masks = localizers.fit("few-shot", birds, some, **given | {"masks": True})
    assert not torch.equal(weights(with_masks)["backbone.head.weight"], weights(first)["backbone.head.weight"])


@pytest.mark.parametrize("name", ["centre", "cam", "psol", "few-shot"])
def test_boxed_images_without_boxes(name, birds):
    class Bare(Subset):
        def masks(self, index, size):
            return None, None

    for bare in (Bare(birds, []), Bare(birds, range(3))):
        bare.boxes = [torch.zeros(0, 4)] * len(bare)
        with pytest.raises(
            ValueError, match="expected boxes in synthbirds train-weaksup, found none: give a data set with"
        ):
            localizers.fit(name, birds, bare, **tiny.settings(name))


def test_boxed_images_of_other_classes(birds):
    other = load_dataset("synthbirds", "train-fullsup", n_images=4, image_size=40, species_per_family=2)
    with pytest.raises(
        ValueError, match="expected the 4 classes of the training images in the boxed ones, found 8 others"
    ):
        localizers.fit("cam", birds, other, **tiny.SETTINGS)


ALONE = ("centre", "few-shot", "ddt", "psol")


@pytest.mark.parametrize("name", NAMES)
def test_one_class(name, photographs, tmp_path):
    (tmp_path / "photographs").mkdir()
    shutil.copytree(photographs / "cat", tmp_path / "photographs" / "cat")
    cats = load_dataset("folder", "train-weaksup", tmp_path / "photographs")
    boxed = Subset(cats, range(3))
    boxed.boxes = [torch.tensor([[2.0, 3, 20, 24]])] * 3
    if name in ALONE:
        changed = {"teacher": "ddt", "teacher_settings": {}} if name == "psol" else {}
        localizer = localizers.fit(name, cats, boxed, **tiny.settings(name, **changed))
        assert localizer.predict_dataset(cats)[0].shape == (3, 4)
    else:
        with pytest.raises(
            ValueError, match=f"expected at least 2 classes for {name}, found 1: add a class, or take ddt"
        ):
            localizers.fit(name, cats, boxed, **tiny.settings(name))


# -- after a kill --------------------------------------------------------------------------------------------------------

#: Moments in the order in which a fit comes to them; nothing is written but by its checkpoints, 3 steps in each of 2 epochs
KILLS = [
    ("cam", ("half", 1)),  # what says whose the folder is
    ("cam", ("half", 4)),
    ("cam", ("replaced", 5)),
    ("few-shot", ("replaced", 3)),
    ("psol", ("replaced", 3)),  # in the teacher's training
    ("psol", ("half", 6)),  # its boxes, half written
    ("psol", ("replaced", 6)),  # they are there
    ("psol", ("replaced", 9)),  # in the student's
    ("slt", ("replaced", 4)),
    ("lchp-i", ("replaced", 3)),
    ("lchp-i", ("replaced", 5)),  # in the second epoch, whose rate is another
    ("lchp-r", ("replaced", 3)),
    ("lchp-r", ("replaced", 6)),  # in the refinement
]


@pytest.mark.parametrize(
    "name, fatal", KILLS, ids=lambda value: value if isinstance(value, str) else "-".join(map(str, value))
)
def test_a_fit_that_is_killed_ends_with_the_weights_of_one_left_alone(name, fatal, fitted, birds, boxed, tmp_path):
    fit = functools.partial(killed.fit_tiny, name, birds, boxed, tmp_path / "checkpoint", tmp_path / "model")
    assert killed.run(fit, fatal) == killed.KILLED
    assert not (tmp_path / "model").exists()
    assert killed.run(fit) == 0
    assert_equal(localizers.load(tmp_path / "model"), fitted(name))


def test_a_fit_goes_on_where_it_was(birds, boxed, tmp_path, fitted):
    """And one that is finished is not done again."""
    fit = functools.partial(killed.fit_tiny, "lchp-r", birds, boxed, tmp_path / "c", tmp_path / "model")
    assert killed.run(fit, ("replaced", 6)) == killed.KILLED
    seen = Counter()

    class Watched(localizers.find("lchp-r")):
        def train(self, network, *arguments, **options):
            watch(network, seen)
            return super().train(network, *arguments, **options)

    settings = localizers.find("lchp-r").settings_for("lchp-r", "synthbirds", tiny.settings("lchp-r"))
    for expected in ({"LCHPRefine": 1}, {}):
        again = Watched("lchp-r", birds.class_names, settings)
        again.fit(birds, boxed, tmp_path / "c")
        assert_equal(again, fitted("lchp-r"))
        assert seen == expected
        seen.clear()


def watch(network, seen):
    """Count the steps of a network by its class."""
    own = network.loss

    def loss(*arguments):
        seen[type(network).__name__] += 1
        return own(*arguments)

    network.loss = loss


def test_the_rate_of_lchp_is_in_its_state(fitted):
    """After two epochs at 0.9 ** 2: a training that goes on would else begin with 1."""
    assert float(weights(fitted("lchp-i"))["student.rate"]) == pytest.approx(0.81)


@pytest.fixture
def checkpoint(birds, boxed, tmp_path):
    """A folder of checkpoints of a CAM."""
    localizers.fit("cam", birds, boxed, checkpoint=tmp_path / "checkpoint", **tiny.SETTINGS)
    return tmp_path / "checkpoint"


@pytest.mark.parametrize(
    "other, change",
    [
        ("method", {"name": "adl"}),
        ("epochs", {"epochs": 3}),
        ("seed", {"seed": 1}),
        ("freeze", {"freeze": 1}),
        ("augment", {"augment": "none"}),
        ("tau", {"tau": 0.5}),
        ("training images", {"train": lambda birds: Subset(birds, range(9))}),
        (
            "training images",
            {"train": lambda birds: load_dataset("synthbirds", "train-weaksup", n_images=10, clutter=0.9, **BIRDS)},
        ),
        ("boxed images", {"boxed": lambda boxed: None}),
        ("boxed images", {"boxed": lambda boxed: Subset(boxed, range(7))}),
        ("boxed images", {"boxed": lambda boxed: moved(boxed)}),
        ("epochs, seed", {"seed": 1, "epochs": 4}),
    ],
)
def test_the_checkpoints_of_another_fit(other, change, birds, boxed, checkpoint):
    before = contents(checkpoint)
    change = dict(change)
    name = change.pop("name", "cam")
    train, chosen = (change.pop(key, lambda same: same) for key in ("train", "boxed"))
    with pytest.raises(
        ValueError, match=rf"expected the checkpoints of this training in .*, found those .* other {other}\b"
    ):
        localizers.fit(name, train(birds), chosen(boxed), checkpoint=checkpoint, **tiny.SETTINGS | change)
    assert contents(checkpoint) == before


def moved(boxed):
    other = Subset(boxed, range(len(boxed)))
    other.boxes = [own + 1 for own in other.boxes]
    return other


def test_processes_that_load_images_make_no_other_fit(birds, boxed, checkpoint, fitted):
    before = contents(checkpoint)
    again = localizers.fit("cam", birds, boxed, checkpoint=checkpoint, num_workers=2, **tiny.SETTINGS)
    assert all(torch.equal(value, weights(fitted("cam"))[name]) for name, value in weights(again).items())
    assert contents(checkpoint) == before


@pytest.mark.parametrize("text", ["", "{", "[1]", "null"])
def test_a_folder_of_checkpoints_that_is_damaged(text, birds, boxed, checkpoint):
    (checkpoint / "fit.json").write_text(text)
    before = contents(checkpoint)
    with pytest.raises(ValueError, match=r"expected the facts of a training in .*fit.json, found them damaged"):
        localizers.fit("cam", birds, boxed, checkpoint=checkpoint, **tiny.SETTINGS)
    assert contents(checkpoint) == before


def test_a_checkpoint_that_is_damaged(birds, boxed, checkpoint):
    (checkpoint / "training.pt").write_bytes(b"PK")
    with pytest.raises(
        ValueError, match=r"expected a checkpoint of a training in .*training.pt, found another or a damaged"
    ):
        localizers.fit("cam", birds, boxed, checkpoint=checkpoint, **tiny.SETTINGS)
    assert (checkpoint / "training.pt").read_bytes() == b"PK"


def test_checkpoints_in_a_file(birds, tmp_path):
    (tmp_path / "file").write_text("mine")
    with pytest.raises(ValueError, match="expected a folder that can be written to"):
        localizers.fit("cam", birds, checkpoint=tmp_path / "file", **tiny.SETTINGS)
    assert os.listdir(tmp_path) == ["file"] and (tmp_path / "file").read_text() == "mine"


# -- devices -------------------------------------------------------------------------------------------------------------


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here to take localizers to and back from")
@pytest.mark.parametrize("name", NAMES)
def test_a_gpu_draws_the_boxes_of_a_cpu(name, birds, boxed, images, tmp_path):
    """Fitted where there is no GPU, asked where there is one, and the other way round."""
    fit = functools.partial(killed.fit_tiny, name, birds, boxed, None, tmp_path / "model")
    assert killed.run(fit, ACCELERATE_USE_CPU="true") == 0
    here = localizers.load(tmp_path / "model")
    assert all(value.is_cuda for value in weights(here).values())
    here.save(tmp_path / "back")
    assert (
        killed.run(killed.ask, tmp_path / "back", images, birds.labels, tmp_path / "r.pt", ACCELERATE_USE_CPU="true")
        == 0
    )
    there = torch.load(tmp_path / "r.pt", weights_only=True)
    found = here.predict(images.cuda(), birds.labels.cuda())
    for ours, theirs in zip(found, there):
        assert (ours is None) is (theirs is None)
        assert ours is None or not ours.is_cuda
    torch.testing.assert_close(found.scores, there[1], rtol=0, atol=1e-3)
    if found.score_maps is None:
        torch.testing.assert_close(found.boxes, there[0], rtol=0, atol=0.05)
    else:
        torch.testing.assert_close(found.score_maps, there[2], rtol=0, atol=1e-3)
    torch.testing.assert_close(found.scores, here.predict(images, birds.labels).scores, rtol=0, atol=1e-5)
    torch.testing.assert_close(found.scores, here.predict_dataset(birds)[1], rtol=0, atol=1e-5)
