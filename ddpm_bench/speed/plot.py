"""The figure of a speed measurement: above, images/s by kind of work; below, where the time of each phase goes."""

from pathlib import Path

from matplotlib.axes import Axes

from ddpm_bench.report.figures.cell_styles import BLUE, GREEN, ORANGE, PURPLE, SKY, VERMILLION
from ddpm_bench.report.figures.drawing import GREY, WIDTH, canvas, save
from ddpm_bench.speed.result import WORKS, Speed, Timing

COLOURS = {
    "network": BLUE, "loss and backward": SKY, "optimizer and average": GREEN, "data": ORANGE, "checkpoints": PURPLE,
    "sampling arithmetic": VERMILLION, "bound arithmetic": VERMILLION, "metrics": "black", "other": GREY,
}  # fmt: skip
LABELS = {"sampling arithmetic": "arithmetic around it", "bound arithmetic": "_"}
"""Where the legend names a part otherwise; "_": not at all."""


def draw(speed: Speed, path: Path) -> Path:
    """Write the PNG `path`; returns the PDF beside it."""
    by_work = {work: rows for work in WORKS if (rows := [row for row in speed.rows if row.work == work])}
    heights = [
        0.8 + 0.22 * max(map(len, by_work.values())),
        *([1.0 + 0.22 * len(speed.phases)] if speed.phases else ()),
    ]
    with canvas() as figure:
        figure.set_size_inches(WIDTH, sum(heights))
        above, *below = figure.subfigures(len(heights), 1, height_ratios=heights, squeeze=False)[:, 0]
        across = above.subplots(1, len(by_work), sharey=True, squeeze=False)[0]
        for axes, (work, rows) in zip(across, by_work.items(), strict=True):
            _rates(axes, WORKS[work], rows)
        for part in below:
            _shares(part.subplots(), speed)
        return save(figure, path)


def _rates(axes: Axes, title: str, rows: list[Timing]) -> None:
    """A bar a contender: ours dark, those of equal work light, others grey."""
    names = [f"{row.contender}{'' if row.equal_work else ' *'}, {row.precision}" for row in rows]
    colours = [BLUE if row.ours is None else SKY if row.equal_work else GREY for row in rows]
    axes.barh(names, [row.images_per_s for row in rows], color=colours)
    axes.set(title=title.replace(" ", "\n", 1), xlabel="images/s", ylim=(len(rows) - 0.5, -0.5))
    axes.grid(axis="x")


def _shares(axes: Axes, speed: Speed) -> None:
    """A bar a phase, cut into its parts."""
    names, left = [phase.name for phase in speed.phases], [0.0] * len(speed.phases)
    for part in speed.parts:
        shares = [100 * phase.share(part) for phase in speed.phases]
        axes.barh(names, shares, left=left, color=COLOURS[part], label=LABELS.get(part, part))
        left = [sum(pair) for pair in zip(left, shares, strict=True)]
    axes.set(xlabel="% of the time of the phase", xlim=(0, 100), ylim=(len(names) - 0.5, -0.5))
    axes.legend(loc="center left", bbox_to_anchor=(1, 0.5), frameon=False)
