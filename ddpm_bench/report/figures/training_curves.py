"""What happened along the training: the loss of every run, and the distance of the checkpoints that were scored."""

import math
from collections.abc import Mapping, Sequence
from itertools import cycle
from statistics import fmean, stdev

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter

from ddpm_bench.config.metrics import DISTANCE, METRICS
from ddpm_bench.records.record import Checkpoint
from ddpm_bench.report.figures.drawing import (
    BLUE,
    GREY,
    LINES,
    VERMILLION,
    cell_panels,
    group_panels,
    legend_below,
    measured_on,
    plain_log,
)
from ddpm_bench.report.labels import escape_mathtext, mathtext
from ddpm_bench.report.pictures import PictureFolder
from ddpm_bench.report.summary import MeasuredCell, Summary
from ddpm_bench.report.table_remarks import NOT_MEASURED


def draw_losses(figure: Figure, summaries: Sequence[Summary], _: PictureFolder) -> str:
    """A line a seed, a panel a cell with its own scale, since objectives differ in unit; a cross where it diverged."""
    summary = summaries[0]
    last = max((point.step for record in summary.records for point in record.training_log), default=1)
    for row, axes in cell_panels(figure, summary.rows, 1.45, below=0.2):
        _draw_loss(axes, row, last)
    figure.supxlabel("training step")
    return (
        "Training loss of every run, a line a seed; means over the steps of a tick. Every panel has its own scale, "
        f"since objectives have different units. A cross ends a run that diverged. Depends on: {measured_on(summary)}"
    )


def _draw_loss(axes: Axes, row: MeasuredCell, last: int) -> None:
    axes.set_ylabel(f"loss {mathtext(row.cell.objective)}", fontsize=7)
    for record in (*row.done, *row.diverged):
        points = [(point.step, point.loss) for point in record.training_log if math.isfinite(point.loss)]
        if not points:
            continue
        diverged = record.outcome == "diverged"
        steps, losses = zip(*points, strict=True)
        colour, dashes = (VERMILLION, "--") if diverged else (BLUE, "-")
        axes.plot(steps, losses, color=colour, linestyle=dashes, linewidth=1, alpha=0.8)
        if diverged:
            axes.plot(steps[-1], losses[-1], "x", color=VERMILLION, markersize=6, markeredgewidth=1.8)
    if axes.lines and all(value > 0 for line in axes.lines for value in line.get_ydata()):
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
    colour = VERMILLION if axes.lines else GREY
    under = {"facecolor": "white", "edgecolor": "none", "alpha": 0.8, "pad": 1}
    axes.text(0.98, 0.96, word, transform=axes.transAxes, ha="right", va="top", color=colour, fontsize=7, bbox=under)


def draw_distances(figure: Figure, summaries: Sequence[Summary], _: PictureFolder) -> str:
    """The distance to the training set against the training step, where runs were scored more than once."""
    summary = summaries[0]
    scored = {row.cell.name: found for row in summary.rows if (found := _by_step(row))}
    if not any(len(found) > 1 for found in scored.values()):
        return ""
    several = any(len(row.done) > 1 for row in summary.rows)
    heading = METRICS[DISTANCE].heading(summary.first.extractor.labels)
    for rows, axes in group_panels(figure, summary.rows, 2.3):
        for row, style in zip(rows, cycle(LINES), strict=False):
            if row.cell.name in scored:
                _draw_distance(axes, row, scored[row.cell.name], style, several)
        if axes.lines:
            axes.set_yscale("log")
            plain_log(axes.yaxis)
        axes.set_xlabel("training step")
        axes.set_ylabel(f"{escape_mathtext(heading)}, log scale")
        axes.label_outer()
        axes.xaxis.set_major_formatter(EngFormatter(sep=""))
        axes.grid(True)
        legend_below(axes)
    bands = "± sample standard deviation over seeds" if several else "95% interval by a bootstrap over the samples"
    return (
        f"{METRICS[DISTANCE].label} ({heading}) of the moving average after each training step that was scored, "
        f"{summary.first.settings.sampling.samples:,} samples each; lower is better. Bands: {bands}. "
        f"Depends on: {measured_on(summary)}"
    )


def _by_step(row: MeasuredCell) -> dict[int, list[Checkpoint]]:
    """The scored checkpoints of all seeds that finished, by step."""
    found: dict[int, list[Checkpoint]] = {}
    for record in row.done:
        for checkpoint in record.checkpoints:
            found.setdefault(checkpoint.step, []).append(checkpoint)
    return dict(sorted(found.items()))


def _draw_distance(
    axes: Axes, row: MeasuredCell, scored: Mapping[int, Sequence[Checkpoint]], style: tuple[str, object], several: bool
) -> None:
    colour, dashes = style
    means = [fmean(one.metrics[DISTANCE] for one in same) for same in scored.values()]
    axes.plot(
        list(scored), means, color=colour, linestyle=dashes, linewidth=1.3, marker="o", markersize=3,
        label=mathtext(row.cell.label),
    )  # fmt: skip
    bands = {step: band for step, same in scored.items() if (band := _band(same, several))}
    if bands:
        low, high = zip(*bands.values(), strict=True)
        axes.fill_between(list(bands), low, high, color=colour, alpha=0.18, linewidth=0)


def _band(same: Sequence[Checkpoint], several: bool) -> tuple[float, float] | None:
    """What lies around the mean at a step. A band within a run among bands over seeds would be taken for one."""
    values = [one.metrics[DISTANCE] for one in same]
    if len(values) > 1:
        return fmean(values) - stdev(values), fmean(values) + stdev(values)
    quantiles = same[0].quantiles.get(DISTANCE)
    return (quantiles[0], quantiles[-1]) if quantiles and not several else None
