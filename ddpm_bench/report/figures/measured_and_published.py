"""Measured against published, row by row.

A measured value stands on the published axis only when everything it depends on is as published. Otherwise the two have
panels of their own, side by side with the rows in the same order, so that orders can be compared and lengths cannot.
"""

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass

from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ddpm_bench.config.metrics import METRICS
from ddpm_bench.records.failure import UNIFORM_BITS_PER_DIM
from ddpm_bench.report.across import lines_across
from ddpm_bench.report.figures.cell_styles import style_of
from ddpm_bench.report.figures.drawing import BLACK, GREY, SMALL, WIDTH, Said, data_in_words, measured_on
from ddpm_bench.report.figures.in_words import ranking
from ddpm_bench.report.figures.scales import fit_axis
from ddpm_bench.report.labels import escape_mathtext, mathtext
from ddpm_bench.report.pictures import PictureFolder
from ddpm_bench.report.summary import Estimate, MeasuredCell, Summary
from ddpm_bench.report.table_remarks import NOT_MEASURED, selection_name

INFINITE = "extrapolated to infinitely many samples"
"""What hollow marks are: a distance depends on the number of samples."""
UNIFORM = "coding pixels uniformly"
"""The anchor of bounds, where one is above it: the code length without a model."""
PALE = 0.4
"""Opacity of the last checkpoints beside the best ones."""


@dataclass(frozen=True)
class Layout:
    """The height of every row, group heading and anchor, from the top down; `values` of the anchors."""

    rows: tuple[float, ...]
    groups: dict[float, str]
    anchors: dict[float, str]
    values: dict[float, float]

    @property
    def bottom(self) -> float:
        return min((*self.rows, *self.anchors)) - 0.8


def draw(figure: Figure, summaries: Sequence[Summary], _: PictureFolder, *, key: str) -> Said | None:
    """The metric `key`, which sources print, of all rows; of bounds nothing where none is measured.

    Nothing of a table that is laid out across an axis: that has a figure of its own (`across.py`).
    """
    if lines_across(summaries[0]):
        return None
    if METRICS[key].is_bound:
        summaries = summaries[:1]  # bounds are those of the last checkpoint
    summary = summaries[-1]
    if METRICS[key].is_bound and not any(key in row.estimates for row in summary.rows):
        return None
    height = 0.21 if len(summaries) == 1 else 0.27
    figure.set_size_inches(WIDTH, 1.95 - height * _layout(summary, key).bottom)
    draw_comparison(figure, summaries, key)
    if not _has_published(summary, key):
        which, apart, published = "measured", "The source has no such number.", ""
    else:
        which = "measured and published"
        apart = "They are comparable and share an axis." if summary.comparable_in(key) else (
            "They are not comparable, so each has an axis of its own: orders can be compared, lengths cannot."
        )  # fmt: skip
        published = f"Published: {summary.grid.origin}{_elsewhere(summary, key)}. "
    label = METRICS[key].label
    return Said(
        f"{label[0].upper()}{label[1:]}, {which}, rows in the order of the table. {apart} "
        f"{published}Measured: {measured_on(summary)} {_whiskers(summary, key)}",
        ranking(summary, key),
    )


def _has_published(summary: Summary, key: str) -> bool:
    """Did the source print the metric of any cell, or say that it has none?"""
    printed = [row.cell.published for row in summary.rows]
    return any(one.of(key) is not None or (one.blank and not METRICS[key].is_bound) for one in printed)


def _elsewhere(summary: Summary, key: str) -> str:
    """Where else the source has bounds."""
    sources = (row.cell.published.nll_source for row in summary.rows if METRICS[key].is_bound)
    others = {source for source in sources if source is not None}
    return f"; {METRICS[key].source_name}: {', '.join(sorted(others))}" if others else ""


def draw_comparison(figure: Figure, summaries: Sequence[Summary], key: str) -> tuple[Axes, Axes]:
    """Fill `figure`; return the axes of the published and of the measured values, the same if they compare or none is published."""
    summary = summaries[-1]  # the best checkpoints where there are several: what the source reports
    layout, together = _layout(summary, key), summary.comparable_in(key)
    if not _has_published(summary, key):
        published = measured = figure.subplots()
        _head_measured(measured, summary, key)
    elif together:
        published = measured = figure.subplots()
        measured.set_xlabel(f"{METRICS[key].source_name}{_unit(key)}, {METRICS[key].better}")
    else:
        published, measured = figure.subplots(1, 2, sharey=True, width_ratios=(1, 1.3))
        _head_published(published, summary, key)
        _head_measured(measured, summary, key, "\nnot comparable with\npublished values")
    theirs = _draw_published(published, summary, layout, key)
    ours = [
        value for each in summaries for value in _draw_measured(measured, each, layout, key, apart=len(summaries) > 1)
    ]
    spans = {published: theirs, measured: ours + (theirs if together else [])}
    for axes, values in spans.items():
        anchors = list(layout.values.values()) if axes is measured else []
        if fit_axis(axes, "x", key, values, anchors):
            axes.set_xlabel(axes.get_xlabel().replace(METRICS[key].better, f"{METRICS[key].better},\nlog scale"))
        _dress(axes, layout)
    _draw_anchors(measured, layout, key)
    _say_failed(measured, summary, layout, key)
    _label_rows(published, summary, layout)
    _legend(figure, published, measured)
    return published, measured


def _legend(figure: Figure, published: Axes, measured: Axes) -> None:
    """Every name once; in one column where two would not fit."""
    handles: dict[str, Artist] = {}
    for axes in dict.fromkeys((published, measured)):
        for handle, name in zip(*axes.get_legend_handles_labels(), strict=True):
            handles.setdefault(name, handle)
    if INFINITE in handles:
        handles[INFINITE] = handles.pop(INFINITE)  # it explains the others' hollow marks, so it stands behind them
    columns = 1 if any(len(name) > 32 for name in handles) else 2
    figure.legend(
        list(handles.values()), list(handles), loc="outside lower center", ncols=columns, frameon=False,
        handletextpad=0.4,
    )  # fmt: skip


def _head_published(axes: Axes, summary: Summary, key: str) -> None:
    conditions = summary.grid.conditions
    axes.set_title(f"Published {METRICS[key].source_name}")
    axes.set_xlabel(_lines(key, conditions.data, f"{conditions.samples:,} samples"))


def _head_measured(axes: Axes, summary: Summary, key: str, apart: str = "") -> None:
    record = summary.first
    weights = "" if record.extractor.verified or METRICS[key].is_bound else "\n(unverified extractor weights)"
    heading = METRICS[key].heading(record.extractor.labels).removesuffix(" (bits/dim)")
    axes.set_title(f"Measured {escape_mathtext(heading)}{weights}")
    axes.set_xlabel(_lines(key, record.data.name, f"{record.settings.sampling.samples:,} samples") + apart)


def _lines(key: str, data: str, samples: str) -> str:
    """What an axis shows, and of what. A bound is of no samples."""
    metric = METRICS[key]
    better = f"{metric.unit}, {metric.better}" if metric.unit else metric.better
    lines = [better, *textwrap.wrap(data_in_words(data), 28), *([] if metric.is_bound else [samples])]
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
    values = {name: found[key].mean for name, found in summary.anchors.items() if key in found}
    if METRICS[key].is_bound and any(_mean(row, key) > UNIFORM_BITS_PER_DIM for row in summary.rows):
        values[UNIFORM] = UNIFORM_BITS_PER_DIM
    heights = [y - 1.4 - i for i in range(len(values))]
    anchors = dict(zip(heights, values, strict=True))
    return Layout(tuple(rows), groups, anchors, dict(zip(heights, values.values(), strict=True)))


def _mean(row: MeasuredCell, key: str) -> float:
    return row.estimates[key].mean if key in row.estimates else 0.0


def _draw_published(axes: Axes, summary: Summary, layout: Layout, key: str) -> list[float]:
    """Returns the ends of all that is drawn, as `_draw_measured` does."""
    label = f"published {METRICS[key].source_name}" + (" (± over splits of one run)" if METRICS[key].error else "")
    if any(row.cell.published.nll_bound for row in summary.rows) and METRICS[key].is_bound:
        label += " (upper bound)"
    ends = []
    for row, y in zip(summary.rows, layout.rows, strict=True):
        value = row.cell.published.of(key)
        error = row.cell.published.error_of(key)
        if value is not None:
            axes.errorbar(value, y, xerr=error, fmt="s", color=BLACK, markersize=4.5, capsize=4, label=label, zorder=3)
            ends += [value - (error or 0.0), value + (error or 0.0)]
        elif row.cell.published.blank and not METRICS[key].is_bound:
            together = summary.comparable_in(key)
            # Beside the axes where measured values may stand in them.
            _say(axes, y, "published: –", 1.01 if together else 0.97, left=together)
    return ends


def _draw_measured(axes: Axes, summary: Summary, layout: Layout, key: str, apart: bool) -> list[float]:
    """Filled marks with whiskers, and hollow ones; pale are the last checkpoints where the best stand beside them."""
    best = summary.selection == "best"
    opacity = PALE if apart and not best else 1.0
    shift = {"last": 0.16, "best": -0.16}[summary.selection] if apart else (-0.2 if summary.comparable_in(key) else 0.0)
    several_seeds = _several(summary)
    label = (selection_name(summary) if apart else "measured") + _around_in_words(summary, key)
    beyond, ends = METRICS[key].infinite, []
    for row, y in zip(summary.rows, layout.rows, strict=True):
        style = style_of(row.cell, summary.grid)
        if estimate := row.estimates.get(key):
            if estimate.n > 1:
                below = y + shift + (0.28 if shift > 0 else -0.28)
                axes.plot(estimate.values, [below] * estimate.n, ".", color=style.colour, alpha=0.6, markersize=3)
            # An error within a run beside deviations over seeds would be taken for one of them.
            around = _around(estimate) if estimate.n > 1 or not several_seeds else None
            axes.errorbar(
                estimate.mean, y + shift, xerr=around, fmt=style.mark, color=style.colour, markersize=style.size, capsize=3,
                alpha=opacity, zorder=3,
            )  # fmt: skip
            lengths = around if isinstance(around, tuple) else ([around or 0.0], [around or 0.0])
            ends += [*estimate.values, estimate.mean - lengths[0][0], estimate.mean + lengths[1][0]]
        elif row.status in ("diverged", "not measured") and not best:
            _say(axes, y, "× diverged here" if row.status == "diverged" else NOT_MEASURED, 0.03, left=True)
        if extrapolated := row.estimates.get(beyond):
            axes.plot(
                extrapolated.mean, y + shift + (0 if apart else 0.32), style.mark, color=style.colour, markerfacecolor="white",
                markersize=style.size - 2, markeredgewidth=0.8, alpha=opacity, zorder=2.5,
            )  # fmt: skip
            ends.append(extrapolated.mean)
    # Legends show what all cells share: a grey dot for marks of every colour.
    if any(key in row.estimates for row in summary.rows):
        axes.plot([], [], "o", color=GREY, markersize=5, alpha=opacity, label=escape_mathtext(label))
    if any(beyond in row.estimates for row in summary.rows):
        axes.plot([], [], "o", color=GREY, markerfacecolor="white", markersize=4.5, label=INFINITE)
    return ends


def _around(estimate: Estimate) -> float | tuple[list[float], list[float]] | None:
    """The lengths of the whiskers: the deviation over seeds; of one seed the bootstrap's interval, else its error within the run."""
    if estimate.n == 1 and estimate.interval:
        low, high = estimate.interval  # either end may be on the other side, where the bootstrap corrects a bias
        return [max(estimate.mean - low, 0.0)], [max(high - estimate.mean, 0.0)]
    return estimate.deviation


def _draw_anchors(axes: Axes, layout: Layout, key: str) -> None:
    """Ticks with their values."""
    for y, value in layout.values.items():
        axes.plot(value, y, "|", color=GREY, markersize=9, markeredgewidth=2)
        place = _place(axes, value)
        _say(axes, y, METRICS[key].text(value), place + (0.03 if place < 0.7 else -0.03), left=place < 0.7)


def _say_failed(axes: Axes, summary: Summary, layout: Layout, key: str) -> None:
    """Beside the marks of cells that are no better than no model, on the side where there is more room."""
    for row, y in zip(summary.rows, layout.rows, strict=True):
        if row.status == "failed" and key in row.estimates:
            place = _place(axes, row.estimates[key].mean)
            _say(axes, y, "failed", place + (0.08 if place < 0.5 else -0.08), left=place < 0.5)


def _place(axes: Axes, value: float) -> float:
    """The fraction of the axis at which a value stands."""
    return float(axes.transAxes.inverted().transform(axes.transData.transform((value, 0)))[0])


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
    axes.text(x, y, text, transform=place, ha="left" if left else "right", va="center", color=GREY, fontsize=SMALL)


def _dress(axes: Axes, layout: Layout) -> None:
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
        axes.annotate(
            mathtext(group), (0, y), xycoords=("axes fraction", "data"), xytext=(-4, 0), textcoords="offset points",
            ha="right", va="center", weight="bold",
        )  # fmt: skip
