"""Measured numbers against published ones: what may be compared, and how it comes out.

A verdict needs all conditions that the source states to be as published, and at least two seeds. The published number
p is that of one training run, and so one more draw of what n seeds scatter around: with their mean m and sample
standard deviation s, a run like ours falls with probability 95% into

    m +- ( t * sqrt( s^2 (1 + 1/n) + d^2 ) + r ),    t: Student's, 0.975, n - 1 degrees of freedom

where d is the published +- (of the IS: a spread over splits of one sample set, not over runs, taken in full as a
further error of p), and r half of the last digit that is printed.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from scipy import stats

from ddpm_bench.config.metrics import METRICS
from ddpm_bench.config.published import PUBLISHED_KEYS
from ddpm_bench.report.bounds import row_name
from ddpm_bench.report.conditions import unstated
from ddpm_bench.report.labels import escape_markdown, markdown, plain
from ddpm_bench.report.summary import Row, Summary
from ddpm_bench.report.words import condition_names

ROUNDING = 0.005
"""Half of the last digit of published scores and bounds."""
NAMES = {
    "is_mean": "IS", "fd_train": "FID", "fd_test": "FID to the test set",
    "bound_test_bits_per_dim": "NLL of test images", "bound_train_bits_per_dim": "NLL of training images",
}  # fmt: skip
"""What sources call the metrics that have published numbers."""


@dataclass(frozen=True)
class Verdict:
    """A number under the published conditions. `half`: what it may differ by; None for one run, which decides none."""

    row: Row
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


def verdicts(summary: Summary) -> list[Verdict]:
    """One for each number that is measured and published under the same conditions, cell by cell."""
    found = []
    for row in summary.rows:
        for key in filter(summary.comparable_in, PUBLISHED_KEYS):
            value, estimate = row.cell.published.of(key), row.estimates.get(key)
            if value is not None and estimate is not None:
                spread = row.cell.published.is_std if key == "is_mean" else None
                half = allowance(estimate.values, spread or 0.0)
                found.append(Verdict(row, key, estimate.mean, value, half, estimate.n))
    return found


def allowance(values: Sequence[float], published_spread: float) -> float | None:
    """What the mean of the seeds' values and a number published of one run may differ by; None for a single seed."""
    n = len(values)
    if n < 2:
        return None
    variance = float(stats.tvar(values)) * (1 + 1 / n)
    return float(stats.t.isf(0.025, n - 1)) * (variance + published_spread**2) ** 0.5 + ROUNDING


def against_section(summary: Summary) -> list[str]:
    """Markdown: for every number comparable or what differs, the differences, and the verdicts."""
    keys = list(summary.differences)
    if not any(row.published.has_scores or row.published.has_nll for row in summary.grid.rows):
        return []
    parts = ["**Against the published numbers**", _comparable(summary, keys)]
    if any(summary.differences.values()):
        parts += ["Differences from the published conditions:", _differences(summary, keys)]
    if found := verdicts(summary):
        parts += [_verdicts(found), NOTE]
    return parts


NOTE = (
    "A published number is that of one training run. Within: it lies in the 95% interval for one more run like ours, "
    "from the scatter of our seeds and the published ±; that ± is over splits of one sample set, not over runs."
)


def _comparable(summary: Summary, keys: Sequence[str]) -> str:
    """The numbers, those of the same conditions in one line."""
    numbers: dict[str, list[str]] = {}
    for key in keys:
        differing = condition_names(summary.differences[key])
        said = f"not comparable: {', '.join(differing)}" if differing else "comparable"
        silent = unstated(summary.grid, key)
        said += f" (not stated by the source: {', '.join(silent)})" if silent else ""
        numbers.setdefault(said, []).append(NAMES[key])
    lines = [f"| {', '.join(names)} | {escape_markdown(said)} |" for said, names in numbers.items()]
    return "\n".join(["| number | conditions |", "| --- | --- |", *lines])


def _differences(summary: Summary, keys: Sequence[str]) -> str:
    """Every difference once, with the numbers that it concerns."""
    concerned: dict[tuple[str, str, str], list[str]] = {}
    for key in keys:
        for found in summary.differences[key]:
            concerned.setdefault((found.name, found.published, found.here), []).append(NAMES[key])
    lines = ["| condition | published | here | concerns |", "| --- | --- | --- | --- |"]
    for texts, names in concerned.items():
        whom = "all" if len(names) == len(keys) else ", ".join(names)
        lines.append(f"| {' | '.join(map(escape_markdown, texts))} | {whom} |")
    return "\n".join(lines)


def _verdicts(found: Sequence[Verdict]) -> str:
    lines = ["| Objective | number | measured | published | verdict |", "| --- | --- | ---: | ---: | --- |"]
    for one in found:
        numbers = f"{one.measured:.2f} | {one.published:.2f}"
        lines.append(f"| {markdown(row_name(one.row))} | {NAMES[one.key]} | {numbers} | {in_words(one)} |")
    return "\n".join(lines)


def in_words(verdict: Verdict) -> str:
    """The verdict with what it rests on."""
    if verdict.half is None:
        return "none: one run"
    difference = verdict.measured - verdict.published
    return f"{verdict.said} ({difference:+.2f}, allowed ± {verdict.half:.2f}, n = {verdict.n})"


def verdict_lines(summary: Summary) -> list[str]:
    """The verdicts as lines of plain text."""
    return [
        f"{plain(row_name(one.row))}, {NAMES[one.key]} {one.measured:.2f} against {one.published:.2f}: {in_words(one)}"
        for one in verdicts(summary)
    ]
