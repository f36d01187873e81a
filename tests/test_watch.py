"""`report --watch`: the report again when records arrive, and only then; Ctrl-C ends it with 0."""

import os
import signal
import subprocess
import sys
import time

import pytest
from records import make_record, write_results

from ddpm_bench.config.shipped import load_grid
from ddpm_bench.errors import UserError
from ddpm_bench.records.record import record_path
from ddpm_bench.report.watch import Folder, watch
from ddpm_bench.runtime.interrupt import Stop

pytestmark = pytest.mark.usefixtures("messages")
GRID = load_grid("table2")


def test_a_look_tells_what_arrived_changed_and_went(tmp_path):
    folder = Folder(tmp_path / "results")
    assert folder.look() == [] and folder.records == []  # there is no folder yet
    write_results(folder.path, [make_record(GRID, "eps-L-fixed"), make_record(GRID, "eps-mse-fixed")])
    assert folder.look() == ["eps-L-fixed-seed0", "eps-mse-fixed-seed0"]
    assert folder.look() == []
    write_results(folder.path, [make_record(GRID, "eps-mse-fixed").model_copy(update={"images_seen": 1})])
    assert folder.look() == ["eps-mse-fixed-seed0"] and folder.records[1].images_seen == 1
    (folder.path / "checkpoints").mkdir()
    (folder.path / "checkpoints" / "mine.json").write_text("{}")
    (folder.path / "work" / "eps-mse-fixed-seed0").mkdir(parents=True)
    (folder.path / "work" / "eps-mse-fixed-seed0" / "wall-time.json").write_text("{}")
    assert folder.look() == ["mine"]
    record_path(folder.path, "eps-L-fixed", 0).unlink()
    assert folder.look() == ["eps-L-fixed-seed0 is gone"]
    assert [record.cell for record in folder.records] == ["eps-mse-fixed"]


def test_a_broken_record_is_said_once_and_left_out_until_it_changes(tmp_path, capsys):
    folder = Folder(tmp_path)
    write_results(tmp_path, [make_record(GRID, "eps-mse-fixed")])
    path = record_path(tmp_path, "eps-mse-fixed", 1)
    path.write_text('{"schema_version": 99}')
    assert folder.look() == ["eps-mse-fixed-seed0", "eps-mse-fixed-seed1"]
    said = capsys.readouterr().err
    assert "eps-mse-fixed-seed1.json" in said and "newer ddpm-bench" in said and "left out until it changes" in said
    assert folder.look() == [] and capsys.readouterr().err == "" and len(folder.records) == 1
    write_results(tmp_path, [make_record(GRID, "eps-mse-fixed", 1)])
    assert folder.look() == ["eps-mse-fixed-seed1"] and len(folder.records) == 2
    path.write_text("half a rec")
    assert folder.look() == ["eps-mse-fixed-seed1"] and [record.seed for record in folder.records] == [0]


def test_it_renders_when_something_changed_and_goes_on_after_a_mistake(tmp_path, capsys):
    """The clock of this test is the rendering: each one lets the next record arrive, the last one asks to stop."""
    seen = []

    def render(records):
        seen.append([record.cell for record in records])
        if len(seen) == 1:
            write_results(tmp_path, [make_record(GRID, "mu-L-fixed")])
            raise UserError("these cannot share a table")
        stop.requested = True

    write_results(tmp_path, [make_record(GRID, "eps-mse-fixed")])
    with Stop() as stop:
        watch(tmp_path, render, every=0.01)
    assert seen == [["eps-mse-fixed"], ["eps-mse-fixed", "mu-L-fixed"]]
    said = capsys.readouterr().err
    assert "New: eps-mse-fixed-seed0\n" in said and "New: mu-L-fixed-seed0\n" in said
    assert "these cannot share a table" in said


def test_nothing_is_rendered_twice_without_a_change(tmp_path, monkeypatch):
    looks, seen = 0, []
    real = Folder.look

    def look(self):
        nonlocal looks
        looks += 1
        stop.requested = looks == 5
        return real(self)

    monkeypatch.setattr(Folder, "look", look)
    write_results(tmp_path, [make_record(GRID, "eps-mse-fixed")])
    with Stop() as stop:
        watch(tmp_path, seen.append, every=0.0)
    assert (looks, len(seen)) == (5, 1)


def test_json_and_watch_exclude_each_other(call, tmp_path):
    answer = call("report", "--results", tmp_path, "--watch", "--json")
    assert answer.code == 2 and "--watch" in answer.err


@pytest.mark.skipif(os.name == "nt", reason="SIGINT reaches a single process on POSIX systems only")
def test_the_command_writes_the_report_of_what_arrives_and_ctrl_c_ends_it_with_0(tmp_path):
    results, reports = tmp_path / "results", tmp_path / "reports"
    command = [sys.executable, "-m", "ddpm_bench", "report", "--results", str(results), "--reports", str(reports)]
    command.append("--watch")
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    def wait(condition):
        deadline = time.monotonic() + 600
        while not condition() and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.05)

    write_results(results, [make_record(GRID, "eps-mse-fixed")])
    report = reports / "report.md"
    wait(report.exists)
    write_results(results, [make_record(GRID, "eps-mse-fixed", 1)])
    before = report.stat().st_mtime_ns
    wait(lambda: report.stat().st_mtime_ns != before)
    time.sleep(0.5)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 0 and "Traceback" not in err
    assert "New: eps-mse-fixed-seed0" in err and "New: eps-mse-fixed-seed1" in err
    assert out.count("epsilon prediction") + out.count("ε prediction") == 2  # the table, twice
