"""Bounds in the report: how they were measured, what they compare with, test against train, rate and distortion."""

import math
from dataclasses import replace

import pytest
from records import EMBEDDED, INCEPTION, make_record, paper_records, quick_records

from ddpm_bench.config.grid import Grid
from ddpm_bench.config.metrics import BOUNDS
from ddpm_bench.config.published import Published
from ddpm_bench.config.shipped import load_grid
from ddpm_bench.records.conditions import sorted_out
from ddpm_bench.records.record import Record
from ddpm_bench.report.blocks import Details
from ddpm_bench.report.bounds import bound_remarks, codes_of, gaps
from ddpm_bench.report.results_table import make_table
from ddpm_bench.report.sections.bounds import bounds_section
from ddpm_bench.report.summary import summaries
from ddpm_bench.report.writers.markdown import to_markdown

GRID = load_grid("table2")
BOUND_TEST, BOUND_TRAIN = BOUNDS["test"], BOUNDS["train"]
TABLE_1 = load_grid("table1")


def with_bounds(record: Record, **updates: object) -> Record:
    """The record with other values in its bounds; a dictionary has one for each split."""
    bounds = [
        bound.model_copy(update={k: v[bound.split] if isinstance(v, dict) else v for k, v in updates.items()})
        for bound in record.bounds
    ]
    return record.model_copy(update={"bounds": tuple(bounds)})


def as_published(grid: Grid = TABLE_1) -> Record:
    """A record whose bound was measured as the paper's."""
    images = {"test": 10_000, "train": 50_000}
    return with_bounds(
        make_record(grid, "eps-mse-fixed", preset="paper", extractor=INCEPTION), decoder="paper", images=images
    )


def last(grid: Grid) -> Grid:
    """The grid, as if it had published numbers of last checkpoints."""
    return grid.model_copy(update={"conditions": grid.conditions.model_copy(update={"checkpoint": "last"})})


def summary_of(records: list[Record], grid: Grid = GRID):
    return summaries(records, grid)[0]


def test_a_bound_that_was_measured_as_published_differs_in_nothing() -> None:
    summary = summary_of([as_published()], last(TABLE_1))
    assert summary.comparable_in(BOUND_TEST) and summary.comparable_in(BOUND_TRAIN)
    assert summary.comparable and summary.bounds_comparable and make_table(summary).verdict == ""


@pytest.mark.parametrize(
    ("change", "name", "published", "here"),
    [
        ({"decoder": "exact"}, "bound's decoder", "paper", "exact"),
        ({"clip_x0": False}, "bound's clipping of x_0", "on", "off"),
        ({"evals": 100}, "bound's network calls an image", "1,000", "100"),
        ({"method": "estimate"}, "bound's method", "exact", "estimate"),
        ({"images": {"test": 64, "train": 50_000}}, "bound's test images", "10,000", "64"),
        ({"images": {"test": 10_000, "train": 64}}, "bound's train images", "50,000", "64"),
    ],
)
def test_each_way_of_measuring_otherwise_is_a_difference_of_the_bound_alone(change, name, published, here) -> None:
    summary = summary_of([with_bounds(as_published(), **change)], last(TABLE_1))
    [found] = {found for key in (BOUND_TEST, BOUND_TRAIN) for found in summary.differences[key]}
    assert (found.name, found.published, found.here) == (name, published, here)
    assert summary.comparable and not summary.bounds_comparable
    assert make_table(summary).verdict == f"Bounds are not comparable with the published NLL. Not as published: {name}."


def test_a_bound_does_not_depend_on_samples_or_features() -> None:
    record = as_published()
    settings = record.settings.model_copy(
        update={
            "sampling": record.settings.sampling.model_copy(update={"samples": 64, "steps": 10}),
            "scoring": record.settings.scoring.model_copy(update={"extractor": "embedded"}),
        }
    )
    summary = summary_of([record.model_copy(update={"settings": settings, "extractor": EMBEDDED})], last(TABLE_1))
    assert summary.bounds_comparable and not summary.comparable
    text = make_table(summary).verdict
    assert text.startswith("Scores are not comparable") and text.endswith("The bounds are comparable.")
    assert "Not as published: samples, sampling steps, extractor." in text


def test_other_training_concerns_the_bounds_too() -> None:
    record = as_published()
    training = record.settings.training.model_copy(update={"steps": 7})
    record = record.model_copy(update={"settings": record.settings.model_copy(update={"training": training})})
    summary = summary_of([record], last(TABLE_1))
    assert [d.name for d in summary.differences[BOUND_TEST]] == ["training steps"]


def test_a_grid_that_publishes_no_nll_holds_no_bounds_against_it() -> None:
    cells = tuple(cell.model_copy(update={"published": Published(fid=1.0)}) for cell in TABLE_1.cells)
    conditions = TABLE_1.conditions.model_copy(update={"nll": None})
    summary = summary_of([as_published()], TABLE_1.model_copy(update={"conditions": conditions, "cells": cells}))
    assert BOUND_TEST not in summary.differences and not summary.bounds_comparable


def test_bounds_that_are_not_shown_make_no_difference() -> None:
    _, best = summaries(paper_records(), GRID)
    assert set(best.differences) == {"is_mean", "fd_train"}
    assert bound_remarks(best) == [] and bounds_section(best) == []


def test_bounds_measured_in_different_ways_share_no_table() -> None:
    one, other = (
        make_record(GRID, "mu-L-fixed"),
        with_bounds(make_record(GRID, "eps-L-fixed"), method="estimate", evals=10),
    )
    kept, aside = sorted_out([one, other], GRID)
    assert kept == [one] and aside[0].what == "cell 'eps-L-fixed', seed 0"
    assert "evals: was 100, now 10; test bound.method: was exact, now estimate" in aside[0].why


def test_the_gap_is_test_less_train_with_the_error_of_both() -> None:
    record = with_bounds(
        make_record(GRID, "eps-L-fixed"),
        total={"test": 4.0, "train": 3.8},
        standard_error={"test": 0.03, "train": 0.04},
    )
    [gap] = gaps(summary_of([record]))
    assert (gap.cell, gap.difference, gap.standard_error) == ("eps-L-fixed", pytest.approx(0.2), pytest.approx(0.05))
    [remark] = [r for r in bound_remarks(summary_of([record])) if "Test bound minus train" in r]
    assert "eps-L-fixed +0.200 (0.050)" in remark and "different images" in remark


def test_seeds_average_the_gap_and_not_its_error_since_the_images_are_the_same() -> None:
    records = [make_record(GRID, "eps-L-fixed", seed) for seed in (0, 1, 2)]
    records[1] = with_bounds(records[1], total={"test": 4.0, "train": 4.6})
    [gap] = gaps(summary_of(records))
    assert gap.difference == pytest.approx((0.02 - 0.6 + 0.02) / 3)
    assert gap.standard_error == pytest.approx(math.hypot(0.02, 0.02))
    assert "−0.187" in " ".join(bound_remarks(summary_of(records)))


def test_no_gap_where_one_split_was_not_measured() -> None:
    record = make_record(GRID, "eps-L-fixed")
    alone = record.model_copy(update={"bounds": record.bounds[:1]})
    assert gaps(summary_of([alone])) == []
    assert not any("less train" in remark for remark in bound_remarks(summary_of([alone])))


def test_the_remark_says_how_an_exact_bound_was_measured() -> None:
    how, errors, _ = bound_remarks(summary_of([make_record(GRID, "eps-L-fixed")]))
    assert "every t of every image, 100 network calls an image; x_0 clipped; exact discretized decoder" in how
    images = make_record(GRID, "eps-L-fixed").bounds[0].images
    assert f"{images:,} test, {images:,} train" in how
    assert "at most 0.020 bits/dim" in errors and "95% interval reaches at most 0.039 to either side" in errors
    assert "estimate" not in how + errors


def test_the_remark_says_the_calls_of_chains_of_all_lengths() -> None:
    summary = summary_of([make_record(GRID, "eps-L-fixed"), make_record(GRID, "eps-mse-fixed")])
    first, *others = (row for row in summary.rows if row.done)
    short = replace(first, bounds=tuple(bound.model_copy(update={"evals": 25}) for bound in first.bounds))
    how = bound_remarks(replace(summary, rows=(short, *others)))[0]
    assert "every t of every image, 25 to 100 network calls an image" in how


def test_the_remark_says_how_an_estimate_was_made_and_how_good_it_is() -> None:
    estimate = {"method": "estimate", "evals": 10, "estimate_error": 0.0031, "terms": (), "mse": ()}
    record = with_bounds(make_record(GRID, "eps-L-fixed"), **estimate, clip_x0=False, decoder="paper")
    how, errors, _ = bound_remarks(summary_of([record]))
    assert "an unbiased estimate by 10 network calls an image" in how and "every t of" not in how
    assert "x_0 not clipped" in how and "tanh approximation" in how
    assert "of the estimate, against the exact bound of the same images: at most 0.0031" in errors


def test_the_section_splits_the_bound_into_rate_and_distortion() -> None:
    text = to_markdown(bounds_section(summary_of([make_record(GRID, "eps-L-fixed")])))
    row = next(line for line in text.splitlines() if "| test |" in line)
    assert [field.strip() for field in row.split("|")[3:-1]][1:] == [
        "4.400", "0.020", "4.361 to 4.439", "1.0e-05", "2.640", "1.760",
    ]  # fmt: skip


def test_cells_with_single_terms_have_a_code_and_only_the_papers_stands_beside_table_4() -> None:
    summary = summary_of([make_record(GRID, "eps-L-fixed"), make_record(GRID, "eps-mse-fixed")])
    assert [cell.name for cell in codes_of(summary)] == ["eps-L-fixed", "eps-mse-fixed"]
    parts = bounds_section(summary)
    one, papers = (to_markdown([part]) for part in parts if isinstance(part, Details))
    assert "67.60125" not in one and "67.60125" in papers and "published: rate 1.78, distortion 1.97" in papers
    assert "Not comparable with the published code" in to_markdown(parts)


def test_estimates_and_old_records_have_no_progressive_section() -> None:
    record = with_bounds(make_record(GRID, "eps-L-fixed"), mse=())
    text = to_markdown(bounds_section(summary_of([record])))
    assert "Rate and distortion" in text and "Progressive" not in text


def test_nothing_measured_says_nothing() -> None:
    records = [r.model_copy(update={"bounds": ()}) for r in quick_records()]
    assert bound_remarks(summary_of(records)) == [] and bounds_section(summary_of(records)) == []
