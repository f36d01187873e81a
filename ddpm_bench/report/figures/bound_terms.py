"""The variational bound term by term: L_{t-1} against t."""

from collections.abc import Sequence
from statistics import fmean

from matplotlib.figure import Figure

from ddpm_bench.records.likelihoods import BoundTerms
from ddpm_bench.records.record import Record
from ddpm_bench.report.figures.cell_styles import style_of
from ddpm_bench.report.figures.drawing import Said, group_panels, legend_below, measured_on, running_mean
from ddpm_bench.report.figures.in_words import cell_name, ends
from ddpm_bench.report.labels import mathtext
from ddpm_bench.report.pictures import PictureFolder
from ddpm_bench.report.summary import MeasuredCell, Summary

MANY = 200
"""A line of more points than this is smoothed: on a logarithmic axis they would be a band."""
SHARE = 12
"""A smoothed point at t is the mean from t - t/SHARE to t + t/SHARE."""


def draw_terms(figure: Figure, summaries: Sequence[Summary], _: PictureFolder) -> Said | None:
    """L_{t-1} in bits/dim for t = 1..T, a line a cell, on logarithmic axes: most of the bound is at small t."""
    summary = summaries[0]
    terms = {row.cell.name: found for row in summary.rows if (found := _mean_terms(row))}
    if not terms:
        return None
    for rows, axes in group_panels(figure, summary.rows, 2.3):
        for row in rows:
            if values := terms.get(row.cell.name):
                style, T = style_of(row.cell, summary.grid), len(values)
                axes.plot(
                    range(1, T + 1), _smooth(values), color=style.colour, linestyle=style.line, linewidth=1.3,
                    marker=style.mark, markevery=sorted({0, T - 1}), markersize=style.size, label=mathtext(row.cell.label),
                )  # fmt: skip
        axes.set_xscale("log")
        axes.set_yscale("log")
        axes.set_xlabel("step $t$ of the chain")
        axes.set_ylabel(r"$L_{t-1}$, bits/dim")
        axes.label_outer()
        axes.grid(True)
        legend_below(axes)
    bounds = [bound for record in summary.records if (bound := _terms(record))]
    seeds = " means over the seeds;" if any(len(row.done) > 1 for row in summary.rows) else ""
    smooth = (
        f" Lines are running means from t − t/{SHARE} to t + t/{SHARE}, single terms at both ends."
        if any(len(values) > MANY for values in terms.values())
        else ""
    )
    names = {row.cell.name: cell_name(row) for row in summary.rows}
    first, last = ({names[name]: values[i] for name, values in terms.items()} for i in (0, -1))
    return Said(
        f"Terms L_(t−1) of the variational bound by step t, of {bounds[0].images:,} test images;{seeds} the mark at "
        "t = 1 is L_0, the decoder's. Both axes are logarithmic; the terms of a line and L_T add up to the bound of "
        f"these images.{smooth} Depends on: {measured_on(summary)}",
        f"The terms fall with t: L_0 is {ends(first, '{:.2f} bits/dim'.format)}, and the term at the last t is "
        f"{ends(last, '{:.1g} bits/dim'.format)}.",
    )


def _smooth(values: Sequence[float]) -> Sequence[float]:
    if len(values) <= MANY:
        return values
    return running_mean(values, [t // SHARE for t in range(1, len(values) + 1)])


def _mean_terms(row: MeasuredCell) -> list[float]:
    """terms[t-1] of the cell, the mean over its seeds; empty where no run has single terms."""
    runs = [bound.terms for record in row.done if (bound := _terms(record))]
    return [fmean(same) for same in zip(*runs, strict=True)]


def _terms(record: Record) -> BoundTerms | None:
    """Early records have the terms without the errors of x_0 that `every_term` asks for."""
    return record.every_term or next((b for b in record.bounds if b.split == "test" and b.terms), None)
