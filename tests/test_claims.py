"""The claims ledger: what may stand in it, and by which rule it is decided."""

from pathlib import Path

import numpy as np
import pytest
import yaml

from wsol_lib.book import claims, evidence, results
from wsol_lib.book.claims import Claim, changes, decide, decide_all, load, printed_numbers, recorded
from wsol_lib.book.evidence import ANNOTATIONS, computed, evidence_of

ROOT = Path(__file__).parents[1]
ENTRY = {"id": "a-claim", "paper": "psol", "place": "Table 1", "claim": "It helps.", "datasets": ["ImageNet"]}
MEASURED = {
    "measured": [{"chapter": ANNOTATIONS, "name": "A"}],
    "confirmed": "above 0",
    "set": "2026-01-31 abcdef0",
}


def record(value, low=None, high=None, *, dataset="cub", n=480, **facts):
    own = {} if low is None else {"interval": [low, high]}
    return {"value": value, "dataset": dataset, "n": n, "seed": 0, **own, **facts}


def claim(*names, confirmed="above 0", printed=(), **more):
    """A claim about annotations, which need neither seeds nor a floor."""
    measured = [{"chapter": ANNOTATIONS, "name": name} for name in names or ["A"]]
    return Claim(**{**ENTRY, "measured": measured, "confirmed": confirmed, "printed": printed, **more})


def decided(made, **profiles):
    """The decision on a claim by records of annotations: profile -> name -> record."""
    return decide(made, {(ANNOTATIONS, profile): records for profile, records in profiles.items()})


def verdict(made, **profiles):
    return decided(made, **profiles).verdict


def experiment(shares, *, n=400, trained=True, dataset="tiny-imagenet", whole=0.2, taus=None, **more):
    """What is known of an experiment, one share a seed; the images that are right are the same ones as far as they go."""
    hits = np.zeros((3, len(shares), n), bool)
    for i, share in enumerate(shares):
        hits[:, i, : round(share * n)] = True
    facts = {
        "profile": "tiny",
        "dataset": dataset,
        "n": n,
        "images_seen": 960 if trained else 0,
        "baselines": {"whole_image": whole, "centred_box_best_on_test": {"value": 0.3}},
        "seeds": [{"best_tau": tau} for tau in taus or [0.2] * len(shares)],
        "date": "2026-02-01",
    }
    return {"record": facts, "kept": {"hits": hits, **more}, "ids": "of these images"}


ABOVE, BELOW = [0.6, 0.61, 0.62], [0.5, 0.5, 0.51]


def compared(after, before, measure=None, **more):
    """The decision on "after is better than before" by two experiments."""
    place = {"experiment": "after", "minus": "before"} | ({"measure": measure} if measure else {})
    made = Claim(**{**ENTRY, "measured": [place], "confirmed": "above 0", **more})
    return decide(made, {("experiment", "after"): after, ("experiment", "before"): before})


# the rule


@pytest.mark.parametrize(
    "low, high, expected",
    [
        (0.01, 0.05, "reproduced"),
        (-0.05, -0.01, "contradicted"),
        (-0.01, 0.05, "not at this scale"),
        (0.0, 0.05, "not at this scale"),  # touches the bound
        (-0.05, 0.0, "not at this scale"),
    ],
)
def test_the_interval_inside_outside_and_across_the_bound(low, high, expected):
    assert verdict(claim(), tiny={"A": record(0.02, low, high)}) == expected


@pytest.mark.parametrize(
    "confirmed, expected",
    [
        ("above 0.1", "contradicted"),
        ("above -0.1", "reproduced"),
        ("below 0.1", "reproduced"),
        ("below -0.1", "contradicted"),
        ("between -0.1 and 0.1", "reproduced"),
        ("between 0.03 and 0.1", "not at this scale"),
        ("between 0.06 and 0.1", "contradicted"),
        ("more than 0.02 from 0", "not at this scale"),
        ("more than 0.1 from 0", "contradicted"),
    ],
)
def test_the_words_for_bounds(confirmed, expected):
    assert verdict(claim(confirmed=confirmed), tiny={"A": record(0.02, -0.01, 0.05)}) == expected


def test_without_a_record_a_claim_is_not_run():
    assert verdict(claim()) == verdict(claim(), tiny={"another": record(1.0)}) == "not run"
    assert decide(Claim(**ENTRY, wanting="a GPU"), {}).verdict == "not run"
    assert decide(Claim(**ENTRY, measured=[{"experiment": "x"}], confirmed="above 0"), {}).verdict == "not run"


def test_an_exact_number_has_no_interval():
    assert verdict(claim(confirmed="above 25.5"), tiny={"A": record(25.56, n=0)}) == "reproduced"


def test_the_larger_profile_decides_before_the_smaller():
    up, down, unsure = record(0.1, 0.05, 0.15), record(-0.1, -0.15, -0.05), record(0.1, -0.05, 0.25)

    def both(tiny, full):
        return decided(claim(), tiny={"A": tiny}, full={"A": full})

    assert both(up, down).verdict == "contradicted" and both(up, unsure).verdict == "not at this scale"
    assert [found.profile for found in both(up, down).evidence] == ["full", "tiny"]
    # what weighs less and decides otherwise is told
    assert both(up, down).disagreement and both(up, unsure).disagreement
    assert not both(up, up).disagreement and not both(unsure, up).disagreement


def test_a_claim_says_all_of_what_it_names():
    up, down, unsure = record(0.1, 0.05, 0.15), record(-0.1, -0.15, -0.05), record(0.1, -0.05, 0.25)
    assert verdict(claim("A", "B"), tiny={"A": up, "B": up}) == "reproduced"
    assert verdict(claim("A", "B"), tiny={"A": up, "B": unsure}) == "not at this scale"
    assert verdict(claim("A", "B"), tiny={"A": unsure, "B": down}) == "contradicted"
    half = decided(claim("A", "B"), tiny={"A": up})
    assert (half.verdict, half.why) == ("not at this scale", "not all that it names is recorded")
    assert verdict(claim("A", "B"), tiny={"A": down}) == "contradicted"


def test_a_printed_number_is_compared_with_the_record_of_the_same_place(monkeypatch):
    monkeypatch.setattr(results, "printed", lambda paper, table: {"x": {"y": 59.7}, "z": {"y": 25.56}})
    made = claim("A", "B", confirmed="within 0.01 of printed", printed=[["table 1", "x", "y"], ["table 1", "z", "y"]])
    assert verdict(made, tiny={"A": record(59.7, n=0), "B": record(25.557, n=0)}) == "reproduced"
    assert verdict(made, tiny={"A": record(25.56, n=0)}) == "contradicted"
    made = claim(confirmed="within 1 points of printed", printed=[["table 1", "x", "y"]])
    assert verdict(made, tiny={"A": record(0.596, 0.59, 0.60)}) == "reproduced"
    assert verdict(made, tiny={"A": record(0.596, 0.58, 0.60)}) == "not at this scale"
    in_the_text = claim(confirmed="within 0.05 of printed", printed=[16.3])
    assert printed_numbers(in_the_text) == [("in the text", 16.3)]
    assert verdict(in_the_text, tiny={"A": record(16.28, n=0)}) == "reproduced"


def test_runs_of_this_machine_and_of_the_quick_profile_are_no_evidence(tmp_path, monkeypatch):
    for folder, profile, value in (("own", "tiny", 0.9), ("kept", "tiny", 0.1), ("kept", "quick", 0.5)):
        monkeypatch.setenv("WSOL_RESULTS", str(tmp_path / folder))
        results.record("A", value, chapter=ANNOTATIONS, profile=profile, dataset="cub", n=10, seed=0)
    monkeypatch.setenv("WSOL_RESULTS", str(tmp_path / "own"))
    monkeypatch.setenv("WSOL_RECORDS", str(tmp_path / "kept"))
    found = recorded([claim()])
    assert found[ANNOTATIONS, "tiny"]["A"]["value"] == 0.1
    assert (ANNOTATIONS, "quick") not in found


# experiments


def test_experiments_are_compared_over_images_and_seeds():
    found = compared(experiment(ABOVE), experiment(BELOW))
    assert (found.verdict, found.kind, found.evidence[0].seeds) == ("reproduced", "photographs", 3)
    assert found.evidence[0].floor == "above" and found.evidence[0].value == pytest.approx(0.61 - 0.5033, abs=2e-3)
    noisy = compared(experiment([0.4, 0.61, 0.82]), experiment(BELOW))
    assert noisy.verdict == "not at this scale" and noisy.p > 0.05


def test_a_seed_spread_counts_beside_something_that_was_not_trained():
    untrained = experiment([0.5], trained=False)
    assert compared(experiment(ABOVE), untrained).verdict == "reproduced"
    assert compared(experiment([0.4, 0.61, 0.82]), untrained).evidence[0].low < 0
    assert (
        compared(experiment([0.6]), untrained).why == compared(experiment(ABOVE), experiment([0.5])).why == "one seed"
    )
    assert compared(experiment([0.6], trained=False), untrained).verdict == "reproduced"


@pytest.mark.parametrize("seeds, why", [(1, "one seed"), (2, "two seeds")])
def test_fewer_than_three_trainings_decide_nothing(seeds, why):
    found = compared(experiment(ABOVE[:seeds]), experiment(BELOW[:seeds]))
    assert (found.verdict, found.why, found.p) == ("not at this scale", why, None)


@pytest.mark.parametrize(
    "measure, kept, expected",
    [
        ("gt_known_loc_iou_0.7", {}, 0.1067),
        ("mean_over_ious", {}, 0.1067),
        ("choosing_tau", {"fixed_hits": np.zeros((3, 3, 400), bool)}, 0.1067),
        ("top1_cls", {"ranks": np.zeros((3, 400))}, 0.0),
        ("box_side", {"boxes": np.tile([0, 0, 64, 144], (3, 400, 1))}, 0.0),
    ],
)
def test_what_an_experiment_is_asked_for(measure, kept, expected):
    (found,) = compared(experiment(ABOVE, **kept), experiment(BELOW, **kept), measure).evidence
    assert found.name == f"after minus before, {measure}" and found.value == pytest.approx(expected, abs=2e-3)


def test_the_side_of_a_box_is_the_root_of_its_area_in_pixels():
    made = experiment(ABOVE, boxes=np.tile([0, 0, 4 * 16, 9 * 16], (3, 400, 1)))
    place = {"experiment": "after", "measure": "box_side"}
    (found,) = evidence_of(place, {("experiment", "after"): made}, [(0, 10)])
    assert (found.value, found.verdict) == (6.0, "reproduced")


def test_what_a_localizer_is_sure_of_is_right_more_often():
    """Of 400 boxes 200 are right; the first 100 have the score 1, the next 200 one half, the others 0."""
    scores = np.repeat([255, 128, 128, 0], 100)[None].repeat(3, axis=0)
    made = experiment([0.5] * 3, scores=scores)

    def asked(measure, confirmed="above 0"):
        place = {"experiment": "own", "measure": measure}
        return decide(Claim(**{**ENTRY, "measured": [place], "confirmed": confirmed}), {("experiment", "own"): made})

    assert asked("sure").evidence[0].value == pytest.approx(1.0 - 0.5)
    assert asked("surer_half").evidence[0].value == pytest.approx(1.0 - 100 / 300)  # none of the ties is sure
    assert asked("score").evidence[0].value == pytest.approx(0.5, abs=2e-3) and not asked("score").evidence[0].floor
    assert asked("sure").verdict == asked("surer_half").verdict == "reproduced"
    assert asked("sure", "above 0.9").verdict == "contradicted"
    made["kept"]["scores"] = np.repeat([255, 255, 255, 0], 100)[None].repeat(3, axis=0)
    assert asked("surer_half").evidence[0].value == pytest.approx(200 / 300)
    made["kept"]["scores"] = np.full((3, 400), 200)  # none above 0.9, and nobody above the median
    assert asked("sure").evidence[0].value == asked("surer_half").evidence[0].value == 0
    assert asked("sure").verdict == "not at this scale"


def test_an_image_weighs_by_how_far_it_moves_a_share():
    """The spread of a share is that of the chosen images alone."""
    hits = np.array([[1, 0, 1, 1, 0, 0, 0, 0.0]])
    own = evidence._share_of(hits, np.arange(8)[None] < 4)
    assert own.mean() == 0.75 and own[0, 4:].tolist() == [0.75] * 4
    assert own[0, :4].tolist() == [0.75 + 2 * (hit - 0.75) for hit in hits[0, :4]]


def test_boxes_are_judged_with_the_classes_of_another():
    """PSOL's Table 4: the classifier is right for the first half of the images, the boxes for the first 60 and 40 %."""
    ranks = np.repeat([[0, 1]], 200, axis=1).repeat(3, axis=0)
    place = {"experiment": "after", "minus": "before", "measure": "top1_loc", "classifier": "third"}
    made = Claim(**{**ENTRY, "measured": [place], "confirmed": "above 0"})
    after, before = experiment([0.6] * 3), experiment([0.4] * 3)
    found = {("experiment", "after"): after, ("experiment", "before"): before}
    assert decide(made, found).verdict == "not run"
    found |= {("experiment", "third"): experiment(BELOW, ranks=ranks)}
    (own,) = decide(made, found).evidence
    assert own.value == pytest.approx(0.5 - 0.4) and own.name.endswith(", top1_loc with the classes of third")


def test_what_each_training_has_is_compared_over_trainings_even_of_other_images():
    after = experiment(ABOVE, taus=[0.5, 0.51, 0.52])
    before = {**experiment(BELOW, taus=[0.3, 0.31, 0.33]), "ids": "of others"}
    found = compared(after, before, "best_tau")
    low, high = found.evidence[0].low, found.evidence[0].high
    assert found.verdict == "reproduced" and found.evidence[0].value == pytest.approx(0.1967, abs=1e-3)
    # Welch: sqrt(0.01^2 / 3 + 0.01528^2 / 3) = 0.01054, 3.45 degrees of freedom, Student's 2.96
    assert (high - low) / 2 == pytest.approx(2.96 * 0.01054, rel=0.01)
    same = compared(experiment(ABOVE, taus=[0.4] * 3), experiment(BELOW), "best_tau")
    assert (same.verdict, same.p) == ("not at this scale", None), "no spread to go by"


def test_experiments_on_other_images_are_refused():
    with pytest.raises(ValueError, match="expected experiments on the same images, found after and before"):
        compared(experiment(ABOVE), {**experiment(BELOW), "ids": "of others"})


# where no verdict carries


@pytest.mark.parametrize("after, before", [([0.2, 0.2, 0.21], BELOW), (ABOVE, [0.2, 0.2, 0.21]), ([0.31] * 3, BELOW)])
def test_what_is_no_better_than_the_floor_decides_nothing(after, before):
    """The centred box is right for 0.3; 0.31 of 400 images is not surely better."""
    found = compared(experiment(after), experiment(before))
    assert found.verdict == "not at this scale" and found.why.startswith("not everything compared beats")
    assert compared(experiment(after), experiment(before), compares_with_floor=True).verdict != "not at this scale"
    right = {"ranks": np.zeros((3, 400))}
    named = compared(experiment(after, **right), experiment(before, **right), "top1_cls", confirmed="above -0.1")
    assert named.verdict == "reproduced", "which classes are named is not about boxes"


def test_the_floor_is_the_higher_of_whole_image_and_centred_box():
    assert compared(experiment(ABOVE, whole=0.55), experiment(BELOW, whole=0.55)).why.startswith("not everything")


def test_a_smaller_run_may_confirm_and_does_not_contradict():
    small = {"smaller": "a tenth of the images"}
    assert compared(experiment(ABOVE), experiment(BELOW), **small).verdict == "reproduced"
    found = compared(experiment(BELOW), experiment(ABOVE), **small)
    assert (found.verdict, found.why) == ("not at this scale", "smaller than the paper's: a tenth of the images")


def test_a_smaller_run_contradicts_what_is_said_of_every_setting():
    said = {"smaller": "a tenth of the images", "general": "said of all"}
    assert compared(experiment(BELOW), experiment(ABOVE), **said).verdict == "contradicted"
    birds = [experiment(own, dataset="synthbirds") for own in (BELOW, ABOVE)]
    assert compared(*birds, **said).verdict == "not at this scale"


def test_painted_birds_alone_do_not_contradict_a_claim_about_photographs():
    after, before = (experiment(own, dataset="synthbirds") for own in (ABOVE, BELOW))
    found = compared(before, after)
    assert found.verdict == "not at this scale" and found.why.startswith("painted birds alone")
    assert compared(before, after, datasets=["none"]).verdict == "contradicted"
    assert compared(after, before).verdict == "reproduced" and compared(after, before).kind == "painted birds"
    mixed = compared(experiment(ABOVE, dataset="synthbirds", taus=[0.5, 0.51, 0.52]), experiment(BELOW), "best_tau")
    assert mixed.kind == "painted birds"


def test_photographs_decide_before_birds_and_three_trainings_before_one():
    made = Claim(
        **{**ENTRY, "measured": [{"experiment": "photos"}, {"experiment": "birds"}], "confirmed": "above 0.55"}
    )

    def asked(photos, birds):
        return decide(made, {("experiment", "photos"): experiment(photos), ("experiment", "birds"): birds})

    birds = experiment([0.7, 0.71, 0.7], dataset="synthbirds")
    assert asked([0.4, 0.41, 0.4], birds).verdict == "contradicted"
    one = asked([0.4], birds)
    assert (one.verdict, one.kind, one.disagreement) == ("reproduced", "painted birds", True)


def test_that_something_fails_is_met_beside_a_control_that_does_not():
    place = {"experiment": "after", "minus": "before"}
    made = Claim(
        **{**ENTRY, "measured": [place], "confirmed": "below 0", "fails": True},
        control={"experiment": "control", "minus": "before", "confirmed": "above 0"},
    )
    low, high = [0.1, 0.1, 0.11], [0.7, 0.7, 0.71]

    def beside(control):
        found = {("experiment", "after"): experiment(low), ("experiment", "before"): experiment(BELOW)}
        return decide(made, found | ({("experiment", "control"): experiment(control)} if control else {}))

    assert beside(high).verdict == "reproduced"
    assert beside(low).verdict == beside(None).verdict == "not at this scale" and "control" in beside(low).why


def test_holms_correction_counts_all_that_were_asked():
    """Three at p of 0.03 or so by themselves are not told apart from accident; one that is far away is."""

    def asked(name, share):
        made = Claim(**{**ENTRY, "id": name, "measured": [{"experiment": name}], "confirmed": "above 0.5"})
        return made, experiment([share], trained=False)

    made = [asked("A", 0.555), asked("B", 0.555), asked("C", 0.7), asked("D", 0.52)]
    found = {("experiment", entry.id): own for entry, own in made}
    by_itself = [decide(entry, found) for entry, _ in made]
    assert [d.verdict for d in by_itself] == ["reproduced"] * 3 + ["not at this scale"]
    assert by_itself[0].p == pytest.approx(0.028, abs=3e-3)
    corrected = decide_all([entry for entry, _ in made], found)
    assert [d.verdict for d in corrected] == ["not at this scale"] * 2 + ["reproduced", "not at this scale"]
    assert "not beside 3 others (Holm's correction)" in corrected[0].why
    assert decide_all([made[0][0]], found)[0].verdict == "reproduced"


def test_bounds_that_are_not_older_than_the_record_are_told():
    made = claim(set="2026-01-31 abcdef0")
    for date, late in (("2026-01-30", True), ("2026-01-31", True), ("2026-02-01", False)):
        assert decided(made, tiny={"A": record(0.1, 0.05, 0.15, date=date)}).late is late


# arithmetic


@pytest.fixture
def small_table(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    rows = "{CAM: [1, 2.5], ACoL: [3, null], 'SPG + DPN': [7, 8]}"
    Path("paper_tables.yaml").write_text(f"psol: {{table 1: {{columns: [Top-1 Loc, b], rows: {rows}}}}}")


def test_cells_of_a_table_are_held_against_others(small_table):
    assert computed("psol table 1: SPG + DPN | * minus psol table 1: CAM or ACoL | *") == 7 - 3
    assert computed("psol table 1: * | Top-1 Loc or b minus 0.5") == 0.5
    assert computed("9 minus psol table 1: A* | Top-1 Loc") == 6


@pytest.mark.parametrize(
    "name", ["luck", "million parameters, SPG", "1 minus psol table 1: HaS | *", "1 minus psol table 1: ACoL | b"]
)
def test_a_number_that_cannot_be_counted_is_named(small_table, name):
    with pytest.raises(ValueError, match=r"expected .*, found .*: (choose one|take rows)"):
        computed(name)


def test_the_lemma_holds_in_random_worlds_and_the_count_would_tell(monkeypatch):
    assert computed(evidence.LEMMA) == 0
    monkeypatch.setattr(evidence, "posterior_ratio", lambda table: np.zeros(3))
    assert 30 < computed(evidence.LEMMA) < 70  # one order of six cues in twenty has the three of the object first


# the file


def ledger(folder, *entries):
    path = folder / "claims.yaml"
    path.write_text(yaml.safe_dump(list(entries)))
    return load(path)


def test_a_claim_is_read_as_it_is_written(tmp_path):
    (found,) = ledger(tmp_path, ENTRY | MEASURED)
    assert found == Claim(**ENTRY, **MEASURED)


@pytest.mark.parametrize(
    "change, message",
    [
        ({"place": None}, "expected the keys .* in claim 'a-claim', found no place"),
        ({"dataset": "CUB"}, "found 'dataset'"),
        ({"paper": "acol"}, "expected a paper out of psol, evaluation, slt, lchp in claim 'a-claim', found 'acol'"),
        ({"confirmed": ""}, "expected measured with confirmed, or wanting, in claim 'a-claim'"),
        ({"measured": []}, "expected measured with confirmed, or wanting"),
        ({"confirmed": "more than 0"}, "expected 'above x', .* found 'more than 0'"),
        ({"measured": [{"chapter": "06-psol", "name": "A"}]}, "chapter 01-task-and-data with the name .*'06-psol'"),
        ({"measured": [{"chapter": ANNOTATIONS}]}, "expected an experiment, chapter 01-task-and-data with the name"),
        ({"measured": [{"chapter": ANNOTATIONS, "name": "A", "minus": "B"}]}, "expected an experiment, .*'minus'"),
        ({"measured": "A"}, "expected a list of {chapter, name} as measured in claim 'a-claim', found 'A'"),
        ({"measured": ["A"]}, "expected a list of {chapter, name} as measured in claim 'a-claim', found \\['A'\\]"),
        ({"measured": [{"experiment": "birds-unknown"}]}, "declare the experiment first"),
        ({"measured": [{"experiment": "birds-cam", "measure": "luck"}]}, "a measure out of gt_known_loc"),
        ({"set": "yesterday"}, "expected a date and a commit, .* found 'yesterday'"),
        ({"set": ""}, "say when its bounds were written"),
        ({"general": "of all"}, "expected general of a direction .* with smaller"),
        (
            {"general": "of all", "smaller": "small", "datasets": ["CUB-200"]},
            "found 'above 0' on CUB-200: leave general",
        ),
        ({"general": "of all", "smaller": "small", "confirmed": "within 1 of printed"}, "found 'within 1 of printed'"),
        ({"fails": True}, "fails with control"),
    ],
)
def test_an_entry_that_says_something_wrong_is_named(tmp_path, change, message):
    with pytest.raises(ValueError, match=message):
        ledger(tmp_path, ENTRY | MEASURED | change)


@pytest.mark.parametrize(
    "content, message",
    [
        ("- {id: a-claim", "expected claims in YAML in .*claims.yaml, found something else"),
        ("- \0", "expected claims in YAML"),
        ("[" * 10_000, "expected claims in YAML"),
        ("", "expected a list of claims, .* found no list"),
        ("id: a-claim", "expected a list of claims, .* found no list"),
        ("- a-claim\n- another", "expected a list of claims, .* found entries that are none"),
    ],
)
def test_a_file_that_is_no_ledger_is_named(tmp_path, content, message):
    (tmp_path / "claims.yaml").write_text(content)
    with pytest.raises(ValueError, match=message):
        load(tmp_path / "claims.yaml")


def test_a_ledger_that_is_not_there_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"expected a ledger of claims at .*claims.yaml, found no such file"):
        load(tmp_path / "claims.yaml")


def test_an_id_comes_once(tmp_path):
    with pytest.raises(ValueError, match="expected every id once, found 'a-claim' twice"):
        ledger(tmp_path, ENTRY | MEASURED, ENTRY | MEASURED)


def test_a_chapter_that_was_opened_alone_has_no_ledger(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert load() == []


def test_a_cell_that_no_table_has(monkeypatch):
    monkeypatch.chdir(ROOT)
    with pytest.raises(
        ValueError, match="expected a cell of psol table 1 in claim 'a-claim', found row 'VGG' and column"
    ):
        printed_numbers(claim(printed=[["table 1", "VGG", "CUB-200"]]))


# the ledger of the book


@pytest.fixture(scope="module")
def all_claims():
    return load(ROOT / "book" / "claims.yaml")


@pytest.fixture(scope="module")
def all_records(all_claims):
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(ROOT)
        return recorded(all_claims)


@pytest.fixture
def book(all_claims, monkeypatch):
    monkeypatch.chdir(ROOT)
    return all_claims


def test_the_ledger_has_its_claims_from_all_four_papers(book):
    assert len(book) >= 60
    assert {entry.paper for entry in book} == set(claims.PAPERS)
    assert all(entry.id.startswith(f"{entry.paper}-") for entry in book)


def test_what_the_ledger_quotes_is_in_the_papers_tables(book):
    for entry in book:
        printed_numbers(entry)
        if "printed" in entry.confirmed:
            assert len(entry.printed) == len(entry.measured), entry.id


def test_what_an_experiment_tests_says_in_what_it_falls_short(book):
    for entry in book:
        if any("experiment" in place for place in entry.measured):
            assert entry.smaller, entry.id


def test_photographs_are_asked_of_claims_about_photographs_of_everything(book):
    for entry in book:
        names = [place.get("experiment", "") for place in entry.measured]
        if any(name.startswith("photos") for name in names):
            assert any(not dataset.startswith("CUB") for dataset in entry.datasets), entry.id


def test_what_a_claim_says_of_annotations_is_counted(book, all_records):
    names = {place["name"] for entry in book for place in entry.measured if "chapter" in place}
    assert names <= set(all_records[ANNOTATIONS, "tiny"])


def test_a_threshold_that_was_chosen_stands_for_each_method_of_a_comparison(book):
    """Experiments of one group share images and budget; only thresholds of birds and photographs are held side by side."""
    for entry in book:
        for place in entry.measured:
            if "minus" in place and place.get("measure") not in evidence.OF_SEEDS:
                assert place["experiment"].split("-")[0] == place["minus"].split("-")[0], entry.id


@pytest.fixture(scope="module")
def decisions(all_claims, all_records):
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(ROOT)
        return decide_all(all_claims, all_records)


def test_the_committed_records_decide_without_an_error(decisions):
    assert {decision.verdict for decision in decisions} <= set(claims.VERDICTS)


def test_no_verdict_rests_on_few_seeds_or_on_boxes_below_the_floor(decisions):
    for decision in decisions:
        if decision.verdict in claims.DECIDED:
            assert decision.evidence[0].decides, decision.claim.id
        if decision.verdict == "contradicted" and decision.kind in ("photographs", "painted birds"):
            assert "above" in {own.floor for own in decision.evidence}, decision.claim.id


def test_what_is_decided_by_bounds_that_came_later_is_in_the_list_of_changes(decisions, monkeypatch):
    monkeypatch.chdir(ROOT)
    listed = {name for change in changes() for name in change.claims}
    for decision in decisions:
        if decision.verdict in claims.DECIDED and decision.late:
            assert decision.claim.id in listed, decision.claim.id


def test_a_change_that_lacks_something_is_named(tmp_path):
    (tmp_path / "changes.yaml").write_text("- {date: '2026-01-31', commit: abc, claims: [a], what: Something.}")
    with pytest.raises(ValueError, match="expected date, commit, claims, what, reason in each change"):
        changes(tmp_path / "changes.yaml")
