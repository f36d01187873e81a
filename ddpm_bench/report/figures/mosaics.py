"""Pictures of all cells side by side: samples, generation step by step, and the training images nearest to samples."""

import json
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ddpm_bench.config.metrics import DISTANCE
from ddpm_bench.records.record import Record
from ddpm_bench.report.figures.drawing import COLUMNS, GREY, SMALL, WIDTH, Said, cell_panels, measured_on
from ddpm_bench.report.figures.in_words import ranking
from ddpm_bench.report.figures.neighbour_distances import seen_in
from ddpm_bench.report.pictures import GRID_SIDE, LABELLED_SIDE, PictureFolder
from ddpm_bench.report.summary import MeasuredCell, Summary, by_group
from ddpm_bench.report.table_remarks import NOT_MEASURED

SAMPLE_ROWS = 4
"""Rows of eight samples of a cell: half of its picture, so that they can still be seen."""
SHOWN_ROWS, SHOWN_COLUMNS = 3, 6
"""Images of a cell in the other figures."""
WHITE, WIDE = 255, 6
"""What lies between images, and how many pixels of it set a column apart."""


@dataclass(frozen=True)
class CellPictures:
    """What a cell shows: the run and its images, uint8 (rows, columns, H, W, C), with a heading a column or none."""

    record: Record
    tiles: np.ndarray
    heads: tuple[str, ...] = ()


def draw_samples(figure: Figure, summaries: Sequence[Summary], pictures: PictureFolder) -> Said | None:
    """The first samples of every cell, made from the same noise."""

    def read(record: Record) -> CellPictures | None:
        tiles = record.sample_grid and pictures.tiles(record.sample_grid, record.data.shape, GRID_SIDE)
        return CellPictures(record, tiles[:SAMPLE_ROWS]) if isinstance(tiles, np.ndarray) else None

    what = "The first samples of each cell at the end of training, not selected."
    return _side_by_side(figure, summaries[0], read, what, ranking(summaries[0], DISTANCE))


def draw_generation(figure: Figure, summaries: Sequence[Summary], pictures: PictureFolder) -> Said | None:
    """What is predicted of the image along the chain, for the first samples of every cell (section 4.3, Figure 6)."""

    def read(record: Record) -> CellPictures | None:
        tiles = _labelled(record, "progressive", pictures)
        if tiles is None:
            return None
        columns = np.linspace(0, tiles.shape[1] - 1, min(SHOWN_COLUMNS, tiles.shape[1])).round().astype(int).tolist()
        steps = _steps(pictures.about(record.pictures["progressive"]), columns)
        return CellPictures(record, tiles[:SHOWN_ROWS, columns], steps)

    what = (
        "Progressive generation: a row a sample; under each image the step t of the reverse process at which x_0 was "
        "predicted so, and t = 0 for the sample itself."
    )
    return _side_by_side(figure, summaries[0], read, what, ranking(summaries[0], DISTANCE))


def draw_neighbours(
    figure: Figure, summaries: Sequence[Summary], pictures: PictureFolder, *, space: str
) -> Said | None:
    """Samples of every cell with the training images nearest to them in `space`, "pixel" or "feature"."""

    def read(record: Record) -> CellPictures | None:
        tiles = _labelled(record, f"neighbours-{space}", pictures)
        if tiles is None:
            return None
        tiles = tiles[:SHOWN_ROWS, :SHOWN_COLUMNS]
        return CellPictures(record, tiles, ("sample", *map(str, range(1, tiles.shape[1]))))

    where = "pixels" if space == "pixel" else f"features of the extractor {summaries[0].first.extractor.name}"
    what = (
        f"In each row a sample, and after the gap the training images nearest to it in {where}, nearest first. "
        "A copy of its neighbour would be memorised."
    )
    return _side_by_side(figure, summaries[0], read, what, seen_in(space, summaries[0]), apart=1)


def _labelled(record: Record, name: str, pictures: PictureFolder) -> np.ndarray | None:
    if name not in record.pictures:
        return None
    return pictures.tiles(record.pictures[name], record.data.shape, LABELLED_SIDE)


def _steps(about: str, columns: Sequence[int]) -> tuple[str, ...]:
    """The t of each column, which the picture says of itself; nothing where it does not."""
    try:
        at = json.loads(about)["t"]
        return tuple(f"{int(at[column])}" for column in columns)
    except (ValueError, KeyError, TypeError, IndexError, OverflowError, RecursionError):
        return ()


def _side_by_side(
    figure: Figure,
    summary: Summary,
    read: Callable[[Record], CellPictures | None],
    what: str,
    seen: str,
    apart: int = 0,
) -> Said | None:
    """Fill `figure` with a panel a cell; the first `apart` columns of images stand off. Returns the caption."""
    shown = _chosen(summary, read)
    if not shown:
        return None
    mosaics = {name: mosaic(one.tiles, apart) for name, one in shown.items()}
    columns = min(COLUMNS, max(map(len, by_group(summary.rows).values())))
    tallest = max(one.shape[0] / one.shape[1] for one in mosaics.values())
    heads = 0.16 * any(one.heads for one in shown.values())
    seeds = {one.record.seed for one in shown.values()}
    for row, axes in cell_panels(figure, summary.rows, tallest * (WIDTH / columns - 0.1) + 0.28 + heads):
        one = shown.get(row.cell.name)
        if one is None:
            _without(axes, row)
            continue
        axes.imshow(mosaics[row.cell.name], cmap="gray", vmin=0, vmax=WHITE)
        remarks = [f"seed {one.record.seed}"] * (len(seeds) > 1) + ["diverged"] * (one.record.outcome == "diverged")
        if remarks:
            axes.set_title(f"{axes.get_title()} ({', '.join(remarks)})", fontsize=SMALL)
        _head(axes, one, apart)
    same = f"in every cell (seed {seeds.pop()})" if len(seeds) == 1 else "for the same seed"
    count = next(iter(shown.values())).tiles.shape
    return Said(
        f"{what} Made from the same noise {same}. Depends on: {measured_on(summary)}",
        f"{len(shown)} cells in the order of the table, {count[0]} rows of {count[1]} images each. {seen}",
    )


def _chosen(summary: Summary, read: Callable[[Record], CellPictures | None]) -> dict[str, CellPictures]:
    """What each cell shows: the seed that most cells can show, else the first seed that can be shown.

    Only as many pictures are read as it takes to be sure of that: most seeds of many are never looked at.
    """
    held: dict[tuple[str, int], CellPictures | None] = {}

    def shown(record: Record) -> CellPictures | None:
        run = (record.cell, record.seed)
        if run not in held:
            held[run] = read(record)
        return held[run]

    found = {row.cell.name: row.done if any(map(shown, row.done)) else row.diverged for row in summary.rows}
    having = defaultdict[int, list[Record]](list)
    for record in (record for runs in found.values() for record in runs):
        having[record.seed].append(record)
    best = (0, 0)  # cells that can show a seed, and that seed, negative so that the lowest is the best
    for most in sorted(((len(runs), -seed) for seed, runs in having.items()), reverse=True):
        if most <= best:
            break
        best = max(best, (sum(map(bool, map(shown, having[-most[1]]))), most[1]))
    usual_first = {name: sorted(runs, key=lambda record: record.seed != -best[1]) for name, runs in found.items()}
    first = {name: next(filter(None, map(shown, runs)), None) for name, runs in usual_first.items()}
    return {name: one for name, one in first.items() if one}


def mosaic(tiles: np.ndarray, apart: int = 0, gap: int = 1) -> np.ndarray:
    """Images (rows, columns, H, W, C) as one, (h, w) or (h, w, 3), with `gap` white pixels between them.

    Between the first `apart` columns and the others there are WIDE more.
    """
    rows, columns, height, width, channels = tiles.shape
    high, wide = rows * (height + gap) - gap, columns * (width + gap) - gap
    canvas = np.full((high, wide + (WIDE if apart else 0), channels), WHITE, dtype=np.uint8)
    for row in range(rows):
        for column in range(columns):
            top, left = row * (height + gap), left_of(column, width, apart, gap)
            canvas[top : top + height, left : left + width] = tiles[row, column]
    return canvas[:, :, 0] if channels == 1 else canvas


def left_of(column: int, width: int, apart: int = 0, gap: int = 1) -> int:
    """Where a column of a mosaic begins."""
    return column * (width + gap) + (WIDE if apart and column >= apart else 0)


def _head(axes: Axes, shown: CellPictures, apart: int) -> None:
    """The headings stand below the images, where they do not run into the panel's title."""
    for side in axes.spines.values():
        side.set_visible(False)
    width = shown.tiles.shape[3]
    places = [left_of(column, width, apart) + (width - 1) / 2 for column in range(len(shown.heads))]
    axes.set_xticks(places, shown.heads, fontsize=SMALL)
    axes.set_yticks([])
    axes.tick_params(length=0, pad=2)


def _without(axes: Axes, row: MeasuredCell) -> None:
    words = {"diverged": "diverged", "not measured": NOT_MEASURED}.get(row.status, "no picture")
    axes.text(0.5, 0.5, words, transform=axes.transAxes, ha="center", va="center", color=GREY, fontsize=SMALL)
    axes.set_axis_off()
