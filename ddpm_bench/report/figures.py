"""The plots: measured against published by row, and the training loss of every run.

A measured distance is drawn on the published axis only when everything it depends on is as published. Otherwise the two stand in
panels of their own, side by side with the same order of rows, so that orders can be compared and lengths cannot.
Colours are from Okabe and Ito's colour-blind safe palette; marks differ in shape as well.
"""

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import matplotlib.style
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ddpm_bench.files import replacing
from ddpm_bench.grid import Published
from ddpm_bench.report import labels
from ddpm_bench.report.summary import Estimate, Row, Summary
from ddpm_bench.report.table import NOT_MEASURED, selection_name
from ddpm_bench.store import Record

MEASURED, PUBLISHED, BEST, GREY = "#0072B2", "#D55E00", "#009E73", "#6E6E6E"
STYLE = {
    "font.size": 9, "axes.titlesize": 9, "axes.labelsize": 9, "legend.fontsize": 8, "xtick.labelsize": 8, "ytick.labelsize": 8,
    "axes.spines.top": False, "axes.spines.right": False, "axes.axisbelow": True, "grid.color": "#E3E3E3", "grid.linewidth": 0.8,
    "savefig.dpi": 200, "figure.dpi": 200,
}  # fmt: skip
LOG_FROM = 12
"""An axis whose values span more than this factor is logarithmic."""


@contextmanager
def _figure(path: Path, width: float, height: float) -> Iterator[Figure]:
    """A figure in inches that is saved as PNG at the end: the same bytes for the same records, whatever the user's own style."""
    with matplotlib.style.context(["default", STYLE]):
        figure = Figure(figsize=(width, height), layout="constrained")
        yield figure
        with replacing(path) as temporary:
            figure.savefig(temporary, format="png", metadata={"Software": None})


def comparison(path: Path, summaries: Sequence[Summary], key: str) -> None:
    """Draw one metric, 'fd_train' or 'is_mean', of all rows against its published values."""
    summary = summaries[-1]  # the best checkpoint where there are several: what the source reports
    places, ticks, heads = _places(summary.rows)
    anchors = {name: values[key].mean for name, values in summary.anchors.items() if key in values}
    with _figure(path, 6.4, 1.25 + 0.27 * (len(places) + len(heads) + len(anchors))) as figure:
        if summary.comparable:
            published = measured = figure.subplots()
            published.set_title("Measured and published under the same conditions")
        else:
            published, measured = figure.subplots(1, 2, sharey=True, width_ratios=(1, 1.25))
            published.set_title(f"Published {_source_metric(key)}")
            measured.set_title(f"Measured {labels.escape_mathtext(_measured_metric(key, summary.first))}")
        _draw_published(published, summary.rows, places, key)
        for each in summaries:
            _draw_measured(measured, each, places, key, several=len(summaries) > 1)
        low = -max(places[-1] * -1, 0) - 1
        for offset, (name, value) in enumerate(anchors.items()):
            y = low - 0.6 - offset
            measured.plot(value, y, "|", color=GREY, markersize=9, markeredgewidth=2)
            ticks[y] = labels.escape_mathtext(name)
        if anchors:
            for axes in {published, measured}:
                axes.axhline(low, color="#BBBBBB", linewidth=0.8)
        _dress(published, measured, ticks, heads, key, summary)
        figure.legend(*_legend(published, measured), loc="outside lower center", ncols=3, frameon=False, handletextpad=0.4)


def _places(rows: Sequence[Row]) -> tuple[list[float], dict[float, str], dict[float, str]]:
    """The height of every row from the top down, their labels, and the groups' headings by height."""
    places, ticks, heads = [], {}, {}
    y, group = 0.0, ""
    for row in rows:
        if row.cell.group != group:
            group = row.cell.group
            y -= 1
            heads[y] = labels.mathtext(group)
        y -= 1
        places.append(y)
        ticks[y] = labels.mathtext(row.cell.label)
    return places, ticks, heads


def _draw_published(axes: Axes, rows: Sequence[Row], places: Sequence[float], key: str) -> None:
    drawn = False
    for row, y in zip(rows, places, strict=True):
        value, error = _published(row.cell.published, key)
        if value is None:
            _say(axes, y, "– (blank)" if row.cell.published.blank else "", left=True)
            continue
        label = "published" + (" (± over IS splits of one run)" if error else "")
        axes.errorbar(
            value, y + 0.12, xerr=error, fmt="s", color=PUBLISHED, markersize=5, capsize=2.5, label=None if drawn else label, zorder=3
        )
        drawn = True


def _draw_measured(axes: Axes, summary: Summary, places: Sequence[float], key: str, several: bool) -> None:
    best = summary.selection == "best"
    colour, mark, shift = (BEST, "D", -0.14) if best else (MEASURED, "o", 0.14 if several else 0.0)
    drawn = False
    for row, y in zip(summary.rows, places, strict=True):
        if key not in row.estimates:
            if not best:
                _say(axes, y, "diverged" if row.status == "diverged" else NOT_MEASURED, left=False)
            continue
        estimate = row.estimates[key]
        label = (selection_name(summary) if several else "measured") + _spread_name(summary, key)
        if estimate.n > 1:
            axes.plot(estimate.values, [y + shift] * estimate.n, ".", color=colour, alpha=0.35, markersize=4, zorder=2)
        axes.errorbar(
            estimate.mean, y + shift, xerr=estimate.spread, fmt=mark, color=colour, markersize=5, capsize=2.5,
            label=None if drawn else labels.escape_mathtext(label), zorder=3,
        )  # fmt: skip
        drawn = True


def _spread_name(summary: Summary, key: str) -> str:
    estimates = [row.estimates[key] for row in summary.rows if key in row.estimates]
    if any(estimate.n > 1 for estimate in estimates):
        return " (± s.d. over seeds; dots: seeds)"
    return " (one seed, ± over IS splits)" if key == "is_mean" else " (one seed)"


def _say(axes: Axes, y: float, text: str, left: bool) -> None:
    """A word in place of a number, at the axis's left end."""
    axes.text(0.03 if left else 0.03, y, text, transform=axes.get_yaxis_transform(), va="center", color=GREY, style="italic", fontsize=8)


def _published(published: Published, key: str) -> tuple[float | None, float | None]:
    return (published.is_mean, published.is_std) if key == "is_mean" else (published.fid, None)


def _source_metric(key: str) -> str:
    return "IS" if key == "is_mean" else "FID"


def _measured_metric(key: str, record: Record) -> str:
    distance, score = record.extractor.labels
    return score if key == "is_mean" else distance


def _dress(published: Axes, measured: Axes, ticks: dict[float, str], heads: dict[float, str], key: str, summary: Summary) -> None:
    direction = "higher is better" if key == "is_mean" else "lower is better"
    published.set_yticks(list(ticks), list(ticks.values()))
    for y, head in heads.items():
        published.annotate(head, (0, y), xycoords=("axes fraction", "data"), xytext=(-4, 0), textcoords="offset points",
                           ha="right", va="center", weight="bold")  # fmt: skip
    published.set_ylim(min(ticks) - 0.7, -0.5)
    for axes, name in ((published, _source_metric(key)), (measured, _measured_metric(key, summary.first))):
        axes.set_xlabel(f"{labels.escape_mathtext(name)} ({direction})")
        axes.grid(axis="x")
        axes.tick_params(axis="y", length=0)
    if not summary.comparable:
        published.set_xlabel(published.get_xlabel() + f"\n{summary.grid.conditions.data}, {summary.grid.conditions.samples:,} samples")
        measured.set_xlabel(measured.get_xlabel() + "\nNOT comparable with published values")


def _legend(published: Axes, measured: Axes) -> tuple[list, list]:
    handles, names = [], []
    for axes in dict.fromkeys((published, measured)):
        more_handles, more_names = axes.get_legend_handles_labels()
        handles += more_handles
        names += more_names
    return handles, names


def loss_curves(path: Path, summary: Summary) -> None:
    """Draw the training loss, a panel a cell with its own scale, since objectives have different units; a line a seed."""
    rows = summary.rows
    columns = min(3, len(rows))
    lines = math.ceil(len(rows) / columns)
    with _figure(path, 7.2, 0.4 + 2.1 * lines) as figure:
        panels = figure.subplots(lines, columns, squeeze=False, sharex=True).flat
        for axes, row in zip(panels, rows, strict=False):
            _draw_losses(axes, row)
        for axes in list(panels)[len(rows):]:
            axes.set_axis_off()
        figure.supxlabel("training step", fontsize=9)


def _draw_losses(axes: Axes, row: Row) -> None:
    group = labels.mathtext(row.cell.group)
    axes.set_title(f"{group}\n{labels.mathtext(row.cell.label)}" if group else labels.mathtext(row.cell.label), fontsize=8)
    axes.set_ylabel(f"loss {labels.mathtext(row.cell.objective)}", fontsize=8)
    axes.grid()
    records = sorted((*row.done, *row.diverged), key=lambda record: record.seed)
    positive = True
    for record in records:
        points = [(p.step, p.loss) for p in record.training_log if math.isfinite(p.loss)]
        if not points:
            continue
        steps, losses = zip(*points, strict=True)
        positive &= min(losses) > 0
        colour = PUBLISHED if record.outcome == "diverged" else MEASURED
        axes.plot(steps, losses, color=colour, alpha=0.8, linewidth=1, linestyle="--" if record.outcome == "diverged" else "-")
        if record.outcome == "diverged":
            axes.plot(steps[-1], losses[-1], "x", color=PUBLISHED, markersize=6, markeredgewidth=1.8)
    if axes.lines and positive:
        axes.set_yscale("log")
    if not axes.lines:
        axes.text(0.5, 0.5, "no loss logged" if records else NOT_MEASURED, transform=axes.transAxes, ha="center", color=GREY, style="italic")
    elif row.diverged:
        axes.text(0.97, 0.93, f"× diverged: {len(row.diverged)} of {len(records)}", transform=axes.transAxes, ha="right", va="top",
                  color=PUBLISHED, fontsize=8)  # fmt: skip


def spans_decades(values: Sequence[float]) -> bool:
    """Do positive values span so much that a linear axis would press the small ones together?"""
    return bool(values) and min(values) > 0 and max(values) > LOG_FROM * min(values)


def estimates_of(summary: Summary, key: str) -> list[Estimate]:
    return [row.estimates[key] for row in summary.rows if key in row.estimates]
