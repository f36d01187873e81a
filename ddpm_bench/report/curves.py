"""Training loss of every run: a line a seed, a panel a cell with its own scale, since objectives differ in unit."""

import math
from collections.abc import Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.ticker import EngFormatter

from ddpm_bench.report.drawing import BLUE, GREY, VERMILLION, drawn, plain_log
from ddpm_bench.report.labels import mathtext
from ddpm_bench.report.summary import Row
from ddpm_bench.report.words import NOT_MEASURED


def plot_losses(path: Path, rows: Sequence[Row]) -> None:
    """Draw the loss that the records logged, a mean over the steps of a tick. A run that diverged ends in a cross."""
    columns = min(3, len(rows))
    lines = math.ceil(len(rows) / columns)
    with drawn(path, 7.2, 0.4 + 2.0 * lines) as figure:
        panels = list(figure.subplots(lines, columns, squeeze=False, sharex=True).flat)
        for axes, row in zip(panels, rows, strict=False):
            _panel(axes, row)
        for axes in panels[len(rows) :]:
            axes.set_axis_off()
        figure.supxlabel("training step", fontsize=9)


def _panel(axes: Axes, row: Row) -> None:
    group = mathtext(row.cell.group) + "\n" if row.cell.group else ""
    axes.set_title(group + mathtext(row.cell.label), fontsize=8)
    axes.set_ylabel(f"loss {mathtext(row.cell.objective)}", fontsize=8)
    for record in (*row.done, *row.diverged):
        points = [(point.step, point.loss) for point in record.training_log if math.isfinite(point.loss)]
        if not points:
            continue
        diverged = record.outcome == "diverged"
        steps, losses = zip(*points, strict=True)
        axes.plot(
            steps,
            losses,
            color=VERMILLION if diverged else BLUE,
            linestyle="--" if diverged else "-",
            linewidth=1,
            alpha=0.8,
        )
        if diverged:
            axes.plot(steps[-1], losses[-1], "x", color=VERMILLION, markersize=6, markeredgewidth=1.8)
    if axes.lines and all(value > 0 for line in axes.lines for value in line.get_ydata()):
        axes.set_yscale("log")
        plain_log(axes.yaxis)
    axes.grid(bool(axes.lines))
    axes.tick_params(labelsize=8)
    axes.xaxis.set_major_formatter(EngFormatter(sep=""))
    word = ""
    if not axes.lines:
        axes.set_yticks([])
        word = NOT_MEASURED if row.status == "not measured" else "no loss logged"
    elif row.diverged:
        word = f"× diverged: {len(row.diverged)} of {len(row.done) + len(row.diverged)}"
    axes.text(
        0.96,
        0.93,
        word,
        transform=axes.transAxes,
        ha="right",
        va="top",
        color=VERMILLION if axes.lines else GREY,
        fontsize=8,
    )
