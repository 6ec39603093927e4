"""The claims ledger: what may stand in it, and by which rule it is decided."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import yaml

from wsol_lib.book import claims, results
from wsol_lib.book.claims import Claim, changes, decide, decide_all, load, printed_numbers, recorded
from wsol_lib.book.evidence import interval

ROOT = Path(__file__).parents[1]
ENTRY = {"id": "a-claim", "paper": "psol", "place": "Table 1", "claim": "It helps.", "datasets": ["CUB"]}
MEASURED = {
    "measured": [{"chapter": "06-psol", "name": "A minus B"}],
    "confirmed": "above 0",
    "set": "2026-01-31 abcdef0",
}
FLOORS = {"whole image": 0.2, "best centred box": 0.3}


def record(value, low=None, high=None, *, dataset="synthbirds", n=480, **facts):
    own = {} if low is None else {"interval": [low, high]}
    return {"value": value, "dataset": dataset, "n": n, "seed": 0, **own, **facts}


def claim(*names, confirmed="above 0", printed=(), **more):
    """A claim that needs neither seeds nor a floor, unless it is told to."""
    measured = [{"chapter": "06-psol", "name": name} for name in names or ["A minus B"]]
    return Claim(
        **{**ENTRY, "measured": measured, "confirmed": confirmed, "printed": printed, "rests_on": "arithmetic", **more}
    )


def decided(made, **profiles):
    """The decision on a claim by records of chapter 06: profile -> name -> record; chapter 1 knows the floor."""
    records = {("06-psol", profile): records for profile, records in profiles.items()}
    floors = {f"{data}/{name}": {"value": v} for data in ("synthbirds", "tiny-imagenet") for name, v in FLOORS.items()}
    return decide(made, {**records, ("01-task-and-data", "tiny"): floors})


def verdict(made, **profiles):
    return decided(made, **profiles).verdict


def pair(value, *, after=0.6, before=0.5, seeds=3, **facts):
    """Records A, B and "A minus B" of trained networks, whose interval is a tenth of a point wide."""
    difference = record(value, value - 0.01, value + 0.01, seeds=seeds, **facts)
    parts = {
        name: record(own, own - 0.01, own + 0.01, seeds=seeds, **facts) for name, own in (("A", after), ("B", before))
    }
    return {**parts, "A minus B": difference}


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
    assert verdict(claim(), tiny={"A minus B": record(0.02, low, high)}) == expected


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
    ],
)
def test_the_words_for_bounds(confirmed, expected):
    assert verdict(claim(confirmed=confirmed), tiny={"A minus B": record(0.02, -0.01, 0.05)}) == expected


def test_a_smaller_run_may_confirm_a_number_and_does_not_contradict_it():
    small = dataclasses.replace(claim(), smaller="a tenth of the images")
    assert verdict(small, tiny={"A minus B": record(0.03, 0.01, 0.05)}) == "reproduced"
    assert verdict(small, tiny={"A minus B": record(-0.03, -0.05, -0.01)}) == "not at this scale"


def test_without_a_record_a_claim_is_not_run():
    assert verdict(claim()) == verdict(claim(), tiny={"another": record(1.0)}) == "not run"
    assert decide(Claim(**ENTRY, wanting="a GPU"), {}).verdict == "not run"


def test_a_share_without_an_interval_gets_wilsons_and_an_exact_number_none():
    assert interval(record(0.5, n=100)) == pytest.approx((0.404, 0.596), abs=1e-3)
    assert interval(record(25.56, n=0)) == (25.56, 25.56)
    assert verdict(claim(confirmed="above 0.45"), tiny={"A minus B": record(0.5, n=100)}) == "not at this scale"
    assert verdict(claim(confirmed="above 0.45"), tiny={"A minus B": record(0.5, n=0)}) == "reproduced"


def test_the_spread_over_seeds_widens_it():
    low, high = interval(record(0.5, n=10_000, seeds=3, spread=0.01))
    # Student's 4.303 for three seeds: 4.303 x 0.01 / sqrt(3) = 0.0248, with Wilson's 0.0098
    assert (low, high) == pytest.approx((0.5 - 0.0267, 0.5 + 0.0267), abs=1e-4)


def test_a_difference_without_an_interval_is_refused():
    with pytest.raises(ValueError, match=r"expected a share in \[0, 1\]"):
        verdict(claim(), tiny={"A minus B": record(-0.1)})


def test_two_records_are_compared_with_independent_errors():
    made = Claim(
        **ENTRY,
        measured=[{"chapter": "06-psol", "name": "A", "minus": {"chapter": "06-psol", "name": "B"}}],
        confirmed="above 0",
    )
    pair = {"A": record(0.6, 0.57, 0.62), "B": record(0.5, 0.48, 0.54)}
    (found,) = decided(made, tiny=pair).evidence
    assert (found.name, found.value) == ("A minus B", pytest.approx(0.1))
    assert (found.low, found.high) == pytest.approx((0.1 - 0.05, 0.1 + 0.02 * 2**0.5))  # 3-4-5, and twice 0.02
    assert verdict(made, tiny={"A": pair["A"]}) == "not run"
    other = {**pair, "B": {**pair["B"], "dataset": "tiny-imagenet"}}
    assert verdict(made, quick=other) == "not run", "other images are no comparison"


def test_photographs_decide_before_painted_birds_and_the_larger_profile_before_the_smaller():
    photographs, trained = {"dataset": "tiny-imagenet"}, claim(rests_on="trained")
    assert verdict(trained, tiny=pair(0.1, **photographs), full=pair(-0.1, **photographs)) == "contradicted"
    both = claim("A", "B", rests_on="untrained", confirmed="above 0.4")
    up, down = record(0.5, 0.45, 0.55, **photographs), record(0.35, 0.32, 0.38)
    assert verdict(both, tiny={"A": up}, full={"B": down}) == "reproduced"
    unsure = {**up, "interval": [0.35, 0.65]}
    assert verdict(both, tiny={"A": unsure}, full={"B": record(0.5, 0.45, 0.55)}) == "not at this scale"


def test_evidence_of_less_weight_that_decides_otherwise_is_told():
    up, down, unsure = record(0.1, 0.05, 0.15), record(-0.1, -0.15, -0.05), record(0.1, -0.05, 0.25)

    def disagreement(tiny, full):
        return decided(claim(), tiny={"A minus B": tiny}, full={"A minus B": full})

    assert disagreement(up, down).disagreement and disagreement(up, unsure).disagreement
    assert not disagreement(up, up).disagreement and not disagreement(unsure, up).disagreement
    assert [found.profile for found in disagreement(up, down).evidence] == ["full", "tiny"]


def test_a_claim_says_all_of_what_it_names():
    up, down, unsure = record(0.1, 0.05, 0.15), record(-0.1, -0.15, -0.05), record(0.1, -0.05, 0.25)
    assert verdict(claim("A", "B"), tiny={"A": up, "B": up}) == "reproduced"
    assert verdict(claim("A", "B"), tiny={"A": up, "B": unsure}) == "not at this scale"
    assert verdict(claim("A", "B"), tiny={"A": unsure, "B": down}) == "contradicted"


def test_a_printed_number_is_compared_with_the_record_of_the_same_place(monkeypatch):
    monkeypatch.setattr(results, "printed", lambda paper, table: {"x": {"y": 59.7}, "z": {"y": 25.56}})
    made = claim("A", "B", confirmed="within 0.01 of printed", printed=[["table 1", "x", "y"], ["table 1", "z", "y"]])
    assert verdict(made, tiny={"A": record(59.7, n=0), "B": record(25.557, n=0)}) == "reproduced"
    assert verdict(made, tiny={"A": record(25.56, n=0)}) == "contradicted"
    made = claim(confirmed="within 1 points of printed", printed=[["table 1", "x", "y"]])
    assert verdict(made, tiny={"A minus B": record(0.596, 0.59, 0.60)}) == "reproduced"
    assert verdict(made, tiny={"A minus B": record(0.596, 0.58, 0.60)}) == "not at this scale"


def test_runs_of_this_machine_and_of_the_quick_profile_are_no_evidence(tmp_path, monkeypatch):
    for folder, profile, value in (("own", "tiny", 0.9), ("kept", "tiny", 0.1), ("kept", "quick", 0.5)):
        monkeypatch.setenv("WSOL_RESULTS", str(tmp_path / folder))
        results.record("A", value, chapter="06-psol", profile=profile, dataset="synthbirds", n=10, seed=0)
    monkeypatch.setenv("WSOL_RESULTS", str(tmp_path / "own"))
    monkeypatch.setenv("WSOL_RECORDS", str(tmp_path / "kept"))
    found = recorded([claim("A")])
    assert found["06-psol", "tiny"]["A"]["value"] == 0.1
    assert ("06-psol", "quick") not in found


# where no verdict carries


@pytest.mark.parametrize("seeds, why", [(1, "one seed"), (2, "two seeds")])
def test_fewer_than_three_trainings_decide_nothing(seeds, why):
    photographs = pair(0.1, seeds=seeds, dataset="tiny-imagenet")
    found = decided(claim(rests_on="trained"), tiny=photographs)
    assert (found.verdict, found.why, found.p) == ("not at this scale", why, None)
    assert verdict(claim(rests_on="untrained"), tiny=photographs) == "reproduced"


def test_three_trainings_on_birds_decide_before_one_on_photographs():
    made = claim("A", "B", rests_on="trained", confirmed="above 0.4")
    one, three = record(0.35, 0.32, 0.38, dataset="tiny-imagenet"), record(0.5, 0.45, 0.55, seeds=3)
    found = decided(made, tiny={"A": one, "B": three})
    assert (found.verdict, found.kind, found.disagreement) == ("reproduced", "painted birds", True)


@pytest.mark.parametrize(
    "after, before, floor", [(0.25, 0.5, "below"), (0.5, 0.25, "below"), (0.31, 0.5, "below"), (0.5, 0.6, "above")]
)
def test_what_is_no_better_than_the_floor_contradicts_nothing(after, before, floor):
    """The centred box is right for 0.3; 0.31 plus or minus 0.01 is not surely better."""
    records = pair(-0.1, after=after, before=before, dataset="tiny-imagenet")
    found = decided(claim(rests_on="trained"), tiny=records)
    assert found.evidence[0].floor == floor
    assert found.verdict == ("contradicted" if floor == "above" else "not at this scale")
    confirming = pair(0.1, after=after, before=before, dataset="tiny-imagenet")
    assert verdict(claim(rests_on="trained"), tiny=confirming) == (
        "reproduced" if floor == "above" else "not at this scale"
    )
    with_it = claim(rests_on="trained", compares_with_floor=True)
    assert verdict(with_it, tiny=records) == "contradicted"


def test_where_the_floor_is_not_known_nothing_is_contradicted():
    for value, expected in ((-0.1, "not at this scale"), (0.1, "reproduced")):
        alone = {"A minus B": pair(value, dataset="tiny-imagenet")["A minus B"]}
        assert verdict(claim(rests_on="trained"), tiny=alone) == expected
    elsewhere = decided(claim(rests_on="trained"), tiny=pair(-0.1, dataset="cub"))
    assert elsewhere.verdict == "not at this scale" and "is not recorded" in elsewhere.why


def test_that_something_fails_is_met_beside_a_control_that_does_not():
    made = claim(
        rests_on="trained",
        confirmed="below 0",
        fails=True,
        control={"chapter": "06-psol", "name": "C", "confirmed": "above 0"},
    )
    records = pair(-0.1, after=0.1, dataset="tiny-imagenet")
    for control, expected in ((0.1, "reproduced"), (-0.1, "not at this scale")):
        beside = record(control, control - 0.01, control + 0.01, seeds=3, dataset="tiny-imagenet")
        assert verdict(made, tiny={**records, "C": beside}) == expected
    assert "control" in decided(made, tiny=records).why


def test_painted_birds_alone_do_not_contradict_a_claim_about_photographs():
    found = decided(claim(rests_on="trained"), tiny=pair(-0.1))
    assert found.verdict == "not at this scale" and found.why.startswith("painted birds alone")
    assert verdict(claim(rests_on="trained", datasets=["none"]), tiny=pair(-0.1)) == "contradicted"
    assert verdict(claim(rests_on="trained"), tiny=pair(0.1)) == "reproduced"


@pytest.mark.parametrize(
    "rests_on, dataset, kind",
    [
        ("trained", "tiny-imagenet", "photographs"),
        ("untrained", "synthbirds", "painted birds"),
        ("annotations", "cub", "annotations"),
        ("arithmetic", "synthbirds", "arithmetic"),
    ],
)
def test_four_kinds_of_evidence(rests_on, dataset, kind):
    assert decided(claim(rests_on=rests_on), tiny=pair(0.1, dataset=dataset)).kind == kind


def test_holms_correction_counts_all_that_were_asked():
    """Three at p = 0.03 by themselves: the smallest of three is corrected to 0.09."""

    def asked(name, half):
        return dataclasses.replace(claim(name, rests_on="untrained"), id=name), record(0.1, 0.1 - half, 0.1 + half)

    weak, strong = 0.1 * 1.96 / 2.17, 0.1 * 1.96 / 6  # z of 2.17 has p = 0.03
    made = [asked("A", weak), asked("B", weak), asked("C", strong), asked("D", 0.2)]
    records = {("06-psol", "tiny"): {entry.id: own for entry, own in made}}
    by_itself = [decide(entry, records) for entry, _ in made]
    assert [d.verdict for d in by_itself] == ["reproduced"] * 3 + ["not at this scale"]
    assert by_itself[0].p == pytest.approx(0.03, abs=1e-3)
    corrected = decide_all([entry for entry, _ in made], records)
    assert [d.verdict for d in corrected] == ["not at this scale"] * 2 + ["reproduced", "not at this scale"]
    assert "not beside 3 others (Holm's correction)" in corrected[0].why
    assert decide_all([made[0][0]], records)[0].verdict == "reproduced"


def test_few_seeds_have_long_tails():
    """The same interval, of three seeds: Student's t with two degrees of freedom instead of the normal."""
    values = {seeds: decided(claim(rests_on="trained"), tiny=pair(0.1, seeds=seeds)).p for seeds in (3, 20)}
    assert values[3] == pytest.approx(2 * 0.000270, rel=0.01)  # t of 43.0 with two degrees of freedom
    assert values[20] < 1e-10


def test_a_bound_on_both_sides_of_zero():
    made = claim(confirmed="more than 0.05 from 0")
    for value, expected in (
        (0.1, "reproduced"),
        (-0.1, "reproduced"),
        (0.02, "contradicted"),
        (0.05, "not at this scale"),
    ):
        assert verdict(made, tiny={"A minus B": record(value, value - 0.01, value + 0.01)}) == expected


def test_bounds_that_are_not_older_than_the_record_are_told():
    made = claim(set="2026-01-31 abcdef0")
    for date, late in (("2026-01-30", True), ("2026-01-31", True), ("2026-02-01", False)):
        assert decided(made, tiny={"A minus B": record(0.1, 0.05, 0.15, date=date)}).late is late


# experiments


def experiment(shares, *, n=400, trained=True, dataset="tiny-imagenet", **more):
    """What is known of an experiment, one share a seed; the images that are right are the same ones as far as they go."""
    hits = np.zeros((3, len(shares), n), bool)
    for i, share in enumerate(shares):
        hits[:, i, : round(share * n)] = True
    baselines = {"whole_image": 0.2, "centred_box_best_on_test": {"value": 0.3}}
    facts = {
        "profile": "tiny",
        "dataset": dataset,
        "n": n,
        "images_seen": 960 if trained else 0,
        "baselines": baselines,
    }
    return {
        "record": {**facts, "date": "2026-02-01"},
        "scored": {"hits": hits, **more},
        "ids": "of these images",
    }


def compared(after, before, **place):
    made = dataclasses.replace(claim(), measured=[{"experiment": "after", "minus": "before", **place}])
    return decide(made, {("experiment", "after"): after, ("experiment", "before"): before})


def test_experiments_are_compared_over_images_and_seeds():
    found = compared(experiment([0.6, 0.61, 0.62]), experiment([0.5, 0.5, 0.51]))
    assert found.verdict == "reproduced" and found.evidence[0].seeds == 3 and found.evidence[0].floor == "above"
    assert found.evidence[0].value == pytest.approx(0.61 - 0.5033, abs=2e-3)
    noisy = compared(experiment([0.4, 0.61, 0.82]), experiment([0.5, 0.5, 0.51]))
    assert noisy.verdict == "not at this scale" and noisy.p > 0.05


def test_a_seed_spread_counts_beside_something_that_was_not_trained():
    untrained = experiment([0.5], trained=False)
    assert compared(experiment([0.6, 0.61, 0.62]), untrained).verdict == "reproduced"
    assert compared(experiment([0.4, 0.61, 0.82]), untrained).evidence[0].low < 0
    assert compared(experiment([0.6]), untrained).why == "one seed"
    assert compared(experiment([0.6, 0.61, 0.62]), experiment([0.5])).why == "one seed"
    assert compared(experiment([0.6], trained=False), untrained).verdict == "reproduced"


def test_an_experiment_below_the_floor_decides_nothing():
    assert compared(experiment([0.2, 0.2, 0.21]), experiment([0.5, 0.5, 0.51])).why.startswith("not everything")


def test_the_choice_of_a_threshold_is_what_chosen_boxes_gain_on_fixed_ones():
    fixed = {"fixed_hits": np.zeros((3, 3, 400), bool)}
    found = compared(
        experiment([0.6, 0.6, 0.61], **fixed),
        experiment([0.5, 0.5, 0.5], fixed_hits=experiment([0.4] * 3)["scored"]["hits"]),
        measure="choosing_tau",
    )
    assert found.evidence[0].value == pytest.approx(0.603 - 0.1, abs=2e-3)


def test_experiments_on_other_images_are_refused_and_those_not_run_are_not_run():
    other = {**experiment([0.5] * 3), "ids": "of others"}
    with pytest.raises(ValueError, match="expected experiments on the same images, found after and before"):
        compared(experiment([0.6] * 3), other)
    assert decide(dataclasses.replace(claim(), measured=[{"experiment": "x"}]), {}).verdict == "not run"


# the file


def ledger(folder, *entries):
    path = folder / "claims.yaml"
    path.write_text(yaml.safe_dump(list(entries)))
    (folder / "06-psol.ipynb").touch()
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
        ({"measured": [{"chapter": "06-pslo", "name": "A"}]}, "the chapter out of 06-psol, .*'06-pslo'"),
        ({"measured": [{"chapter": "06-psol"}]}, "expected chapter and name of a record, or an experiment, in claim"),
        ({"measured": [{"chapter": "06-psol", "name": "A", "minus": {"name": "B"}}]}, "expected chapter and name"),
        ({"measured": [{"chapter": "06-psol", "name": "A", "minus": "B"}]}, "expected chapter and name .* found 'B'"),
        ({"measured": "A"}, "expected a list of {chapter, name} as measured in claim 'a-claim', found 'A'"),
        ({"measured": ["A"]}, "expected a list of {chapter, name} as measured in claim 'a-claim', found \\['A'\\]"),
        ({"measured": [{"experiment": "birds-unknown"}]}, "declare the experiment first"),
        ({"measured": [{"experiment": "birds-cam", "measure": "luck"}]}, "a measure out of gt_known_loc"),
        ({"set": "yesterday"}, "expected a date and a commit, .* found 'yesterday'"),
        ({"set": ""}, "say when its bounds were written"),
        ({"rests_on": "luck"}, "expected rests_on out of trained"),
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


@pytest.fixture
def book(monkeypatch):
    monkeypatch.chdir(ROOT)
    return load()


def test_the_ledger_has_its_claims_from_all_four_papers(book):
    assert len(book) >= 60
    assert {entry.paper for entry in book} == set(claims.PAPERS)
    assert all(entry.id.startswith(f"{entry.paper}-") for entry in book)


def test_what_the_ledger_quotes_is_in_the_papers_tables(book):
    for entry in book:
        printed_numbers(entry)
        if "printed" in entry.confirmed:
            assert len(entry.printed) == len(entry.measured), entry.id


def test_what_falls_short_of_the_papers_setting_says_in_what(book):
    for entry in book:
        if entry.measured and entry.rests_on in ("trained", "untrained") and entry.datasets != ["none"]:
            assert entry.smaller, entry.id


@pytest.fixture(scope="module")
def decisions():
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(ROOT)
        entries = load()
        return decide_all(entries, recorded(entries))


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
