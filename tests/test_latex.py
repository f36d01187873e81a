"""The LaTeX table in a document of its own, compiled by a real pdflatex."""

import re
import subprocess
from pathlib import Path

import pytest
from programs import pdflatex
from records import make_record, paper_records, quick_records

from ddpm_bench.config.grid import load_grid
from ddpm_bench.records.record import Record
from ddpm_bench.report.results_table import make_table
from ddpm_bench.report.summary import summaries
from ddpm_bench.report.writers.latex import latex_document, to_latex


def table_1() -> list[Record]:
    grid = load_grid("table1")
    return [make_record(grid, cell.name, seed) for cell in grid.cells for seed in (0, 1)]


@pytest.mark.parametrize("records", [quick_records, paper_records, table_1])
def test_it_compiles_and_fits_the_page(tmp_path: Path, records) -> None:
    program, records = pdflatex(), records()
    tables = [make_table(summary) for summary in summaries(records, load_grid(records[0].grid))]
    (tmp_path / "table.tex").write_text(to_latex(tables, "table"), encoding="utf-8")
    (tmp_path / "table-document.tex").write_text(latex_document(), encoding="utf-8")
    command = [program, "-interaction=nonstopmode", "-halt-on-error", "-no-shell-escape", "table-document.tex"]
    run = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, errors="replace", check=False)
    assert run.returncode == 0, run.stdout[-2000:]
    log = (tmp_path / "table-document.log").read_text(encoding="utf-8", errors="replace")
    assert not re.findall(r"^(?:Overfull .*|LaTeX Warning: (?:Float too large|Reference).*)", log, flags=re.MULTILINE)
    assert (tmp_path / "table-document.pdf").read_bytes().startswith(b"%PDF")
