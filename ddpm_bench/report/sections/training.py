"""What is said of the training: how often gradients were clipped, and from which step on the claimed orders hold."""

from ddpm_bench.report.blocks import Block, Bold, Entry, Heading, Paragraph, Symbols, Table, Words
from ddpm_bench.report.bounds import row_name
from ddpm_bench.report.claims_by_step import ClaimAtStep, claims_by_step
from ddpm_bench.report.clipping import clipped_share
from ddpm_bench.report.pictures import runs_of
from ddpm_bench.report.summary import Summary
from ddpm_bench.report.table_remarks import EMPTY

TITLE = "Training"


def training_section(summary: Summary) -> list[Block]:
    """Nothing where no run logged its gradients."""
    shares = [(row, share) for row in summary.rows if (share := clipped_share(runs_of(row))) is not None]
    if not shares:
        return []
    training = summary.first.settings.training
    title = "Share of clipped steps"
    return [
        Heading(2, TITLE),
        Paragraph(
            f"Gradients are clipped to a norm of {training.clip:g}. A cell that is nearly always clipped takes steps of one "
            "size, whatever the scale of its loss. Below, the share of the logged norms that lie above the limit, each "
            f"a mean over {training.log_every:,} steps, of all runs of a cell."
        ),
        Table(
            title,
            "lr",
            ("cell", title.lower()),
            tuple((Symbols(row_name(row)), f"{share:.0%}") for row, share in shares),
        ),
        *_orders(summary),
    ]


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
