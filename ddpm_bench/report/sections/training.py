"""What is said of the training: how often gradients were clipped, scores at every step, and from which on orders hold."""

from collections.abc import Mapping

from ddpm_bench.config.metrics import BOUNDS, DISTANCE, METRICS, SCORE
from ddpm_bench.report.blocks import Block, Bold, Entry, Figure, Heading, Paragraph, Symbols, Table, Words
from ddpm_bench.report.bounds import row_name
from ddpm_bench.report.claims_by_step import ClaimAtStep, claims_by_step, scored_steps
from ddpm_bench.report.clipping import clipped_share
from ddpm_bench.report.pictures import runs_of
from ddpm_bench.report.results_table import number
from ddpm_bench.report.summary import MeasuredCell, Summary, at_step, trainings
from ddpm_bench.report.table_remarks import DASH, EMPTY

TITLE = "Training"
CURVES = "scores-by-step"
"""The name of the figure that draws the scores."""
KEYS = (DISTANCE, SCORE, BOUNDS["test"])


def training_section(summary: Summary, curves: Figure | None) -> list[Block]:
    """Nothing where no run logged its gradients or was scored more than once."""
    blocks = [*_clipping(summary), *_scores(summary, curves), *_orders(summary)]
    return [Heading(2, TITLE), *blocks] if blocks else []


def _clipping(summary: Summary) -> list[Block]:
    shares = [(row, share) for row in trainings(summary.rows) if (share := clipped_share(runs_of(row))) is not None]
    if not shares:
        return []
    trained = [record.settings.training for record in summary.records]
    limit = " or ".join(f"{clip:g}" for clip in sorted({each.clip for each in trained if each.clip is not None}))
    title = "Share of clipped steps"
    return [
        Paragraph(
            f"Gradients are clipped to a norm of {limit}. A cell that is nearly always clipped takes steps of one "
            "size, whatever the scale of its loss. Below, the share of the logged norms that lie above the limit, each "
            f"a mean over {trained[0].log_every:,} steps, of all runs of a cell."
        ),
        Table(
            title,
            "lr",
            ("cell", title.lower()),
            tuple((Symbols(row_name(row)), f"{share:.0%}") for row, share in shares),
        ),
    ]


def _scores(summary: Summary, curves: Figure | None) -> list[Block]:
    """Of every cell at every step that was scored, where there are several."""
    if len(steps := scored_steps(summary)) < 2:
        return []
    at = {step: at_step(summary, step) for step in steps}
    tables = [block for key in KEYS for block in _table(key, at)]
    return [Heading(3, "Scores during training"), *([curves] if curves else []), *tables]


def _table(key: str, at: Mapping[int, Summary]) -> list[Block]:
    """A line for every cell, a column for every step; nothing for a metric of one step alone."""
    if sum(any(key in row.estimates for row in summary.rows) for summary in at.values()) < 2:
        return []
    title = METRICS[key].column(next(iter(at.values())).first.extractor.labels)
    lines: tuple[tuple[Entry, ...], ...] = tuple(
        (Symbols(row_name(rows[0])), *(_number(key, row) for row in rows))
        for rows in zip(*(summary.rows for summary in at.values()), strict=True)
        if rows[0].status != "not measured"
    )
    heads: tuple[Entry, ...] = ("cell", *(f"step {step:,}" for step in at))
    return [Paragraph(Bold(title)), Table(title, "l" + "r" * len(at), heads, lines)]


def _number(key: str, row: MeasuredCell) -> str:
    if row.status == "diverged":
        return DASH
    return number(key, row.estimates[key]) if key in row.estimates else EMPTY


def _orders(summary: Summary) -> list[Block]:
    found = claims_by_step(summary)
    if not found:
        return []
    steps = sorted({step for _, by_step in found for step in by_step})
    title = "The claimed orders by training step"
    heads: tuple[Entry, ...] = ("claim of the source", *(f"step {step:,}" for step in steps))
    lines = tuple((Symbols(claim.text), *(_entry(by_step.get(step)) for step in steps)) for claim, by_step in found)
    return [
        Heading(3, title),
        Paragraph(
            "How many of the comparisons of each claim about samples lie as claimed, by the means over the seeds, at each "
            "step that was scored; and the verdict where there is one. Verdicts are those of the claims' table, with the "
            "checkpoints of this step; several steps make several tests, for which nothing is corrected."
        ),
        Table(title, "l" * len(heads), heads, lines),
    ]


def _entry(one: ClaimAtStep | None) -> Words:
    if one is None or not one.compared:
        return EMPTY
    counts = f"{one.agreeing} of {one.compared}"
    return counts if one.outcome == "undecided" else (f"{counts}, ", Bold(one.outcome))
