"""The claims of order at every training step that was scored: from which step on does an order hold?"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from statistics import fmean

from ddpm_bench.config.metrics import METRICS
from ddpm_bench.config.published import Claim
from ddpm_bench.records.record import Checkpoint, Record
from ddpm_bench.report.claims import Outcome, examine_claims
from ddpm_bench.report.summary import MeasuredCell, Summary


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
        then = at_step(summary, step)
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


def at_step(summary: Summary, step: int) -> Summary:
    """The summary with the checkpoints of one step as those selected."""
    return replace(summary, rows=tuple(_row_at(row, step) for row in summary.rows))


def _row_at(row: MeasuredCell, step: int) -> MeasuredCell:
    scored = {
        record.seed: _with_bounds(one, record) for record in row.done for one in record.checkpoints if one.step == step
    }
    return replace(row, checkpoints=scored)


def _with_bounds(checkpoint: Checkpoint, record: Record) -> Checkpoint:
    bounds = {key: value for key, value in record.final.metrics.items() if key in METRICS and METRICS[key].is_bound}
    return checkpoint.model_copy(update={"metrics": bounds | checkpoint.metrics})


def _agrees(claim: Claim, key: str, first: Mapping[int, float], second: Mapping[int, float]) -> bool:
    a, b = fmean(first.values()), fmean(second.values())
    if claim.margin is not None:
        return abs(a - b) <= claim.margin * abs(b)
    return a > b if METRICS[key].direction == "up" else a < b
