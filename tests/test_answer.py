"""The answer at the head of a report: three sentences in plain English that are computed, and the samples."""

import pytest
from records import make_record, paper_records, quick_records

from ddpm_bench.config.shipped import load_grid
from ddpm_bench.records.record import Record
from ddpm_bench.report.blocks import Heading, Lead
from ddpm_bench.report.sections import page
from ddpm_bench.report.sections.answer import answer
from ddpm_bench.report.summary import summaries
from ddpm_bench.report.writers.markdown import to_markdown

GRID = load_grid("table2")
CELLS = [cell.name for cell in GRID.cells]


def sentences(records: list[Record], grid=GRID) -> list[str]:
    return to_markdown([answer(summaries(records, grid), None)]).strip().split("\n\n")


def test_it_says_what_was_measured_what_holds_and_what_is_open() -> None:
    records = [make_record(GRID, cell, seed) for cell in CELLS for seed in (0, 1, 2)]
    measured, holds, open_ones = sentences(records)
    assert measured == (
        "All 6 cells were trained for 400 steps of 64 images, with 3 seeds each (fashion-mnist-10k at 16x16), and "
        "scored on 512 samples a run by the extractor “embedded”; 1 failed, being no better than "
        "no model; these are not the published conditions, so the order of "
        "cells can be compared and their numbers cannot."
    )
    assert holds.startswith("Of the paper's 7 claims about their order ") and "yields the best sample quality”" in holds
    assert "contradicted" in open_ones and open_ones.endswith(".")
    text = " ".join((holds, open_ones))
    assert text.count("“") == 7  # every claim once


def test_one_seed_leaves_every_claim_open_and_says_why() -> None:
    _, holds, open_ones = sentences([make_record(GRID, cell) for cell in CELLS])
    assert holds == "None of the paper's 7 claims about their order is shown to hold."
    assert open_ones.startswith("None is contradicted; 7 are open, since a verdict takes 3 seeds in every cell: “")


def test_what_diverged_and_what_is_missing_is_in_the_first_sentence() -> None:
    measured, *_ = sentences(quick_records())
    assert measured.startswith("5 of 6 cells were trained") and "; 1 diverged;" in measured
    assert "; 1 diverged with some seeds;" in measured


def test_failed_cells_are_counted() -> None:
    checkpoint = make_record(GRID, "mu-L-fixed").last
    worse = checkpoint.model_copy(
        update={"metrics": checkpoint.metrics | {"bound_test_bits_per_dim": 9.5}, "quantiles": {}}
    )
    record = make_record(GRID, "mu-L-fixed", checkpoints=(worse,))
    bounds = tuple(bound.model_copy(update={"total": 9.5}) for bound in record.bounds)
    assert "1 failed, being no better than no model" in sentences([record.model_copy(update={"bounds": bounds})])[0]


def test_published_conditions_are_called_so() -> None:
    assert sentences(paper_records())[0].endswith("; these are the published conditions.")


def test_a_grid_without_claims_gets_one_sentence() -> None:
    assert len(sentences([make_record(GRID, "mu-L-fixed")], GRID.model_copy(update={"claims": ()}))) == 1


@pytest.mark.parametrize("records", [quick_records(), paper_records()])
def test_title_and_answer_stand_before_all_else(records: list[Record]) -> None:
    blocks = page(summaries(records, GRID), [None] * len(summaries(records, GRID)), {})
    assert blocks[0] == Heading(1, f"ddpm-bench: table2, preset {records[0].preset}")
    before = blocks[: next(i for i, block in enumerate(blocks) if isinstance(block, Heading) and block.level == 2)]
    assert sum(isinstance(block, Lead) for block in before) == 1
