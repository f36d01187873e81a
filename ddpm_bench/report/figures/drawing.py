"""What the figures share: style, size, saving, panels by group, and the words about what was measured."""

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import fmean

import matplotlib.style
import numpy as np
from fontTools import subset
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure, SubFigure
from matplotlib.image import AxesImage
from matplotlib.lines import Line2D

from ddpm_bench.files import replacing
from ddpm_bench.report.labels import mathtext, mathtext_lines
from ddpm_bench.report.summary import MeasuredCell, Summary, by_group, in_seeds

BLACK, GREY = "black", "#666666"
"""Of what was published or given, and of the anchors and all that is said beside the numbers. Cells have their own."""
WIDTH = 5.5
"""Inches: the text of a page in one column."""
SMALL = 8.5
"""Points: nothing is written smaller, so that it has 5 in a column of 3.25 inches."""
TITLE, LINE = 88, 0.14
"""Characters of this size in WIDTH, and inches of a line of them."""
COLUMNS = 3
"""Panels side by side."""
CROWD = 2000
"""Marks of one kind in a panel. More of them are pixels in a PDF, too: objects would take seconds to write, and to look at."""
STYLE = {
    "font.size": 9, "axes.titlesize": 9, "axes.labelsize": 9, "legend.fontsize": SMALL, "xtick.labelsize": SMALL,
    "ytick.labelsize": SMALL, "figure.titlesize": 9, "figure.labelsize": 9, "axes.spines.top": False,
    "axes.spines.right": False, "axes.axisbelow": True, "grid.color": "#E3E3E3", "grid.linewidth": 0.8,
    "figure.dpi": 240, "pdf.fonttype": 42,
}  # fmt: skip
"""Fonts of type 42 (TrueType): what checks of camera-ready papers ask for, which refuse matplotlib's own Type 3."""
DATA_IN_WORDS = {
    "cifar10": "CIFAR-10", "mnist": "MNIST", "fashion-mnist": "Fashion-MNIST",
    "fashion-mnist-10k": "Fashion-MNIST, 10,000 images", "celeba": "CelebA", "imagenet64": "ImageNet, 64x64",
    "imagenet256": "ImageNet, 256x256", "lsun-bedroom": "LSUN Bedroom", "lsun-church": "LSUN Church",
}  # fmt: skip
"""By name in grids and records; others are shown as they are called."""


@dataclass(frozen=True)
class Said:
    """Of a figure. `caption`: what is drawn and what it depends on; `seen`: what it shows, for those who cannot see it."""

    caption: str
    seen: str


@contextmanager
def canvas() -> Iterator[Figure]:
    """An empty figure in the report's style, whatever the user's own matplotlib style. Who draws sets its size."""
    with matplotlib.style.context(["default", STYLE]):
        figure = Figure(layout="constrained")
        FigureCanvasAgg(figure)  # what measures texts for the layout draws them, too, and measures them once
        yield figure


def save(figure: Figure, png: Path) -> Path:
    """Write the figure as PNG, and beside it as PDF, whose path is returned. Equal figures are equal bytes."""
    pdf = png.with_suffix(".pdf")
    if layout := figure.get_layout_engine():
        layout.execute(figure)
    figure.set_layout_engine(None)  # once is enough: with a layout engine each of the files would take twice as long
    _round_places(figure)
    for line in figure.findobj(Line2D):
        line.set_rasterized(len(line.get_path()) > CROWD and line.get_marker() not in ("", "None", None))
    # A PDF keeps the pixels of pictures as they are; on the PNG's own pixels they fall unevenly and are averaged.
    for path, interpolation, dates in (
        (png, "antialiased", {"Software": None}),
        (pdf, "none", {"CreationDate": None}),
    ):
        for picture in figure.findobj(AxesImage):
            picture.set_interpolation(interpolation)
        with replacing(path) as temporary, _fonts_without_layout():
            figure.savefig(temporary, format=path.suffix[1:], metadata=dates)
    return pdf


def _round_places(figure: Figure) -> None:
    """Of all panels, to a billionth of the figure: the last digits of what solves the layout differ from process to process."""
    for frame in figure.findobj(SubFigure):
        frame.bbox_relative.set_points(np.round(frame.bbox_relative.get_points(), 9) + 0.0)  # no -0
    for axes in figure.findobj(Axes):
        axes.set_position(np.round(axes.get_position(original=True).bounds, 9) + 0.0)


@contextmanager
def _fonts_without_layout() -> Iterator[None]:
    """Fonts in a PDF come without the tables that place glyphs: they are placed by then, and matplotlib, which has no setting
    for it, takes longer to cut these tables down than to write all the rest."""
    whole = subset.Options
    subset.Options = partial(whole, drop_tables=[*whole().drop_tables, "GSUB", "GPOS", "GDEF", "kern"])
    try:
        yield
    finally:
        subset.Options = whole


def beside_published(figure: Figure, lines: int, both: bool) -> list[Axes]:
    """The panel of measured numbers, of so many lines, last; one of published ones before it where there are both."""
    figure.set_size_inches(WIDTH, 2.9 + 0.17 * lines)
    return list(figure.subplots(1, 2 if both else 1, squeeze=False)[0])


def one_legend(figure: Figure, panels: Sequence[Axes]) -> None:
    """Below the panels, each name once."""
    handles = {name: line for axes in panels for line, name in zip(*axes.get_legend_handles_labels(), strict=True)}
    figure.legend(handles.values(), handles.keys(), loc="outside lower center", ncols=2, frameon=False)


def cell_panels(
    figure: Figure, rows: Sequence[MeasuredCell], height: float, below: float = 0.0, beside: float = 0.0
) -> list[tuple[MeasuredCell, Axes]]:
    """A panel for each row, group under group, each under its heading; panels are `height` inches high with a title of one line.

    Sets the size of the figure, with room for `below` inches more. Panels have the rows' labels as titles, in lines that fit; the
    labels of a panel's y axis take `beside` inches.
    """
    groups = by_group(rows)
    columns = min(COLUMNS, max(map(len, groups.values())))
    most = int(TITLE * (1 / columns - beside / WIDTH))
    titles = {row.cell.name: mathtext_lines(row.cell.label, most) for row in rows}
    height += LINE * max(title.count("\n") for title in titles.values())
    heights = [height * math.ceil(len(members) / columns) + 0.24 * bool(group) for group, members in groups.items()]
    figure.set_size_inches(WIDTH, sum(heights) + below)
    panels = []
    frames = figure.subfigures(len(groups), 1, height_ratios=heights, squeeze=False)[:, 0]
    for frame, (group, members) in zip(frames, groups.items(), strict=True):
        if group:
            frame.suptitle(mathtext(group), x=0.01, ha="left", weight="bold")
        found = list(frame.subplots(math.ceil(len(members) / columns), columns, squeeze=False).flat)
        for axes in found[len(members) :]:
            axes.set_axis_off()
        for row, axes in zip(members, found, strict=False):
            axes.set_title(titles[row.cell.name], fontsize=SMALL)
            panels.append((row, axes))
    return panels


def group_panels(figure: Figure, rows: Sequence[MeasuredCell], height: float) -> list[tuple[list[MeasuredCell], Axes]]:
    """A panel `height` inches high for each group of rows, on shared axes, with room for a legend under each.

    Sets the size of the figure. Panels have the groups' names as titles.
    """
    groups = by_group(rows)
    columns = min(2, len(groups))
    lines, most = math.ceil(len(groups) / columns), max(map(len, groups.values()))
    figure.set_size_inches(WIDTH, lines * (height + 0.17 * most))
    found = list(figure.subplots(lines, columns, squeeze=False, sharex=True, sharey=True).flat)
    for axes in found[len(groups) :]:
        axes.set_axis_off()
    for axes, group in zip(found, groups, strict=False):
        axes.set_title(mathtext(group), weight="bold")
    return list(zip(groups.values(), found, strict=False))


def legend_below(axes: Axes) -> None:
    """The legend of a panel under it, a line an entry."""
    if axes.get_legend_handles_labels()[0]:
        axes.legend(loc="upper left", bbox_to_anchor=(0, -0.3), frameon=False, borderaxespad=0, handlelength=3)


def legend_of_cells(figure: Figure, handles: Mapping[str, Artist], rows: Sequence[MeasuredCell], *more: Artist) -> None:
    """The legend of all panels below them: a column a group under its name, at its end what `more` there is.

    handles: by name of cell.
    """
    nothing = Line2D([], [], linestyle="")
    columns: list[list[tuple[Artist, str]]] = []
    for group, members in by_group(rows).items():
        shown = [(handles[row.cell.name], mathtext(row.cell.label)) for row in members if row.cell.name in handles]
        if shown:
            columns.append([(nothing, mathtext(group))] * bool(group) + shown)
    columns[-1] += [(artist, str(artist.get_label())) for artist in more]
    longest = max(map(len, columns))
    entries = [entry for column in columns for entry in (*column, *[(nothing, "")] * (longest - len(column)))]
    legend = figure.legend(
        [artist for artist, _ in entries], [text for _, text in entries], loc="outside lower center", ncols=len(columns),
        frameon=False, handlelength=2.6, handletextpad=0.5,
    )  # fmt: skip
    for (artist, _), text in zip(entries, legend.get_texts(), strict=True):
        if artist is nothing:
            text.set_fontweight("bold")


def measured_on(summary: Summary) -> str:
    """What every number and picture of a report depends on, for captions."""
    one = summary.first
    which = in_seeds(record.seed for record in summary.records)
    data = f"{data_in_words(one.data.name)}, {one.data.shape[1]}x{one.data.shape[2]}"
    return f"{data}; {one.settings.training.steps:,} training steps; {which}."


def data_in_words(name: str) -> str:
    return DATA_IN_WORDS.get(name, name)


def running_mean(values: Sequence[float], halves: Sequence[int]) -> list[float]:
    """values[i] as the mean over i - h..i + h, where h = halves[i], or less near the ends, whose values stay."""
    reach = [min(half, i, len(values) - 1 - i) for i, half in enumerate(halves)]
    return [fmean(values[i - h : i + h + 1]) for i, h in enumerate(reach)]
