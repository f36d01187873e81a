"""The source's claims of order, tested on the numbers that were measured here.

A claim sets pairs of cells against each other in one or more metrics: k comparisons, each with the two p of an `Effect`,
one for the claimed order and one for the reverse. With fewer than SEEDS seeds in a cell nothing is decided. Otherwise the
claim has

    p of support         the largest p for the claimed order of the k: all must hold
    p of contradiction   k times the smallest p for the reverse (Bonferroni): one is enough

and the smaller of the two is the claim's. Holm's correction over the claims of a table makes it one of which any of them
is wrongly below 5% at most that often: then the claim is supported, or contradicted. Where a claim says that two cells are
alike, support is a difference that lies within the margin, and contradiction one that lies outside.

A run that diverged has no numbers. Where all seeds of one cell diverged and none of the other, the first is the worse one,
with p = 2 * 4^-seeds, which is the most that it has among equal cells.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from ddpm_bench.config.metrics import METRICS
from ddpm_bench.config.published import Claim
from ddpm_bench.report.effects import ALPHA, Effect, effect, holm, is_relative
from ddpm_bench.report.labels import plain
from ddpm_bench.report.summary import MeasuredCell, Summary
from ddpm_bench.report.table_remarks import selection_name

SEEDS = 3
"""Fewer seeds of a cell decide nothing."""
Outcome = Literal["supported", "contradicted", "undecided"]


@dataclass(frozen=True)
class Comparison:
    """One pair of cells in one metric, first - second. `p`: for the claimed order and for the reverse.

    effect: None where runs diverged. reason: why it says nothing, or what is said of runs that diverged.
    """

    metric: str
    first: str
    second: str
    p: tuple[float, float] | None
    effect: Effect | None = None
    reason: str = ""


@dataclass(frozen=True)
class Examined:
    """A claim with its comparisons. `p`: of support and of contradiction; `adjusted`: the smaller, after Holm.

    Both are None where one of the comparisons says nothing.
    """

    claim: Claim
    checkpoint: str
    comparisons: tuple[Comparison, ...]
    p: tuple[float, float] | None
    adjusted: float | None = None

    @property
    def holds(self) -> bool:
        """Do the numbers lie as claimed rather than the other way, decided or not?"""
        return self.p is not None and self.p[0] <= self.p[1]

    @property
    def outcome(self) -> Outcome:
        if self.adjusted is None or self.adjusted > ALPHA:
            return "undecided"
        return "supported" if self.holds else "contradicted"

    @property
    def deciding(self) -> Comparison:
        """The comparison on which the claim hangs: the one that says nothing, else the weakest for it, or the strongest
        against it."""
        if self.p is None:
            return next(one for one in self.comparisons if one.p is None)
        if self.holds:
            return max(self.comparisons, key=lambda one: (one.p or (1, 1))[0])
        return min(self.comparisons, key=lambda one: (one.p or (1, 1))[1])


def examine_claims(summaries: Sequence[Summary]) -> list[Examined]:
    """The grid's claims, each tested on one selection of checkpoints.

    Scores are of the best checkpoints where there are several, as the sources select; bounds are measured of the last.
    """
    found = []
    for claim in summaries[0].grid.claims:
        summary = summaries[0 if METRICS[claim.metrics[0]].is_bound else -1]
        rows = {row.cell.name: row for row in summary.rows}
        pairs = [(metric, rows[a], rows[b]) for metric in claim.metrics for a, b in claim.pairs]
        comparisons = tuple(_compared(claim, metric, a, b) for metric, a, b in pairs)
        found.append(Examined(claim, selection_name(summary), comparisons, _together(comparisons)))
    tested = [index for index, one in enumerate(found) if one.p]
    for index, adjusted in zip(tested, holm([min(found[index].p or ()) for index in tested]), strict=True):
        found[index] = replace(found[index], adjusted=adjusted)
    return found


def _together(comparisons: Sequence[Comparison]) -> tuple[float, float] | None:
    """The p of support and of contradiction of a claim."""
    p = [one.p for one in comparisons if one.p]
    if len(p) < len(comparisons):
        return None
    return max(of[0] for of in p), min(1.0, len(p) * min(of[1] for of in p))


def _compared(claim: Claim, metric: str, first: MeasuredCell, second: MeasuredCell) -> Comparison:
    names = metric, first.cell.name, second.cell.name
    seeds = [len(row.done) + len(row.diverged) for row in (first, second)]
    if min(seeds) < SEEDS:
        few = first if seeds[0] < SEEDS else second
        return Comparison(
            *names, None, reason=f"{few.cell.name} has {min(seeds)} of the {SEEDS} seeds that a verdict takes"
        )
    if first.diverged or second.diverged:
        p, reason = _by_divergence(claim, first, second)
        return Comparison(*names, p, reason=reason)
    a, b = first.values(metric), second.values(metric)
    if min(len(a), len(b)) < SEEDS:
        return Comparison(*names, None, reason=f"not measured for {SEEDS} seeds of both cells")
    found = effect(metric, a, b)
    if found is None:
        return Comparison(*names, None, reason="a value is not positive, so that no share of it can be taken")
    if claim.margin is not None:
        return Comparison(*names, _alike(found, metric, claim.margin, sum(b.values()) / len(b)), found)
    up, down = found.p_beyond(0.0, True), found.p_beyond(0.0, False)
    return Comparison(*names, (up, down) if METRICS[metric].direction == "up" else (down, up), found)


def _alike(found: Effect, metric: str, margin: float, second: float) -> tuple[float, float]:
    """The p of a difference within the margin, which takes both of its ends, and of one outside."""
    shares = (-margin, margin)
    low, high = map(math.log1p, shares) if is_relative(METRICS[metric]) else (share * abs(second) for share in shares)
    within = max(found.p_beyond(low, True), found.p_beyond(high, False))
    return within, min(found.p_beyond(high, True), found.p_beyond(low, False))


def _by_divergence(
    claim: Claim, first: MeasuredCell, second: MeasuredCell
) -> tuple[tuple[float, float] | None, str]:  # fmt: skip
    """What it says of a pair that runs diverged, whatever the metric."""
    for worse, better in ((second, first), (first, second)):
        if not worse.done and not better.diverged:
            p = min(1.0, 2 * 4.0 ** -min(len(worse.diverged), len(better.done)))
            said = f"every seed of {worse.cell.name} diverged and none of {better.cell.name}"
            return ((p, 1.0) if worse is second and not claim.alike else (1.0, p)), said
    some = [row for row in (first, second) if row.diverged]
    counts = ", ".join(f"{len(row.diverged)} of {len(row.done) + len(row.diverged)} of {row.cell.name}" for row in some)
    return None, f"seeds diverged ({counts}), so that means over the others would be a selection"


def direction(one: Examined) -> str:
    """Which way the numbers point, decided or not; nothing where a comparison says nothing."""
    if one.p is None:
        return ""
    agreeing, count = (
        sum(each.p is not None and each.p[0] <= each.p[1] for each in one.comparisons),
        len(one.comparisons),
    )
    return {count: "as claimed", 0: "the other way"}.get(agreeing, f"{agreeing} of {count} as claimed")


def claim_lines(summaries: Sequence[Summary]) -> list[str]:
    """The claims with their verdicts as lines of plain text."""
    return [f"{one.outcome}: {plain(one.claim.text)} ({one.claim.source})" for one in examine_claims(summaries)]
