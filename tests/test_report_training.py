"""What the report says of the training: clipped gradients, and the claimed orders step by step."""

import pytest
from records import make_checkpoint, make_record, metrics, quick_records

from ddpm_bench.config.shipped import load_grid
from ddpm_bench.records.record import LogPoint, Record
from ddpm_bench.report.blocks import Table
from ddpm_bench.report.claims import examine_claims
from ddpm_bench.report.claims_by_step import claims_by_step, with_last_bounds
from ddpm_bench.report.clipping import clipped_share
from ddpm_bench.report.sections.training import training_section
from ddpm_bench.report.summary import summaries
from ddpm_bench.report.writers.markdown import to_markdown

GRID = load_grid("table2")
BEST_SAMPLES = "Predicting epsilon and training on L_simple yields the best sample quality"


def logged(record: Record, norms: list[float]) -> Record:
    log = tuple(LogPoint(step=20 * (i + 1), loss=1.0, gradient_norm=norm) for i, norm in enumerate(norms))
    return record.model_copy(update={"training_log": log})


def at_two_steps(early: float, seeds: tuple[int, ...] = (0, 1, 2)) -> list[Record]:
    """All cells; at step 100 the distance and score of the last cell are worse by the factor `early`."""
    found = []
    for cell in GRID.cells:
        for seed in seeds:
            factor = early if cell.name == "eps-mse-fixed" else 1.0
            last = metrics(cell.name, seed)
            first = last | {"fd_train": last["fd_train"] * factor, "is_mean": last["is_mean"] / factor}
            first = {key: value for key, value in first.items() if "bound" not in key}
            checkpoints = (make_checkpoint(100, first), make_checkpoint(400, last))
            found.append(make_record(GRID, cell.name, seed, checkpoints=checkpoints))
    return found


def test_the_clipped_share_is_that_of_logged_norms_above_the_limit() -> None:
    record = make_record(GRID, "mu-L-learned")
    assert record.settings.training.clip == 1.0
    assert clipped_share([logged(record, [0.5, 1.0, 1.5, 7.0])]) == 0.5
    assert clipped_share([logged(record, [0.5]), logged(record, [2.0, 2.0, float("inf")])]) == 0.75
    assert clipped_share([logged(record, [])]) is None


def test_where_nothing_is_clipped_there_is_no_share() -> None:
    record = make_record(GRID, "mu-L-learned")
    training = record.settings.training.model_copy(update={"clip": None})
    free = record.model_copy(update={"settings": record.settings.model_copy(update={"training": training})})
    assert clipped_share([logged(free, [0.5, 7.0])]) is None
    assert training_section(summaries([logged(free, [0.5, 7.0])], GRID)[0], None) == []
    both = [logged(free, [0.5, 7.0]), logged(make_record(GRID, "eps-L-fixed"), [0.2])]
    assert clipped_share(both) == 0.0


def test_the_report_has_the_clipped_share_of_every_cell_that_logged_one() -> None:
    records = [logged(make_record(GRID, "mu-L-learned"), [2.0, 2.0]), logged(make_record(GRID, "eps-L-fixed"), [0.2])]
    [table] = [block for block in training_section(summaries(records, GRID)[0], None) if isinstance(block, Table)]
    assert [line[1] for line in table.lines] == ["100%", "0%"]
    assert "share of clipped steps" in to_markdown(training_section(summaries(records, GRID)[0], None))
    assert training_section(summaries([logged(one, []) for one in records], GRID)[0], None) == []


def test_an_order_is_followed_along_the_training() -> None:
    by_step = {claim.text: found for claim, found in claims_by_step(summaries(at_two_steps(9.0), GRID)[0])}
    early, late = by_step[BEST_SAMPLES][100], by_step[BEST_SAMPLES][400]
    assert (early.agreeing, early.compared, early.outcome) == (0, 10, "contradicted")
    assert (late.agreeing, late.compared, late.outcome) == (10, 10, "supported")
    said = to_markdown(training_section(summaries(at_two_steps(9.0), GRID)[0], None))
    assert "step 100 | step 400" in said and "0 of 10, **contradicted** | 10 of 10, **supported**" in said


def test_the_last_step_has_the_verdicts_of_the_last_checkpoints() -> None:
    last = summaries(at_two_steps(2.0), GRID)[0]
    verdicts = {one.claim.text: one.outcome for one in examine_claims([last])}
    by_step = {claim.text: found[400].outcome for claim, found in claims_by_step(last)}
    assert by_step.items() <= verdicts.items() and len(by_step) == 6  # one claim is about bounds
    early = examine_claims([with_last_bounds(last, 100)])
    assert all(one.adjusted is not None for one in early)  # as many tests at every step, that of bounds among them


def test_one_seed_has_an_order_and_no_verdict_and_missing_cells_are_not_compared() -> None:
    one = {claim.text: found for claim, found in claims_by_step(summaries(at_two_steps(9.0, (0,)), GRID)[0])}
    assert (one[BEST_SAMPLES][400].agreeing, one[BEST_SAMPLES][400].outcome) == (10, "undecided")
    some = [record for record in at_two_steps(9.0, (0,)) if record.cell != "mu-L-fixed"]
    assert {claim.text: found for claim, found in claims_by_step(summaries(some, GRID)[0])}[BEST_SAMPLES][
        400
    ].compared == 8


@pytest.mark.parametrize("seeds", [(0,), (0, 1, 2)])
def test_runs_that_were_scored_once_have_no_orders_by_step(seeds: tuple[int, ...]) -> None:
    assert claims_by_step(summaries(quick_records(seeds=seeds), GRID)[0]) == []
