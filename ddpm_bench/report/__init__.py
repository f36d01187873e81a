"""The report: from records and published numbers alone to a page, tables and plots. Imports no torch."""

from collections.abc import Sequence
from pathlib import Path

from rich.console import Group

from ddpm_bench.files import make_folder, replacing, write_text
from ddpm_bench.grid import Grid
from ddpm_bench.report.bounds import PROGRESSIVE, codes_of, published_code
from ddpm_bench.report.checkpoints import rows_beside
from ddpm_bench.report.comparison import plot_comparison
from ddpm_bench.report.curves import plot_losses
from ddpm_bench.report.layouts import DOCUMENT, to_frame, to_latex
from ddpm_bench.report.page import page
from ddpm_bench.report.progressive_plot import plot_progressive
from ddpm_bench.report.samples import copy_pictures
from ddpm_bench.report.summary import summaries
from ddpm_bench.report.table import make_table
from ddpm_bench.report.terminal import TerminalTable
from ddpm_bench.store import Record

__all__ = ["render", "terminal_table"]


def terminal_table(records: Sequence[Record], grid: Grid) -> Group:
    """The table with its notes, for `rich.console.Console.print`.

    Where runs have several checkpoints, a second one is for the best. UserError when the records do not belong to
    `grid` or were measured under different conditions.
    """
    return Group(*(TerminalTable(make_table(summary)) for summary in summaries(records, grid)))


def render(records: Sequence[Record], grid: Grid, out: Path, results: Path) -> list[Path]:
    """Write the report of `records` into the folder `out` and return its files, report.md first.

    `results` is the folder the records were read from; their sample pictures lie there. A missing or broken picture is
    said and left out. UserError as for `terminal_table`, before anything is written, and for an unwritable folder.
    """
    measured = summaries(records, grid)
    tables = [make_table(summary) for summary in measured]
    rows = rows_beside(results)
    codes, code = codes_of(measured[0]), published_code(grid)
    make_folder(out)
    pictures = copy_pictures(measured[0].rows, results, out / "samples")
    plot_comparison(out / "distance.png", measured, "fd_train")
    plot_comparison(out / "score.png", measured, "is_mean")
    plot_losses(out / "loss.png", measured[0].rows)
    if codes:
        plot_progressive(out / f"{PROGRESSIVE}.png", list(codes.values()), code, measured[0].bounds_comparable)
    with replacing(out / "table.csv") as temporary:
        to_frame(measured).to_csv(temporary, index=False, float_format="%.6g")
    texts = {
        "report.md": page(measured, tables, pictures, rows),
        "table.tex": to_latex(tables, grid.name),
        "table-document.tex": DOCUMENT,
    }
    for name, text in texts.items():
        write_text(out / name, text)
    written = ["report.md", "table.tex", "table-document.tex", "table.csv", "distance.png", "score.png", "loss.png"]
    written += [f"{PROGRESSIVE}.png", f"{PROGRESSIVE}.pdf"] if codes else []
    return [out / name for name in written] + [picture.path for picture in pictures.values() if picture.path]
