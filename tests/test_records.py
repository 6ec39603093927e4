"""Records and kept boxes: what is written is read back to the last digit, and what does not fit together is refused."""

import json
import shutil

import numpy as np
import pytest
import torch
from fake_localizer import NO_MAPS, write_table

from wsol_lib.__main__ import main
from wsol_lib.book import records, units
from wsol_lib.book.records import boxes, check, compare, hits, load_record, pack, rounded, score, unpack
from wsol_lib.boxes import localized
from wsol_lib.metrics import LocalizationAccuracy
from wsol_lib.uncertainty import difference

COMMITTED = "0123456789ab"


@pytest.fixture(scope="module")
def recorded(tmp_path_factory):
    """A book whose experiments fake-a, fake-b, fake-student and fake-other (on other images) are recorded."""
    root = tmp_path_factory.mktemp("recorded")
    entries = {
        "a": {},
        "b": {"hyperparameters": {"tau": 0.5}, "seeds": [0, 1, 2]},
        "student": {"localizer": NO_MAPS},
        "other": {"test": {"n_images": 12}},
    }
    write_table(root, entries)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        patch.setattr(units, "commit", lambda: COMMITTED)
        (root / "results").mkdir()
        assert main(["experiment", "--profile", "tiny", "--record"]) == 0
    return root


@pytest.fixture
def book(recorded, tmp_path, monkeypatch):
    """A copy of it, to be damaged."""
    shutil.copytree(recorded, tmp_path / "book of mine")
    monkeypatch.chdir(tmp_path / "book of mine")
    return tmp_path / "book of mine"


def edit(path, **values):
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


# -- the file of boxes -------------------------------------------------------------------------------------------------


def predictions(seed=0, side=64, seeds=3, n=50):
    drawn = np.random.default_rng(seed)
    corners = np.sort(drawn.integers(0, side * 16 + 1, (seeds, n, 2, 2)), axis=2).reshape(seeds, n, 4)
    fixed = np.sort(drawn.integers(0, side * 16 + 1, (seeds, n, 2, 2)), axis=2).reshape(seeds, n, 4)
    return {
        "boxes": corners,
        "fixed_boxes": fixed,
        "scores": drawn.integers(0, 256, (seeds, n)).astype(np.uint8),
        "top": np.stack([drawn.permutation(1000)[:5] for _ in range(seeds * n)]).reshape(seeds, n, 5),
    }


@pytest.mark.parametrize(
    "kinds", [("boxes", "scores"), ("boxes", "scores", "top"), ("boxes", "fixed_boxes", "scores", "top")]
)
@pytest.mark.parametrize("side", [8, 64, 500, 5000])
def test_what_is_packed_is_unpacked(kinds, side):
    predicted = {name: values for name, values in predictions(side=side).items() if name in kinds}
    truth = [torch.tensor([[0.0, 0, side / 2, side / 2]])] * 50
    scored = score(predicted, truth, np.arange(50))
    content = pack(predicted, scored, {"name": "a"})
    again, scored_again, facts = unpack(content, "here")
    assert again.keys() == predicted.keys() and scored_again.keys() == scored.keys() and facts == {"name": "a"}
    for one, other in ((predicted, again), (scored, scored_again)):
        for name in one:
            np.testing.assert_array_equal(one[name], other[name])
    assert pack(predicted, scored, {"name": "a"}) == content


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 cut short", b"garbage" * 40])
def test_what_is_no_file_of_boxes_is_said(content):
    with pytest.raises(ValueError, match="expected kept boxes in here, found something else"):
        unpack(content, "here")


def test_boxes_are_rounded_to_sixteenths_and_scored_as_such():
    assert rounded(torch.tensor([[0.03, 0.04, 31.97, 63.9999]])).tolist() == [[0, 1, 512, 1024]]
    # 31.99 of 64 pixels is less than half; what is kept of it is 32
    kept = rounded(torch.tensor([[0.0, 0.0, 64.0, 31.99]]))
    found = score({"boxes": kept[None]}, [torch.tensor([[0.0, 0, 64, 64]])], np.array([0]))["hits"]
    assert found[:, 0, 0].tolist() == [True, True, False]  # at IoU 0.3, 0.5 and 0.7


def test_scores_are_those_of_the_metrics():
    predicted, labels = predictions(n=200), torch.arange(200)
    truth = [torch.tensor([[8.0, 8, 50, 60], [0, 0, 20, 20]])[: 1 + i % 2] for i in range(200)]
    predicted["top"][:, ::3, 1] = labels.numpy()[::3]
    predicted["top"][:, 1::7, 0] = labels.numpy()[1::7]
    found = records.accuracies(score(predicted, truth, labels.numpy()))
    for seed in range(3):
        pixels = torch.from_numpy(predicted["boxes"][seed] / 16)
        logits = torch.zeros(200, 1000).scatter_(
            1, torch.from_numpy(predicted["top"][seed]), torch.arange(5.0, 0, -1).expand(200, 5)
        )
        metric = LocalizationAccuracy()
        metric.update(pixels, logits, truth, labels)
        expected = metric.compute()
        for name in ("gt_known_loc", "top1_loc", "top5_loc", "top1_cls", "top5_cls"):
            assert found[name][seed] == pytest.approx(float(expected[name])), name
        assert found["gt_known_loc_iou_0.7"][seed] == localized(pixels, truth, 0.7).double().mean()


# -- records -----------------------------------------------------------------------------------------------------------


def test_a_record_says_all_that_is_needed_to_measure_it_again(book):
    record = load_record("fake-b")
    assert record["value"] == pytest.approx(hits("fake-b").mean())
    low, high = record["interval"]
    assert low < record["value"] < high
    assert (record["n"], record["images_seen"], record["dataset"], record["profile"]) == (24, 24, "synthbirds", "tiny")
    assert record["definition"]["hyperparameters"] == {"tau": 0.5} and record["why"] == "a stand-in"
    assert record["settings"]["learning_rate"] == 0.01 and "seed" not in record["settings"]
    assert record["call"] == "python -m wsol_lib experiment fake-b --profile tiny --record"
    assert record["commit"] == COMMITTED
    assert set(record["data"]) == {"train-weaksup", "train-fullsup", "test"}
    assert set(record["baselines"]) == {"whole_image", "centred_box", "centred_box_best_on_test"}
    assert len(record["accuracies"]["gt_known_loc"]) == 3
    assert np.mean(record["accuracies"]["gt_known_loc"]) == pytest.approx(record["value"])
    for seed, row in enumerate(record["seeds"]):
        assert row["seed"] == seed and row["tau"] == 0.5 and row["commit"] == COMMITTED and row["starts"] == 1
        assert set(row["versions"]) == {"torch", "torchvision", "timm", "numpy", "python", "wsol_lib"}
        assert set(row["seconds"]) == {"fit", "predict"}
        assert len(row["curve"]) == 101 and max(row["curve"]) <= round(24 * row["max_box_acc"])
        at = row["curve"][50] / 24
        assert at == pytest.approx(record["accuracies"]["gt_known_loc"][seed])  # tau is on the curve
        assert row["curve"][20] / 24 == pytest.approx(record["accuracies"]["gt_known_loc_tau_0.2"][seed])
    assert len({row["weights"]["fitted"] for row in record["seeds"]}) == 3


def test_a_localizer_without_maps_has_no_curve(book):
    record = load_record("fake-student")
    assert "curve" not in record["seeds"][0] and record["seeds"][0]["tau"] is None
    assert "top1_loc" not in record["accuracies"] and "gt_known_loc_tau_0.2" not in record["accuracies"]


def test_nothing_of_a_record_names_a_place_on_this_machine(book):
    for path in (book / "results").glob("*.json"):
        assert str(book) not in path.read_text() and "/tmp" not in path.read_text()


def test_an_edited_record_is_refused(book):
    path = book / "results" / "fake-a.json"
    edit(path, value=0.99)
    with pytest.raises(ValueError, match=r"expected the record in .*fake-a.json as it was written, found it edited"):
        load_record("fake-a")
    record = json.loads(path.read_text())
    record.pop("checksum")
    edit(path, checksum=records.digest_of(record))  # somebody who knows how
    with pytest.raises(ValueError, match=r"expected the value of the boxes in .*fake-a.npz in .*, found another"):
        load_record("fake-a")


def test_what_is_no_record_is_refused(book):
    for text in ("", "[]", "{}", '{"checksum": ""}', "1"):
        (book / "results" / "fake-a.json").write_text(text)
        with pytest.raises(
            ValueError, match=r"expected the record of an experiment in .*fake-a.json, found something else"
        ):
            load_record("fake-a")


def test_boxes_that_do_not_belong_to_a_record_are_refused(book):
    shutil.copy(book / "results" / "boxes" / "fake-b.npz", book / "results" / "boxes" / "fake-a.npz")
    with pytest.raises(
        ValueError, match=r"expected the boxes that .*fake-a.json was recorded from in .*, found others"
    ):
        hits("fake-a")
    (book / "results" / "boxes" / "fake-a.npz").unlink()
    with pytest.raises(FileNotFoundError, match=r"expected the boxes of experiment 'fake-a' at .*, found none"):
        load_record("fake-a")


def test_the_record_of_another_experiment_is_refused(book):
    shutil.copy(book / "results" / "fake-b.json", book / "results" / "fake-a.json")
    with pytest.raises(ValueError, match=r"expected the record of experiment 'fake-a' in .*, found that of 'fake-b'"):
        load_record("fake-a")


def test_a_definition_that_changed_is_refused(book):
    write_table(book, {"a": {"epochs": 3}, "b": {"hyperparameters": {"tau": 0.5}, "seeds": [0, 1, 2]}})
    with pytest.raises(
        ValueError, match=r"definition of experiment 'fake-a' .* found it changed \(epochs from 2 to 3\): rec"
    ):
        load_record("fake-a")
    assert load_record("fake-b")
    with pytest.raises(ValueError, match=r"found it changed \(the table has no 'fake-student' in the profile 'tiny'\)"):
        load_record("fake-student")


def test_an_experiment_that_is_unknown_or_not_recorded(book):
    with pytest.raises(
        ValueError, match=r"expected an experiment out of fake-a, fake-b, .*, found 'fake-c': choose one"
    ):
        load_record("fake-c")
    (book / "results" / "fake-a.json").unlink()
    with pytest.raises(
        FileNotFoundError, match=r"expected the record of experiment 'fake-a' at .*, found none: record it"
    ):
        load_record("fake-a")


# -- what chapters ask -------------------------------------------------------------------------------------------------


def test_hits_are_those_of_the_kept_boxes(book):
    found = hits("fake-a")
    assert found.dtype == bool and found.shape == (2, 24)
    assert hits("fake-a", iou=0.3).sum() >= found.sum() >= hits("fake-a", iou=0.7).sum()
    assert (hits("fake-a", top=1) <= hits("fake-a", top=5)).all() and (hits("fake-a", top=5) <= found).all()
    assert boxes("fake-a").shape == (2, 24, 4)
    assert not torch.equal(boxes("fake-a"), boxes("fake-a", fixed=True))
    found[:] = True  # a copy: the next one is not changed
    assert not hits("fake-a").all()


def test_what_was_not_kept_cannot_be_asked(book):
    with pytest.raises(ValueError, match="expected classes of experiment 'fake-student', found a localizer without"):
        hits("fake-student", top=1)
    with pytest.raises(ValueError, match=r"expected hits at tau = 0.2 of experiment 'fake-student'"):
        hits("fake-student", fixed=True)
    with pytest.raises(ValueError, match="expected score maps of experiment 'fake-student'"):
        boxes("fake-student", fixed=True)
    with pytest.raises(ValueError, match="expected an IoU out of"):
        hits("fake-a", iou=0.4)


def test_a_comparison_is_paired_over_images(book):
    assert compare("fake-a", "fake-b") == difference(hits("fake-a"), hits("fake-b"))
    assert compare("fake-a", "fake-b", fixed=True, iou=0.3) == difference(
        hits("fake-a", fixed=True, iou=0.3), hits("fake-b", fixed=True, iou=0.3)
    )
    assert compare("fake-a", "fake-a") == (0, pytest.approx(0, abs=1), pytest.approx(0, abs=1))
    with pytest.raises(ValueError, match="expected experiments on the same images, found 'fake-a' and 'fake-other'"):
        compare("fake-a", "fake-other")


def test_a_sentence_that_no_longer_holds_fails_the_build():
    check("Two is more than one.", 2 > 1)
    with pytest.raises(
        AssertionError, match=r"expected the records to say 'Two is less.', found that they do not: rewrite"
    ):
        check("Two is less.", np.bool_(False))
