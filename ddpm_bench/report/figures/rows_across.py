"""One checkpoint in the cells of a grid of samplers, `ablate --ckpt`: its distances along the grid's axis, a line for every label."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from ddpm_bench.config.metrics import METRICS
from ddpm_bench.files import make_folder
from ddpm_bench.records.row import Row
from ddpm_bench.report.across import axis_name
from ddpm_bench.report.figures.across import draw_lines
from ddpm_bench.report.figures.drawing import beside_published, canvas, data_in_words, one_legend, save

DISTANCE = "fd_train"


def draw_rows(axis: str, lines: Mapping[str, Sequence[tuple[float, Row]]], png: Path) -> Path | None:
    """The figure as PNG, and beside it as PDF; None, and nothing, where all rows, by label with their places, are in one place."""
    placed = [each for line in lines.values() for each in line]
    if len({at for at, _ in placed}) < 2:
        return None
    setup = placed[0][1].setup
    heading = METRICS[DISTANCE].heading(setup.extractor.labels)
    points = {label: [(at, row.metrics[DISTANCE], 0.0) for at, row in line] for label, line in lines.items()}
    with canvas() as figure:
        panels = beside_published(figure, len(lines), False)
        title = f"{heading}, {data_in_words(setup.data.name)}, {setup.samples:,} samples, seed {setup.seed}"
        draw_lines(panels[0], points, DISTANCE, title, axis_name(axis))
        one_legend(figure, panels)
        make_folder(png.parent)
        save(figure, png)
    return png
