"""The variational bound term by term: L_{t-1} against t."""

from collections.abc import Sequence
from itertools import cycle
from statistics import fmean

from matplotlib.figure import Figure

from ddpm_bench.records.record import BoundTerms, Record
from ddpm_bench.report.figures.drawing import LINES, group_panels, legend_below, measured_on
from ddpm_bench.report.labels import mathtext
from ddpm_bench.report.pictures import PictureFolder
from ddpm_bench.report.summary import MeasuredCell, Summary


def draw_terms(figure: Figure, summaries: Sequence[Summary], _: PictureFolder) -> str:
    """L_{t-1} in bits/dim for t = 1..T, a line a cell, on logarithmic axes: most of the bound is at small t."""
    summary = summaries[0]
    terms = {row.cell.name: found for row in summary.rows if (found := _mean_terms(row))}
    if not terms:
        return ""
    for rows, axes in group_panels(figure, summary.rows, 2.3):
        for row, (colour, dashes) in zip(rows, cycle(LINES), strict=False):
            values = terms.get(row.cell.name, ())
            axes.plot(
                range(1, len(values) + 1), values, color=colour, linestyle=dashes, linewidth=1.3,
                marker="o", markevery=[0] if values else None, markersize=3.5,
                label=mathtext(row.cell.label) if values else None,
            )  # fmt: skip
        axes.set_xscale("log")
        axes.set_yscale("log")
        axes.set_xlabel("$t$")
        axes.set_ylabel(r"$L_{t-1}$, bits/dim")
        axes.label_outer()
        axes.grid(True)
        legend_below(axes)
    bounds = [bound for record in summary.records if (bound := _terms(record))]
    seeds = " means over the seeds;" if any(len(row.done) > 1 for row in summary.rows) else ""
    return (
        f"Terms L_(t−1) of the variational bound by step t, of {bounds[0].images:,} test images;{seeds} the dot at "
        "t = 1 is L_0, the decoder's. Both axes are logarithmic; the terms of a line and L_T add up to the bound of "
        f"these images. Depends on: {measured_on(summary)}"
    )


def _mean_terms(row: MeasuredCell) -> list[float]:
    """terms[t-1] of the cell, the mean over its seeds; empty where no run has single terms."""
    runs = [bound.terms for record in row.done if (bound := _terms(record))]
    return [fmean(same) for same in zip(*runs, strict=True)]


def _terms(record: Record) -> BoundTerms | None:
    """Early records have the terms without the errors of x_0 that `every_term` asks for."""
    return record.every_term or next((b for b in record.bounds if b.split == "test" and b.terms), None)
