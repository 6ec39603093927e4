"""The claims ledger: what may stand in it, and by which rule it is decided."""

import dataclasses
from pathlib import Path

import pytest
import yaml

from wsol_lib.book import claims, results
from wsol_lib.book.claims import Claim, decide, interval, load, printed_numbers, recorded

ROOT = Path(__file__).parents[1]
ENTRY = {"id": "a-claim", "paper": "psol", "place": "Table 1", "claim": "It helps.", "datasets": ["CUB"]}
MEASURED = {"measured": [{"chapter": "06-psol", "name": "A minus B"}], "confirmed": "above 0"}


def record(value, low=None, high=None, *, dataset="synthbirds", n=480, **facts):
    own = {} if low is None else {"interval": [low, high]}
    return {"value": value, "dataset": dataset, "n": n, "seed": 0, **own, **facts}


def claim(*names, confirmed="above 0", printed=()):
    measured = [{"chapter": "06-psol", "name": name} for name in names or ["A minus B"]]
    return Claim(**ENTRY, measured=measured, confirmed=confirmed, printed=printed)


def verdict(made, **profiles):
    """The verdict on a claim by records of chapter 06: profile -> name -> record."""
    return decide(made, {("06-psol", profile): records for profile, records in profiles.items()}).verdict


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
    assert verdict(claim(), quick={"A minus B": record(0.02, low, high)}) == expected


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
    assert verdict(claim(confirmed=confirmed), quick={"A minus B": record(0.02, -0.01, 0.05)}) == expected


def test_a_smaller_run_may_confirm_a_number_and_does_not_contradict_it():
    small = dataclasses.replace(claim(), smaller="a tenth of the images")
    assert verdict(small, quick={"A minus B": record(0.03, 0.01, 0.05)}) == "reproduced"
    assert verdict(small, quick={"A minus B": record(-0.03, -0.05, -0.01)}) == "not at this scale"


def test_without_a_record_a_claim_is_not_run():
    assert verdict(claim()) == verdict(claim(), quick={"another": record(1.0)}) == "not run"
    assert decide(Claim(**ENTRY, wanting="a GPU"), {}).verdict == "not run"


def test_a_share_without_an_interval_gets_wilsons_and_an_exact_number_none():
    assert interval(record(0.5, n=100)) == pytest.approx((0.404, 0.596), abs=1e-3)
    assert interval(record(25.56, n=0)) == (25.56, 25.56)
    assert verdict(claim(confirmed="above 0.45"), quick={"A minus B": record(0.5, n=100)}) == "not at this scale"
    assert verdict(claim(confirmed="above 0.45"), quick={"A minus B": record(0.5, n=0)}) == "reproduced"


def test_the_spread_over_seeds_widens_it():
    low, high = interval(record(0.5, n=10_000, seeds=3, spread=0.01))
    # Student's 4.303 for three seeds: 4.303 x 0.01 / sqrt(3) = 0.0248, with Wilson's 0.0098
    assert (low, high) == pytest.approx((0.5 - 0.0267, 0.5 + 0.0267), abs=1e-4)


def test_a_difference_without_an_interval_is_refused():
    with pytest.raises(ValueError, match=r"expected a share in \[0, 1\]"):
        verdict(claim(), quick={"A minus B": record(-0.1)})


def test_two_records_are_compared_with_independent_errors():
    made = Claim(
        **ENTRY,
        measured=[{"chapter": "06-psol", "name": "A", "minus": {"chapter": "06-psol", "name": "B"}}],
        confirmed="above 0",
    )
    pair = {"A": record(0.6, 0.57, 0.62), "B": record(0.5, 0.48, 0.54)}
    (found,) = decide(made, {("06-psol", "quick"): pair}).evidence
    assert (found.name, found.value) == ("A minus B", pytest.approx(0.1))
    assert (found.low, found.high) == pytest.approx((0.1 - 0.05, 0.1 + 0.02 * 2**0.5))  # 3-4-5, and twice 0.02
    assert verdict(made, quick={"A": pair["A"]}) == "not run"
    other = {**pair, "B": {**pair["B"], "dataset": "tiny-imagenet"}}
    assert verdict(made, quick=other) == "not run", "other images are no comparison"


def test_photographs_decide_before_painted_birds_and_the_larger_profile_before_the_smaller():
    up, down = record(0.1, 0.05, 0.15), record(-0.1, -0.15, -0.05)
    assert verdict(claim(), quick={"A minus B": up}, tiny={"A minus B": down}) == "contradicted"
    photographs = {**up, "dataset": "tiny-imagenet"}
    assert verdict(claim("A", "B"), quick={"A": photographs}, full={"B": down}) == "reproduced"
    unsure = {**photographs, "interval": [-0.1, 0.3]}
    assert verdict(claim("A", "B"), quick={"A": unsure}, full={"B": down}) == "not at this scale"


def test_evidence_of_less_weight_that_decides_otherwise_is_told():
    up, down, unsure = record(0.1, 0.05, 0.15), record(-0.1, -0.15, -0.05), record(0.1, -0.05, 0.25)

    def disagreement(quick, tiny):
        return decide(claim(), {("06-psol", "quick"): {"A minus B": quick}, ("06-psol", "tiny"): {"A minus B": tiny}})

    assert disagreement(up, down).disagreement and disagreement(up, unsure).disagreement
    assert not disagreement(up, up).disagreement and not disagreement(unsure, up).disagreement
    assert [found.profile for found in disagreement(up, down).evidence] == ["tiny", "quick"]


def test_a_claim_says_all_of_what_it_names():
    up, down, unsure = record(0.1, 0.05, 0.15), record(-0.1, -0.15, -0.05), record(0.1, -0.05, 0.25)
    assert verdict(claim("A", "B"), quick={"A": up, "B": up}) == "reproduced"
    assert verdict(claim("A", "B"), quick={"A": up, "B": unsure}) == "not at this scale"
    assert verdict(claim("A", "B"), quick={"A": unsure, "B": down}) == "contradicted"


def test_a_printed_number_is_compared_with_the_record_of_the_same_place(monkeypatch):
    monkeypatch.setattr(results, "printed", lambda paper, table: {"x": {"y": 59.7}, "z": {"y": 25.56}})
    made = claim("A", "B", confirmed="within 0.01 of printed", printed=[["table 1", "x", "y"], ["table 1", "z", "y"]])
    assert verdict(made, quick={"A": record(59.7, n=0), "B": record(25.557, n=0)}) == "reproduced"
    assert verdict(made, quick={"A": record(25.56, n=0)}) == "contradicted"
    made = claim(confirmed="within 1 points of printed", printed=[["table 1", "x", "y"]])
    assert verdict(made, quick={"A minus B": record(0.596, 0.59, 0.60)}) == "reproduced"
    assert verdict(made, quick={"A minus B": record(0.596, 0.58, 0.60)}) == "not at this scale"


def test_the_records_of_this_run_lie_over_the_committed_ones(tmp_path, monkeypatch):
    facts = dict(chapter="06-psol", profile="quick", dataset="synthbirds", n=10, seed=0)
    for variable, values in {"WSOL_RECORDS": (0.1, 0.2), "WSOL_RESULTS": (0.9, None)}.items():
        monkeypatch.setenv(variable, str(tmp_path / variable))
        monkeypatch.setenv("WSOL_RESULTS", str(tmp_path / variable))
        for name, value in zip("AB", values):
            if value is not None:
                results.record(name, value, **facts)
    found = recorded([claim("A", "B")])
    assert {name: entry["value"] for name, entry in found["06-psol", "quick"].items()} == {"A": 0.9, "B": 0.2}
    assert found["06-psol", "tiny"] == {}


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
        ({"measured": [{"chapter": "06-psol"}]}, "expected chapter and name of a record in claim 'a-claim'"),
        ({"measured": [{"chapter": "06-psol", "name": "A", "minus": {"name": "B"}}]}, "expected chapter and name"),
        ({"measured": [{"chapter": "06-psol", "name": "A", "minus": "B"}]}, "expected chapter and name .* found 'B'"),
        ({"measured": "A"}, "expected a list of {chapter, name} as measured in claim 'a-claim', found 'A'"),
        ({"measured": ["A"]}, "expected a list of {chapter, name} as measured in claim 'a-claim', found \\['A'\\]"),
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


def test_the_committed_records_decide_without_an_error(book, monkeypatch):
    monkeypatch.setenv("WSOL_RESULTS", "nothing of this run")
    found = recorded(book)
    assert {decide(entry, found).verdict for entry in book} <= set(claims.VERDICTS)
