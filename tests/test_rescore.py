"""Rescoring: the kept boxes and the annotations alone give what is recorded, to the last image; anything else is said."""

import json
import shutil
from pathlib import Path

import pytest
from fake_localizer import NO_MAPS, write_table

from wsol_lib.__main__ import main
from wsol_lib.book import records, units
from wsol_lib.book.definitions import Experiment, load_experiments
from wsol_lib.book.rescore import rescore
from wsol_lib.data import load_dataset

KEPT = sorted(Path(__file__).parents[1].glob("results/boxes/*.npz"))
#: of experiments, of searches, and the counts of chapters
RECORDS = {path.stem: json.loads(path.read_text()) for path in KEPT[0].parents[1].glob("*.json")} if KEPT else {}


@pytest.fixture(scope="module")
def recorded(tmp_path_factory):
    root = tmp_path_factory.mktemp("recorded")
    write_table(root, {"a": {}, "b": {"epochs": 3}, "student": {"localizer": NO_MAPS}})
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        patch.setattr(units, "commit", lambda: "0123456789ab")
        (root / "results").mkdir()
        assert main(["experiment", "--profile", "tiny", "--record"]) == 0
    return root


@pytest.fixture
def book(recorded, tmp_path, monkeypatch):
    shutil.copytree(recorded, tmp_path / "copy")
    monkeypatch.chdir(tmp_path / "copy")
    return tmp_path / "copy"


def signed(path, record):
    """An edit by somebody who knows how records are signed."""
    record.pop("checksum", None)
    path.write_text(json.dumps(record | {"checksum": records.digest_of(record)}))


@pytest.mark.parametrize("path", KEPT, ids=lambda path: path.stem)
def test_all_that_is_kept_is_scored_again(path):
    record = records.load_record(path.stem, path.parent.parent)
    try:
        assert rescore(path) == record["value"]
    except FileNotFoundError as error:
        pytest.skip(f"{path.stem} is not scored, {record['dataset']} is not there: {error}")


def test_every_record_of_an_experiment_has_its_boxes_and_the_other_way_round():
    recorded = {name for name, record in RECORDS.items() if "definition" in record}
    assert recorded == {path.stem for path in KEPT}
    assert sum(path.stat().st_size for path in KEPT) <= 12e6


def test_every_record_is_of_committed_code_and_the_counts_of_a_chapter_of_one_run():
    """A name that a chapter no longer has would stay in its file, with the commit of an earlier run."""
    for name, record in RECORDS.items():
        counts = [] if "checksum" in record else [entry["commit"] for entry in record.values()]
        own = counts or [record["commit"], *(run["commit"] for run in record.get("seeds", []))]
        assert all(map(units.is_committed, own)), name
        assert len(set(counts)) <= 1, name


def test_what_was_recorded_agrees(book, capsys):
    files = [f"results/boxes/fake-{name}.npz" for name in ("a", "b", "student")]
    assert main(["rescore", *files]) == 0
    told = capsys.readouterr().out.splitlines()
    assert [line.endswith("agrees") for line in told] == [True] * 3
    assert f"{records.load_record('fake-a')['value']:.4%} agrees" in told[0]


def test_one_that_fails_is_said_and_the_others_are_scored(book, capsys):
    path = book / "results" / "fake-a.json"
    path.write_text(path.read_text().replace('"n": 24', '"n": 23'))
    assert main(["rescore", "results/boxes/fake-a.npz", "results/boxes/fake-b.npz"]) == 2
    told = capsys.readouterr()
    assert "fake-a.npz: expected the record in results/fake-a.json as it was written, found it edited" in told.err
    assert "fake-b.npz" in told.out and len(told.err.splitlines()) == 1


def test_a_value_that_the_boxes_do_not_give(book):
    path = book / "results" / "fake-a.json"
    record = json.loads(path.read_text())
    record["accuracies"]["gt_known_loc_iou_0.3"][0] += 0.01
    signed(path, record)
    with pytest.raises(ValueError, match=r"expected the recorded accuracies .*, found"):
        rescore("results/boxes/fake-a.npz")
    record["accuracies"]["gt_known_loc_iou_0.3"][0] -= 0.01
    record["baselines"]["whole_image"] = 0.0
    signed(path, record)
    with pytest.raises(ValueError, match=r"expected the recorded baselines .*, found"):
        rescore("results/boxes/fake-a.npz")


def test_hits_that_the_boxes_do_not_give(book):
    path = book / "results" / "boxes" / "fake-a.npz"
    predicted, scored, facts = records.unpack(path.read_bytes(), path)
    scored["hits"][0, 0, :2] ^= True  # at IoU 0.3: the value stays
    record = json.loads((book / "results" / "fake-a.json").read_text())
    record = {key: value for key, value in record.items() if key not in ("checksum", "boxes")}
    records.write(record, records.pack(predicted, scored, facts), book / "results")
    with pytest.raises(ValueError, match=r"expected the hits kept in .*, found others for 2 of 24 images"):
        rescore(path)


def test_a_definition_that_changed(book):
    write_table(book, {"a": {"epochs": 7}})
    with pytest.raises(ValueError, match=r"found it changed \(epochs from 2 to 7\)"):
        rescore("results/boxes/fake-a.npz")


def test_boxes_of_another_record(book):
    shutil.copy("results/boxes/fake-b.npz", "results/boxes/fake-a.npz")
    with pytest.raises(ValueError, match=r"expected the boxes that .* was recorded from in .*, found others"):
        rescore("results/boxes/fake-a.npz")


def test_annotations_that_changed(book, monkeypatch):
    test = load_dataset("synthbirds", "test", n_images=24, image_size=32)
    monkeypatch.setattr(Experiment, "load", lambda self, split, root=None: test)
    assert rescore("results/boxes/fake-a.npz")
    test.boxes[3] = test.boxes[3] + 1
    with pytest.raises(
        ValueError, match="expected the annotations of the 24 test images of synthbirds that were recorded"
    ):
        rescore("results/boxes/fake-a.npz")


def test_files_and_data_that_are_not_there(book, monkeypatch):
    with pytest.raises(FileNotFoundError, match=r"expected kept boxes at results/boxes/none.npz, found no such file"):
        rescore("results/boxes/none.npz")
    shutil.copy("results/boxes/fake-a.npz", "fake-a.npz")
    with pytest.raises((FileNotFoundError, ValueError), match="fake-a"):
        rescore("fake-a.npz")
    path = book / "results" / "fake-a.json"
    record = json.loads(path.read_text())
    write_table(book, {"a": {}}, dataset="cub", **{"train-weaksup": {}, "train-fullsup": {}, "test": {}})
    record["definition"] = load_experiments("tiny")["fake-a"].definition
    record["definition_sha256"] = records.digest_of(record["definition"])
    kept = book / "results" / "boxes" / "fake-a.npz"
    predicted, scored, facts = records.unpack(kept.read_bytes(), kept)
    facts["definition"] = record["definition_sha256"]
    record = {key: value for key, value in record.items() if key not in ("checksum", "boxes")}
    records.write(record, records.pack(predicted, scored, facts), book / "results")
    monkeypatch.delenv("WSOL_DATA", raising=False)
    with pytest.raises(FileNotFoundError, match="expected the folder that holds cub"):
        rescore(kept)
