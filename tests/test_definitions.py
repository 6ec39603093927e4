"""The table of experiments: who overrides whom, what makes two experiments the same, and one sentence for each mistake."""

import pytest
import yaml
from fake_localizer import FAKE

from wsol_lib.book.definitions import Experiment, load_experiments, select

TABLE = """
birds:
  dataset: synthbirds
  train-weaksup: {n_images: 24, image_size: 32}
  test: {n_images: 24, image_size: 32}
  epochs: 3
  seeds: [0, 1]
  quick: {epochs: 1, seeds: [0], train-weaksup: {n_images: 12}}
  experiments:
    cam: {localizer: cam}
    cam-long: {localizer: cam, epochs: 20, quick: {epochs: 2}}
    ddt: {localizer: centre, epochs: 7}
    centre: {localizer: centre, train-weaksup: {image_size: 64}, profiles: [tiny, full]}
more-birds:
  dataset: synthbirds
  experiments:
    ddt: {localizer: centre}
"""


@pytest.fixture
def table(tmp_path):
    def write(text):
        path = tmp_path / "experiments.yaml"
        path.write_text(text if isinstance(text, str) else yaml.safe_dump(text))
        return path

    return write


def load(table, profile="tiny", text=TABLE):
    return load_experiments(profile, table(text))


def entry(**values):
    """A table of one entry."""
    return {"birds": {"dataset": "synthbirds", "experiments": {"one": {"localizer": "cam", **values}}}}


def test_an_entry_overrides_its_group_and_mappings_are_joined(table):
    found = load(table)
    assert list(found) == ["birds-cam", "birds-cam-long", "birds-ddt", "birds-centre", "more-birds-ddt"]
    assert (found["birds-cam"].epochs, found["birds-cam-long"].epochs) == (3, 20)
    assert found["birds-cam"].seeds == [0, 1]
    assert found["birds-centre"].options["train-weaksup"] == {"n_images": 24, "image_size": 64}
    assert found["more-birds-ddt"].seeds == (0,)


def test_the_profile_overrides_both_the_entry_s_last(table):
    found = load(table, "quick")
    assert (found["birds-cam"].epochs, found["birds-cam-long"].epochs) == (1, 2)
    assert load(table, "tiny")["birds-ddt"].epochs == 7 and found["birds-ddt"].epochs == 1
    assert found["birds-cam"].options["train-weaksup"] == {"n_images": 12, "image_size": 32}
    assert "birds-centre" not in found  # it does not exist in this profile


def test_names_and_groups_are_selected(table):
    found = load(table)
    assert [one.name for one in select(found, [])] == list(found)
    assert [one.name for one in select(found, ["birds"])] == [
        "birds-cam",
        "birds-cam-long",
        "birds-ddt",
        "birds-centre",
    ]
    assert [one.name for one in select(found, ["more-birds-ddt", "birds-cam"])] == ["more-birds-ddt", "birds-cam"]
    with pytest.raises(ValueError, match=r"expected a group out of birds, more-birds, or an experiment .*found 'bird'"):
        select(found, ["bird"])


def test_the_digest_is_of_what_is_measured_alone(table):
    digest = load(table, text=entry(epochs=2))["birds-one"].digest
    for same in (
        entry(epochs=2, why="because", profiles=["tiny"]),
        entry(epochs=2, seeds=[0], backbone="efficientnet_lite0", boxed=True),
        entry(epochs=1, tiny={"epochs": 2}),
        {"birds": {"dataset": "synthbirds", "epochs": 2, "experiments": {"one": {"localizer": "cam"}}}},
    ):
        assert load(table, text=same)["birds-one"].digest == digest
    for other in (
        entry(epochs=3),
        entry(epochs=2, seeds=[1]),
        entry(epochs=2, boxed=False),
        entry(epochs=2, test={"n_images": 24}),
        entry(epochs=2, hyperparameters={"learning_rate": 0.5}, why="to see"),
        entry(epochs=2, localizer="has"),
    ):
        assert load(table, text=other)["birds-one"].digest != digest


def test_a_definition_makes_the_experiment_again(table):
    for one in load(table).values():
        again = Experiment(name="any", group="", profile="full", **one.definition)
        assert again.digest == one.digest


def test_another_list_of_seeds_keeps_the_units_of_those_that_stay(table):
    two, three = (load(table, text=entry(seeds=seeds))["birds-one"] for seeds in ([0, 1], [2, 1, 0]))
    assert [two.unit(0), two.unit(1)] == [three.unit(0), three.unit(1)]
    assert len({three.unit(seed) for seed in (0, 1, 2)}) == 3


def test_every_split_can_be_limited_per_class(table):
    text = entry(**{"train-weaksup": {"n_images": 48, "image_size": 32, "limit_per_class": 2}, "epochs": 3})
    text["birds"]["test"] = {"n_images": 36, "image_size": 32, "limit_per_class": 1, "limit_seed": 1}
    one = load(table, text=text)["birds-one"]
    assert one.load("train-weaksup").images_per_class.tolist() == [2] * 12
    assert one.load("test").images_per_class.tolist() == [1] * 12
    assert one.load("test") is one.load("test")
    assert one.images_seen() == 3 * 24


def test_some_classes_alone_are_taken_and_keep_their_numbers(table):
    text = entry(**{"train-weaksup": {"n_images": 48, "image_size": 32, "classes": [1, 12, 2]}, "epochs": 3})
    text["birds"]["test"] = {"n_images": 36, "image_size": 32, "classes": [0, 2], "limit_per_class": 2}
    one = load(table, text=text)["birds-one"]
    assert one.load("train-weaksup").images_per_class.tolist() == [0, 4] * 6
    assert one.load("test").images_per_class.tolist() == [2, 2] + 10 * [0]
    assert one.images_seen() == 3 * 24 and one.size("test") == 4
    text["birds"]["test"]["classes"] = "even"
    with pytest.raises(ValueError, match=r"expected \[start, stop\] or .*, as classes, found 'even': correct it"):
        load(table, text=text)["birds-one"].load("test")


def test_images_seen_without_painting_any(table):
    assert load(table)["birds-cam"].images_seen() == 72
    assert load(table)["birds-centre"].images_seen() == 0  # it learns nothing
    published = load(table, text=entry(**{"train-weaksup": {"n_images": 7}}))["birds-one"]
    assert published.images_seen() == 7 * published.settings["epochs"]
    away = load(table, text={"a": {"dataset": "cub", "experiments": {"b": {"localizer": "cam"}}}})["a-b"]
    assert away.images_seen("nowhere") is None


@pytest.mark.parametrize(
    "text, message",
    [
        ("a: [", "expected YAML in .*, found something else"),
        ("- a", "expected groups of experiments in .*, found list"),
        ("a: 1", "expected settings and experiments in group 'a' of .*, found '1'"),
        ("a: {dataset: synthbirds}", "expected settings and experiments in group 'a'"),
        ("a: {dataset: synthbirds, experiments: {b: }}", "expected settings of experiment 'a-b', found None"),
        (entry(epoch=1), "expected keys out of localizer, .* in experiment 'birds-one', found epoch: correct it"),
        (entry(quick={"epoch": 1}), "expected keys out of localizer, .* in experiment 'birds-one', found epoch"),
        (entry(quick={"tiny": {}}), "expected keys .* in experiment 'birds-one', found tiny"),
        (entry(epochs="many"), "expected a whole number from 0 up as epochs of experiment 'birds-one', found 'many'"),
        (entry(batch_size=0), "expected a whole number from 1 up as batch_size"),
        (entry(seeds=[]), "expected different whole numbers, at least one, as seeds"),
        (entry(seeds=[1, 1]), "expected different whole numbers"),
        (entry(boxed="no"), "expected true or false as boxed"),
        (entry(test=[1]), "expected names with values as test"),
        (entry(profiles=["huge"]), "expected some of quick, tiny, full as profiles"),
        (entry(localizer="cams"), "experiment 'birds-one': expected a localizer out of centre, cam, .* found 'cams'"),
        (entry(localizer="nothing:Here"), "experiment 'birds-one': expected a localizer at nothing:Here, found none"),
        (entry(dataset="birds"), "expected a data set out of synthbirds, .* in experiment 'birds-one', found 'birds'"),
        (entry(hyperparameters={"alpha": 1}), "experiment 'birds-one': expected settings of cam .*, found alpha"),
        (entry(hyperparameters={"augment": "turn"}), "experiment 'birds-one': expected augment out of crop"),
        (
            entry(hyperparameters={"learning_rate": 0.5, "mirror": False}),
            "expected a sentence as why in experiment 'birds-one', whose learning_rate differ from the published",
        ),
        (
            {"A": {"dataset": "synthbirds", "experiments": {"b": {"localizer": "cam"}}}},
            "expected small letters, digits",
        ),
        (
            {
                "a": {"dataset": "synthbirds", "experiments": {"b-c": {"localizer": "cam"}}},
                "a-b": {"dataset": "synthbirds", "experiments": {"c": {"localizer": "cam"}}},
            },
            "expected every name once in .*, found 'a-b-c' twice",
        ),
        (
            {
                "a": {"dataset": "synthbirds", "experiments": {"b": {"localizer": "cam"}}},
                "a-b": {"dataset": "synthbirds", "experiments": {"c": {"localizer": "cam"}}},
            },
            "expected every name once in .*, found 'a-b' twice",
        ),
        (
            {"a": {"dataset": "synthbirds", "experiments": {"b": {}}}},
            "of experiment 'a-b', found no localizer: name one",
        ),
    ],
)
def test_a_mistake_in_the_table_is_one_sentence(table, text, message):
    with pytest.raises(ValueError, match=message) as caught:
        load(table, text=text)
    assert "\n" not in str(caught.value)


def test_an_unknown_profile_and_a_table_that_is_not_there(table, tmp_path):
    with pytest.raises(ValueError, match="expected a profile out of quick, tiny, full, found 'huge'"):
        load(table, "huge")
    with pytest.raises(FileNotFoundError, match=r"expected the table of experiments at .*none.yaml, found none"):
        load_experiments("quick", tmp_path / "none.yaml")


def test_a_localizer_of_one_s_own(table):
    text = entry(localizer=FAKE, hyperparameters={"size": 0.25}, why="smaller")
    assert load(table, text=text)["birds-one"].settings["size"] == 0.25


@pytest.mark.parametrize("profile", ["quick", "tiny", "full"])
def test_the_book_s_own_table_is_right(profile):
    assert load_experiments(profile, "book/experiments.yaml")


# -- what a paper prints -----------------------------------------------------------------------------------------------

TABLES = """
evaluation:
  table 2:
    columns: [VGG, ResNet]
    rows: {CAM: [71.1, 73.2], HaS: [5.2, null]}
"""
CELL = {"paper": "evaluation", "table": "table 2", "row": "CAM", "column": "VGG"}


@pytest.fixture
def paper_tables(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "paper_tables.yaml").write_text(TABLES)


def test_an_entry_names_the_cell_that_it_runs_again(table, paper_tables):
    found = load(table, text=entry(printed=CELL))["birds-one"]
    assert (found.expected, found.measure) == (0.711, "gt_known_loc")
    added = CELL | {"row": "HaS", "plus": "CAM", "measure": "max_box_acc"}
    found = load(table, text=entry(printed=added))["birds-one"]
    assert (found.expected, found.measure) == (0.763, "max_box_acc")
    assert load(table, text=entry())["birds-one"].expected is None


def test_what_is_printed_changes_no_definition(table, paper_tables):
    plain, printed = (load(table, text=entry(**own))["birds-one"] for own in ({}, {"printed": CELL}))
    assert printed.definition == plain.definition and printed.unit(0) == plain.unit(0)


def test_without_the_papers_tables_nothing_is_expected(table, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert load(table, text=entry(printed=CELL))["birds-one"].expected is None


@pytest.mark.parametrize(
    "changed, message",
    [
        ({"row": None}, "expected paper, table, row, column, .* as printed of experiment 'birds-one'"),
        ({"page": 3}, "expected paper, table, row, column, .* as printed of experiment 'birds-one'"),
        ({"measure": "accuracy"}, "a measure out of gt_known_loc, .* as printed of experiment 'birds-one'"),
        ({"row": "ADL"}, "expected a number as printed of experiment 'birds-one', found none in evaluation table 2"),
        ({"row": "HaS", "column": "ResNet"}, "expected a number as printed of experiment 'birds-one', found none"),
        ({"plus": "ADL"}, "expected a number as printed of experiment 'birds-one', found none"),
        ({"table": "table 9"}, "expected one of the tables evaluation table 2 .*, found 'evaluation' 'table 9'"),
    ],
)
def test_a_cell_that_is_not_there(table, paper_tables, changed, message):
    printed = {key: value for key, value in (CELL | changed).items() if value is not None}
    with pytest.raises(ValueError, match=message):
        load(table, text=entry(printed=printed))


def test_the_papers_rows_are_of_the_profile_full_alone_and_all_have_a_number():
    full = load_experiments("full", "book/experiments.yaml")
    rows = {name: one for name, one in full.items() if one.printed}
    assert not set(rows) & set(load_experiments("tiny", "book/experiments.yaml"))
    assert {one.printed["paper"] for one in rows.values()} == {"psol", "evaluation", "slt", "lchp"}
    assert {one.dataset for one in rows.values()} == {"cub", "imagenet", "tiny-imagenet"}
    assert all(0.4 < one.expected < 1 for one in rows.values())
    known = [(one.printed["table"], one.printed["row"], one.printed["column"]) for one in rows.values()]
    assert len(set(known)) == len(known)  # no cell twice
