"""Distance against what training cost, over all folders of records of one grid: what more of it buys, cell by cell."""

import math
from collections.abc import Mapping, Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogFormatterSciNotation

from ddpm_bench.config.metrics import DISTANCE
from ddpm_bench.records.record import Record
from ddpm_bench.report.bounds import row_name
from ddpm_bench.report.figures.cell_styles import CellStyle, style_of
from ddpm_bench.report.figures.drawing import SMALL, WIDTH
from ddpm_bench.report.figures.scales import plain_log
from ddpm_bench.report.labels import escape_mathtext, mathtext
from ddpm_bench.report.side_by_side import how
from ddpm_bench.report.summary import Summary

Named = tuple[str, Summary]
"""A folder of records by its name."""


def draw_compute(figure: Figure, folders: Sequence[Named]) -> str:
    """A point for every scored checkpoint of every run, a panel for all that were scored alike; empty without any."""
    panels: dict[str, list[Named]] = {}
    for name, summary in folders:
        if any(record.checkpoints for record in _done(summary)):
            panels.setdefault(str(how(summary.first, DISTANCE)), []).append((name, summary))
    if not panels:
        return ""
    styles = {cell.name: style_of(cell, summary.grid) for _, summary in folders for cell in summary.grid.cells}
    figure.set_size_inches(WIDTH, 2.6 * len(panels) + 0.16 * len(styles))
    found = figure.subplots(len(panels), 1, squeeze=False)[:, 0]
    for axes, same in zip(found, panels.values(), strict=True):
        _draw_panel(axes, same, styles)
    handles = {label: line for axes in found for line, label in zip(*axes.get_legend_handles_labels(), strict=True)}
    figure.legend(handles.values(), handles.keys(), loc="outside lower center", frameon=False)
    return (
        "Distance of every run to the training images against parameters × training images seen, both on a log scale; "
        "lower is better. A line joins the scores of one run during training. Names of reports stand above their runs."
    )


def _draw_panel(axes: Axes, same: Sequence[Named], styles: Mapping[str, CellStyle]) -> None:
    for name, summary in same:
        farthest = 0
        for row in summary.rows:
            style = styles[row.cell.name]
            for record in row.done:
                compute = [record.parameters * one.step * record.settings.training.batch for one in record.checkpoints]
                distances = [one.metrics[DISTANCE] for one in record.checkpoints]
                axes.plot(
                    compute, distances, color=style.colour, marker=style.mark, markersize=style.size, linewidth=0.8, alpha=0.85,
                    label=mathtext(row_name(row)),
                )  # fmt: skip
                farthest = max(farthest, *compute)
        axes.text(
            farthest, 1.02, escape_mathtext(name), transform=axes.get_xaxis_transform(), ha="center", fontsize=SMALL
        )  # fmt: skip
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.margins(x=0.15)
    for axis in (axes.xaxis, axes.yaxis):
        plain_log(axis)
    axes.xaxis.set_major_formatter(LogFormatterSciNotation(minor_thresholds=(math.inf, math.inf)))
    first = same[0][1].first
    axes.set_xlabel("parameters × training images seen")
    axes.set_ylabel(escape_mathtext(f"{first.extractor.labels[0]}, log scale"))
    axes.grid(True)


def _done(summary: Summary) -> list[Record]:
    return [record for row in summary.rows for record in row.done]
