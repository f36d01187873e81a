"""The loss of every run along its training."""

import math
from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter

from ddpm_bench.records.record import Record
from ddpm_bench.report.figures.cell_styles import CellStyle, style_of
from ddpm_bench.report.figures.drawing import GREY, SMALL, Said, cell_panels, measured_on, running_mean
from ddpm_bench.report.figures.in_words import cell_name, ends
from ddpm_bench.report.figures.scales import plain_log
from ddpm_bench.report.labels import mathtext
from ddpm_bench.report.pictures import PictureFolder, runs_of
from ddpm_bench.report.summary import MeasuredCell, Summary, trainings
from ddpm_bench.report.table_remarks import NOT_MEASURED

MANY, SHARE = 200, 100
"""Lines of more points than MANY are smoothed, by a running mean over a SHAREth of the points to either side."""
RUNS, BAND = 30, (0.025, 0.5, 0.975)
"""Of more runs than RUNS a panel shows these quantiles at every step, the outer two as a band."""


def draw_losses(figure: Figure, summaries: Sequence[Summary], _: PictureFolder) -> Said | None:
    """A line a seed, a panel a cell with its own scale, since objectives differ in unit; a cross where it diverged."""
    summary = summaries[0]
    last = max((point.step for record in summary.records for point in record.training_log), default=1)
    for row, axes in cell_panels(figure, trainings(summary.rows), 1.5, below=0.2, beside=0.5):
        _draw_loss(axes, row, style_of(row.cell, summary.grid), last)
    figure.supxlabel("training step")
    longest = max(len(record.training_log) for record in summary.records)
    smooth = f", of lines as running means over {2 * (longest // SHARE) + 1} ticks" if longest > MANY else ""
    many = any(len(runs_of(row)) > RUNS for row in summary.rows)
    band = f"; of more than {RUNS} seeds the median, in the band of 95% of them" if many else ""
    return Said(
        f"Training loss of every run, a line a seed{band}; means over the steps of a tick of the log"
        f"{smooth}. Every panel has its own scale, since objectives have different units. "
        f"{_shared(summary)}{_crosses(summary)}Depends on: {measured_on(summary)}",
        _seen(summary),
    )


def _shared(summary: Summary) -> str:
    return "Cells that share a training are drawn once. " if len(trainings(summary.rows)) < len(summary.rows) else ""


def _crosses(summary: Summary) -> str:
    return "A cross ends a run that diverged. " if any(row.diverged for row in summary.rows) else ""


def _seen(summary: Summary) -> str:
    rows = trainings(summary.rows)
    runs = [record for row in rows for record in runs_of(row)]
    diverged = sum(record.outcome == "diverged" for record in runs)
    falls = {}
    for row in rows:
        if found := [
            points[0][1] / points[-1][1] for record in row.done if (points := _finite(record)) and points[-1][1] > 0
        ]:
            falls[cell_name(row)] = sum(found) / len(found)
    said = (
        f"From the first tick of the log to the last the loss falls by a factor {ends(falls, '{:.1f}'.format)}; "
        if falls
        else ""
    )
    return f"{said}{diverged or 'none'} of {len(runs)} runs diverged."


def _finite(record: Record) -> list[tuple[int, float]]:
    return [(point.step, point.loss) for point in record.training_log if math.isfinite(point.loss)]


def _draw_line(axes: Axes, steps: Sequence[int], losses: Sequence[float], style: CellStyle) -> list[float]:
    """Returns what was drawn, here and below, for the scale."""
    if len(losses) > MANY:
        losses = running_mean(losses, [len(losses) // SHARE] * len(losses))
    axes.plot(steps, losses, color=style.colour, linewidth=1, alpha=0.8)
    return list(losses)


def _draw_band(axes: Axes, runs: Sequence[Sequence[tuple[int, float]]], style: CellStyle) -> list[float]:
    by_step: dict[int, list[float]] = {}
    for step, loss in (point for points in runs for point in points):
        by_step.setdefault(step, []).append(loss)
    steps = sorted(by_step)
    low, median, high = np.array([np.quantile(by_step[step], BAND) for step in steps]).T.tolist()
    axes.fill_between(steps, low, high, color=style.colour, alpha=0.3, linewidth=0)
    return low + _draw_line(axes, steps, median, style)


def _draw_loss(axes: Axes, row: MeasuredCell, style: CellStyle, last: int) -> None:
    axes.set_ylabel(f"loss {mathtext(row.cell.objective)}")
    runs = [(record, points) for record in runs_of(row) if (points := _finite(record))]
    drawn = _draw_band(axes, [points for _, points in runs], style) if len(runs) > RUNS else []
    for record, points in runs:
        steps, losses = zip(*points, strict=True)
        if len(runs) <= RUNS:
            drawn += _draw_line(axes, steps, losses, style)
        if record.outcome == "diverged":
            axes.plot(steps[-1], losses[-1], "x", color="black", markersize=6, markeredgewidth=1.8)
    if drawn and min(drawn) > 0:
        axes.set_yscale("log")
        plain_log(axes.yaxis)
    axes.grid(bool(axes.lines))
    axes.set_xlim(0, last * 1.04)
    axes.xaxis.set_major_formatter(EngFormatter(sep=""))
    word = ""
    if not axes.lines:
        axes.set_yticks([])
        word = NOT_MEASURED if row.status == "not measured" else "no loss logged"
    elif row.diverged:
        word = f"× diverged: {len(row.diverged)} of {len(row.done) + len(row.diverged)}"
    under = {"facecolor": "white", "edgecolor": "none", "alpha": 0.8, "pad": 1}
    axes.text(0.98, 0.96, word, transform=axes.transAxes, ha="right", va="top", color=GREY, fontsize=SMALL, bbox=under)
