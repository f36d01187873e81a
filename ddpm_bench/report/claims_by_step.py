"""The claims of order at every training step that was scored: from which step on does an order hold?"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from statistics import fmean

from ddpm_bench.config.metrics import METRICS
from ddpm_bench.config.published import Claim
from ddpm_bench.records.record import Checkpoint, Record
from ddpm_bench.report.claims import Outcome, examine_claims
from ddpm_bench.report.summary import Summary, at_step


@dataclass(frozen=True)
class ClaimAtStep:
    """`agreeing` of the `compared` pairs of means lie as claimed; `outcome` is that of the tests over the seeds."""

    agreeing: int
    compared: int
    outcome: Outcome


def claims_by_step(summary: Summary) -> list[tuple[Claim, Mapping[int, ClaimAtStep]]]:
    """The claims about samples, each by step; nothing where no run was scored at two steps.

    At each step all of the grid's claims are tested together, those about bounds, which only the last checkpoint has, on
    these: so the last step has the verdicts of the last checkpoints.
    """
    steps = scored_steps(summary)
    if len(steps) < 2:
        return []
    found: dict[Claim, dict[int, ClaimAtStep]] = {}
    for step in steps:
        then = with_last_bounds(summary, step)
        rows = {row.cell.name: row for row in then.rows}
        for one in examine_claims([then]):
            if any(METRICS[key].is_bound for key in one.claim.metrics):
                continue
            agree = [
                _agrees(one.claim, key, rows[first].values(key), rows[second].values(key))
                for key in one.claim.metrics
                for first, second in one.claim.pairs
                if rows[first].values(key) and rows[second].values(key)
            ]
            found.setdefault(one.claim, {})[step] = ClaimAtStep(sum(agree), len(agree), one.outcome)
    return list(found.items())


def scored_steps(summary: Summary) -> list[int]:
    """The steps at which any run that finished was scored."""
    return sorted({one.step for row in summary.rows for record in row.done for one in record.checkpoints})


def with_last_bounds(summary: Summary, step: int) -> Summary:
    """The summary at a step, the bounds of the last checkpoints beside its scores."""
    then = at_step(summary, step)
    rows = (
        replace(row, checkpoints={r.seed: _with_bounds(row.checkpoints[r.seed], r) for r in row.done if r.seed in row.checkpoints})
        for row in then.rows
    )  # fmt: skip
    return replace(then, rows=tuple(rows))


def _with_bounds(checkpoint: Checkpoint, record: Record) -> Checkpoint:
    bounds = {key: value for key, value in record.final.metrics.items() if key in METRICS and METRICS[key].is_bound}
    return checkpoint.model_copy(update={"metrics": bounds | checkpoint.metrics})


def _agrees(claim: Claim, key: str, first: Mapping[int, float], second: Mapping[int, float]) -> bool:
    a, b = fmean(first.values()), fmean(second.values())
    if claim.margin is not None:
        return abs(a - b) <= claim.margin * abs(b)
    return a > b if METRICS[key].direction == "up" else a < b
