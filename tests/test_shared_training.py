"""Cells that differ in no setting of training are trained once, with what each would have come to alone."""

import pytest

from ddpm_bench.config.shipped import load_grid
from ddpm_bench.data import load_data
from ddpm_bench.experiment.ablate import plan
from ddpm_bench.experiment.cost import estimate
from ddpm_bench.records.record import read_record, read_records
from ddpm_bench.report.summary import summaries, trainings
from ddpm_bench.runtime.runtime import Runtime
from ddpm_bench.training import trainer

GRID = """
name = "chains"
title = "One model, sampled in several ways"
source = "a test; nothing is published"
[conditions]
data = "cifar10"
size = 32
samples = 50000
extractor = "inception"
checkpoint = "last"
[settings.diffusion]
parameterization = "eps"
objective = "L_simple"
variance = "fixed"
[settings.training]
steps = 6
log_every = 2
[settings.sampling]
samples = 12
[settings.scoring]
bound_images = 0
neighbours = 0
[[cell]]
name = "whole"
label = "every step"
settings.sampling.steps = "none"
published = {}
[[cell]]
name = "five"
label = "five steps"
settings.sampling.steps = 5
published = {}
[[cell]]
name = "two"
label = "two steps"
settings.sampling.steps = 2
published = {}
"""


@pytest.fixture
def grid(tmp_path):
    path = tmp_path / "chains.toml"
    path.write_text(GRID, encoding="utf-8")
    return path


def ablate(call, grid, folder, *more):
    return call(
        "ablate",
        "--grid",
        str(grid),
        "--preset",
        "smoke",
        "--device",
        "cpu",
        "--results",
        str(folder),
        "--no-report",
        *more,
    )


@pytest.fixture
def steps_taken(monkeypatch):
    """The number of every training step, as it is taken."""
    taken, real = [], trainer.Trainer.train_step

    def counted(self):
        taken.append(self.step)
        real(self)

    monkeypatch.setattr(trainer.Trainer, "train_step", counted)
    return taken


def test_a_grid_of_samplers_trains_once_a_seed(call, grid, tmp_path, steps_taken):
    assert ablate(call, grid, tmp_path / "all", "--seeds", "0,1", "--workers", "1").code == 0
    assert steps_taken == [*range(6), *range(6)]
    records = read_records(tmp_path / "all")
    assert {record.trained_with for record in records} == {"whole"} and len(records) == 6
    assert {record.axes for record in records} == {("sampling.steps",)}
    assert len({record.training_log for record in records}) == 2  # one a seed
    assert ablate(call, grid, tmp_path / "one", "--cells", "two", "--workers", "1").code == 0
    alone, shared = (read_record(tmp_path / folder / "two-seed0.json") for folder in ("one", "all"))
    assert alone.final == shared.final and alone.anchors == shared.anchors
    [summary] = summaries(records, load_grid(str(grid)))
    assert len(summary.records) == 6 and not summary.set_aside  # they share a table
    assert [row.cell.name for row in trainings(summary.rows)] == ["whole"]


def test_side_by_side_they_wait_for_the_training(call, grid, tmp_path):
    answer = ablate(call, grid, tmp_path / "two", "--workers", "2")
    assert answer.code == 0, answer.err
    assert ablate(call, grid, tmp_path / "one", "--workers", "1").code == 0
    for name in ("whole", "five", "two"):
        ours, theirs = (read_record(tmp_path / folder / f"{name}-seed0.json") for folder in ("two", "one"))
        assert ours.training_log == theirs.training_log and ours.final == theirs.final
    trained = tmp_path / "two" / "work" / "trained" / "whole-seed0"
    assert list(trained.glob("step-*")) and not list((tmp_path / "two" / "work" / "two-seed0").glob("step-*"))


def test_measured_afresh_they_are_trained_afresh(call, grid, tmp_path, steps_taken):
    assert ablate(call, grid, tmp_path / "all", "--cells", "two", "--workers", "1").code == 0
    assert ablate(call, grid, tmp_path / "all", "--cells", "two", "--workers", "1", "--fresh").code == 0
    assert steps_taken == [*range(6), *range(6)]


def test_a_training_is_counted_once_in_the_cost(grid):
    jobs = plan(load_grid(str(grid)), "smoke", None, [0], [])
    cells = estimate(jobs, load_data(jobs[0].settings.data), Runtime()).cells
    assert cells[0].disk_bytes > 10 * cells[1].disk_bytes and cells[1].hours < cells[0].hours


def test_cells_that_differ_in_training_share_none():
    for name in ("table2", "learning-rate"):
        assert {job.shares for job in plan(load_grid(name), "smoke", None, [0], [])} == {None}
