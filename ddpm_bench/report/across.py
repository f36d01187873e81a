"""A grid laid out along one of its axes, such as the number of sampling steps: a line for every label, a column for every group."""

from dataclasses import dataclass
from typing import Any

from ddpm_bench.config.grid import STEPS, Cell
from ddpm_bench.records.conditions import flat_settings
from ddpm_bench.report.summary import MeasuredCell, Summary

CALLS = "network calls an image"
GUIDANCE = {"sampling.guidance": "scale s = 1 + w", "sampling.classifier_scale": "scale s of the classifier"}
"""The axes that are scales of guidance, and their names: along them samples become surer of their class and less varied."""


@dataclass(frozen=True)
class Across:
    """The cells of one label, group by group: those that the summary shows, and all of the grid, whose published numbers
    stand whatever was run here."""

    label: str
    rows: tuple[MeasuredCell, ...]
    cells: tuple[Cell, ...]

    def in_group(self, group: str) -> MeasuredCell | None:
        return next((row for row in self.rows if row.cell.group == group), None)


def lines_across(summary: Summary) -> list[Across]:
    """Nothing where the grid has no axis across."""
    if summary.grid.across is None:
        return []
    rows, cells = summary.rows, summary.grid.cells
    return [
        Across(label, tuple(r for r in rows if r.cell.label == label), tuple(c for c in cells if c.label == label))
        for label in dict.fromkeys(cell.label for cell in cells)
    ]


def axis_name(axis: str) -> str:
    """As a figure's axis is called. Where steps stand across, samplers are compared by what they cost."""
    return CALLS if axis == STEPS else printed_name(axis)


def printed_name(axis: str) -> str:
    """As the source's own numbers lie along it."""
    return GUIDANCE.get(axis) or axis.rpartition(".")[2].replace("_", " ")


def place(row: MeasuredCell, axis: str) -> Any:
    """Where a cell lies along the axis, as it was run: of sampling steps the network calls. None where it was not run."""
    record = next(iter((*row.done, *row.diverged)), None)
    if record is None:
        return None
    return record.network_calls if axis == STEPS else flat_settings(record)[axis]
