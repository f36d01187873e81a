"""A few tries of the campaign of faults (`nox -s faults`), with real processes: see `faults.py`."""

import signal
import sys
from pathlib import Path
from random import Random

import pytest
from fault_home import Home, Tried
from fault_kills import killed, stopped
from fault_runs import CELLS, NO_REPORT, SETTINGS, Fell, Grid, flip, kept_files
from faults import attempt, report

from ddpm_bench.report.writers.markdown import to_markdown

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="processes are found by way of /proc")
SHORT = SETTINGS | {
    "training.steps": 20,
    "training.snapshot_every": 10,
    "sampling.samples": 16,
    "scoring.terms_images": 0,
}


@pytest.fixture(scope="module")
def home(tmp_path_factory) -> Home:
    """Two cells in one process, which is quick."""
    return Home(Grid(tmp_path_factory.mktemp("faults"), 1, CELLS[:2], NO_REPORT, SHORT))


def test_a_grid_that_was_killed_comes_out_bitwise_the_same(home: Home, tmp_path: Path) -> None:
    once = next(seed for seed in range(99) if (rng := Random(seed)).random() > 0.4 and rng.random() > 0.5)
    assert killed(1, home, Random(once), tmp_path / "run").note == "1 kills"


def test_a_grid_that_was_stopped_says_so_and_comes_out_bitwise_the_same(home: Home, tmp_path: Path) -> None:
    assert stopped(signal.SIGINT, home, Random(3), tmp_path / "run").held


def test_a_flipped_bit_in_a_kept_file_is_said_and_changes_nothing(home: Home, tmp_path: Path) -> None:
    grid, rng, flipped = home.measured.copied(tmp_path), Random(0), []
    for part in ("newest snapshot/ema", "samples-*/*", "bound-*/pilot"):
        flipped.append(
            next(path for kind, path in kept_files(tmp_path) if kind.startswith(part) and path.suffix != ".json")
        )
        flip(flipped[-1], rng)
    said = grid.finish(home.reference)
    for path in flipped:
        assert path.parent.name in said.output, path


def fails(*_: object) -> Tried:
    raise Fell("it did not hold", "one line\nanother")


def test_what_does_not_hold_is_told_with_what_was_said(tmp_path: Path) -> None:
    tried = attempt("kills 3", fails, Home(Grid(tmp_path)), tmp_path)
    assert not tried.held and (tmp_path / tried.note).read_text() == "it did not hold\n\none line\nanother\n"
    text = to_markdown(report({"kills": {"0": Tried(True, seconds=2.5, commit="c"), "3": tried}}))
    assert "| 2 | 1 | 2.5 s |" in text and "kills, 3: it did not hold; [what was said](kills-3.txt)" in text
