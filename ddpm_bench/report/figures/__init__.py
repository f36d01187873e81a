"""All figures of the report, from records and the pictures beside them. One more: a function and an entry in PLOTS."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath

from matplotlib.figure import Figure as Canvas

from ddpm_bench.config.metrics import AGREEMENT, BOUNDS, DISTANCE, SCORE
from ddpm_bench.report.blocks import Figure, Image
from ddpm_bench.report.figures import across, measured_and_published, trade_off
from ddpm_bench.report.figures.bound_terms import draw_terms
from ddpm_bench.report.figures.drawing import Said, canvas, save
from ddpm_bench.report.figures.forward_process import draw_schedule
from ddpm_bench.report.figures.mosaics import draw_generation, draw_neighbours, draw_samples
from ddpm_bench.report.figures.neighbour_distances import draw_nearness
from ddpm_bench.report.figures.progressive_coding import draw_codes
from ddpm_bench.report.figures.scores_by_step import draw_scores
from ddpm_bench.report.figures.training_curves import draw_losses
from ddpm_bench.report.pictures import PictureFolder
from ddpm_bench.report.summary import Summary
from ddpm_bench.runtime.observer import say


@dataclass(frozen=True)
class DrawnFigure:
    """A figure in its files. `name`: their stem. title, caption, seen (see `Said`): plain text, not escaped."""

    name: str
    title: str
    caption: str
    seen: str
    png: Path
    pdf: Path

    @property
    def block(self) -> Figure:
        """As a report beside the files shows it."""
        return Figure(self.title, Image(PurePosixPath(self.png.name), self.seen), self.caption, self.pdf.name)


@dataclass(frozen=True)
class Plot:
    """`draw` fills an empty figure, sets its size, and returns what is said of it.

    It returns None, and draws nothing, where the records have nothing for it.
    """

    name: str
    title: str
    draw: Callable[[Canvas, Sequence[Summary], PictureFolder], Said | None]


PLOTS = (
    Plot("distance", "Distance, measured and published", partial(measured_and_published.draw, key=DISTANCE)),
    Plot("score", "Score, measured and published", partial(measured_and_published.draw, key=SCORE)),
    Plot("bound", "Bound, measured and published", partial(measured_and_published.draw, key=BOUNDS["test"])),
    Plot("across-distance", "Distance, side by side", partial(across.draw, key=DISTANCE)),
    Plot("trade-off", "Distance against score", trade_off.draw),
    Plot("across-agreement", "Class agreement, side by side", partial(across.draw, key=AGREEMENT)),
    Plot("across-bound", "Bound, side by side", partial(across.draw, key=BOUNDS["test"])),
    Plot("samples", "Samples of all cells", draw_samples),
    Plot("loss", "Training loss", draw_losses),
    Plot("scores-by-step", "Scores by training step", draw_scores),
    Plot("terms", "The bound term by term", draw_terms),
    Plot("progressive", "Rate and distortion", draw_codes),
    Plot("generation", "Progressive generation", draw_generation),
    Plot("schedule", "The forward process", draw_schedule),
    Plot("neighbours-pixel", "Nearest training images, in pixels", partial(draw_neighbours, space="pixel")),
    Plot("neighbours-feature", "Nearest training images, in features", partial(draw_neighbours, space="feature")),
    Plot("nearness", "Distances to the nearest training image", draw_nearness),
)
"""In the order of the report. Names are those of files that other documents link to."""


def draw_figures(summaries: Sequence[Summary], pictures: PictureFolder, out: Path) -> list[DrawnFigure]:
    """Draw into the folder `out` all figures that the records allow, each as PNG and PDF; missing pictures are said.

    Said too is a figure that cannot be drawn, as of a bound that is infinite in every cell.
    """
    drawn = []
    for plot in PLOTS:
        try:
            drawn += _drawn(plot, summaries, pictures, out)
        except (ValueError, ArithmeticError) as error:  # what matplotlib says of axes without an end
            say(f"Report: the figure '{plot.title}' cannot be drawn of these numbers ({error}).")
    return drawn


def _drawn(plot: Plot, summaries: Sequence[Summary], pictures: PictureFolder, out: Path) -> list[DrawnFigure]:
    with canvas() as figure:
        if said := plot.draw(figure, summaries, pictures):
            png = out / f"{plot.name}.png"
            return [DrawnFigure(plot.name, plot.title, said.caption, said.seen, png, save(figure, png))]
    return []
