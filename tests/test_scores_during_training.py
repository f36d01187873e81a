"""Scores at the steps that were scored: a table for each metric, and the claims as they would be decided then."""

from records import make_checkpoint, make_record, metrics, quick_records

from ddpm_bench.config.shipped import load_grid
from ddpm_bench.records.record import Divergence
from ddpm_bench.report.blocks import Table
from ddpm_bench.report.sections.training import training_section
from ddpm_bench.report.summary import at_step, summaries
from ddpm_bench.report.writers.markdown import to_markdown

GRID = load_grid("table2")
WORSE = {"eps-mse-fixed": 9.0}
"""Factors of the distance at the first step: there epsilon with L_simple is the worst, and at the end the best."""


def trained():
    """Three seeds of every cell, scored at steps 200 and 400."""
    records = []
    for cell in GRID.cells:
        for seed in (0, 1, 2):
            early = metrics(cell.name, seed, WORSE.get(cell.name, 1.5))
            early = {key: value for key, value in early.items() if "bound" not in key}
            late = make_checkpoint(400, metrics(cell.name, seed))
            records.append(make_record(GRID, cell.name, seed, checkpoints=(make_checkpoint(200, early), late)))
    return summaries(records, GRID)[0]


def test_runs_scored_once_have_no_such_part() -> None:
    assert "Scores during training" not in to_markdown(training_section(summaries(quick_records(), GRID)[0], None))


def test_every_cell_has_its_scores_at_every_step() -> None:
    tables = [block for block in training_section(trained(), None) if isinstance(block, Table)]
    _, distance, score, claims = tables  # after the share of clipped steps; the bound is measured at one step alone
    assert distance.heads == ("cell", "step 200", "step 400") and len(distance.lines) == len(GRID.cells)
    assert distance.caption.startswith("FD") and score.caption.startswith("IS")
    early, late = (float(text.split(" ± ")[0]) for text in distance.lines[-1][1:])
    assert round(early / late) == 9
    assert claims.heads == ("claim of the source", "step 200", "step 400")


def test_a_step_holds_the_runs_that_were_scored_there() -> None:
    summary = trained()
    assert at_step(summary, 400).rows[0].estimates["fd_train"] == summary.rows[0].estimates["fd_train"]
    assert all(not row.estimates and row.done for row in at_step(summary, 300).rows)


def test_a_cell_that_diverged_keeps_its_line_with_a_dash() -> None:
    scored = tuple(make_checkpoint(step, metrics("mu-L-fixed", 0)) for step in (200, 400))
    lost = make_record(GRID, "mu-L-learned", diverged=Divergence(step=9, reason="the loss is not finite"))
    summary = summaries([make_record(GRID, "mu-L-fixed", checkpoints=scored), lost], GRID)[0]
    table = [block for block in training_section(summary, None) if isinstance(block, Table)][1]
    assert [line[1:] == ("–", "–") for line in table.lines] == [True, False]  # and no line of what nobody measured
