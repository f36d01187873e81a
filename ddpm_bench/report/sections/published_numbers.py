"""Measured against published: for every number comparable or what differs, the differences, and the verdicts."""

from collections.abc import Sequence

from ddpm_bench.config.metrics import METRICS
from ddpm_bench.records.conditions import unstated
from ddpm_bench.report.blocks import Block, Bold, Details, Paragraph, Symbols, Table
from ddpm_bench.report.bounds import row_name
from ddpm_bench.report.published_verdicts import PublishedVerdict, in_words, verdicts
from ddpm_bench.report.summary import Summary
from ddpm_bench.report.table_remarks import condition_names

TITLE = "Against the published numbers"
DIFFERENCES = "Differences from the published conditions"
NOTE = (
    "A published number is that of one training run. Within: it lies in the 95% interval for one more run like those "
    "measured here, computed from the scatter of the seeds and the published ±, which is over splits of one sample set, "
    "not over runs."
)


def published_numbers_section(summary: Summary, which: str = "") -> list[Block]:
    """Nothing where the grid's rows have no published numbers. `which`: of several selections of checkpoints."""
    if not any(row.published.has_scores or row.published.has_likelihood for row in summary.grid.rows):
        return []
    blocks: list[Block] = [Paragraph(Bold(f"{TITLE}{which}")), _comparable(summary)]
    if any(summary.differences.values()):
        blocks.append(Details(DIFFERENCES, (_differences(summary),)))
    if found := verdicts(summary):
        blocks += [_verdicts(found, DIFFERENCES if any(summary.differences.values()) else TITLE), Paragraph(NOTE)]
    return blocks


def _comparable(summary: Summary) -> Table:
    """The numbers, those of the same conditions in one line."""
    numbers: dict[str, list[str]] = {}
    for key, found in summary.differences.items():
        differing, silent = condition_names(found), unstated(summary.grid, key)
        said = f"not comparable: {', '.join(differing)}" if differing else "comparable"
        said += f" (not stated by the source: {', '.join(silent)})" if silent else ""
        numbers.setdefault(said, []).append(METRICS[key].published_name)
    lines = tuple((", ".join(names), said) for said, names in numbers.items())
    return Table(TITLE, "ll", ("number", "conditions"), lines)


def _differences(summary: Summary) -> Table:
    """Every difference once, with the numbers that it concerns."""
    concerned: dict[tuple[str, str, str], list[str]] = {}
    for key, differences in summary.differences.items():
        for one in differences:
            concerned.setdefault((one.name, one.published, one.here), []).append(METRICS[key].published_name)
    lines = tuple(
        (*texts, "all" if len(names) == len(summary.differences) else ", ".join(names))
        for texts, names in concerned.items()
    )
    return Table(DIFFERENCES, "llll", ("condition", "published", "here", "concerns"), lines)


def _verdicts(found: Sequence[PublishedVerdict], caption: str) -> Table:
    lines = tuple(
        (
            Symbols(row_name(one.row)), METRICS[one.key].published_name, f"{one.measured:z.2f}", f"{one.published:.2f}",
            in_words(one),
        )
        for one in found
    )  # fmt: skip
    return Table(caption, "llrrl", ("cell", "number", "measured", "published", "verdict"), lines)
