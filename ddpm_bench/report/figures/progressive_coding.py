"""Progressive coding as a figure: distortion and rate by step, and each other (Ho, Jain, Abbeel 2020, Figure 5)."""

from collections.abc import Sequence
from itertools import cycle
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ddpm_bench.config.published import Coding, CodingPoint
from ddpm_bench.report.bounds import codes_of, published_code
from ddpm_bench.report.figures.drawing import LINES, VERMILLION, WIDTH, canvas, measured_on, save
from ddpm_bench.report.labels import mathtext, plain
from ddpm_bench.report.pictures import PictureFolder
from ddpm_bench.report.progressive_coding import Coded, Point
from ddpm_bench.report.summary import Summary

STEPS, RATE, ERROR = "reverse steps", "rate, bits/dim", "RMSE, 0..255"


def draw_codes(figure: Figure, summaries: Sequence[Summary], _: PictureFolder) -> str:
    """The code of every cell that has the data, with the published one where the grid names it."""
    summary = summaries[0]
    codes, published = codes_of(summary), published_code(summary.grid)
    if not codes:
        return ""
    comparable = summary.bounds_comparable
    draw_progressive(figure, list(codes.values()), published, comparable)
    apart = "" if comparable else ", not comparable with the measured codes and so on axes of its own"
    theirs = f" Published: {published.source}, {plain(published.label)}{apart}." if published else ""
    return (
        "Progressive coding of test images: the root mean squared error of the predicted image, of pixels 0..255, and "
        "the rate, the bits/dim sent so far, after each reverse step; and the error against the rate."
        f"{theirs} Depends on: {measured_on(summary)}"
    )


def plot_progressive(
    path: Path, codes: Sequence[Coded], published: Coding | None = None, comparable: bool = False
) -> None:
    """Draw the codes to `path`, a PNG, and beside it as PDF."""
    with canvas() as figure:
        draw_progressive(figure, codes, published, comparable)
        save(figure, path)


def draw_progressive(
    figure: Figure, codes: Sequence[Coded], published: Coding | None = None, comparable: bool = False
) -> tuple[list[Axes], list[Axes]]:
    """Fill `figure` and set its size; return the panels of the measured codes and those of the published one, if any.

    Published points stand on the axes of the measured ones only where they are `comparable`, else in panels of their
    own.
    """
    apart = published is not None and not comparable
    figure.set_size_inches(WIDTH, 2.1 + 0.16 * (len(codes) + 1) + (1.9 if apart else 0))
    rows = figure.subplots(2 if apart else 1, 3, squeeze=False)
    measured, theirs = list(rows[0]), list(rows[-1]) if published else []
    for code, (colour, dashes) in zip(codes, cycle(LINES), strict=False):
        style = {"color": colour, "linestyle": dashes, "linewidth": 1.3, "label": mathtext(code.label)}
        _draw(measured, code.points, **style)
    if published:
        label = f"published: {mathtext(published.label)}"
        # Marks alone: a line would claim what lies between them, and most of the rate lies between the last two.
        _draw(
            theirs,
            published.points,
            color=VERMILLION,
            marker="s",
            markersize=3.5,
            linestyle="",
            clip_on=False,
            label=label,
        )
    for panels in rows:
        for axes, (x, y) in zip(panels, ((STEPS, ERROR), (STEPS, RATE), (RATE, ERROR)), strict=True):
            axes.set_xlabel(x, fontsize=8)
            axes.set_ylabel(y, fontsize=8)
            axes.tick_params(labelsize=7)
            axes.set_xlim(left=0)
            axes.set_ylim(bottom=0)
            axes.grid(True)
    if apart:
        measured[1].set_title("measured here", fontsize=8)
        theirs[1].set_title("published; not comparable with the panels above", fontsize=8)
    handles = [line for panels in rows for line in panels[0].lines]
    figure.legend(handles=handles, loc="outside lower center", ncols=1, frameon=False, fontsize=7)
    return measured, theirs


def _draw(panels: Sequence[Axes], points: Sequence[Point | CodingPoint], **style: object) -> None:
    steps, rates, errors = zip(*((point.steps, point.rate, point.rmse) for point in points), strict=True)
    for axes, x, y in zip(panels, (steps, steps, rates), (errors, rates, errors), strict=True):
        axes.plot(x, y, **style)
