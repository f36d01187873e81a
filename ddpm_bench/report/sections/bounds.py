"""What the bounds consist of, and the progressive codes of the cells that have the data."""

from collections.abc import Sequence
from statistics import fmean

from ddpm_bench.config.metrics import BOUNDS
from ddpm_bench.config.published import Coding
from ddpm_bench.records.likelihoods import BoundTerms
from ddpm_bench.report.blocks import Block, Bold, Details, Entry, Heading, Paragraph, Subscript, Symbols, Table
from ddpm_bench.report.bounds import Z, codes_of, published_code, row_name
from ddpm_bench.report.progressive_coding import MEASURED_HEADS, PUBLISHED_HEADS, Coded, lines, split_in_words
from ddpm_bench.report.summary import MeasuredCell, Summary

TITLE = "Rate and distortion"
L_0 = ("L", Subscript("0"))
HEADS = (
    "cell", "split", "images", "bound", "standard error", "95% interval", ("rate: L", Subscript("T")),
    ("rate: L", Subscript("1"), " + … + L", Subscript("T−1")), ("distortion: ", L_0),
)  # fmt: skip


def bounds_section(summary: Summary) -> list[Block]:
    """Nothing where no bound was measured."""
    entries = tuple(
        _line(row, split, bounds) for row in summary.rows for split in BOUNDS if (bounds := row.bounds_of(split))
    )
    if not entries:
        return []
    several = " Means over the seeds." if any(len(row.bounds_of("test")) > 1 for row in summary.rows) else ""
    said = (
        "In bits/dim. ", L_0, ", the decoder's term, is the distortion and all others are the rate. The standard "
        f"error is over the images.{several}",
    )  # fmt: skip
    return [
        Heading(2, TITLE),
        Paragraph(said),
        Table(TITLE, "ll" + "r" * (len(HEADS) - 2), HEADS, entries),
        *_progressive(summary),
    ]


def _line(row: MeasuredCell, split: str, bounds: Sequence[BoundTerms]) -> tuple[Entry, ...]:
    total, error = fmean(b.total for b in bounds), fmean(b.standard_error for b in bounds)
    return (
        Symbols(row_name(row)), split, f"{bounds[0].images:,}", f"{total:.3f}", f"{error:.3f}",
        f"{total - Z * error:.3f} to {total + Z * error:.3f}", f"{fmean(b.prior for b in bounds):.1e}",
        f"{fmean(b.middle for b in bounds):.3f}", f"{fmean(b.first for b in bounds):.3f}",
    )  # fmt: skip


def _progressive(summary: Summary) -> list[Block]:
    codes, published = codes_of(summary), published_code(summary.grid)
    if not codes:
        return []
    said = (
        "Test images. After each reverse step: the bits/dim that were sent so far, and the root mean squared error of "
        "the image that is predicted then, of pixels 0..255."
    )
    source = (f" Published: {published.source}, ", Symbols(published.label), ".") if published else ""
    apart = (" ", Bold("Not comparable with the published code"), ", for the reasons above.")
    blocks: list[Block] = [
        Heading(2, "Progressive coding"),
        Paragraph((said, source, "" if summary.bounds_comparable or not published else apart)),
    ]
    for cell, code in codes.items():
        beside = published if published and published.is_of(cell.under("").get("diffusion", {})) else None
        inside = Paragraph(split_in_words(code, beside)), code_table(code, beside)
        blocks.append(Details(Symbols(code.label), inside, open=beside is not None))
    return blocks


def code_table(code: Coded, published: Coding | None = None) -> Table:
    """The code step by step, the published one beside it."""
    heads = (*MEASURED_HEADS, *(PUBLISHED_HEADS if published else ()))
    return Table(Symbols(code.label), "r" * len(heads), heads, tuple(map(tuple, lines(code, published))))
