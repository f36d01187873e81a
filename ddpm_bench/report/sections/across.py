"""The other metrics along the axis that stands across the table, and how they run along it."""

from ddpm_bench.config.metrics import AGREEMENT, BOUNDS, SCORE
from ddpm_bench.report.across import lines_across
from ddpm_bench.report.blocks import Block, Figure, Heading, Results
from ddpm_bench.report.compact_table import across_table
from ddpm_bench.report.summary import Summary

TITLE = "Side by side"
FIGURES = ("across-distance", "trade-off", "across-agreement", "across-bound")
"""The names of the figures that draw them; the first stands beside the answer."""
KEYS = (SCORE, AGREEMENT, BOUNDS["test"])


def across_section(summary: Summary, curves: list[Figure]) -> list[Block]:
    """Nothing where the grid has no axis across."""
    lines = lines_across(summary)
    found = [key for key in KEYS if any(key in row.estimates for line in lines for row in line.rows)]
    if not found:
        return []
    return [Heading(2, TITLE), *(Results(across_table(summary, lines, key)) for key in found), *curves]
