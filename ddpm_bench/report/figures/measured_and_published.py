"""Measured against published, row by row.

A measured value stands on the published axis only when everything it depends on is as published. Otherwise the two have
panels of their own, side by side with the rows in the same order, so that orders can be compared and lengths cannot.
"""

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ddpm_bench.config.metrics import METRICS
from ddpm_bench.report.figures.drawing import BLUE, GREEN, GREY, VERMILLION, WIDTH, measured_on, plain_log
from ddpm_bench.report.labels import escape_mathtext, mathtext
from ddpm_bench.report.pictures import PictureFolder
from ddpm_bench.report.summary import Estimate, Summary
from ddpm_bench.report.table_remarks import NOT_MEASURED, selection_name

LOG_FROM = 12
"""A distance axis whose values span more than this factor is logarithmic."""
INFINITE = "extrapolated to infinitely many samples"
"""What hollow marks are: a distance depends on the number of samples."""


@dataclass(frozen=True)
class Layout:
    """The height of every row, group heading and anchor, from the top down."""

    rows: tuple[float, ...]
    groups: dict[float, str]
    anchors: dict[float, str]

    @property
    def bottom(self) -> float:
        return min((*self.rows, *self.anchors)) - 0.8


def draw(figure: Figure, summaries: Sequence[Summary], _: PictureFolder, *, key: str) -> str:
    """The metric `key`, which sources print, of all rows; of bounds nothing where none is measured."""
    if METRICS[key].is_bound:
        summaries = summaries[:1]  # bounds are those of the last checkpoint
    summary = summaries[-1]
    if METRICS[key].is_bound and not any(key in row.estimates for row in summary.rows):
        return ""
    figure.set_size_inches(WIDTH, 1.75 - 0.21 * _layout(summary, key).bottom)
    draw_comparison(figure, summaries, key)
    apart = "They are comparable and share an axis." if summary.comparable_in(key) else (
        "They are not comparable, so each has an axis of its own: orders can be compared, lengths cannot."
    )  # fmt: skip
    label = METRICS[key].label
    others = {row.cell.published.nll_source for row in summary.rows} - {None} if METRICS[key].is_bound else set()
    elsewhere = f"; {METRICS[key].source_name}: {', '.join(sorted(others))}" if others else ""
    return (
        f"{label[0].upper()}{label[1:]}, measured and published, rows in the order of the table. {apart} "
        f"Published: {summary.grid.source}{elsewhere}. Measured: {measured_on(summary)} {_whiskers(summary, key)}"
    )


def draw_comparison(figure: Figure, summaries: Sequence[Summary], key: str) -> tuple[Axes, Axes]:
    """Fill `figure`; return the axes of the published and of the measured values, the same only if they compare."""
    summary = summaries[-1]  # the best checkpoints where there are several: what the source reports
    layout, together = _layout(summary, key), summary.comparable_in(key)
    if together:
        published = measured = figure.subplots()
        measured.set_xlabel(f"{METRICS[key].source_name}{_unit(key)}, {METRICS[key].better}")
    else:
        published, measured = figure.subplots(1, 2, sharey=True, width_ratios=(1, 1.3))
        _head(published, measured, summary, key)
    _draw_published(published, summary, layout, key)
    for each in summaries:
        _draw_measured(measured, each, layout, key, apart=len(summaries) > 1)
    for axes in dict.fromkeys((published, measured)):
        _dress(axes, layout, key)
    _draw_anchors(measured, summary, layout, key)
    _label_rows(published, summary, layout)
    _legend(figure, published, measured)
    return published, measured


def _legend(figure: Figure, published: Axes, measured: Axes) -> None:
    """Every name once; in one column where two would not fit."""
    handles: dict[str, object] = {}
    for axes in dict.fromkeys((published, measured)):
        for handle, name in zip(*axes.get_legend_handles_labels(), strict=True):
            handles.setdefault(name, handle)
    if INFINITE in handles:
        handles[INFINITE] = handles.pop(INFINITE)  # it explains the others' hollow marks, so it stands behind them
    columns = 1 if any(len(name) > 45 for name in handles) else 2
    figure.legend(
        handles.values(), handles.keys(), loc="outside lower center", ncols=columns, frameon=False, handletextpad=0.4
    )


def _head(published: Axes, measured: Axes, summary: Summary, key: str) -> None:
    record, conditions = summary.first, summary.grid.conditions
    weights = "" if record.extractor.verified or METRICS[key].is_bound else "\n(unverified extractor weights)"
    published.set_title(f"Published {METRICS[key].source_name}", color=VERMILLION)
    heading = METRICS[key].heading(record.extractor.labels).removesuffix(" (bits/dim)")
    measured.set_title(f"Measured {escape_mathtext(heading)}{weights}", color=BLUE)
    theirs, ours = (f"{count:,} samples" for count in (conditions.samples, record.settings.sampling.samples))
    published.set_xlabel(_lines(key, conditions.data, theirs))
    measured.set_xlabel(_lines(key, record.data.name, ours) + "\nnot comparable with published values")


def _lines(key: str, data: str, samples: str) -> str:
    """What an axis shows, and of what. A bound is of no samples."""
    metric = METRICS[key]
    better = f"{metric.unit}, {metric.better}" if metric.unit else metric.better
    lines = [better, *textwrap.wrap(data, 38), *([] if metric.is_bound else [samples])]
    return "\n".join(map(escape_mathtext, lines))


def _unit(key: str) -> str:
    return f" in {METRICS[key].unit}" if METRICS[key].unit else ""


def _layout(summary: Summary, key: str) -> Layout:
    y, group, rows, groups = 0.0, "", [], {}
    for row in summary.rows:
        if row.cell.group != group:
            group = row.cell.group
            y -= 1
            groups[y] = group
        y -= 1
        rows.append(y)
    anchors = [name for name, estimates in summary.anchors.items() if key in estimates]
    return Layout(tuple(rows), groups, {y - 1.4 - i: name for i, name in enumerate(anchors)})


def _draw_published(axes: Axes, summary: Summary, layout: Layout, key: str) -> None:
    label = f"published {METRICS[key].source_name}" + (" (± over splits of one run)" if METRICS[key].error else "")
    if any(row.cell.published.nll_bound for row in summary.rows) and METRICS[key].is_bound:
        label += " (upper bound)"
    for row, y in zip(summary.rows, layout.rows, strict=True):
        value = row.cell.published.of(key)
        error = row.cell.published.error_of(key)
        if value is not None:
            axes.errorbar(
                value, y, xerr=error, fmt="s", color=VERMILLION, markersize=4.5, capsize=4, label=label, zorder=3
            )
        elif row.cell.published.blank and not METRICS[key].is_bound:
            together = summary.comparable_in(key)
            # Beside the axes where measured values may stand in them.
            _say(axes, y, "published: –", 1.01 if together else 0.97, left=together)


def _draw_measured(axes: Axes, summary: Summary, layout: Layout, key: str, apart: bool) -> None:
    best = summary.selection == "best"
    colour, mark = (GREEN, "D") if best else (BLUE, "o")
    shift = {"last": 0.16, "best": -0.16}[summary.selection] if apart else (-0.2 if summary.comparable_in(key) else 0.0)
    several_seeds = _several(summary)
    label = (selection_name(summary) if apart else "measured") + _around_in_words(summary, key)
    beyond = METRICS[key].infinite
    for row, y in zip(summary.rows, layout.rows, strict=True):
        if estimate := row.estimates.get(key):
            if estimate.n > 1:
                below = y + shift + (0.28 if shift > 0 else -0.28)
                axes.plot(estimate.values, [below] * estimate.n, ".", color=colour, alpha=0.6, markersize=3)
            # An error within a run beside deviations over seeds would be taken for one of them.
            around = _around(estimate) if estimate.n > 1 or not several_seeds else None
            axes.errorbar(
                estimate.mean, y + shift, xerr=around, fmt=mark, color=colour, markersize=4.5, capsize=3,
                label=escape_mathtext(label), zorder=3,
            )  # fmt: skip
        elif row.status in ("diverged", "not measured") and not best:
            _say(axes, y, "diverged here" if row.status == "diverged" else NOT_MEASURED, 0.03, left=True)
        if extrapolated := row.estimates.get(beyond):
            axes.plot(
                extrapolated.mean, y + shift, mark, color=colour, markerfacecolor="white", markersize=4, zorder=4,
                label="" if apart and not best else INFINITE,
            )  # fmt: skip


def _around(estimate: Estimate) -> float | tuple[list[float], list[float]] | None:
    """The lengths of the whiskers: the deviation over seeds; of one seed the bootstrap's interval, else its error within the run."""
    if estimate.n == 1 and estimate.interval:
        low, high = estimate.interval  # either end may be on the other side, where the bootstrap corrects a bias
        return [max(estimate.mean - low, 0.0)], [max(high - estimate.mean, 0.0)]
    return estimate.deviation


def _draw_anchors(axes: Axes, summary: Summary, layout: Layout, key: str) -> None:
    """Ticks with their values; outside the rows' range an arrow at that end, lest the rows be pressed together."""
    values = {y: summary.anchors[name][key].mean for y, name in layout.anchors.items()}
    if any(key in row.estimates for row in summary.rows):
        axes.set_xlim(axes.get_xlim())
    else:
        axes.set_xlim(min(values.values(), default=0), max(values.values(), default=1))
    low, high = axes.get_xlim()
    for y, value in values.items():
        text = METRICS[key].text(value)
        if low <= value <= high:
            axes.plot(value, y, "|", color=GREY, markersize=9, markeredgewidth=2)
            place = axes.transAxes.inverted().transform(axes.transData.transform((value, y)))[0]
            _say(axes, y, text, place + (0.03 if place < 0.7 else -0.03), left=place < 0.7)
        else:
            _say(axes, y, f"◂ {text}" if value < low else f"{text} ▸", 0.02 if value < low else 0.98, left=value < low)


def _several(summary: Summary) -> bool:
    return any(len(row.done) > 1 for row in summary.rows)


def _around_in_words(summary: Summary, key: str) -> str:
    if _several(summary):
        return " (± s.d. over seeds; dots: seeds)"
    if any(row.estimates[key].interval for row in summary.rows if key in row.estimates):
        return " (one seed; 95% bootstrap interval)"
    return " (one seed; ± over splits)" if METRICS[key].error else " (one seed)"


def _whiskers(summary: Summary, key: str) -> str:
    """What the whiskers are, and are not."""
    if _several(summary):
        return "Whiskers: sample standard deviation over training runs with different seeds; none where there is one."
    if any(row.estimates[key].interval for row in summary.rows if key in row.estimates):
        over = "images" if METRICS[key].is_bound else "samples"
        return f"Whiskers: 95% interval by a bootstrap over the {over} of one run; it says nothing about another run."
    return "One run a cell: nothing here says how another run would come out."


def _say(axes: Axes, y: float, text: str, x: float, left: bool) -> None:
    """Words beside or in place of a mark; `x`, a fraction of the axis, is their left or their right end."""
    place = axes.get_yaxis_transform()
    axes.text(x, y, text, transform=place, ha="left" if left else "right", va="center", color=GREY, fontsize=7)


def _dress(axes: Axes, layout: Layout, key: str) -> None:
    values = [float(x) for line in axes.lines for x in line.get_xdata() if len(line.get_xdata())]
    if METRICS[key].direction == "down" and values and min(values) > 0 and max(values) > LOG_FROM * min(values):
        axes.set_xscale("log")
        plain_log(axes.xaxis)
        axes.set_xlabel(axes.get_xlabel().replace("lower is better", "lower is better, log scale"))
    axes.grid(axis="x")
    axes.tick_params(axis="y", length=0)
    if layout.anchors:
        axes.axhline(max(layout.anchors) + 0.7, color="#BBBBBB", linewidth=0.8)


def _label_rows(axes: Axes, summary: Summary, layout: Layout) -> None:
    ticks = dict(zip(layout.rows, (mathtext(row.cell.label) for row in summary.rows), strict=True))
    ticks |= {y: escape_mathtext(name) for y, name in layout.anchors.items()}
    axes.set_yticks(list(ticks), list(ticks.values()))
    axes.set_ylim(layout.bottom, -0.4)
    for y, group in layout.groups.items():
        place = {"xycoords": ("axes fraction", "data"), "xytext": (-4, 0), "textcoords": "offset points"}
        axes.annotate(mathtext(group), (0, y), **place, ha="right", va="center", weight="bold")
