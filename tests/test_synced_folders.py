"""Results folders that people keep in step: a copy under another name never counts as a record, and is named."""

import json
import shutil
from pathlib import Path

import pytest
from records import make_record, write_results
from test_report_checkpoints import make_row

from ddpm_bench.config.shipped import load_grid
from ddpm_bench.errors import UserError
from ddpm_bench.experiment.reproduce import siblings
from ddpm_bench.records.merge import merge
from ddpm_bench.records.record import read_record, read_records, record_path, write_record
from ddpm_bench.records.row import held_row, read_rows, write_row
from ddpm_bench.report.checkpoint_rows import rows_beside
from ddpm_bench.report.readable_records import readable_records
from ddpm_bench.report.watch import Folder

COMMITTED = Path(__file__).parent.parent / "results" / "table2-quick"
GRID = load_grid("table2")
OTHER_NAMES = (
    "eps-mse-fixed-seed0 (1)",
    "eps-mse-fixed-seed0 - Copy",
    "eps-mse-fixed-seed0 (conflicted copy 2026-11-26)",
    "eps-mse-fixed-seed0.sync-conflict-20261126-120000-ABCDEFG",
    "eps-mse-fixed-seed0-LAPTOP",
    "Copy of eps-mse-fixed-seed0",
    "copy-eps-mse-fixed-seed0",
    "eps-mse-fixed-seed00",
    "eps-mse-fixed-seed1",
)
"""That other programs and people give to a copy of the record of cell eps-mse-fixed, seed 0."""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """One record with its pictures."""
    write_results(tmp_path / "results", [make_record(GRID, "eps-mse-fixed")])
    return tmp_path / "results"


def edited_copy(path: Path, name: str, is_mean: float = 9.9) -> Path:
    """A copy of the record beside it, with another Inception Score."""
    content = json.loads(path.read_text())
    content["checkpoints"][-1]["metrics"]["is_mean"] = is_mean
    copy = path.with_name(f"{name}.json")
    copy.write_text(json.dumps(content))
    return copy


def test_an_edited_copy_beside_the_record_does_not_move_the_report(call, tmp_path):
    folder = tmp_path / "results"
    folder.mkdir()
    for seed in range(3):
        shutil.copy(record_path(COMMITTED, "eps-mse-fixed", seed), folder)
    edited_copy(record_path(folder, "eps-mse-fixed", 0), "eps-mse-fixed-seed0 (1)")
    done = call("report", "--results", folder, "--reports", tmp_path / "report", "--json")
    assert done.code == 0
    scores = [record["checkpoints"][-1]["metrics"]["is_mean"] for record in json.loads(done.out)]
    assert sum(scores) / len(scores) == pytest.approx(3.54, abs=0.005)
    assert done.err.count("(1).json' is left out") == 1 and "is written as 'eps-mse-fixed-seed0.json'" in done.err


@pytest.mark.usefixtures("messages")
@pytest.mark.parametrize("name", OTHER_NAMES)
def test_everything_that_reads_a_folder_takes_the_name_that_is_written_here_and_says_so(folder, tmp_path, capsys, name):
    path = record_path(folder, "eps-mse-fixed", 0)
    record, copy = read_record(path), edited_copy(path, name)
    watched = Folder(folder)
    watched.look()
    assert read_records(folder) == readable_records(folder) == watched.records == siblings(path, record) == [record]
    assert [made.name for made in merge(tmp_path / "out", [folder])] == [path.name]
    said = capsys.readouterr().err
    assert said.count(f"'{copy}' is left out") == 1  # once a command
    assert f"is written as '{path.name}'" in said and "Remove it" in said
    path.unlink()
    with pytest.raises(UserError, match="holds no records"):
        read_records(folder)
    assert f"'{copy}' is left out" in (said := capsys.readouterr().err) and "rename it" in said


@pytest.mark.usefixtures("messages")
def test_a_broken_copy_stops_nothing_and_a_broken_record_does(folder, capsys):
    path = record_path(folder, "eps-mse-fixed", 0)
    path.with_name("eps-mse-fixed-seed0 (1).json").write_text("{")
    assert len(read_records(folder)) == 1
    assert "(1).json' is left out: it cannot be read" in capsys.readouterr().err
    path.write_text("{")
    with pytest.raises(UserError, match="not a record"):
        read_records(folder)


def test_a_grid_takes_no_copy_for_a_record_and_writes_over_none(small_run, call, tmp_path, monkeypatch):
    """The folder holds the record of seed 0 twice: under its own name, and under that of seed 1."""
    monkeypatch.setattr("ddpm_bench.experiment.launchers.launcher.run_cell", lambda *_: pytest.fail("measured again"))
    results, place = tmp_path / "results", small_run.arguments.index("--results") + 1
    shutil.copytree(small_run.results, results, ignore=shutil.ignore_patterns("work"))
    edited_copy(record_path(results, "eps-mse-fixed", 0), "eps-mse-fixed-seed0 (1)")
    command = [*small_run.arguments[:place], results, *small_run.arguments[place + 1 :]]
    done = call(*command)
    assert done.code == 0 and "measured already" in done.err and done.err.count("(1).json' is left out") == 1
    copy = edited_copy(record_path(results, "eps-mse-fixed", 0), "eps-mse-fixed-seed1")
    before = copy.read_bytes()
    done = call(*command, "--seeds", "0,1")
    assert done.code == 2 and f"'{copy}' would be written over" in done.err and "--fresh" in done.err
    assert f"'{copy}' is left out: what it holds is written as 'eps-mse-fixed-seed0.json'" in done.err
    assert copy.read_bytes() == before


@pytest.mark.usefixtures("messages")
def test_pictures_under_other_names_are_named_and_those_that_are_drawn_here_are_not(folder, capsys):
    readable_records(folder)
    assert "left out" not in capsys.readouterr().err
    shutil.copy(folder / "eps-mse-fixed-seed0.png", folder / "eps-mse-fixed-seed0 (1).png")
    readable_records(folder)
    assert f"'{folder}': left out are pictures" in (said := capsys.readouterr().err) and "seed0 (1).png'" in said


@pytest.mark.usefixtures("messages")
@pytest.mark.parametrize("name", ["theirs (1)", "theirs.sync-conflict-20261126-120000-ABCDEFG", "theirs - Copy"])
def test_rows_follow_the_same_rule(tmp_path, capsys, name):
    rows = tmp_path / "checkpoints"
    write_row(rows, make_row())
    shutil.copy(rows / "theirs.json", rows / f"{name}.json")
    assert [row.name for row in read_rows(rows)] == [row.name for row in rows_beside(tmp_path)] == ["theirs"]
    assert capsys.readouterr().err.count(f"{name}.json' is left out") == 1


def test_a_copy_under_the_name_of_another_row_is_not_written_over(tmp_path):
    write_row(tmp_path, make_row())
    shutil.copy(tmp_path / "theirs.json", tmp_path / "mine.json")
    with pytest.raises(UserError, match="would be written over"):
        held_row(tmp_path, "mine", make_row().setup)


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_a_record_with_a_byte_order_mark_is_read(tmp_path, encoding):
    record = make_record(GRID, "eps-mse-fixed")
    path = write_record(tmp_path, record)
    path.write_text(path.read_text(), encoding=encoding)
    assert read_records(tmp_path) == [record]


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_a_grid_a_preset_and_a_published_table_with_a_byte_order_mark_are_read(call, tmp_path, encoding):
    package = COMMITTED.parent.parent
    files = {
        "grid": "ablations/table2",
        "preset": "ddpm_bench/config/presets/smoke",
        "table": "ablations/published/nll",
    }
    for name, source in files.items():
        (tmp_path / f"{name}.toml").write_text((package / f"{source}.toml").read_text(), encoding=encoding)
    costs = call("ablate", "--grid", tmp_path / "grid.toml", "--preset", tmp_path / "preset.toml", "--dry-run")
    assert costs.code == 0 and "6 cells" in costs.out, costs.err
    assert call("published", tmp_path / "table.toml").code == 0
