"""The bound: how it was measured, how sure it is, what it consists of, and test against train."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist, fmean

from ddpm_bench.config.grid import Cell, Grid
from ddpm_bench.config.published import Coding
from ddpm_bench.config.shipped import load_coding
from ddpm_bench.records.likelihoods import BoundTerms
from ddpm_bench.report.progressive_coding import Coded, coded, has_progressive
from ddpm_bench.report.summary import MeasuredCell, Summary

Z = NormalDist().inv_cdf(0.975)
DECODERS = {"exact": "exact discretized decoder", "paper": "decoder with the release's tanh approximation"}


@dataclass(frozen=True)
class SplitGap:
    """Test bound minus train bound in bits/dim, the mean over the seeds that have both.

    The splits hold different images, the same ones for every seed. So seeds do not lower the error by the choice of
    images, and `standard_error` is the mean of the seeds' own: that of two independent samples of images.
    """

    cell: str
    difference: float
    standard_error: float


def gaps(summary: Summary) -> list[SplitGap]:
    """One for each cell whose test and train images were both measured."""
    found = []
    for row in summary.rows:
        pairs = list(zip(row.bounds_of("test"), row.bounds_of("train"), strict=False))
        if pairs:
            difference = fmean(test.total - train.total for test, train in pairs)
            error = fmean(math.hypot(test.standard_error, train.standard_error) for test, train in pairs)
            found.append(SplitGap(row.cell.name, difference, error))
    return found


def bound_remarks(summary: Summary) -> list[str]:
    """How the bounds of a table were measured and how far they can be trusted; nothing where there are none."""
    bounds = [bound for row in summary.rows for bound in row.bounds]
    if not bounds:
        return []
    said = [_method(bounds), _errors(bounds)]
    if summary.first.settings.network.told_classes:
        said.append("Bits/dim are of p(x|y): each image's own class is told.")
    if found := gaps(summary):
        listed = "; ".join(f"{gap.cell} {_signed(gap.difference)} ({gap.standard_error:.3f})" for gap in found)
        said.append(
            "Test bound minus train bound in bits/dim, in parentheses its standard error (the splits hold different images, which "
            f"alone makes a difference): {listed}."
        )
    return said


def _signed(value: float) -> str:
    return f"{value:+.3f}".replace("-", "−")


def _method(bounds: Sequence[BoundTerms]) -> str:
    one, evals = bounds[0], sorted({bound.evals for bound in bounds})
    calls = " to ".join(f"{count:,}" for count in dict.fromkeys((evals[0], evals[-1])))  # chains may differ in length
    how = (
        f"every t of every image, {calls} network calls an image"
        if one.method == "exact"
        else f"an unbiased estimate by {calls} network calls an image, not every t"
    )
    counts = ", ".join(f"{count:,} {split}" for split, count in sorted({(b.split, b.images) for b in bounds}))
    clip = "x_0 clipped" if one.clip_x0 else "x_0 not clipped"
    own = " Of a cell in fewer steps than T it is that of its strided chain." if any(b.steps for b in bounds) else ""
    return f"Bound: upper bound on the code length; {how}; {clip}; {DECODERS[one.decoder]}; images: {counts}.{own}"


def _errors(bounds: Sequence[BoundTerms]) -> str:
    largest = max(bound.standard_error for bound in bounds)
    said = (
        f"Standard error of a run's bound, for its images as a sample of the data: at most {largest:.3f} bits/dim, "
        f"so the 95% interval reaches at most {Z * largest:.3f} to either side"
    )
    if bounds[0].method == "estimate":
        error = max(bound.estimate_error for bound in bounds)
        said += f"; of the estimate, against the exact bound of the same images: at most {error:.4f}"
    return said + "."


def codes_of(summary: Summary) -> dict[Cell, Coded]:
    """The progressive code of the test images for each cell that has the data."""
    found = {}
    for row in summary.rows:
        if bounds := [
            record.every_term for record in row.done if record.every_term and has_progressive(record.every_term)
        ]:
            found[row.cell] = coded(row_name(row), bounds)
    return found


def published_code(grid: Grid) -> Coding | None:
    """The progressive code that the grid's source published, if the grid names one."""
    return load_coding(grid.coding) if grid.coding else None


def row_name(row: MeasuredCell) -> str:
    """The row's label with its group, since labels may be alike in several groups."""
    return f"{row.cell.group}: {row.cell.label}" if row.cell.group else row.cell.label
