"""The bound: how it was measured, how sure it is, what it consists of, and test against train."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist, fmean

from ddpm_bench.config.grid import Cell, Grid, load_coding
from ddpm_bench.config.published import Coding
from ddpm_bench.records.record import BoundTerms
from ddpm_bench.report.labels import escape_markdown, markdown
from ddpm_bench.report.progressive import Coded, coded, has_progressive, split_in_words, to_markdown
from ddpm_bench.report.summary import Row, Summary

Z = NormalDist().inv_cdf(0.975)
DECODERS = {"exact": "exact discretized decoder", "paper": "decoder with the release's tanh approximation"}


@dataclass(frozen=True)
class Gap:
    """Test bound less train bound in bits/dim, the mean over the seeds that have both.

    The splits hold different images, the same ones for every seed. So seeds do not lower the error by the choice of
    images, and `standard_error` is the mean of the seeds' own: that of two independent samples of images.
    """

    cell: str
    difference: float
    standard_error: float


def gaps(summary: Summary) -> list[Gap]:
    """One for each cell whose test and train images were both measured."""
    found = []
    for row in summary.rows:
        pairs = list(zip(row.bounds_of("test"), row.bounds_of("train"), strict=False))
        if pairs:
            difference = fmean(test.total - train.total for test, train in pairs)
            error = fmean(math.hypot(test.standard_error, train.standard_error) for test, train in pairs)
            found.append(Gap(row.cell.name, difference, error))
    return found


def bound_remarks(summary: Summary) -> list[str]:
    """How the bounds of a table were measured and how far they can be trusted; nothing where there are none."""
    bounds = [bound for row in summary.rows for bound in row.bounds]
    if not bounds:
        return []
    said = [_method(bounds), _errors(bounds)]
    if found := gaps(summary):
        listed = "; ".join(f"{gap.cell} {_signed(gap.difference)} ± {gap.standard_error:.3f}" for gap in found)
        said.append(
            "Bound, test less train in bits/dim ± standard error (different images in the two splits, which alone make "
            f"a difference): {listed}."
        )
    return said


def _signed(value: float) -> str:
    return f"{value:+.3f}".replace("-", "−")


def _method(bounds: Sequence[BoundTerms]) -> str:
    one = bounds[0]
    how = (
        f"every t of every image, {one.evals:,} network calls an image"
        if one.method == "exact"
        else f"an unbiased estimate by {one.evals:,} network calls an image, not every t"
    )
    counts = ", ".join(f"{count:,} {split}" for split, count in sorted({(b.split, b.images) for b in bounds}))
    clip = "x_0 clipped" if one.clip_x0 else "x_0 not clipped"
    return f"Bound: upper bound on the code length; {how}; {clip}; {DECODERS[one.decoder]}; images: {counts}."


def _errors(bounds: Sequence[BoundTerms]) -> str:
    largest = max(bound.standard_error for bound in bounds)
    said = (
        f"Standard error of a run's bound, its images taken as a sample of the data: at most {largest:.3f} bits/dim, "
        f"so the 95% interval is within ± {Z * largest:.3f}"
    )
    if bounds[0].method == "estimate":
        error = max(bound.estimate_error for bound in bounds)
        said += f"; of the estimate itself, against every t of the same images: at most {error:.4f}"
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


def bounds_section(summary: Summary) -> list[str]:
    """Markdown: what the bounds consist of, and the progressive codes of the cells that have the data."""
    lines = [
        _line(row, split, bounds)
        for row in summary.rows
        for split in ("test", "train")
        if (bounds := row.bounds_of(split))
    ]
    if not lines:
        return []
    several = " Means over the seeds." if any(len(row.bounds_of("test")) > 1 for row in summary.rows) else ""
    heads = ["Objective", "split", "images", "bound", "standard error", "95% interval"]
    heads += ["rate: L<sub>T</sub>", "rate: L<sub>1</sub> + … + L<sub>T−1</sub>", "distortion: L<sub>0</sub>"]
    rows = [heads, ["---", "---", *["---:"] * (len(heads) - 2)], *lines]
    return [
        "## Rate and distortion",
        "In bits/dim. L<sub>0</sub>, the decoder's term, is the distortion and all others are the rate. The standard "
        f"error is over the images.{several}",
        "\n".join(f"| {' | '.join(row)} |" for row in rows),
        *_progressive(summary),
    ]


def _line(row: Row, split: str, bounds: Sequence[BoundTerms]) -> list[str]:
    total, error = fmean(b.total for b in bounds), fmean(b.standard_error for b in bounds)
    return [
        markdown(row_name(row)), split, f"{bounds[0].images:,}", f"{total:.3f}", f"{error:.3f}",
        f"{total - Z * error:.3f} to {total + Z * error:.3f}", f"{fmean(b.prior for b in bounds):.1e}",
        f"{fmean(b.middle for b in bounds):.3f}", f"{fmean(b.first for b in bounds):.3f}",
    ]  # fmt: skip


def _progressive(summary: Summary) -> list[str]:
    codes, published = codes_of(summary), published_code(summary.grid)
    if not codes:
        return []
    source = f" Published: {escape_markdown(published.source)}, {markdown(published.label)}." if published else ""
    apart = "" if summary.bounds_comparable or not published else " **Not comparable with it**, as above."
    parts = [
        "## Progressive coding",
        "Test images. After each reverse step: the bits/dim that were sent so far, and the root mean squared error of "
        f"the image that is predicted then, of pixels 0..255.{source}{apart}",
    ]
    for cell, code in codes.items():
        beside = published if published and published.axes == cell.axes else None
        parts.append(
            f"<details{' open' if beside else ''}><summary>{markdown(code.label)}</summary>\n\n"
            f"{escape_markdown(split_in_words(code, beside))}\n\n{to_markdown(code, beside)}\n\n</details>"
        )
    return parts


def row_name(row: Row) -> str:
    """The row's label with its group, since labels may be alike in several groups."""
    return f"{row.cell.group}: {row.cell.label}" if row.cell.group else row.cell.label
