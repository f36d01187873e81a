"""Scores during training, where runs were scored at more steps than the last: of every cell, and what the claims are then."""

from collections.abc import Iterable, Mapping

from ddpm_bench.config.metrics import DISTANCE, SCORE
from ddpm_bench.report.blocks import Block, Bold, Entry, Figure, Heading, Paragraph, Symbols, Table
from ddpm_bench.report.bounds import row_name
from ddpm_bench.report.claims import direction, examine_claims
from ddpm_bench.report.results_table import BOUND_TEST, heading, number
from ddpm_bench.report.summary import MeasuredCell, Summary, at_step
from ddpm_bench.report.table_remarks import DASH, EMPTY

TITLE = "Scores during training"
CURVES = "distance-by-step"
"""The name of the figure that draws them."""
KEYS = (DISTANCE, SCORE, BOUND_TEST)


def training_section(summary: Summary, curves: Figure | None) -> list[Block]:
    """Nothing where every run was scored once."""
    steps = sorted({checkpoint.step for record in summary.records for checkpoint in record.checkpoints})
    if len(steps) < 2:
        return []
    at = {step: at_step(summary, step) for step in steps}
    tables = [block for key in KEYS for block in _table(key, at)]
    return [Heading(2, TITLE), *([curves] if curves else []), *tables, *_claims(at)]


def _table(key: str, at: Mapping[int, Summary]) -> list[Block]:
    """A line for every cell, a column for every step; nothing for a metric of one step alone."""
    if sum(any(key in row.estimates for row in summary.rows) for summary in at.values()) < 2:
        return []
    title = heading(key, next(iter(at.values())).first)
    lines: tuple[tuple[Entry, ...], ...] = tuple(
        (Symbols(row_name(rows[0])), *(_entry(key, row) for row in rows))
        for rows in zip(*(summary.rows for summary in at.values()), strict=True)
        if rows[0].status != "not measured"
    )
    return [Paragraph(Bold(title)), Table(title, "l" + "r" * len(at), _heads("Objective", at), lines)]


def _entry(key: str, row: MeasuredCell) -> str:
    if row.status == "diverged":
        return DASH
    return number(key, row.estimates[key]) if key in row.estimates else EMPTY


def _claims(at: Mapping[int, Summary]) -> list[Block]:
    """Which way the numbers point at every step, and whether they decide; of claims that were tested at several."""
    tested = zip(*(examine_claims([summary]) for summary in at.values()), strict=True)
    lines: tuple[tuple[Entry, ...], ...] = tuple(
        (Symbols(ones[0].claim.text), *(f"{direction(one)}, {one.outcome}" if one.p else EMPTY for one in ones))
        for ones in tested
        if sum(one.p is not None for one in ones) > 1
    )
    title = "The claims at each step"
    said = "p is corrected for the claims of one step, and not for the number of steps: a column is read by itself."
    return (
        [Paragraph(Bold(title)), Paragraph(said), Table(title, "l" * (1 + len(at)), _heads("claim", at), lines)]
        if lines
        else []
    )


def _heads(first: str, steps: Iterable[int]) -> tuple[Entry, ...]:
    return first, *(f"step {step:,}" for step in steps)
