"""The source's claims of order, tested on the numbers that were measured here.

A claim sets pairs of cells against each other in one or more metrics: k comparisons. Each compares the means of n and
m seeds by Welch's t, without assuming that the cells scatter alike, and gives an interval of the difference:

    (mean_a - mean_b) +- t * sqrt(s_a^2 / n + s_b^2 / m),     min(n, m) - 1 degrees of freedom.

So few degrees of freedom keep the level whatever the two variances; those after Satterthwaite miss it with this few
seeds (by simulation up to 6.5% in place of 5%, and threefold in the tails that many comparisons need).

Only the scatter over training runs enters, never an error within one run; seeds that share their noise between cells
make the interval too wide rather than too narrow. With fewer than SEEDS seeds in a cell nothing is decided. Otherwise

    supported      every one of the k 95% intervals excludes zero on the claimed side: all must hold, so that k tests
                   together are wrong less often than one
    contradicted   one of k intervals that hold together with 95% (Bonferroni: each with 1 - 0.05 / k) excludes zero
                   on the other side

so that cells that are equal get either verdict with probability of at most 5%, a claim. Where a claim says that two
cells are alike, supported means that every 95% interval lies within the margin, contradicted that one of the k
intervals lies outside.

A run that diverged has no numbers. Where all seeds of one cell diverged and none of the other, the first is the worse
one, if that is unlikely among equal cells: at most 2 * 4^-seeds for each of the pairs, together at most 5%.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy import stats

from ddpm_bench.config.metrics import METRICS
from ddpm_bench.config.published import Claim
from ddpm_bench.report.labels import plain
from ddpm_bench.report.summary import MeasuredCell, Summary
from ddpm_bench.report.table_remarks import selection_name

ALPHA = 0.05
"""Probability that a claim about equal cells gets a verdict."""
SEEDS = 3
"""Fewer seeds of a cell decide nothing."""
Outcome = Literal["supported", "contradicted", "undecided"]


@dataclass(frozen=True)
class Comparison:
    """One pair of cells in one metric, first - second. `interval`: 95%, None where too few seeds have numbers."""

    metric: str
    first: str
    second: str
    difference: float | None
    interval: tuple[float, float] | None
    outcome: Outcome
    reason: str


@dataclass(frozen=True)
class Examined:
    """A claim with its comparisons and what they come to."""

    claim: Claim
    checkpoint: str
    comparisons: tuple[Comparison, ...]

    @property
    def outcome(self) -> Outcome:
        outcomes = {comparison.outcome for comparison in self.comparisons}
        if "contradicted" in outcomes:
            return "contradicted"
        return "supported" if outcomes == {"supported"} else "undecided"

    @property
    def reason(self) -> str:
        """Why it came out so: the comparisons that decide, or those that are open."""
        found: dict[str, list[Comparison]] = {}
        for one in self.comparisons:
            if one.outcome == self.outcome:
                found.setdefault(one.reason, []).append(one)
        k = len(self.comparisons)
        return "; ".join(_which(ones, k) + reason for reason, ones in found.items())


def _which(ones: Sequence[Comparison], k: int) -> str:
    if len(ones) == k:
        return f"all {k} comparisons: " if k > 1 else ""
    named = ", ".join(f"{METRICS[one.metric].label}: {one.first} − {one.second}" for one in ones[:2])
    return f"{len(ones)} of {k} comparisons ({named}{', …' if len(ones) > 2 else ''}): "


def examine_claims(summaries: Sequence[Summary]) -> list[Examined]:
    """The grid's claims, each tested on one selection of checkpoints.

    Scores are of the best checkpoints where there are several, as the sources select; bounds are measured of the last.
    """
    found = []
    for claim in summaries[0].grid.claims:
        summary = summaries[0 if METRICS[claim.metrics[0]].is_bound else -1]
        rows = {row.cell.name: row for row in summary.rows}
        pairs = [(metric, rows[a], rows[b]) for metric in claim.metrics for a, b in claim.pairs]
        comparisons = (_compared(claim, metric, a, b, len(pairs)) for metric, a, b in pairs)
        found.append(Examined(claim, selection_name(summary), tuple(comparisons)))
    return found


def _compared(claim: Claim, metric: str, first: MeasuredCell, second: MeasuredCell, k: int) -> Comparison:
    names = metric, first.cell.name, second.cell.name
    seeds = [len(row.done) + len(row.diverged) for row in (first, second)]
    if min(seeds) < SEEDS:
        few = first if seeds[0] < SEEDS else second
        return Comparison(
            *names, None, None, "undecided", f"{few.cell.name} has {min(seeds)} of the {SEEDS} seeds that it takes"
        )
    if first.diverged or second.diverged:
        return Comparison(*names, None, None, *_by_divergence(claim, first, second))
    values = [row.estimates[metric].values if metric in row.estimates else () for row in (first, second)]
    if min(map(len, values)) < SEEDS:
        return Comparison(*names, None, None, "undecided", f"not measured for {SEEDS} seeds of both cells")
    up = METRICS[metric].direction == "up"
    plainly, together = (difference_interval(*values, alpha) for alpha in (ALPHA, ALPHA / k))
    difference = float(np.mean(values[0]) - np.mean(values[1]))
    if claim.margin is not None:
        outcome, reason = _alike(plainly, together, claim.margin * abs(float(np.mean(values[1]))))
    else:
        outcome, reason = _ordered(plainly, together, up)
    return Comparison(*names, difference, plainly, outcome, reason)


def _ordered(plainly: tuple[float, float], together: tuple[float, float], up: bool) -> tuple[Outcome, str]:
    """Is the difference on the claimed side?"""
    claimed, other = (plainly[0], -together[1]) if up else (-plainly[1], together[0])
    if claimed > 0:
        return "supported", "the interval lies on the claimed side"
    if other > 0:
        return "contradicted", "the interval lies on the other side"
    against = plainly[1] < 0 if up else plainly[0] > 0
    if against:
        return "undecided", "the interval lies on the other side, but not for all comparisons together"
    return "undecided", "the interval holds zero"


def _alike(plainly: tuple[float, float], together: tuple[float, float], margin: float) -> tuple[Outcome, str]:
    """Is the difference within the margin?"""
    if -margin < plainly[0] and plainly[1] < margin:
        return "supported", "the interval lies within the margin"
    if together[0] > margin or together[1] < -margin:
        return "contradicted", "the interval lies outside the margin"
    return "undecided", "the interval reaches over the margin"


def _by_divergence(claim: Claim, first: MeasuredCell, second: MeasuredCell) -> tuple[Outcome, str]:
    """What it says of a pair that runs diverged, whatever the metric."""
    for worse, better, outcome in ((second, first, "supported"), (first, second, "contradicted")):
        if not worse.done and not better.diverged:
            seeds = min(len(worse.diverged), len(better.done))
            said = f"every seed of {worse.cell.name} diverged and none of {better.cell.name}"
            if 2 * len(claim.pairs) * 4.0**-seeds > ALPHA:
                return "undecided", f"{said}, which takes more than {seeds} seeds to be no accident"
            return ("contradicted" if claim.alike else outcome), said
    some = [row for row in (first, second) if row.diverged]
    counts = ", ".join(f"{len(row.diverged)} of {len(row.done) + len(row.diverged)} of {row.cell.name}" for row in some)
    return "undecided", f"seeds diverged ({counts}), so that means over the others would be a selection"


def difference_interval(first: Sequence[float], second: Sequence[float], alpha: float = ALPHA) -> tuple[float, float]:
    """Welch's interval of mean(first) - mean(second) with confidence 1 - alpha; two or more values each."""
    a, b = np.asarray(first, float), np.asarray(second, float)
    u, v = a.var(ddof=1) / len(a), b.var(ddof=1) / len(b)
    difference = float(a.mean() - b.mean())
    half = float(stats.t.isf(alpha / 2, min(len(a), len(b)) - 1)) * math.sqrt(u + v)
    return difference - half, difference + half


def claim_lines(summaries: Sequence[Summary]) -> list[str]:
    """The claims with their verdicts as lines of plain text."""
    return [f"{one.outcome}: {plain(one.claim.text)} ({one.claim.source})" for one in examine_claims(summaries)]
