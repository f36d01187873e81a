"""Progressive coding as a figure: distortion and rate by step, and each other (Ho, Jain, Abbeel 2020, Figure 5)."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter

from ddpm_bench.config.published import Coding, CodingPoint
from ddpm_bench.report.bounds import codes_of, published_code
from ddpm_bench.report.figures.cell_styles import CellStyle, style_at, style_of
from ddpm_bench.report.figures.drawing import (
    BLACK,
    WIDTH,
    Said,
    canvas,
    legend_of_cells,
    measured_on,
    running_mean,
    save,
)
from ddpm_bench.report.figures.in_words import ends
from ddpm_bench.report.figures.scales import plain_log
from ddpm_bench.report.labels import mathtext, plain
from ddpm_bench.report.pictures import PictureFolder
from ddpm_bench.report.progressive_coding import Coded, Point
from ddpm_bench.report.summary import Summary

STEPS, RATE, ERROR = "reverse steps", "rate, bits/dim", "RMSE, 0..255"
LOG_FROM, LOWEST = 4, 0.01
"""Rates are on a logarithmic axis, from LOWEST on, where the largest of the codes' is so many times the smallest."""
MANY, SHARE = 200, 50
"""Errors of more points than MANY are smoothed, by a running mean over a SHAREth of the steps to either side."""


def draw_codes(figure: Figure, summaries: Sequence[Summary], _: PictureFolder) -> Said | None:
    """The code of every cell that has the data, with the published one where the grid names it."""
    summary = summaries[0]
    codes, published = codes_of(summary), published_code(summary.grid)
    if not codes:
        return None
    comparable = summary.bounds_comparable
    styles = [style_of(cell, summary.grid) for cell in codes]
    measured, quoted = draw_progressive(figure, list(codes.values()), published, comparable, styles)
    lines = dict(zip((cell.name for cell in codes), measured[0].lines, strict=False))
    legend_of_cells(figure, lines, summary.rows, *(line for axes in quoted[:1] for line in axes.lines[-1:]))
    apart = "" if comparable else ", not comparable with the measured codes and so on axes of its own"
    theirs = f" Published: {published.source}, {plain(published.label)}{apart}." if published else ""
    T = max(code.T for code in codes.values())
    smooth = (
        f" Errors are running means over {2 * (T // SHARE) + 1} steps, over fewer at both ends." if T > MANY else ""
    )
    logarithmic = f" Rates are on a logarithmic axis, from {LOWEST} on." if _squeezed(list(codes.values())) else ""
    rates = {plain(code.label): code.rate for code in codes.values()}
    halfway = {plain(code.label): code.points[code.T // 2].rmse for code in codes.values()}
    return Said(
        "Progressive coding of test images: the root mean squared error of the predicted image, of pixels 0..255, and "
        "the rate, the bits/dim sent so far, after each reverse step; and the error against the rate."
        f"{logarithmic}{smooth}{theirs} Depends on: {measured_on(summary)}",
        f"After half of the steps the error is {ends(halfway, '{:.0f} of 255'.format)}; the whole rate is "
        f"{ends(rates, '{:.2f} bits/dim'.format)}, most of it spent in the last steps.",
    )


def plot_progressive(
    path: Path, codes: Sequence[Coded], published: Coding | None = None, comparable: bool = False
) -> None:
    """Draw the codes to `path`, a PNG, and beside it as PDF."""
    with canvas() as figure:
        measured, theirs = draw_progressive(figure, codes, published, comparable)
        handles = list(
            dict.fromkeys(line for panels in (measured, theirs) for axes in panels[:1] for line in axes.lines)
        )
        figure.legend(handles=handles, loc="outside lower center", ncols=1, frameon=False)
        save(figure, path)


def draw_progressive(
    figure: Figure,
    codes: Sequence[Coded],
    published: Coding | None = None,
    comparable: bool = False,
    styles: Sequence[CellStyle] = (),
) -> tuple[list[Axes], list[Axes]]:
    """Fill `figure` and set its size; return the panels of the measured codes and those of the published one, if any.

    Published points stand on the axes of the measured ones only where they are `comparable`, else in panels of their
    own. styles: of the codes; those of the first cells where there are none.
    """
    apart = published is not None and not comparable
    lines = len(codes) // 2 + 2
    figure.set_size_inches(WIDTH, 2.0 + 0.19 * lines + (2.0 if apart else 0))
    rows = figure.subplots(2 if apart else 1, 3, squeeze=False)
    measured, theirs = list(rows[0]), list(rows[-1]) if published else []
    for code, style in zip(codes, styles or [style_at(place) for place in range(len(codes))], strict=True):
        _draw(
            measured, code.points, color=style.colour, linestyle=style.line, linewidth=1.3, marker=style.mark,
            markevery=(0.15, 0.3), markersize=style.size - 1.5, label=mathtext(code.label),
        )  # fmt: skip
    if published:
        # Marks alone: a line would claim what lies between them, and most of the rate lies between the last two.
        _draw(
            theirs, published.points, color=BLACK, marker="s", markersize=3.5, linestyle="", clip_on=False,
            label=f"published: {mathtext(published.label)}",
        )  # fmt: skip
    for panels in rows:
        for axes, (x, y) in zip(panels, ((STEPS, ERROR), (STEPS, RATE), (RATE, ERROR)), strict=True):
            axes.set_xlabel(x)
            axes.set_ylabel(y)
            axes.set_xlim(left=0)
            axes.set_ylim(bottom=0)
            axes.grid(True)
        for axes in panels[:2]:
            axes.xaxis.set_major_formatter(EngFormatter(sep=""))
    if _squeezed(codes):
        _log_rates(measured)
    if apart:
        measured[1].set_title("measured here")
        theirs[1].set_title("published; not comparable with the panels above")
    return measured, theirs


def _squeezed(codes: Sequence[Coded]) -> bool:
    return max(code.rate for code in codes) > LOG_FROM * min(code.rate for code in codes)


def _log_rates(panels: Sequence[Axes]) -> None:
    _, rate, by_rate = panels
    rate.set_yscale("log")
    by_rate.set_xscale("log")
    rate.set_ylim(bottom=LOWEST)
    by_rate.set_xlim(left=LOWEST)
    plain_log(rate.yaxis)
    plain_log(by_rate.xaxis)


def _draw(panels: Sequence[Axes], points: Sequence[Point | CodingPoint], **style: Any) -> None:
    """style: of the lines, as matplotlib takes it."""
    steps, rates, errors = zip(*((point.steps, point.rate, point.rmse) for point in points), strict=True)
    if len(points) > MANY:
        errors = tuple(running_mean(errors, [len(points) // SHARE] * len(points)))
    for axes, x, y in zip(panels, (steps, steps, rates), (errors, rates, errors), strict=True):
        axes.plot(x, y, **style)
