"""`report --all`: every folder of records, and the front page over them."""

import json
import re
import subprocess
import sys
from urllib.parse import unquote

import pytest
from records import make_record, write_results

from ddpm_bench.config.shipped import load_grid
from ddpm_bench.report import front_page
from ddpm_bench.report.front_page import folders_of_records, reported, write_front_page
from ddpm_bench.report.table_remarks import NOT_MEASURED
from ddpm_bench.runtime import owner

pytestmark = pytest.mark.usefixtures("messages")
GRID = load_grid("table2")
CELLS = [cell.name for cell in GRID.cells]
LONGER = {"training": {"steps": 800}}


def records_of(seeds, preset="quick", **options):
    return [make_record(GRID, cell, seed, preset=preset, **options) for cell in CELLS for seed in seeds]


@pytest.fixture(scope="module")
def three():
    """Three seeds, one seed of longer training, and one cell of another grid."""
    other = load_grid("table1")
    return [
        reported("longer", records_of([0], overrides=LONGER), GRID),
        reported("short", records_of([0, 1, 2]), GRID),
        reported("other", [make_record(other, other.cells[0].name)], other),
    ]


@pytest.fixture(scope="module")
def written(three, tmp_path_factory):
    out = tmp_path_factory.mktemp("reports")
    write_front_page(three, [], out)
    return out


def test_each_claim_has_what_each_folder_says_of_it_the_cheaper_first(written) -> None:
    text = (written / "index.md").read_text()
    head = next(line for line in text.splitlines() if line.startswith("| claim"))
    assert head.index("short/report.html") < head.index("longer/report.html")
    row = next(line for line in text.splitlines() if "yields the best sample quality |" in line)
    _, short, longer = row.strip("|").split("|")
    assert re.search(r"\*\*supported\*\*<br>as claimed, p (< )?0", short)
    assert "**undecided**<br>eps-mse-fixed has 1 of the 3 seeds" in longer


def test_one_sentence_says_what_holds_wherever_it_was_decided(written) -> None:
    bullets = [line for line in (written / "index.md").read_text().splitlines() if line.startswith("- ")]
    assert bullets[0].startswith("- **Supported wherever it was decided (") and "best sample quality" in bullets[0]
    assert sum(line.count("“") for line in bullets if " of 7)" in line) == 7


def test_measurements_that_disagree_are_said_to(three, tmp_path) -> None:
    records = []
    for record in records_of([0, 1, 2], overrides=LONGER):
        last = record.last
        if record.cell == "eps-mse-fixed":
            last = last.model_copy(update={"metrics": last.metrics | {"fd_train": 999.0 + record.seed, "is_mean": 1.0}})
        records.append(record.model_copy(update={"checkpoints": (last,)}))
    write_front_page([three[1], reported("turned", records, GRID)], [], tmp_path)
    text = (tmp_path / "index.md").read_text()
    assert "**Supported by some measurements and contradicted by others (" in text and "**contradicted**" in text


def test_every_cell_of_every_folder_has_its_scores_and_its_compute(written) -> None:
    text = (written / "index.md").read_text()
    assert "parameters × training images seen" in text
    rows = [line for line in text.splitlines() if line.startswith(("| short |", "| longer |"))]
    assert len(rows) == 2 * len(CELLS)
    assert f"| measured | 3 | {412_345 * 400 * 64:.2e} |".replace("e+", "e") in rows[0]
    assert all(f" | 1 | {412_345 * 800 * 64:.2e} | ".replace("e+", "e") in row for row in rows[len(CELLS) :])
    assert NOT_MEASURED not in text  # cells without a run have cost nothing


def test_every_grid_has_its_own_part_and_figure(written) -> None:
    text = (written / "index.md").read_text()
    assert re.findall(r"^## (\w+):", text, re.MULTILINE) == ["table2", "table1"]  # the one with more reports first
    for grid in ("table1", "table2"):
        assert (written / f"index-{grid}.png").is_file() and f"(index-{grid}.png)" in text


def test_names_that_are_typed_come_out_as_text_and_lead_to_their_reports(tmp_path) -> None:
    name = "a (b) <i>c</i> `d` |e| [f](g)"
    write_front_page([reported(name, records_of([0]), GRID)], [f"{name}: <b>bad</b>"], tmp_path)
    page, text = ((tmp_path / f"index.{kind}").read_text() for kind in ("html", "md"))
    assert "<i>c" not in page and "<b>bad" not in page and "<i>c" not in text and "&lt;b&gt;bad" in text
    targets = {target for target in re.findall(r'href="([^"#]+report\.\w+)"', page)}
    assert {unquote(target) for target in targets} == {f"{name}/report.html", f"{name}/report.md"}
    assert all(f"({target})" in text for target in targets) and not any(set("()<>[]| ") & set(each) for each in targets)


def test_the_same_records_give_the_same_bytes(three, written, tmp_path) -> None:
    write_front_page(three, [], tmp_path)
    for path in written.iterdir():
        assert (tmp_path / path.name).read_bytes() == path.read_bytes(), path.name


def test_a_folder_without_records_is_none_of_them(tmp_path) -> None:
    write_results(tmp_path / "b", records_of([0])[:1])
    write_results(tmp_path / "a", records_of([0])[:1])
    (tmp_path / "c").mkdir()
    (tmp_path / "c" / "notes.json").write_text("{}")
    assert [path.name for path in folders_of_records(tmp_path)] == ["a", "b"]
    assert folders_of_records(tmp_path / "missing") == []


# ---- the command ----------------------------------------------------------------------------------------------------


@pytest.fixture
def fast(monkeypatch):
    """Reports without figures and pages, since only the command is of interest."""
    seen = []

    def render(records, grid, out, results):
        seen.append((results.name, out))
        (out / "report.html").write_text("")
        return [out / "report.html"]

    monkeypatch.setattr("ddpm_bench.report.render", render)
    return seen


def test_all_renders_each_folder_under_its_name_and_the_front_page(call, tmp_path, fast) -> None:
    for name in ("one", "two"):
        write_results(tmp_path / "results" / name, records_of([0])[:2])
    done = call("report", "--all", "--results", tmp_path / "results", "--reports", tmp_path / "reports")
    assert done.code == 0 and fast == [(name, tmp_path / "reports" / name) for name in ("one", "two")]
    assert done.out.splitlines()[0] == "one: claims 0 supported, 0 contradicted, 7 undecided"
    assert "Front page in" in done.err
    assert sorted(path.name for path in (tmp_path / "reports").iterdir() if path.is_file()) == [
        "index-table2.pdf", "index-table2.png", "index.html", "index.md",
    ]  # fmt: skip


def test_all_looks_in_results_and_writes_to_reports(call, tmp_path, fast, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_results(tmp_path / "results" / "one", records_of([0])[:1])
    assert call("report", "--all").code == 0 and (tmp_path / "reports" / "index.html").is_file()


def test_a_folder_that_cannot_be_rendered_is_said_here_and_there_and_the_others_come_out(call, tmp_path, fast) -> None:
    write_results(tmp_path / "results" / "good", records_of([0])[:1])
    write_results(tmp_path / "results" / "bad", records_of([0])[:1])
    (tmp_path / "results" / "bad" / "mu-L-learned-seed0.json").write_text("half a rec")
    done = call("report", "--all", "--results", tmp_path / "results", "--reports", tmp_path / "reports")
    assert done.code == 1 and "Left out: bad: None of the records can be read." in done.err
    assert [name for name, _ in fast] == ["good"] and "Traceback" not in done.err
    assert "## Left out" in (tmp_path / "reports" / "index.md").read_text()


def test_json_has_the_answer(call, tmp_path, fast) -> None:
    write_results(tmp_path / "results" / "one", records_of([0, 1, 2]))
    done = call("report", "--all", "--results", tmp_path / "results", "--reports", tmp_path / "reports", "--json")
    (one,) = json.loads(done.out)
    assert one["name"] == "one" and one["runs"] == 18 and one["compute"] == 412_345 * 400 * 64
    assert {claim["outcome"] for claim in one["claims"]} <= {"supported", "contradicted", "undecided"}


@pytest.mark.parametrize(
    ("arguments", "needed"),
    [
        (["report"], "--results FOLDER, or --all"),
        (["report", "--all", "--watch"], "--watch is for one folder"),
        (["report", "--all", "--grid", "table2"], "--grid is for one folder"),
        (["report", "--all", "--results", "nowhere"], "No folder in 'nowhere' holds records"),
    ],
)  # fmt: skip
def test_what_cannot_be_done_is_refused(call, tmp_path, monkeypatch, arguments, needed) -> None:
    monkeypatch.chdir(tmp_path)
    done = call(*arguments)
    assert done.code == 2 and needed in done.err and "Traceback" not in done.err
    assert not list(tmp_path.iterdir())


def test_two_processes_do_not_write_the_front_page_at_a_time(call, tmp_path, fast, monkeypatch) -> None:
    write_results(tmp_path / "results" / "one", records_of([0])[:1])
    held = []
    write = front_page.write_front_page
    monkeypatch.setattr(front_page, "write_front_page", lambda *given: (held.extend(owner._held), write(*given))[1])
    call("report", "--all", "--results", tmp_path / "results", "--reports", tmp_path / "reports")
    assert [path.parent for path in held] == [(tmp_path / "reports").resolve()]


def test_the_front_page_loads_no_torch() -> None:
    program = "import sys, ddpm_bench.report.front_page; assert 'torch' not in sys.modules"
    assert subprocess.run([sys.executable, "-c", program]).returncode == 0
