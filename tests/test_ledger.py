"""The ledger's page: what a line says of a claim, what stands beside a printed table, and the papers' slips."""

import re
from pathlib import Path

import pytest
from IPython.display import HTML

from wsol_lib.book import ledger, results
from wsol_lib.book.claims import PAPERS, VERDICTS, Change, Claim, Decision, decide
from wsol_lib.book.definitions import load_experiments
from wsol_lib.book.evidence import KINDS, Evidence

ROOT = Path(__file__).parents[1]
ENTRY = {
    "id": "psol-a-claim",
    "paper": "psol",
    "place": "Table 1",
    "claim": "A < B helps.",
    "datasets": ["CUB", "birds"],
}
RECORD = {"value": 0.02, "dataset": "synthbirds", "n": 1480, "seed": 3, "interval": [0.01, 0.03]}
RECORD |= {"commit": "abc", "date": "2026-01-31", "device": "cpu (2 threads)"}


@pytest.fixture
def in_the_repository(monkeypatch):
    monkeypatch.chdir(ROOT)


@pytest.fixture
def opened_alone(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def claim(**more):
    measured = [{"chapter": "06-psol", "name": "A minus B"}]
    own = {"measured": measured, "confirmed": "above 0", "set": "2026-01-30 abcdef0", "rests_on": "untrained"}
    return Claim(**{**ENTRY, **own, **more})


def decided(made, **records):
    return decide(made, {("06-psol", "tiny"): {name.replace("_", " "): entry for name, entry in records.items()}})


def page(shown):
    """The page as its words: HTML without its tags."""
    assert isinstance(shown, HTML)
    return re.sub(r"<[^>]+>", " ", shown.data)


def well_formed(html):
    opened = []
    for end, tag in re.findall(r"<(/?)(\w+)[^>]*>", html):
        if tag == "br":
            continue
        assert not end or opened.pop() == tag, html
        opened += [] if end else [tag]
    return not opened


# -- claims


def test_every_paper_has_a_title_and_every_verdict_a_light():
    assert set(ledger.TITLES) == set(PAPERS) and set(ledger.LIGHTS) == set(VERDICTS)
    assert len({symbol for symbol, _ in ledger.LIGHTS.values()}) == 4


def test_a_line_says_the_verdict_the_evidence_and_its_circumstances():
    shown = ledger.listed([decided(claim(printed=["in Fig. 2 & 3"]), A_minus_B={**RECORD, "backbone": "resnet50"})])
    words = page(shown)
    for said in (
        "✔",
        "reproduced",
        "(painted birds)",
        "A &lt; B helps.",
        "Table 1; data: CUB, birds.",
        "in Fig. 2 &amp; 3",
        "Confirmed if above 0 (2026-01-30 abcdef0).",
        "+0.020",
        "(+0.010 to +0.030)",
        "profile tiny",
        "whether above the whole image and the best centred box is not recorded",
        "1,480 images of synthbirds, resnet50, seed 3, commit abc, 2026-01-31, cpu (2 threads)",
        "psol-a-claim",
    ):
        assert said in words
    assert '<a href="06-psol.html">' in shown.data and well_formed(shown.data)
    assert "does not agree" not in words and "Smaller" not in words and "It would take" not in words
    assert "decides nothing" not in words and "or later" not in words


def test_a_share_has_no_sign_an_exact_number_no_interval_and_a_large_one_two_digits():
    share, exact = Evidence("CAM & DDT", "02-cam", "tiny", 0.6, 0.58, 0.62, "reproduced", RECORD), {**RECORD, "n": 0}
    flops = Evidence("GFLOPs", "06-psol", "tiny", 15.3456, 15.3456, 15.3456, "reproduced", {**exact, "seeds": 3})
    words = page(ledger.listed([Decision(claim(), "reproduced", (share, flops), False)]))
    assert "CAM &amp; DDT :  0.600  (0.580 to 0.620)" in words
    assert re.search(r"GFLOPs\s*:\s*15\.35\s*, profile tiny", words)
    assert "exact, synthbirds, 3 seeds from 3, commit" in words


def test_a_line_says_what_limits_its_verdict():
    small = ledger.listed([decided(claim(smaller="a tenth of the images"), A_minus_B=RECORD)])
    assert "may confirm and not contradict: a tenth of the images." in page(small)
    one_seed = page(ledger.listed([decided(claim(rests_on="trained", set="2026-02-01 abcdef0"), A_minus_B=RECORD)]))
    assert "(painted birds, one seed)" in one_seed and "It decides nothing: one seed." in one_seed
    assert "written on the day of the record or later" in one_seed
    torn = Decision(claim(), "reproduced", (), True)
    assert "The evidence does not agree:" in page(ledger.listed([torn]))


def test_a_reason_stands_below_where_it_is_asked_for():
    made = decided(claim(reason="Two heads & one body."))
    assert "Two heads" not in page(ledger.listed([made]))
    assert page(ledger.listed([made], reasons=True)).rstrip().endswith("Two heads &amp; one body.")


def test_an_experiment_says_its_seeds_and_that_it_is_one():
    record = {"dataset": "tiny-imagenet", "n": 10_000, "seeds": [{}, {}, {}], "commit": "abc", "date": "2026-01-31"}
    own = Evidence(
        "photos-a minus photos-b", "", "tiny", 0.1, 0.05, 0.15, "reproduced", record, "photographs", 3, "above"
    )
    words = page(ledger.listed([Decision(claim(), "reproduced", (own,), False)]))
    assert "profile tiny, experiment; 10,000 images of tiny-imagenet, 3 seeds, commit abc, 2026-01-31" in words
    assert "; above the whole image and the best centred box" in words


def kinds(*own):
    """Decisions out of (verdict, kind, p, why)."""
    for verdict, kind, p, why in own:
        found = Evidence("A", "06-psol", "tiny", 0.1, 0.0, 0.2, verdict, RECORD, kind)
        yield Decision(claim(), verdict, (found,), False, why, p)


def test_verdicts_are_counted_by_kind_of_evidence():
    made = [*kinds(*[("reproduced", KINDS[0], None, "")] * 2, ("contradicted", KINDS[3], None, ""))]
    shown = ledger.counted([*made, Decision(claim(), "not run", (), False)])
    assert "<tr><th>photographs</th><td>2</td><td></td><td></td></tr>" in shown.data
    assert "<tr><th>arithmetic</th><td></td><td>1</td><td></td></tr>" in shown.data
    assert "4 claims, 1 of them ○ not run." in page(shown) and well_formed(shown.data)
    assert ledger.number_of(made, "reproduced") == ledger.number_of(made, "reproduced", KINDS[0]) == 2
    assert ledger.number_of(made, "reproduced", KINDS[1]) == 0


def test_what_holms_correction_takes_back_is_said():
    taken, kept = ("not at this scale", KINDS[0], 0.03, "reproduced by itself"), ("reproduced", KINDS[0], 1e-6, "")
    said = ledger.corrected(kinds(taken, kept, ("not at this scale", KINDS[0], 0.5, ""))).data
    assert said.startswith("3 claims were put") and "1 are decided; it takes back 1:" in said
    assert "- A < B helps. `psol-a-claim`: reproduced by itself." in said


def test_changes_are_listed_the_latest_first():
    made = [Change(f"2026-01-{day}", "abc", ["a", "b"], f"Day {day}.", "So < it is.") for day in (30, 31)]
    words = page(ledger.changed(made))
    assert words.index("Day 31.") < words.index("Day 30.") and "So &lt; it is." in words and "(a, b)" in words


def test_nothing_to_list_is_said():
    assert page(ledger.listed([])).strip() == page(ledger.listed(iter([]))).strip() == "none"
    assert "none" in page(ledger.waiting([decided(claim(), A_minus_B=RECORD)]))


def test_what_was_not_run_stands_under_what_it_would_take():
    gpu = [decided(Claim(**{**ENTRY, "claim": name}, wanting="a GPU and `cub.py`")) for name in ("First.", "Second.")]
    shown = ledger.waiting([decided(claim(claim="Third.")), *gpu, decided(claim(claim="Done."), A_minus_B=RECORD)])
    words = page(shown)
    assert "It would take a GPU and  cub.py .  (2)" in words and "<code>cub.py</code>" in shown.data
    assert "It would take  python -m wsol_lib book --chapters 06 --profile tiny --record .  (1)" in words
    assert (
        words.index("(2)") < words.index("First.") < words.index("Second.") < words.index("(1)") < words.index("Third.")
    )
    assert "Done." not in words and well_formed(shown.data)
    assert "It would take a GPU" in page(ledger.listed(gpu))
    asked = claim(measured=[{"experiment": "photos-psol", "minus": "photos-ddt"}])
    said = "python -m wsol_lib experiment photos-psol photos-ddt --profile tiny --record"
    assert said in page(ledger.waiting([decide(asked, {})]))


# -- the papers' tables

CAM = ("CAM", "experiment", "photos-cam")


def test_every_pattern_is_that_of_a_printed_row(in_the_repository):
    rows = [
        f"{paper} {table} {row}"
        for paper, tables in results.printed_tables().items()
        for table in tables
        for row in results.printed(paper, table)
    ]
    first = {next((p for p in ledger.HERE if re.fullmatch(p, row)), None) for row in rows}
    assert set(ledger.HERE) <= first, "a pattern that no row meets, or that another one hides"


def test_records_beside_a_row_come_from_chapters_and_experiments_of_the_book(in_the_repository):
    chapters = {path.stem for path in (ROOT / "book").glob("*.ipynb")}
    experiments = set(load_experiments("tiny"))
    for key, name in (place for places in ledger.HERE.values() for place in places):
        assert key in chapters or key == "computed" or (key == "experiment" and name in experiments), (key, name)
    assert {"experiment": "photos-cam"} in ledger.places()
    assert {"computed": "million parameters, PSOL-VGG16-Sep"} in ledger.places()


@pytest.mark.parametrize(
    ("paper", "table", "row", "chapter", "name"),
    [
        ("psol", "table 2", "VGG16-CAM", "computed", "million parameters, VGG16-CAM"),
        ("psol", "table 1", "VGG16-CAM", "experiment", "photos-cam"),
        ("psol", "table 3", "PSOL-VGG16-Sep", "experiment", "birds-psol"),
        ("evaluation", "table 2", *CAM),
        ("evaluation", "table 2", "HaS", "experiment", "photos-has"),
        ("slt", "table 5", "new optimization, SMT loss", "07-slt", "L_SMT"),
        ("slt", "table 3", "VGG16-SLT-Net", "experiment", "photos-slt"),
        ("lchp", "table 1", "LCHP-R", "experiment", "photos-lchp-r"),
        ("lchp", "table 1", "Grad-CAM-VGG16", None, None),
    ],
)
def test_a_row_finds_the_records_of_its_method(paper, table, row, chapter, name):
    records = {("07-slt", "tiny"): {"L_SMT": RECORD, "another": RECORD}}
    if chapter == "experiment":
        records["experiment", name] = {"record": {**RECORD, "profile": "tiny"}}
    elif chapter == "computed":
        records["computed", name] = {"value": 1.0}
    found = [place.name for place in ledger.here(records, paper, table, row)]
    assert found == ([name] if chapter else [])


def test_the_largest_profile_that_has_a_record_counts_and_quick_never():
    place = ("01-task-and-data", "cub/best centred box")
    records = {(place[0], profile): {place[1]: {**RECORD, "value": v}} for profile, v in (("tiny", 1), ("full", 2))}
    (found,) = ledger.here(records, "evaluation", "table 2", "centre")
    assert (found.profile, found.record["value"]) == ("full", 2)
    assert ledger.here({(place[0], "quick"): {place[1]: RECORD}}, "evaluation", "table 2", "centre") == []


@pytest.fixture
def small_tables(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    columns = "[a, b, c, d, e <5]"
    rows = "CAM: [1, 2.50, null, 4, 5], HaS: [1, 2, 3, 4, 6], centre: [9, 9, 9, 9, 9]"
    Path("paper_tables.yaml").write_text(f"evaluation: {{table 2: {{columns: {columns}, rows: {{{rows}}}}}}}")


def test_a_table_is_printed_four_columns_at_a_time_with_ours_below(small_tables):
    records = {
        ("experiment", "photos-cam"): {"record": {**RECORD, "value": 0.618, "profile": "tiny"}},
        ("experiment", "birds-has"): {"record": {**RECORD, "backbone": "vgg16", "profile": "tiny"}},
    }
    shown = ledger.tables(records)
    parts = shown.data.split("<table>")[1:]
    assert [part.count("<th>") for part in parts] == [5 + 3, 2 + 3]
    assert "<tr><th>CAM</th><td>1</td><td>2.5</td><td></td><td>4</td></tr>" in parts[0]
    assert "<tr><th>HaS</th><td>6</td></tr>" in parts[1] and "<th>e &lt;5</th>" in parts[1]
    words = page(shown)
    assert "Evaluating WSOL right, Table 2 : a, b, c ...; 2 of 3 rows measured here" in words
    assert re.search(r"CAM\s*:\s*61\.8 %\s*photos-cam: synthbirds, tiny", words)
    assert re.search(r"HaS\s*:\s*2\.0 %\s*birds-has: synthbirds, vgg16, tiny", words)
    assert well_formed(shown.data)


def test_a_table_of_which_nothing_was_measured_has_no_list(small_tables):
    assert "0 of 3 rows" in ledger.tables({}).data and "Here:" not in ledger.tables({}).data


def test_rows_with_the_same_records_share_a_line(in_the_repository):
    records = {("experiment", "photos-ddt"): {"record": {**RECORD, "profile": "tiny"}}}
    (line,) = [item for item in re.findall(r"<li>.*?</li>", ledger.tables(records).data) if "DDT-VGG16" in item][:1]
    assert "DDT-ResNet50, DDT-VGG16, DDT-InceptionV3, DDT-DenseNet161" in line


def test_an_exact_number_is_no_share(small_tables):
    records = {("01-task-and-data", "tiny"): {"cub/best centred box": {**RECORD, "value": 25.56, "n": 0}}}
    assert "25.56 <small>" in ledger.tables(records).data


def test_all_tables_of_the_papers_are_shown(in_the_repository):
    shown = ledger.tables({})
    assert shown.data.count("<summary>") == sum(map(len, results.printed_tables().values())) == 22
    assert well_formed(shown.data)


# -- slips


def test_what_does_not_add_up_in_the_papers(in_the_repository):
    """Each by hand from the printed tables."""
    found = {(slip.paper, slip.place): (slip.printed, slip.by_the_numbers) for slip in ledger.slips()}
    assert found["evaluation", "Table 2, total mean of the centre"] == (52.3, "52.7")
    assert found["psol", "Table 2, GFLOPs of PSOL-DenseNet161-Sep"] == (15.46, "15.60, twice one network")
    assert found["psol", "section 5.2, PSOL models ahead of DDT-VGG16 on CUB"] == ("all", "6 of 10")
    assert found["psol", "section 5.1, DDT ahead of all others on CUB"][1] == "not with DDT-InceptionV3"
    assert found["slt", "section 4.2, points gained on ILSVRC"] == (2.4, "3.3 over the new optimization, 4.4 over CAM")
    assert found["lchp", "section 4.5, least gain of refinement in Table 5"] == (2.76, "3.02")
    assert {slip.paper for slip in ledger.slips()} == set(PAPERS) and len(found) == len(ledger.slips()) == 20


def test_a_slip_is_a_difference(in_the_repository):
    for slip in ledger.slips():
        assert not slip.by_the_numbers.startswith(f"{slip.printed} "), slip
        assert slip.by_the_numbers != str(slip.printed), slip


def test_slips_are_listed_with_their_paper_and_place(in_the_repository):
    lines = ledger.listed_slips().data.splitlines()
    assert len(lines) == len(ledger.slips())
    line = "- **Evaluating WSOL right**, Table 2, total mean of the centre: printed 52.3, by the numbers 52.7."
    assert line in lines


def test_a_chapter_that_was_opened_alone_shows_nothing(opened_alone):
    assert ledger.slips() == [] and ledger.listed_slips().data == "" and ledger.tables({}).data == ""
