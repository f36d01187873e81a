"""The report: from records and published numbers alone to a page, tables and plots. Imports no torch."""

from collections.abc import Sequence
from pathlib import Path

from rich.console import Group

from ddpm_bench.config.grid import Grid
from ddpm_bench.files import make_folder, replacing, write_text
from ddpm_bench.records.record import Record
from ddpm_bench.report.checkpoint_rows import rows_beside
from ddpm_bench.report.compact_table import compact_table
from ddpm_bench.report.figures import draw_figures
from ddpm_bench.report.pictures import PictureFolder, copy_pictures
from ddpm_bench.report.results_table import make_table
from ddpm_bench.report.sections import page
from ddpm_bench.report.summary import summaries
from ddpm_bench.report.writers.html_page import html_page
from ddpm_bench.report.writers.latex import latex_document, to_latex
from ddpm_bench.report.writers.markdown import to_markdown
from ddpm_bench.report.writers.numbers import to_frame, to_json
from ddpm_bench.report.writers.terminal import TerminalTable, below
from ddpm_bench.runtime.observer import say

__all__ = ["render", "terminal_table"]


def terminal_table(records: Sequence[Record], grid: Grid) -> Group:
    """The table with its notes, the verdicts and the claims, for `rich.console.Console.print`.

    Where runs have several checkpoints, a second table is for the best. Records that do not share a table are left out.
    UserError when none are left.
    """
    measured = summaries(records, grid)
    return Group(*(TerminalTable(make_table(summary)) for summary in measured), *below(measured))


def render(records: Sequence[Record], grid: Grid, out: Path, results: Path) -> list[Path]:
    """Write the report of `records` into the folder `out` and return its files, report.md first.

    `results` is the folder the records were read from; their pictures lie there. A missing or broken picture is
    said and left out, and so are records that do not share a table. UserError as for `terminal_table`, before anything is
    written, and for an unwritable folder.
    """
    measured = summaries(records, grid)
    for aside in measured[0].set_aside:
        say(f"Set aside: {aside.what}: {aside.why}")
    tables = [make_table(summary) for summary in measured]
    rows = rows_beside(results)
    make_folder(out)
    beside = PictureFolder(results)
    shown = [summary.shown for summary in measured]
    pictures = copy_pictures(shown[0].rows, beside, out / "samples")
    figures = draw_figures(shown, beside, out)
    with replacing(out / "table.csv") as temporary:
        to_frame(measured).to_csv(temporary, index=False, float_format="%.6g")
    blocks = page(measured, tables, pictures, rows, figures)
    texts = {
        "report.md": to_markdown(blocks),
        "report.html": html_page(blocks, measured, tables, pictures, out),
        "table.tex": to_latex([compact_table(summary) for summary in measured], grid.name),
        "table-document.tex": latex_document(),
        "table-full.tex": to_latex(tables, grid.name, full=True),
        "table-full-document.tex": latex_document(full=True),
        "table.json": to_json(measured),
    }
    for name, text in texts.items():
        write_text(out / name, text)
    written = [out / name for name in (*texts, "table.csv")]
    written += [path for figure in figures for path in (figure.png, figure.pdf)]
    return written + [picture.path for picture in pictures.values() if picture.path]
