"""Verdicts: only under the published conditions, only from several seeds, and right about which side is better."""

import math

import numpy as np
import pytest
from records import INCEPTION, make_record, quick_records
from scipy import stats

from ddpm_bench.config.grid import Grid
from ddpm_bench.config.published import Published
from ddpm_bench.config.shipped import load_grid
from ddpm_bench.records.record import Checkpoint, Record
from ddpm_bench.report.published_verdicts import (
    ROUNDING,
    PublishedVerdict,
    allowance,
    verdict_lines,
    verdicts,
)
from ddpm_bench.report.sections.published_numbers import published_numbers_section
from ddpm_bench.report.summary import Summary, summaries
from ddpm_bench.report.writers.markdown import to_markdown
from ddpm_bench.report.writers.numbers import to_frame

GRID = load_grid("table2")
LAST = GRID.model_copy(update={"conditions": GRID.conditions.model_copy(update={"checkpoint": "last"})})
BOUND = "bound_test_bits_per_dim"


def as_published(seed: int, cell: str = "eps-mse-fixed", **metrics: float) -> Record:
    """A record under the paper's conditions with these metrics; its bounds were measured like the paper's, too."""
    record = make_record(GRID, cell, seed, preset="paper", extractor=INCEPTION)
    images = {"test": 10_000, "train": 50_000}
    bounds = tuple(b.model_copy(update={"decoder": "paper", "images": images[b.split]}) for b in record.bounds)
    checkpoint = Checkpoint(step=800_000, metrics={**record.last.metrics, **metrics})
    return record.model_copy(update={"bounds": bounds, "checkpoints": (checkpoint,)})


def summary_of(*values: float, key: str = "fd_train", grid: Grid = LAST, **options) -> Summary:
    return summaries([as_published(seed, **{key: value}, **options) for seed, value in enumerate(values)], grid)[0]


def verdict(*values: float, key: str = "fd_train", **options) -> PublishedVerdict:
    return next(one for one in verdicts(summary_of(*values, key=key, **options)) if one.key == key)


@pytest.mark.parametrize(
    ("key", "values", "said"),
    [
        ("fd_train", (3.10, 3.20, 3.25), "within"),
        ("fd_train", (2.10, 2.12, 2.11), "better"),
        ("fd_train", (5.10, 5.12, 5.11), "worse"),
        ("is_mean", (9.40, 9.50, 9.45), "within"),
        ("is_mean", (11.40, 11.41, 11.42), "better"),
        ("is_mean", (7.40, 7.41, 7.42), "worse"),
        (BOUND, (3.748, 3.749, 3.752), "within"),
        (BOUND, (3.650, 3.651, 3.652), "better"),
        ("fd_test", (5.20, 5.30, 5.25), "within"),
    ],
)
def test_a_comparable_number_is_within_better_or_worse(key: str, values: tuple[float, ...], said: str) -> None:
    assert verdict(*values, key=key).said == said


def test_one_run_decides_nothing_however_far_it_is() -> None:
    one = verdict(90.0)
    assert (one.said, one.half) == ("one run", None)
    assert "none: one run" in to_markdown(published_numbers_section(summary_of(90.0)))


def test_the_published_spread_widens_what_a_score_may_differ_by() -> None:
    values = (9.40, 9.50, 9.45)
    t, s = stats.t.isf(0.025, 2), np.std(values, ddof=1)
    assert allowance(values, 0.0) == pytest.approx(t * s * math.sqrt(4 / 3) + ROUNDING)
    assert verdict(*values, key="is_mean").half == pytest.approx(t * math.sqrt(s**2 * 4 / 3 + 0.11**2) + ROUNDING)


def test_one_more_run_like_ours_is_within_in_nineteen_of_twenty_cases() -> None:
    rng, runs = np.random.default_rng(0), 2000
    draws = 100 * rng.normal(size=(runs, 4))  # so that the rounding is nothing
    missed = sum(abs(draw[:3].mean() - draw[3]) > allowance(draw[:3], 0.0) for draw in draws)
    assert missed / runs == pytest.approx(0.05, abs=0.015)


def test_a_number_under_other_conditions_gets_none() -> None:
    assert verdicts(summaries(quick_records(), GRID)[0]) == []
    assert {one.key for one in verdicts(summary_of(3.1, 3.2, grid=GRID))} == set()  # the last checkpoint, not the best


def test_a_number_that_the_source_left_blank_or_did_not_print_gets_none() -> None:
    assert verdicts(summary_of(3.1, 3.2, cell="mu-mse-fixed")) == []
    assert {one.key for one in verdicts(summary_of(3.1, 3.2, cell="mu-L-fixed"))} == {"is_mean", "fd_train"}


def test_the_section_says_comparable_or_what_differs_for_each_number() -> None:
    text = to_markdown(published_numbers_section(summary_of(3.1, 3.2)))
    assert "| IS, FID | comparable (not stated by the source: hash of the data, quantisation) |" in text
    assert "Differences from" not in text and "not over runs" in text
    other = to_markdown(published_numbers_section(summaries(quick_records(), GRID)[0]))
    assert "| IS, FID | not comparable: data, size, training steps" in other
    assert "| samples | 50,000 | 512 | IS, FID |" in other and "| data | cifar10 | fashion-mnist-10k | all |" in other
    assert (
        "| bound's decoder | paper | exact | NLL of test images, NLL of training images |" in other
        and "verdict" not in other
    )


def test_a_grid_without_published_numbers_has_no_section() -> None:
    cells = tuple(cell.model_copy(update={"published": Published()}) for cell in GRID.cells)
    assert published_numbers_section(summaries(quick_records(), GRID.model_copy(update={"cells": cells}))[0]) == []


def test_the_terminal_and_the_csv_have_the_verdicts() -> None:
    summary = summary_of(2.10, 2.12, 2.11)
    [line] = [line for line in verdict_lines(summary) if ", FID " in line]
    assert line.startswith(
        "ε prediction (the paper's): ‖ε − ε_θ‖² (L_simple), FID 2.11 against 3.17: better (-1.06, allowed ±"
    )
    frame = to_frame([summary]).set_index("cell")
    assert frame.loc["eps-mse-fixed", "verdict_fd_train"] == "better"
    assert not any(name.startswith("verdict") for name in to_frame(summaries(quick_records(), GRID)).columns)
