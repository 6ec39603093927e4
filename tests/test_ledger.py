"""The ledger's page: what a line says of a claim, what stands beside a printed table, and the papers' slips."""

import re
import shutil
from pathlib import Path

import matplotlib.pyplot as plt
import pytest
from IPython.display import HTML

from wsol_lib.book import ledger, results
from wsol_lib.book.claims import PAPERS, VERDICTS, Change, Claim, Decision, decide
from wsol_lib.book.definitions import load_experiments
from wsol_lib.book.evidence import ANNOTATIONS, KINDS, Evidence

ROOT = Path(__file__).parents[1]
ENTRY = {
    "id": "psol-a-claim",
    "paper": "psol",
    "place": "Table 1",
    "claim": "A < B helps.",
    "datasets": ["CUB", "birds"],
}
RECORD = {"value": 0.02, "dataset": "cub", "n": 1480, "interval": [0.01, 0.03]}
RECORD |= {"commit": "abc", "date": "2026-01-31", "device": "cpu (2 threads)"}
SEEDS = {"dataset": "tiny-imagenet", "n": 10_000, "seeds": [{}, {}, {}], "commit": "abc", "date": "2026-01-31"}


@pytest.fixture
def in_the_repository(monkeypatch):
    monkeypatch.chdir(ROOT)


@pytest.fixture
def opened_alone(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def claim(**more):
    measured = [{"chapter": ANNOTATIONS, "name": "A & B"}]
    return Claim(**{**ENTRY, "measured": measured, "confirmed": "above 0", "set": "2026-01-30 abcdef0", **more})


def decided(made, **record):
    return decide(made, {(ANNOTATIONS, "tiny"): {"A & B": {**RECORD, **record}}})


def evidence(name="photos-a minus photos-b", verdict="reproduced", kind=KINDS[0], value=0.1, p=None):
    return Evidence(name, kind, "tiny", value, value - 0.05, value + 0.05, verdict, SEEDS, 3, "above", p)


def decision(verdict="reproduced", *own, why="", p=None, **more):
    return Decision(claim(**more), verdict, own, False, why, p)


def page(shown):
    """The page as its words: HTML without its tags."""
    assert isinstance(shown, HTML)
    return re.sub(r"<[^>]+>", " ", re.sub(r"<script>.*?</script>", "", shown.data, flags=re.S))


def well_formed(html):
    opened = []
    for end, tag in re.findall(r"<(/?)(\w+)[^>]*>", re.sub(r"<script>.*?</script>", "", html, flags=re.S)):
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
    shown = ledger.filtered([decided(claim(printed=["in Fig. 2 & 3", 16.3]))])
    words = page(shown)
    for said in (
        "✔",
        "reproduced",
        "(PSOL, Table 1; annotations)",
        "A &lt; B helps.",
        "in Fig. 2 &amp; 3",
        "in the text: 16.3",
        "Confirmed if above 0 (2026-01-30 abcdef0).",
        "A &amp; B :  0.020  (0.010 to 0.030), profile tiny",
        "1,480 images of cub, commit abc, 2026-01-31, cpu (2 threads)",
        "Data of the paper: CUB, birds.",
        "psol-a-claim",
    ):
        assert said in words, said
    assert f'<a href="{ANNOTATIONS}.html">' in shown.data and well_formed(shown.data)
    for unsaid in ("does not agree", "Smaller", "It would take", "decides nothing", "or later"):
        assert unsaid not in words


def test_a_difference_has_a_sign_an_exact_number_no_interval_and_a_large_one_two_digits():
    exact = Evidence("GFLOPs", KINDS[3], "", 15.3456, 15.3456, 15.3456, "reproduced", {})
    words = page(ledger.filtered([decision("reproduced", evidence(), exact)]))
    assert "photos-a minus photos-b :  +0.100  (+0.050 to +0.150), profile tiny" in words
    assert "10,000 images of tiny-imagenet, 3 seeds, commit abc, 2026-01-31; above the whole image" in words
    assert re.search(r"GFLOPs\s*:\s*15\.35\s*, counted here", words)


def test_a_line_says_what_limits_its_verdict():
    small = {"smaller": "a tenth of the images"}
    words = page(ledger.filtered([decision("reproduced", evidence(), **small)]))
    assert "run (a tenth of the images), it may confirm the claim and not contradict it." in words
    words = page(ledger.filtered([decision("reproduced", evidence(), **small, general="said of all")]))
    assert "it may confirm the claim but contradict it: said of all." in words
    words = page(ledger.filtered([decision("not at this scale", evidence(), why="one seed")]))
    assert "It decides nothing: one seed." in words
    assert "the day of the record or later" in page(ledger.filtered([decided(claim(set="2026-02-01 abcdef0"))]))
    torn = Decision(claim(), "reproduced", (), True)
    assert "The evidence does not agree:" in page(ledger.filtered([torn]))


def test_a_reason_stands_where_a_paper_is_contradicted():
    made = claim(reason="Two heads & one body.")
    assert "Two heads" not in page(ledger.filtered([decided(made)]))
    assert "Two heads &amp; one body." in page(ledger.filtered([decided(made, interval=[-0.2, -0.1])]))


def test_the_page_has_a_filter_for_all_that_a_line_carries():
    shown = ledger.filtered([decision("reproduced", evidence()), decision("not run"), decided(claim())]).data
    assert well_formed(shown) and "http" not in shown and "3 claims" in shown
    for name in ledger.FILTERS:
        (options,) = re.findall(rf'<select name="{name}".*?</select>', shown)
        offered = re.findall(r'value="(.*?)"', options)
        carried = re.findall(rf'<details [^>]*data-{name}="(.*?)"', shown)
        assert len(carried) == 3 and offered[0] == "" and set(carried) <= set(offered)
    assert re.findall(r'data-kind="(.*?)"', shown) == ["photographs", "none", "annotations"]
    assert shown.count('<details id="psol-a-claim"') == 3


@pytest.fixture(scope="module")
def browser():
    playwright = pytest.importorskip("playwright.sync_api", reason="no playwright: make test installs it")
    with playwright.sync_playwright() as running:
        path = shutil.which("chromium") or running.chromium.executable_path
        if not Path(path).exists():
            pytest.skip("no browser: apt install chromium, or python -m playwright install chromium")
        browser = running.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield browser
        browser.close()


def test_the_menus_work_by_keyboard_and_by_address(tmp_path, browser):
    made = [
        decision("reproduced", evidence(), id="psol-a", paper="psol"),
        decision("not run", id="psol-b", paper="psol"),
        decision("reproduced", evidence(kind=KINDS[1]), id="slt-c", paper="slt"),
    ]
    (tmp_path / "ledger.html").write_text("<!doctype html>" + ledger.filtered(made).data)
    tab = browser.new_page()

    def opened(suffix=""):
        tab.goto("about:blank")
        tab.goto((tmp_path / "ledger.html").as_uri() + suffix)

    def shown():
        lines = [line.get_attribute("id") for line in tab.locator("details").all() if line.is_visible()]
        assert tab.locator("output").inner_text() == f"{len(lines)} of 3 claims"
        return lines

    opened()
    assert shown() == ["psol-a", "psol-b", "slt-c"]
    tab.keyboard.press("Tab")
    tab.keyboard.press("ArrowDown")  # the first menu, the first paper
    assert shown() == ["psol-a", "psol-b"]
    tab.keyboard.press("Tab")
    tab.keyboard.press("ArrowDown")
    assert shown() == ["psol-a"]
    opened("?kind=painted%20birds")
    assert shown() == ["slt-c"]
    opened("#psol-b")
    assert [line.get_attribute("id") for line in tab.locator("details[open]").all()] == ["psol-b"]
    tab.close()


# -- in numbers


def test_verdicts_are_counted_by_kind_of_evidence():
    made = [decision("reproduced", evidence())] * 2 + [decision("contradicted", evidence(kind=KINDS[3]))]
    assert ledger.number_of(made, "reproduced") == ledger.number_of(made, "reproduced", KINDS[0]) == 2
    assert ledger.number_of(made, "reproduced", KINDS[1]) == 0
    _, ax = plt.subplots()
    ledger.draw_counts(ax, [*made, decision("not run")])
    assert [text.get_text() for text in ax.texts] == ["  ✔ 2", "", "", "  ✘ 1", "  ○ 1"]
    assert ax.get_xlabel() == "claims, 4 in all"
    plt.close("all")


@pytest.mark.parametrize(
    "why, expected",
    [
        ("", "the interval lies across the bound"),
        ("two seeds", "fewer than three seeds"),
        ("not everything compared beats the whole image", "something compared is not above the floor"),
        ("smaller than the paper's: 200 classes of birds", "against the paper, in a smaller run"),
        ("painted birds alone do not contradict", "painted birds alone, against the paper"),
        ("contradicted by itself, not beside 3 others (Holm's correction)", "not beside so many other questions"),
    ],
)
def test_what_keeps_a_claim_undecided_is_counted(why, expected):
    made = [decision("not at this scale", why=why), decision("reproduced", evidence())]
    assert dict(ledger.reasons(made)) == {expected: 1}


def test_what_holms_correction_takes_back_is_said():
    taken = decision("not at this scale", evidence(), why="reproduced by itself", p=0.03)
    said = ledger.corrected([taken, decision("reproduced", p=1e-6), decision("not at this scale", p=0.5)]).data
    assert said.startswith("3 claims were put") and "1 are decided; it takes back 1:" in said
    assert "- A < B helps. `psol-a-claim`: reproduced by itself." in said


def test_changes_are_listed_the_latest_first():
    made = [Change(f"2026-01-{day}", "abc", ["a", "b"], f"Day {day}.", "So < it is.") for day in (30, 31)]
    words = page(ledger.changed(made))
    assert words.index("Day 31.") < words.index("Day 30.") and "So &lt; it is." in words and "a, b" in words


def test_nothing_to_list_is_said():
    assert "none" in page(ledger.filtered([])) and "none" in page(ledger.waiting([decided(claim())]))


def test_what_was_not_run_stands_under_what_it_would_take():
    gpu = [
        decide(Claim(**{**ENTRY, "claim": name}, wanting="a GPU and `cub.py`"), {}) for name in ("First.", "Second.")
    ]
    asked = claim(claim="Third.", measured=[{"experiment": "photos-psol", "minus": "photos-ddt"}])
    shown = ledger.waiting([decide(asked, {}), *gpu, decided(claim(claim="Done."))])
    words = page(shown)
    assert "It would take a GPU and  cub.py .  (2)" in words and "<code>cub.py</code>" in shown.data
    assert "python -m wsol_lib experiment photos-psol photos-ddt --profile tiny --record" in words
    assert words.index("(2)") < words.index("First.") < words.index("Second.") < words.index("Third.")
    assert "Done." not in words and well_formed(shown.data)
    assert "It would take a GPU" in page(ledger.filtered(gpu))


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


def test_what_stands_beside_a_row_is_counted_or_an_experiment_of_the_book(in_the_repository):
    experiments = set(load_experiments("tiny"))
    for key, name in (place for places in ledger.HERE.values() for place in places):
        assert key in (ANNOTATIONS, "computed") or (key == "experiment" and name in experiments), (key, name)
    assert {"experiment": "photos-cam"} in ledger.places()
    assert {"computed": "million parameters, PSOL-VGG16-Sep"} in ledger.places()


@pytest.mark.parametrize(
    ("paper", "table", "row", "key", "name"),
    [
        ("psol", "table 2", "VGG16-CAM", "computed", "million parameters, VGG16-CAM"),
        ("psol", "table 1", "VGG16-CAM", "experiment", "photos-cam"),
        ("psol", "table 3", "PSOL-VGG16-Sep", "experiment", "birds-psol"),
        ("evaluation", "table 2", *CAM),
        ("evaluation", "table 2", "HaS", "experiment", "photos-has"),
        ("slt", "table 5", "new optimization, SMT loss", "experiment", "photos-slt-smt"),
        ("slt", "table 3", "VGG16-SLT-Net", "experiment", "photos-slt"),
        ("lchp", "table 1", "LCHP-R", "experiment", "photos-lchp-r"),
        ("lchp", "table 1", "Grad-CAM-VGG16", None, None),
    ],
)
def test_a_row_finds_the_records_of_its_method(paper, table, row, key, name):
    records = {}
    if key == "experiment":
        records["experiment", name] = {"record": {**RECORD, "profile": "tiny"}}
    elif key == "computed":
        records["computed", name] = {"value": 1.0}
    found = [place.name for place in ledger.here(records, paper, table, row)]
    assert found == ([name] if key else [])


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
        ("experiment", "birds-has"): {"record": {**RECORD, "profile": "tiny"}},
    }
    shown = ledger.tables(records)
    parts = shown.data.split("<table>")[1:]
    assert [part.count("<th>") for part in parts] == [5 + 3, 2 + 3]
    assert "<tr><th>CAM</th><td>1</td><td>2.5</td><td></td><td>4</td></tr>" in parts[0]
    assert "<tr><th>HaS</th><td>6</td></tr>" in parts[1] and "<th>e &lt;5</th>" in parts[1]
    words = page(shown)
    assert "Evaluating WSOL right, Table 2 : a, b, c ...; 2 of 3 rows measured here" in words
    assert re.search(r"CAM\s*:\s*61\.8 %\s*photos-cam: cub, tiny", words)
    assert re.search(r"HaS\s*:\s*2\.0 %\s*birds-has: cub, tiny", words)
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
