"""The source's claims with their verdicts, and the comparisons behind them."""

from collections.abc import Sequence

from ddpm_bench.config.metrics import METRICS
from ddpm_bench.report.blocks import Block, Bold, Details, Entry, Heading, Paragraph, Symbols, Table
from ddpm_bench.report.claims import SEEDS, Comparison, Examined, direction, examine_claims
from ddpm_bench.report.summary import Summary

TITLE = "The source's claims"


def claims_section(summaries: Sequence[Summary]) -> list[Block]:
    """Every claim with its verdict, and its comparisons folded; nothing where the grid has no claims."""
    tested = examine_claims(summaries)
    if not tested:
        return []
    apart = (
        "" if summaries[-1].comparable else " The verdicts hold for the conditions here, which are not the source's."
    )
    heads = ("claim", "verdict", "direction", "p", "the comparison that decides")
    return [
        Heading(2, TITLE),
        Paragraph(f"Tested on the numbers measured here.{apart} {_rule(tested)}"),
        Table(TITLE, "lllrl", heads, tuple(_line(one, summaries[0]) for one in tested)),
        _folded(tested, summaries[0]),
    ]


def _rule(tested: Sequence[Examined]) -> str:
    bounds = any(METRICS[metric].is_bound for one in tested for metric in one.claim.metrics)
    return (
        f"A verdict takes {SEEDS} seeds in every cell. {_method(tested)}A claim is supported where all of its "
        "comparisons show the claimed order, and contradicted where one shows the reverse, after Bonferroni's correction "
        "for their number. The p of the claims are corrected for the number of claims by Holm's method: where cells do "
        "not differ, the chance of any verdict in the table is at most 5%."
        + (" Bounds are over the same images in all cells; their intervals hold for these alone." if bounds else "")
    )


def _method(tested: Sequence[Examined]) -> str:
    """How the comparisons of these numbers were made: the words for each way that occurs."""
    effects = [comparison.effect for one in tested for comparison in one.comparisons if comparison.effect]
    ways = []
    if any(effect.pairs for effect in effects):
        ways.append(
            "Cells of one seed share initial weights, data order and noise, so they are compared seed by seed (a paired "
            "t-test)."
        )
    if any(not effect.pairs for effect in effects):
        ways.append(
            "Cells without common seeds are compared by Welch's t-test with Satterthwaite's degrees of freedom."
        )
    if any(effect.relative for effect in effects):
        ways.append("Scores and distances are compared as shares, on a log scale.")
    return "".join(f"{way} " for way in ways)


def _line(one: Examined, summary: Summary) -> tuple[Entry, ...]:
    p = "" if one.p is None or one.adjusted is None else p_text(one.adjusted)
    return (
        (Symbols(one.claim.text), f" ({one.claim.source})"), Bold(one.outcome), direction(one), p, _decided_by(one, summary),
    )  # fmt: skip


def _decided_by(one: Examined, summary: Summary) -> str:
    """The comparison on which the claim hangs, in words; for an open one with what so many seeds could have shown."""
    by, k = one.deciding, len(one.comparisons)
    which = f"{_heading(by, summary)}, {by.first} against {by.second}"
    if by.effect is None:
        return f"{which}: {by.reason}" if k > 1 and one.p else by.reason
    effect, metric = by.effect, METRICS[by.metric]
    said = f"{which}: {effect.text(metric, effect.estimate)} [{effect.interval_text(metric)}]"
    if one.outcome != "undecided":
        return said
    seeds = effect.pairs or min(effect.runs)
    return f"{said}; {seeds} seeds could show {effect.text(metric, effect.smallest).lstrip('+')} or more"


def _folded(tested: Sequence[Examined], summary: Summary) -> Details:
    count = sum(len(one.comparisons) for one in tested)
    title = f"The {count} comparisons" if count > 1 else "The comparison"
    heads = ("metric", "cells", "checkpoint", "difference", "95% interval", "p", "smallest that could be shown")
    lines: list[tuple[Entry, ...]] = []
    for one in tested:
        lines.append((Bold(Symbols(one.claim.text)), *[None] * (len(heads) - 1)))
        lines += claim_rows(one, summary)
    return Details(title, (Table(title, "lllrrrr", heads, tuple(lines)),))


def claim_rows(tested: Examined, summary: Summary) -> list[tuple[str, str, str, str, str, str, str]]:
    """The comparisons of a claim in words: metric, cells, checkpoint, difference, 95% interval, p, smallest difference."""
    rows: list[tuple[str, str, str, str, str, str, str]] = []
    for one in tested.comparisons:
        names = _heading(one, summary), f"{one.first} − {one.second}", tested.checkpoint
        if one.effect is None:
            rows.append((*names, one.reason, "", "", ""))
            continue
        effect, metric = one.effect, METRICS[one.metric]
        rows.append((
            *names, effect.text(metric, effect.estimate), effect.interval_text(metric), p_text(effect.p),
            effect.text(metric, effect.smallest).lstrip("+"),
        ))  # fmt: skip
    return rows


def p_text(p: float) -> str:
    """Two digits, and no more zeros than four."""
    return "< 0.0001" if p < 1e-4 else f"{p:.2g}" if p < 0.1 else f"{p:.2f}"


def _heading(one: Comparison, summary: Summary) -> str:
    return METRICS[one.metric].heading(summary.first.extractor.labels)
