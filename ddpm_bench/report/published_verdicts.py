"""Measured numbers against published ones: what may be compared, and how it comes out.

A verdict needs all conditions that the source states to be as published, and at least two seeds. The published number
p is that of one training run, and so one more draw of what n seeds scatter around: with their mean m and sample
standard deviation s, a run like ours falls with probability 95% into

    m +- ( t * sqrt( s^2 (1 + 1/n) + d^2 ) + r ),    t: Student's, 0.975, n - 1 degrees of freedom

where d is the published +- (of the IS: over splits of one sample set, not over runs, taken in full as a
further error of p), and r half of the last digit that is printed.
"""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from ddpm_bench.config.metrics import METRICS, PUBLISHED
from ddpm_bench.records.student import t_limit
from ddpm_bench.report.bounds import row_name
from ddpm_bench.report.labels import plain
from ddpm_bench.report.summary import MeasuredCell, Summary

ROUNDING = 0.005
"""Half of the last digit of published scores and bounds."""


@dataclass(frozen=True)
class PublishedVerdict:
    """A number under the published conditions. `half`: what it may differ by; None for one run, which decides none."""

    row: MeasuredCell
    key: str
    measured: float
    published: float
    half: float | None
    n: int

    @property
    def said(self) -> Literal["within", "better", "worse", "one run"]:
        if self.half is None:
            return "one run"
        if abs(self.measured - self.published) <= self.half:
            return "within"
        higher = self.measured > self.published
        return "better" if higher == (METRICS[self.key].direction == "up") else "worse"


def verdicts(summary: Summary) -> list[PublishedVerdict]:
    """One for each number that is measured and published under the same conditions, cell by cell."""
    found = []
    for row in summary.rows:
        for key in filter(summary.comparable_in, PUBLISHED):
            value, estimate = row.cell.published.of(key), row.estimates.get(key)
            if value is not None and estimate is not None:
                half = allowance(estimate.values, row.cell.published.error_of(key) or 0.0)
                found.append(PublishedVerdict(row, key, estimate.mean, value, half, estimate.n))
    return found


def allowance(values: Sequence[float], published_error: float) -> float | None:
    """What the mean of the seeds' values and a number published of one run may differ by; None for a single seed."""
    n = len(values)
    if n < 2:
        return None
    variance = statistics.variance(values) * (1 + 1 / n)
    return t_limit(0.025, n - 1) * (variance + published_error**2) ** 0.5 + ROUNDING


def in_words(verdict: PublishedVerdict) -> str:
    """The verdict with what it rests on."""
    if verdict.half is None:
        return "none: one run"
    difference = verdict.measured - verdict.published
    return f"{verdict.said} ({difference:+.2f}, allowed ± {verdict.half:.2f}, n = {verdict.n})"


def verdict_lines(summary: Summary) -> list[str]:
    """The verdicts as lines of plain text."""
    return [
        f"{plain(row_name(one.row))}, {METRICS[one.key].published_name} {one.measured:z.2f} against {one.published:.2f}: {in_words(one)}"
        for one in verdicts(summary)
    ]
