"""Are samples copies? Their distances to the nearest training image beside those of held-out test images."""

from collections.abc import Sequence
from statistics import median

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ddpm_bench.report.figures.drawing import BLUE, VERMILLION, WIDTH, measured_on
from ddpm_bench.report.labels import mathtext
from ddpm_bench.report.pictures import PictureFolder, runs_of
from ddpm_bench.report.summary import MeasuredCell, Summary, by_group

UNITS = {"pixel": "root mean square over pixels in 0..1", "feature": "root mean square over features"}
"""The spaces in which neighbours are sought, and what distances are in."""


def draw_nearness(figure: Figure, summaries: Sequence[Summary], _: PictureFolder) -> str:
    """A mark a sample; a line a cell for all its seeds, and one for the test images, whose median runs through all."""
    summary = summaries[0]
    rows = [row for row in summary.rows if any(record.neighbours for record in runs_of(row))]
    spaces = [space for space in UNITS if any(space in record.neighbours for record in summary.records)]
    if not rows:
        return ""
    heights = _heights(rows)
    figure.set_size_inches(WIDTH, 0.9 - 0.2 * min(heights.values()))
    panels = figure.subplots(1, len(spaces), sharey=True, squeeze=False)[0]
    for space, axes in zip(spaces, panels, strict=True):
        _draw_space(axes, space, rows, heights, summary)
    _label(panels[0], rows, heights)
    count = max(len(one.samples) for record in summary.records for one in record.neighbours.values())
    return (
        f"Distance to the nearest training image of the first {count} samples of each run, beside as many held-out "
        "test images; the long line is the median of the test images, the short ones are medians of the samples. "
        "Samples much nearer than test images would be copies. "
        f"Features: {summary.first.extractor.name}. Depends on: {measured_on(summary)}"
    )


def _heights(rows: Sequence[MeasuredCell]) -> dict[str, float]:
    """The height of every cell by name, of every group as `group: name`, and of the test images as an empty name."""
    y, heights = 0.0, {"": 0.0}
    for group, members in by_group(rows).items():
        if group:
            y -= 1
            heights[f"group: {group}"] = y
        for row in members:
            y -= 1
            heights[row.cell.name] = y
    return heights


def _draw_space(
    axes: Axes, space: str, rows: Sequence[MeasuredCell], heights: dict[str, float], summary: Summary
) -> None:
    # The test images and the training images are the same for all runs, and so are these distances.
    test = next(record.neighbours[space].test for record in summary.records if space in record.neighbours)
    axes.plot(test, [heights[""]] * len(test), "|", color=VERMILLION, markersize=8, markeredgewidth=1.2)
    if test:
        axes.axvline(median(test), color=VERMILLION, linewidth=1, linestyle="--")
    for row in rows:
        found = [record.neighbours[space].samples for record in runs_of(row) if space in record.neighbours]
        samples = [distance for run in found for distance in run]
        if samples:
            y = heights[row.cell.name]
            axes.plot(samples, [y] * len(samples), "o", color=BLUE, markersize=3.5, alpha=0.5, markeredgewidth=0)
            axes.plot(median(samples), y, "|", color="black", markersize=11, markeredgewidth=1.5)
    axes.set_title("in pixel space" if space == "pixel" else "in feature space")
    axes.set_xlabel(f"distance to the nearest training image\n{UNITS[space]}", fontsize=7)
    axes.set_xlim(left=0)
    axes.grid(axis="x")
    axes.tick_params(axis="y", length=0)


def _label(axes: Axes, rows: Sequence[MeasuredCell], heights: dict[str, float]) -> None:
    names = {heights[row.cell.name]: mathtext(row.cell.label) for row in rows} | {heights[""]: "held-out test images"}
    axes.set_yticks(list(names), list(names.values()))
    axes.set_ylim(min(heights.values()) - 0.6, 0.6)
    for name, y in heights.items():
        if name.startswith("group: "):
            place = {"xycoords": ("axes fraction", "data"), "xytext": (-4, 0), "textcoords": "offset points"}
            group = mathtext(name.removeprefix("group: "))
            axes.annotate(group, (0, y), **place, ha="right", va="center", weight="bold", fontsize=7)
