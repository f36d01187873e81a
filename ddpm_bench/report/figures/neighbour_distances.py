"""Are samples copies? Their distances to the nearest training image beside those of held-out test images."""

from collections.abc import Sequence
from statistics import median

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ddpm_bench.report.figures.cell_styles import style_of
from ddpm_bench.report.figures.drawing import BLACK, SMALL, WIDTH, Said, measured_on
from ddpm_bench.report.figures.in_words import cell_name, ends
from ddpm_bench.report.labels import mathtext
from ddpm_bench.report.pictures import PictureFolder, runs_of
from ddpm_bench.report.summary import MeasuredCell, Summary, by_group

UNITS = {"pixel": "RMS over pixels in 0..1", "feature": "RMS over features"}
"""The spaces in which neighbours are sought, and what distances are in."""


def draw_nearness(figure: Figure, summaries: Sequence[Summary], _: PictureFolder) -> Said | None:
    """A mark a sample; a line a cell for all its seeds, and one for the test images, whose median runs through all."""
    summary = summaries[0]
    rows = [row for row in summary.rows if any(record.neighbours for record in runs_of(row))]
    spaces = [space for space in UNITS if any(space in record.neighbours for record in summary.records)]
    if not rows:
        return None
    heights = _heights(rows)
    figure.set_size_inches(WIDTH, 1.15 - 0.21 * min(heights.values()))
    panels = figure.subplots(1, len(spaces), sharey=True, squeeze=False)[0]
    for space, axes in zip(spaces, panels, strict=True):
        _draw_space(axes, space, rows, heights, summary)
    _label(panels[0], rows, heights)
    count = max(len(one.samples) for record in summary.records for one in record.neighbours.values())
    return Said(
        f"Distance (root mean square, RMS) to the nearest training image of the first {count} samples of each run, "
        "beside as many held-out test images; the long line is the median of the test images, the short ones are medians of the samples. "
        "Samples much nearer than test images would be copies. "
        f"Features: {summary.first.extractor.name}. Depends on: {measured_on(summary)}",
        " ".join(seen_in(space, summary) for space in spaces),
    )


def _samples(row: MeasuredCell, space: str) -> list[float]:
    runs = [record.neighbours[space].samples for record in runs_of(row) if space in record.neighbours]
    return [distance for run in runs for distance in run]


def _test(space: str, summary: Summary) -> tuple[float, ...]:
    """The test images and the training images are the same for all runs, and so are these distances."""
    return next((record.neighbours[space].test for record in summary.records if space in record.neighbours), ())


def seen_in(space: str, summary: Summary) -> str:
    """The medians of cells and test images, and how many samples could be copies; nothing where no record has them."""
    rows = summary.rows
    medians = {cell_name(row): median(samples) for row in rows if (samples := _samples(row, space))}
    test = _test(space, summary)
    if not medians or not test:
        return ""
    nearest = min(test)
    nearer = sum(distance < nearest for row in rows for distance in _samples(row, space))
    return (
        f"In {space} space the median of the test images is {median(test):.2f} and that of the samples "
        f"{ends(medians, '{:.2f}'.format)}; {nearer or 'no'} samples are nearer than the nearest test image."
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
    test = _test(space, summary)
    axes.plot(test, [heights[""]] * len(test), "|", color=BLACK, markersize=8, markeredgewidth=1.2)
    if test:
        axes.axvline(median(test), color=BLACK, linewidth=1, linestyle="--")
    for row in rows:
        if samples := _samples(row, space):
            y, style = heights[row.cell.name], style_of(row.cell, summary.grid)
            axes.plot(
                samples, [y] * len(samples), style.mark, color=style.colour, markersize=style.size - 1.5, alpha=0.5,
                markeredgewidth=0,
            )  # fmt: skip
            axes.plot(median(samples), y, "|", color=style.colour, markersize=13, markeredgewidth=2)
    axes.set_title("in pixel space" if space == "pixel" else "in feature space")
    axes.set_xlabel(f"distance to the nearest\ntraining image\n({UNITS[space]})", fontsize=SMALL)
    axes.set_xlim(left=0)
    axes.grid(axis="x")
    axes.tick_params(axis="y", length=0)


def _label(axes: Axes, rows: Sequence[MeasuredCell], heights: dict[str, float]) -> None:
    names = {heights[row.cell.name]: mathtext(row.cell.label) for row in rows} | {heights[""]: "held-out test images"}
    axes.set_yticks(list(names), list(names.values()))
    axes.set_ylim(min(heights.values()) - 0.6, 0.6)
    for name, y in heights.items():
        if name.startswith("group: "):
            group = mathtext(name.removeprefix("group: "))
            axes.annotate(
                group, (0, y), xycoords=("axes fraction", "data"), xytext=(-4, 0), textcoords="offset points",
                ha="right", va="center", weight="bold",
            )  # fmt: skip
