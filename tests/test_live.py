"""The live table of a grid: what a row shows, what a narrow or short terminal leaves out, and a real terminal."""

import os
import re
import select
import signal
import subprocess
import sys
import time
from types import SimpleNamespace

import pytest
from conftest import SMALL
from records import make_record
from rich.console import Console

from ddpm_bench.config.shipped import load_grid
from ddpm_bench.experiment.live_table import Board, board
from ddpm_bench.records.record import Divergence, read_records
from ddpm_bench.runtime.observer import Reading, observed_by, progress
from ddpm_bench.runtime.terminal import Lines

GRID = load_grid("table2")
LABELS = ("FD (embedded)", "IS (embedded)")


def jobs(*seeds):
    return [
        SimpleNamespace(name=f"{cell.name}-seed{seed}", cell=cell, seed=seed) for seed in seeds for cell in GRID.cells
    ]


def watching(table, name):
    """Who watches the job of that name."""
    return table.observer(SimpleNamespace(name=name))


def drawn(table, width=110, height=40):
    terminal = Console(width=width, height=height, force_terminal=True, color_system=None)
    with terminal.capture() as captured:
        terminal.print(table)
    return captured.get().rstrip("\n").splitlines()


def row(lines, cell):
    return next(line for line in lines if line.startswith(cell))


def test_a_row_follows_its_cell_from_waiting_to_its_scores():
    table = Board(jobs(0), LABELS, True)
    assert row(drawn(table), "eps-mse-fixed").split() == ["eps-mse-fixed", "waiting"]
    seen = watching(table, "eps-mse-fixed-seed0")
    seen.phase("training")
    seen.show(Reading("x: training", 1500, 6000, 50.0, "3,200 images/s", 0.03125))
    expected = ["eps-mse-fixed", "training", "1,500/6,000", "0.0312", "3,200", "images/s", "1:30"]
    assert row(drawn(table), "eps-mse-fixed").split() == expected
    seen.scores(1, {"fd_train": 12.345, "is_mean": 3.21, "kid_mean": 1.0})  # of a snapshot
    assert row(drawn(table), "eps-mse-fixed").split() == [*expected, "12.35", "3.21"]
    seen.phase("bound")
    assert row(drawn(table), "eps-mse-fixed").split() == ["eps-mse-fixed", "bound", "0.0312", "12.35", "3.21"]
    table.settle("eps-mse-fixed-seed0", make_record(GRID, "eps-mse-fixed"))
    assert row(drawn(table), "eps-mse-fixed").split() == ["eps-mse-fixed", "done", "0.0312", "33.00", "5.90", "4.82"]


def test_the_other_ends_of_a_cell_and_the_count():
    table = Board(jobs(0), LABELS, True)
    table.hold("eps-L-fixed-seed0", make_record(GRID, "eps-L-fixed"))
    table.settle("mu-L-fixed-seed0", make_record(GRID, "mu-L-fixed", diverged=Divergence(step=3, reason="NaN")))
    table.settle("mu-mse-fixed-seed0", "RuntimeError: out of memory")
    watching(table, "mu-L-learned-seed0").phase("sampling")
    lines = drawn(table)
    for cell, state in (
        ("eps-L-fixed", "done"),
        ("mu-L-fixed", "diverged"),
        ("mu-mse-fixed", "failed"),
        ("mu-L-learned", "sampling"),
    ):
        assert row(lines, cell).split()[1] == state
    assert lines[-1].startswith("3 of 6 finished, 0:00 so far, about 0:00 to go")
    table.close()
    assert row(drawn(table), "mu-L-learned").split()[1] == "saved"
    assert "progress" not in " ".join(drawn(table))


def test_seeds_have_a_column_where_there_are_several():
    assert "seed" not in drawn(Board(jobs(0), LABELS, True))[1]
    assert drawn(Board(jobs(0, 1), LABELS, True))[1].split()[:3] == ["cell", "seed", "state"]


@pytest.mark.parametrize("width", [40, 60, 80, 120])
def test_a_narrow_terminal_goes_without_columns_and_breaks_no_line(width):
    table = Board(jobs(0, 1), LABELS, True)
    for job in jobs(0, 1):
        seen = watching(table, job.name)
        seen.phase("training")
        seen.show(Reading("", 799_999, 800_000, 1e-3, "12,345 images/s", 0.0123))
        seen.scores(1, {"fd_train": 123.45, "is_mean": 9.87, "bound_test_bits_per_dim": 3.75})
    lines = drawn(table, width)
    assert max(map(len, lines)) <= width
    rows = lines[-13:-1]
    assert [line.split()[:3] for line in rows] == [[job.cell.name, str(job.seed), "training"] for job in jobs(0, 1)]
    assert ("123.45" in rows[0]) == (width >= 60) and ("12,345 images/s" in rows[0]) == (width >= 120)


def test_a_short_terminal_shows_what_runs_and_what_ended_last_and_at_the_end_all():
    table = Board(jobs(0, 1, 2), LABELS, True)
    for cell in ("mu-L-learned", "mu-L-fixed", "mu-mse-fixed", "eps-L-learned"):
        table.settle(f"{cell}-seed0", make_record(GRID, cell))
    watching(table, "eps-mse-fixed-seed0").phase("training")
    watching(table, "mu-L-fixed-seed1").phase("scoring")
    lines = drawn(table, height=8)
    assert [line.split()[:3] for line in lines[2:-1]] == [
        ["mu-mse-fixed", "0", "done"], ["eps-L-learned", "0", "done"],
        ["eps-mse-fixed", "0", "training"], ["mu-L-fixed", "1", "scoring"],
    ]  # fmt: skip
    assert lines[-1].endswith("14 not drawn for want of lines")
    table.close()
    assert len(drawn(table, height=8)) == 18 + 3


def test_without_a_terminal_there_are_plain_lines_and_no_table(capsys):
    with board(jobs(0), LABELS) as table:
        seen = watching(table, "eps-mse-fixed-seed0")
        assert type(seen) is Lines
        seen.phase("training")
        seen.show(Reading("eps-mse-fixed-seed0: training", 50, 200, 2.0, "128 images/s", 0.5))
        seen.show(Reading("download", 50, 200))
    said = capsys.readouterr()
    assert said.err == "eps-mse-fixed-seed0: training: 50/200  128 images/s  ETA 75 s  loss 0.5000\ndownload: 50/200\n"
    assert said.out == ""


def test_a_meter_tells_its_screen_no_more_often_than_it_wants_to_know(monkeypatch):
    now, seen = 100.0, []
    monkeypatch.setattr("time.monotonic", lambda: now)
    table = Board(jobs(0), LABELS, True)
    chosen = watching(table, "eps-mse-fixed-seed0")
    monkeypatch.setattr(chosen, "show", seen.append)
    with observed_by(chosen), progress("x", 1000, "images", 200) as meter:
        for done in range(201, 301):
            now += 0.01
            meter.update(done, 0.25, per_unit=64)
    assert [reading.done for reading in seen] == [250, 300]
    assert seen[1].speed == "6,400 images/s" and seen[1].eta == pytest.approx(7.0) and seen[1].loss == 0.25


# ---- a real terminal ------------------------------------------------------------------------------------------------

ANSI = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


class Terminal:
    """A command in a pseudo-terminal of `columns`; everything it draws is in `text`."""

    def __init__(self, command, columns=60, lines=30):
        import pty
        import termios

        self.own, other = pty.openpty()
        termios.tcsetwinsize(other, (lines, columns))
        environment = os.environ | {"TERM": "xterm-256color", "OMP_NUM_THREADS": "1"}
        for name in ("COLUMNS", "LINES", "NO_COLOR", "FORCE_COLOR"):
            environment.pop(name, None)
        # A session of its own, whose terminal this is: Ctrl-C then reaches the command and its workers.
        starter = (
            "import fcntl, os, sys, termios; fcntl.ioctl(0, termios.TIOCSCTTY, 0); os.execv(sys.argv[1], sys.argv[1:])"
        )
        self.process = subprocess.Popen(
            [sys.executable, "-c", starter, *command],
            stdin=other, stdout=other, stderr=other, env=environment, start_new_session=True,
        )  # fmt: skip
        os.close(other)
        self.text = ""

    def read(self, until=None, timeout=600):
        """Read to the end, or until `until(text)`."""
        deadline = time.monotonic() + timeout
        while not (until and until(self.text)):
            assert time.monotonic() < deadline, self.text
            if select.select([self.own], [], [], 0.2)[0]:
                try:
                    data = os.read(self.own, 65536)
                except OSError:  # the other end is closed
                    data = b""
                if not data:
                    break
                self.text += data.decode(errors="replace")

    def press(self, keys):
        os.write(self.own, keys)

    def last_frame(self):
        """The lines after the last move of the cursor upwards."""
        return plain_lines(re.split(r"\x1b\[1A", self.text)[-1])


def plain_lines(text):
    return [line.rstrip() for line in re.split(r"[\r\n]+", ANSI.sub("", text)) if line.strip()]


at_a_terminal = pytest.mark.skipif(not hasattr(os, "openpty"), reason="this system has no pseudo-terminals")


def ablate(folder, *more):
    return [sys.executable, "-m", "ddpm_bench", "ablate", "--preset", "smoke", *SMALL, "--device", "cpu",
            "--cells", "mu-L-fixed,eps-mse-fixed", "--workers", "2",
            "--results", str(folder / "results"), "--no-report", *more]  # fmt: skip


@at_a_terminal
def test_at_a_terminal_of_60_columns_workers_fill_the_table_and_it_stays(tmp_path):
    terminal = Terminal(ablate(tmp_path, "--json"))
    terminal.read()
    assert terminal.process.wait(60) == 0
    frames = ANSI.sub("", terminal.text)
    assert re.search(r"eps-mse-fixed +training", frames)
    assert re.search(r"mu-L-fixed +(training|sampling|scoring|bound)", frames)
    final = terminal.last_frame()
    rows = [line for line in final if re.match(r"(mu-L-fixed|eps-mse-fixed) ", line)]
    records = {record.cell: record for record in read_records(tmp_path / "results")}
    assert [line.split()[:2] for line in rows] == [["mu-L-fixed", "done"], ["eps-mse-fixed", "done"]]
    for line in rows:
        assert f"{records[line.split()[0]].last.metrics['fd_train']:.2f}" in line.split()
    assert any(line.startswith("2 of 2 finished") for line in final)
    table = terminal.text.partition("\x1b[?25l")[2].partition("\x1b[?25h")[0]  # while the cursor is hidden
    drawn_lines = [line for line in plain_lines(table) if re.match(r"(cell|mu-L-fixed|eps-mse-fixed|\d of 2) ", line)]
    assert len(drawn_lines) > 8 and max(map(len, drawn_lines)) <= 60


@at_a_terminal
def test_ctrl_c_at_the_terminal_lets_every_worker_save_once_and_leaves_the_table(tmp_path):
    long = ("--set", "training.steps=100000", "--set", "training.checkpoint_every=100000")
    terminal = Terminal(ablate(tmp_path, *long))
    logs = tmp_path / "results" / "work"
    terminal.read(until=lambda text: len(list(logs.glob("*/log.jsonl"))) == 2)
    terminal.press(b"\x03")
    terminal.read()
    assert terminal.process.wait(60) == 130
    assert "the same command goes on" in terminal.text and "Traceback" not in terminal.text
    assert len(list(logs.glob("*/step-*/state.json"))) == 2
    final = terminal.last_frame()
    assert sum(line.split()[1:2] == ["saved"] for line in final) == 2
    assert "\x1b[?25h" in terminal.text  # the cursor is back


def test_a_second_signal_stops_at_once():
    from ddpm_bench.errors import Interrupted
    from ddpm_bench.runtime.interrupt import Stop

    with Stop() as stop:
        signal.raise_signal(signal.SIGINT)
        assert stop.requested
        with pytest.raises(Interrupted):
            signal.raise_signal(signal.SIGINT)
