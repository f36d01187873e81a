"""The source's claims with their verdicts, and the comparisons behind them."""

from collections.abc import Sequence

from ddpm_bench.config.metrics import METRICS
from ddpm_bench.report.blocks import Block, Bold, Details, Entry, Heading, Paragraph, Symbols, Table
from ddpm_bench.report.claims import SEEDS, Examined, examine_claims
from ddpm_bench.report.summary import Summary

TITLE = "The source's claims"


def claims_section(summaries: Sequence[Summary]) -> list[Block]:
    """Every claim with its verdict, and its comparisons folded; nothing where the grid has no claims."""
    tested = examine_claims(summaries)
    if not tested:
        return []
    lines = tuple(
        ((Symbols(one.claim.text), f" ({one.claim.source})"), Bold(one.outcome), one.reason) for one in tested
    )
    apart = (
        "" if summaries[-1].comparable else " The verdicts hold for the conditions here, which are not the source's."
    )
    return [
        Heading(2, TITLE),
        Paragraph(f"Tested on the numbers measured here.{apart} {_rule(tested)}"),
        Table(TITLE, "lll", ("claim of the source", "on these numbers", "why"), lines),
        _folded(tested, summaries[0]),
    ]


def _rule(tested: Sequence[Examined]) -> str:
    bounds = any(METRICS[metric].is_bound for one in tested for metric in one.claim.metrics)
    return (
        f"A verdict takes {SEEDS} seeds in every cell. Supported: the 95% interval of every difference (Welch, over "
        "seeds) lies on the claimed side. Contradicted: one lies on the other side, in intervals that hold together "
        f"for all comparisons of the claim (Bonferroni). There are {len(tested)} claims; about cells without a "
        "difference each would get a verdict with a probability of at most 5%."
        + (" Bounds are over the same images in all cells; their intervals hold for these alone." if bounds else "")
    )


def _folded(tested: Sequence[Examined], summary: Summary) -> Details:
    title = f"The {sum(len(one.comparisons) for one in tested)} comparisons"
    heads = ("metric", "cells", "checkpoint", "difference", "95% interval", None)
    lines: list[tuple[Entry, ...]] = []
    for one in tested:
        lines.append((Bold(Symbols(one.claim.text)), *[None] * (len(heads) - 1)))
        lines += claim_rows(one, summary)
    return Details(title, (Table(title, "lllrrl", heads, tuple(lines)),))


def claim_rows(tested: Examined, summary: Summary) -> list[tuple[str, str, str, str, str, str]]:
    """The comparisons of a claim in words: metric, cells, checkpoint, difference, 95% interval, outcome."""
    rows = []
    for one in tested.comparisons:
        metric = METRICS[one.metric]
        heading = metric.heading(summary.first.extractor.labels)
        difference = "" if one.difference is None else metric.text(one.difference, sign=True)
        interval = metric.interval(one.interval) if one.interval else ""
        rows.append((heading, f"{one.first} − {one.second}", tested.checkpoint, difference, interval, one.outcome))
    return rows
