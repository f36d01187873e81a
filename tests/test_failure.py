"""Two outcomes: a run that is not finite has diverged; one that is no better than no model has failed, with its numbers."""

import json
from pathlib import Path

import pytest
from records import ANCHORS, make_record

from ddpm_bench.config.shipped import load_grid
from ddpm_bench.records.failure import why_failed
from ddpm_bench.records.record import Checkpoint, Divergence, Record, read_record, write_record
from ddpm_bench.report.blocks import Results
from ddpm_bench.report.results_table import make_table
from ddpm_bench.report.summary import summaries
from ddpm_bench.report.writers.latex import to_latex
from ddpm_bench.report.writers.markdown import to_markdown

GRID = load_grid("table2")
NOISE = ANCHORS["uniform noise"]["fd_train"]


def run(distance: float, half: float | None = 1.0, bound: float = 5.0, seed: int = 0) -> Record:
    record = make_record(GRID, "mu-L-fixed", seed)
    ends = {} if half is None else {"fd_train": tuple(distance + half * at for at in (-1, -0.5, 0, 0.5, 1))}
    metrics = {**record.last.metrics, "fd_train": distance, "bound_test_bits_per_dim": bound}
    return record.model_copy(update={"checkpoints": (Checkpoint(step=400, metrics=metrics, quantiles=ends),)})


@pytest.mark.parametrize(
    ("distance", "half", "failed"),
    [(NOISE - 5, 1, False), (NOISE + 0.5, 1, False), (NOISE + 5, 1, True), (NOISE + 0.5, None, True), (NOISE, None, False)],
)  # fmt: skip
def test_a_run_has_failed_where_the_whole_interval_lies_above_noise(
    distance: float, half: float | None, failed: bool
) -> None:
    said = why_failed(run(distance, half))
    assert bool(said) == failed
    if failed:
        assert "lies above that of uniform noise, 522.00" in said and f"{distance:.1f}" in said


def test_a_run_has_failed_where_its_bound_is_above_coding_without_a_model() -> None:
    assert why_failed(run(90.0, bound=8.0)) == ""
    assert (
        why_failed(run(90.0, bound=29.96))
        == "its bound of 29.96 (test) bits/dim is above the 8 that coding pixels without a model takes"
    )
    assert why_failed(run(600.0, bound=9.0)).count("; ") == 1


def test_a_run_that_diverged_has_not_failed() -> None:
    assert (
        why_failed(make_record(GRID, "mu-L-fixed", diverged=Divergence(step=3, reason="the loss is not finite"))) == ""
    )


def test_the_numbers_of_a_failed_cell_are_shown_marked_and_grey() -> None:
    table = make_table(summaries([run(600.0), make_record(GRID, "eps-L-fixed")], GRID)[0])
    line = next(line for line in table.lines if line.label.startswith("L, fixed") and line.group.startswith("mu"))
    distance = table.columns.index("fd_train")
    assert line.fields[distance].text.startswith("600.0 [") and all(f.failed for f in line.fields[:distance])
    notes = dict(table.notes)
    assert notes[line.fields[0].note].startswith(
        "failed (1 of 1 runs), seed 0: its FD (embedded) of 600.0 [599.0, 601.0]"
    )
    assert r"\textcolor{gray}{600.0$_" in to_latex([table], "t")
    assert "600.0" in to_markdown([Results(table)])


def test_one_failed_seed_of_several_is_told_and_greys_nothing() -> None:
    table = make_table(summaries([run(600.0), run(90.0, seed=1)], GRID)[0])
    line = next(line for line in table.lines if line.fields[0].text not in ("", "not measured"))
    assert (
        dict(table.notes)[line.fields[0].note].startswith("failed (1 of 2 runs), seed 0") and not line.fields[0].failed
    )


def test_a_record_of_an_older_version_has_failed_where_it_was_said_to_have_diverged_by_noise(tmp_path: Path) -> None:
    path = write_record(tmp_path, run(600.0))
    told = {"step": 400, "reason": "its samples score worse than uniform noise (distance 600 against 522)"}
    path.write_text(json.dumps(json.loads(path.read_text()) | {"outcome": "diverged", "divergence": told}))
    record = read_record(path)
    assert (record.outcome, record.divergence) == ("done", None) and why_failed(record)


def test_the_source_is_quoted_on_its_blanks() -> None:
    table = make_table(summaries([run(90.0)], GRID)[0])
    assert any(
        "“unstable to train and generated poor samples with out-of-range scores”" in text for _, text in table.notes
    )
