"""A metric along the axis that stands across the table, a line for every label; published numbers in a panel of their own."""

import math
from collections.abc import Mapping, Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ddpm_bench.config.metrics import METRICS
from ddpm_bench.report.across import Across, axis_name, lines_across, place, printed_name
from ddpm_bench.report.figures.cell_styles import style_at
from ddpm_bench.report.figures.drawing import Said, beside_published, measured_on, one_legend
from ddpm_bench.report.figures.in_words import ranking
from ddpm_bench.report.figures.scales import fit_axis, plain_log
from ddpm_bench.report.labels import escape_mathtext, mathtext
from ddpm_bench.report.pictures import PictureFolder
from ddpm_bench.report.summary import Summary

LOG_FROM = 8
"""An axis of numbers that span more than so many times the lowest is logarithmic."""

Point = tuple[float, float, float]
"""Place, value, and what the value may be off to either side."""


def draw(figure: Figure, summaries: Sequence[Summary], _: PictureFolder, *, key: str) -> Said | None:
    """Nothing where the grid has no axis across, or the metric is measured in fewer than two places of it.

    What was published in two places or more has a panel of its own.
    """
    summary = summaries[0]
    lines, axis = lines_across(summary), summary.grid.across or ""
    measured = {line.label: _measured(line, axis, key) for line in lines}
    if _places(measured) < 2:
        return None
    published = {line.label: _published(line, axis, key) for line in lines}
    both = _places(published) > 1
    panels = beside_published(figure, len(lines), both)
    heading = METRICS[key].heading(summary.first.extractor.labels)
    if both:
        draw_lines(panels[0], published, key, f"Published {METRICS[key].source_name}", printed_name(axis))
    draw_lines(panels[-1], measured, key, f"Measured {heading}", axis_name(axis))
    one_legend(figure, panels)
    return Said(
        f"{heading} along {axis_name(axis)}; {METRICS[key].better}. Whiskers: sample standard deviation over seeds, where there are "
        f"several. {'The published numbers are not comparable and have a panel of their own. ' if both else ''}"
        f"Depends on: {measured_on(summary)}",
        ranking(summary, key),
    )


def _places(lines: Mapping[str, Sequence[Point]]) -> int:
    return len({at for points in lines.values() for at, _, _ in points})


def _measured(line: Across, axis: str, key: str) -> list[Point]:
    rows = [row for row in line.rows if key in row.estimates and _number(place(row, axis)) is not None]
    estimates = [(float(place(row, axis)), row.estimates[key]) for row in rows]
    return [(at, one.mean, (one.deviation or 0.0) if one.n > 1 else 0.0) for at, one in estimates]


def _published(line: Across, axis: str, key: str) -> list[Point]:
    found = [(_number(cell.axes[axis]), cell.published.of(key)) for cell in line.cells]
    return [(at, value, 0.0) for at, value in found if at is not None and value is not None]


def _number(value: object) -> float | None:
    return float(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else None


def draw_lines(axes: Axes, lines: dict[str, list[Point]], key: str, title: str, along: str) -> None:
    """Of each label its points, in order of place, on scales that fit them all."""
    for index, (label, points) in enumerate(lines.items()):
        if points:
            style = style_at(index)
            places, values, errors = map(list, zip(*sorted(points), strict=True))
            axes.errorbar(
                places, values, yerr=errors if any(errors) else None, color=style.colour, linestyle=style.line, fmt=style.mark,
                markersize=style.size, linewidth=1.2, capsize=2, label=mathtext(label),
            )  # fmt: skip
    points = [point for line in lines.values() for point in line]
    places = [at for at, _, _ in points]
    if min(places) > 0 and max(places) > LOG_FROM * min(places):
        axes.set_xscale("log")
        axes.set_xlim(min(places) / 1.3, max(places) * 1.3)
        plain_log(axes.xaxis)
    ends = [value + sign * error for _, value, error in points for sign in (-1, 1)]
    logarithmic = fit_axis(axes, "y", key, [value for value in ends if math.isfinite(value)])
    axes.set_title(escape_mathtext(title))
    axes.set_xlabel(escape_mathtext(along))
    axes.set_ylabel(f"{METRICS[key].better}{', log scale' if logarithmic else ''}")
    axes.grid(True)
