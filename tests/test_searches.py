"""Records of searches: what is kept of trials and winner, and what is refused."""

import json

import pytest

from wsol_lib import localizers
from wsol_lib.__main__ import main
from wsol_lib.book import searches
from wsol_lib.boxes import localized
from wsol_lib.data import load_dataset
from wsol_lib.search import Settings, read_study

BIRDS = {"image_size": 32, "species_per_family": 1, "n_images": 8}
SMALL = ["--method", "cam", "--backbone", "efficientnet_lite0", "--dataset", "synthbirds", "--trials", "2"]
SMALL += ["--option", *(f"{name}={value}" for name, value in BIRDS.items()), "train-weaksup.limit_per_class=1"]
SMALL += ["--input-size", "32", "--epochs", "1", "--batch-size", "8", "--fix", "freeze=all", "output_stride=32"]


@pytest.fixture(scope="module")
def searched(tmp_path_factory):
    """The folder of a search that was recorded by the command."""
    folder = tmp_path_factory.mktemp("search")
    (folder / "results").mkdir()
    own = ["--storage", str(folder / "cam.journal"), "--out", str(folder / "cam"), "--test", "--record"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("WSOL_RECORDS", str(folder / "results"))
        patch.setattr(searches, "commit", lambda: "0123456789ab")
        assert main(["search", *SMALL, *own]) == 0
    return folder


def test_a_record_has_every_trial_the_winner_its_interval_and_the_floor(searched):
    record = searches.load("search-synthbirds-cam", searched / "results")
    trials = read_study(searched / "cam.journal").trials
    assert [one["score"] for one in record["trials"]] == [trial.value for trial in trials]
    assert record["interval"][0] <= record["value"] <= record["interval"][1] and record["n"] == 8
    winner, test = localizers.load(searched / "cam"), load_dataset("synthbirds", "test", **BIRDS)
    boxes, _ = winner.boxes(test.images(range(8)), test.labels)
    assert record["value"] == localized(boxes, test.boxes).float().mean().item()
    assert 0 <= record["baselines"]["whole_image"] <= 1 and record["commit"] == "0123456789ab"
    assert record["looks"][0]["images"] == 8 and record["settings"]["epochs"] == 1


def test_the_table_counts_what_converged(searched, tmp_path):
    record = searches.load("search-synthbirds-cam", searched / "results")
    losses = (1.9, None)
    trials = [one | {"loss": loss} for one, loss in zip(record["trials"], losses)]
    searches.write(record | {"trials": trials}, tmp_path)
    row = searches.table(["search-synthbirds-cam"], tmp_path).loc["cam"]
    assert (row["trials"], row["converged"]) == (2, 1) and row["median"] == record["trials"][0]["score"]


def test_an_edited_record_is_refused_and_so_is_none(searched, tmp_path):
    path = searches.write(searches.load("search-synthbirds-cam", searched / "results"), tmp_path)
    path.write_text(json.dumps(json.loads(path.read_text()) | {"value": 1.0}))
    with pytest.raises(ValueError, match="found it edited"):
        searches.load("search-synthbirds-cam", tmp_path)
    with pytest.raises(FileNotFoundError, match="search with --record"):
        searches.load("search-synthbirds-adl", tmp_path)


def test_nothing_is_recorded_of_changes_or_without_a_look(searched, monkeypatch, capsys):
    storage = ["--storage", str(searched / "other.journal")]
    assert main(["search", *SMALL, *storage, "--record"]) == 2
    assert "expected --test and --out FOLDER with --record" in capsys.readouterr().err
    monkeypatch.setattr(searches, "commit", lambda: "0123456789ab+")
    assert main(["search", *SMALL, *storage, "--test", "--out", str(searched / "other"), "--record"]) == 2
    assert "expected a committed library" in capsys.readouterr().err
    assert not (searched / "other.journal").exists()
    study = read_study(searched / "cam.journal")
    study.set_user_attr("looks", [])
    with pytest.raises(ValueError, match="expected a look at the test images"):
        searches.build(Settings("cam", "efficientnet_lite0", "synthbirds"), searched / "cam.journal", "cam", "")
