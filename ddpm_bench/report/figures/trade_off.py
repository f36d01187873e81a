"""What guidance trades: distance against score, a line for every label, a point for every scale; published ones in a panel of their own."""

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ddpm_bench.config.metrics import DISTANCE, METRICS, SCORE
from ddpm_bench.report.across import GUIDANCE, Across, axis_name, lines_across, place
from ddpm_bench.report.figures.cell_styles import style_at
from ddpm_bench.report.figures.drawing import Said, beside_published, measured_on, one_legend
from ddpm_bench.report.figures.in_words import ranking
from ddpm_bench.report.labels import escape_mathtext, mathtext
from ddpm_bench.report.pictures import PictureFolder
from ddpm_bench.report.summary import Summary

Traded = tuple[float, float, float]
"""Place along the axis, score, distance."""
AWAY = 0.06
"""From a point to the middle of its name, in widths and heights of a panel."""
SIDES = ((1, 1), (1, -1), (-1, 1), (-1, -1), (0, 1), (0, -1), (1, 0), (-1, 0))


def draw(figure: Figure, summaries: Sequence[Summary], _: PictureFolder) -> Said | None:
    """Nothing but for a grid along a scale of guidance of which two places were measured."""
    summary = summaries[0]
    if summary.grid.across not in GUIDANCE:
        return None
    axis, lines = summary.grid.across, lines_across(summary)
    measured = {line.label: _measured(line, axis) for line in lines}
    if max(map(len, measured.values())) < 2:
        return None
    published = {line.label: _published(line, axis) for line in lines}
    both = any(published.values())
    panels = beside_published(figure, len(lines), both)
    distance, score = (METRICS[key].heading(summary.first.extractor.labels) for key in (DISTANCE, SCORE))
    if both:
        _draw(panels[0], published, "Published", "IS", "FID")
    _draw(panels[-1], measured, "Measured", score, distance)
    one_legend(figure, panels)
    return Said(
        f"{distance}, lower is better, against {score}, higher is better; numbers beside the points: {axis_name(axis)}. Means over seeds. "
        f"{'The published numbers are not comparable and have a panel of their own. ' if both else ''}"
        f"Depends on: {measured_on(summary)}",
        ranking(summary, DISTANCE),
    )


def _measured(line: Across, axis: str) -> list[Traded]:
    rows = [row for row in line.rows if {SCORE, DISTANCE} <= row.estimates.keys()]
    return sorted((float(place(row, axis)), row.estimates[SCORE].mean, row.estimates[DISTANCE].mean) for row in rows)


def _published(line: Across, axis: str) -> list[Traded]:
    found = [(cell.axes[axis], cell.published.is_mean, cell.published.fid) for cell in line.cells]
    return sorted((at, score, fid) for at, score, fid in found if score is not None and fid is not None)


def _draw(axes: Axes, lines: dict[str, list[Traded]], title: str, score: str, distance: str) -> None:
    for index, (label, points) in enumerate(lines.items()):
        if points:
            style = style_at(index)
            _, scores, distances = zip(*points, strict=True)
            axes.plot(
                scores, distances, color=style.colour, linestyle=style.line, marker=style.mark, markersize=style.size, linewidth=1.2,
                label=mathtext(label),
            )  # fmt: skip
    axes.margins(0.1)
    axes.set_ylim(0, 1.15 * max(distance for points in lines.values() for _, _, distance in points))
    axes.set_title(escape_mathtext(title))
    axes.set_xlabel(escape_mathtext(f"{score}, {METRICS[SCORE].better}"))
    axes.set_ylabel(escape_mathtext(f"{distance}, {METRICS[DISTANCE].better}"))
    axes.grid(True)
    _name_ends(axes, [points for points in lines.values() if points])


def _name_ends(axes: Axes, lines: Sequence[Sequence[Traded]]) -> None:
    """The place along the axis beside both ends of every line, on the side where lines and other names are farthest."""
    axes.autoscale_view()
    in_panel = axes.transLimits.transform
    taken = [in_panel(points[0][1:]) for points in lines]
    for points in lines:
        for (_, *start), (_, *end) in pairwise(points):
            taken += list(np.linspace(in_panel(start), in_panel(end), 9))
    for points in lines:
        for at, *point in dict.fromkeys((points[0], points[-1])):
            spots = [in_panel(point) + np.multiply(AWAY, side) for side in SIDES]
            spots = [spot for spot in spots if spot.min() > AWAY / 2 and spot.max() < 1 - AWAY / 2]
            x, y = max(spots, key=lambda spot: min(np.hypot(*(spot - other)) for other in taken))
            taken.append(np.array((x, y)))
            axes.text(x, y, f"{at:g}", transform=axes.transAxes, ha="center", va="center")
