"""The scores of the checkpoints along the training, cell beside cell, with the anchors as lines."""

from collections.abc import Sequence
from statistics import fmean, stdev

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter

from ddpm_bench.config.metrics import DISTANCE, METRICS, SCORE
from ddpm_bench.records.record import Checkpoint
from ddpm_bench.report.claims_by_step import scored_steps
from ddpm_bench.report.figures.cell_styles import CellStyle, style_of
from ddpm_bench.report.figures.drawing import GREY, SMALL, WIDTH, Said, legend_of_cells, measured_on
from ddpm_bench.report.figures.in_words import cell_name, ranking
from ddpm_bench.report.figures.scales import fit_axis
from ddpm_bench.report.labels import escape_mathtext
from ddpm_bench.report.pictures import PictureFolder
from ddpm_bench.report.summary import MeasuredCell, Summary, by_group


def draw_scores(figure: Figure, summaries: Sequence[Summary], _: PictureFolder) -> Said | None:
    """Distance above, score below, all cells on one pair of axes; nothing where no run was scored twice."""
    summary = summaries[0]
    steps = scored_steps(summary)
    if len(steps) < 2:
        return None
    several = any(len(row.done) > 1 for row in summary.rows)
    shown = [row for row in summary.rows if row.done]
    figure.set_size_inches(WIDTH, 4.8 + 0.19 * max(map(len, by_group(summary.rows).values())))
    panels = figure.subplots(2, 1, sharex=True)
    for axes, key in zip(panels, (DISTANCE, SCORE), strict=True):
        for row in shown:
            _draw_cell(axes, key, row, style_of(row.cell, summary.grid), several)
        anchors = _draw_anchors(axes, key, summary)
        cells = [one.metrics[key] for row in shown for record in row.done for one in record.checkpoints]
        logarithmic = ", log scale" if fit_axis(axes, "y", key, cells, anchors) else ""
        heading = escape_mathtext(METRICS[key].heading(summary.first.extractor.labels))
        axes.set_ylabel(f"{heading}\n{METRICS[key].better}{logarithmic}")
        axes.grid(True)
    panels[-1].set_xlabel("training step")
    panels[-1].set_xlim(left=0)
    panels[-1].xaxis.set_major_formatter(EngFormatter(sep=""))
    lines = dict(zip((row.cell.name for row in shown), panels[0].lines, strict=False))
    legend_of_cells(figure, lines, summary.rows)
    bands = "± sample standard deviation over seeds" if several else "95% interval by a bootstrap over the samples"
    return Said(
        "Scores of the moving average after each training step that was scored, "
        f"{summary.first.settings.sampling.samples:,} samples each. Bands: {bands}. Grey lines are known images, scored "
        f"in the same way. Depends on: {measured_on(summary)}",
        f"{ranking(summary, DISTANCE)} {_leads(shown, steps)}",
    )


def _leads(rows: Sequence[MeasuredCell], steps: Sequence[int]) -> str:
    """Which cell has the lowest mean distance at each step."""
    best = {}
    for step in steps:
        means = {cell_name(row): fmean(found) for row in rows if (found := _values(_at(row, step), DISTANCE))}
        best[step] = min(means, key=means.__getitem__)
    name = best[steps[-1]]
    before = [step for step in steps if best[step] != name]
    since = min(step for step in steps if step > max(before, default=-1))
    return f"{name} has had the lowest distance since step {since:,}, of {len(steps)} that were scored."


def _at(row: MeasuredCell, step: int) -> list[Checkpoint]:
    """The checkpoints of all seeds that finished."""
    return [one for record in row.done for one in record.checkpoints if one.step == step]


def _values(checkpoints: Sequence[Checkpoint], key: str) -> list[float]:
    return [one.metrics[key] for one in checkpoints]


def _draw_cell(axes: Axes, key: str, row: MeasuredCell, style: CellStyle, several: bool) -> None:
    steps = sorted({one.step for record in row.done for one in record.checkpoints})
    means = [fmean(_values(_at(row, step), key)) for step in steps]
    axes.plot(
        steps, means, color=style.colour, linestyle=style.line, marker=style.mark, markersize=style.size, linewidth=1.3,
    )  # fmt: skip
    bands = {step: band for step in steps if (band := _band(_at(row, step), key, several))}
    if bands:
        low, high = zip(*bands.values(), strict=True)
        axes.fill_between(list(bands), low, high, color=style.colour, alpha=0.18, linewidth=0)


def _band(same: Sequence[Checkpoint], key: str, several: bool) -> tuple[float, float] | None:
    """What lies around the mean at a step. A band within a run among bands over seeds would be taken for one."""
    values = _values(same, key)
    if len(values) > 1:
        return fmean(values) - stdev(values), fmean(values) + stdev(values)
    quantiles = same[0].quantiles.get(key)
    return (quantiles[0], quantiles[-1]) if quantiles and not several else None


def _draw_anchors(axes: Axes, key: str, summary: Summary) -> list[float]:
    """Lines with names and values at their right end; returns the values."""
    values = {name: found[key].mean for name, found in summary.anchors.items() if key in found}
    for name, value in values.items():
        axes.axhline(value, color=GREY, linewidth=1, linestyle=(0, (1, 2)), zorder=1)
        axes.annotate(
            f"{name} {METRICS[key].text(value)}", (1, value), xycoords=("axes fraction", "data"), xytext=(3, 0),
            textcoords="offset points", va="center", color=GREY, fontsize=SMALL,
        )  # fmt: skip
    return list(values.values())
