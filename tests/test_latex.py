"""The LaTeX tables in documents of their own, as wide as a page of NeurIPS, compiled by a real pdflatex."""

import re
import subprocess
from pathlib import Path

import pytest
from programs import pdflatex
from records import make_record, paper_records, quick_records

from ddpm_bench.config.shipped import load_grid
from ddpm_bench.records.record import Record, read_records
from ddpm_bench.report.results_table import make_table
from ddpm_bench.report.summary import summaries
from ddpm_bench.report.writers.latex import latex_document, to_latex

RESULTS = Path(__file__).parents[1] / "results"


def table_1() -> list[Record]:
    grid = load_grid("table1")
    return [make_record(grid, cell.name, seed) for cell in grid.cells for seed in (0, 1)]


def single_runs() -> list[Record]:
    """Every number with the ends of its interval; the longest that a table has."""
    return [make_record(load_grid("table2"), cell.name, 0) for cell in load_grid("table2").cells]


def committed(preset: str) -> list[Record]:
    return read_records(RESULTS / f"table2-{preset}")


SETS = {
    "quick": quick_records, "paper": paper_records, "table 1": table_1, "single runs": single_runs,
    "committed quick": lambda: committed("quick"), "committed cpu": lambda: committed("cpu"),
}  # fmt: skip


def compiled(folder: Path, full: bool) -> str:
    """The log of the table's document. With -draftmode there is no PDF, and all else is as ever."""
    name = "table-full" if full else "table"
    (folder / f"{name}-document.tex").write_text(latex_document(full), encoding="utf-8")
    command = [pdflatex(), "-interaction=nonstopmode", "-halt-on-error", "-no-shell-escape", f"{name}-document.tex"]
    run = subprocess.run(command, cwd=folder, capture_output=True, text=True, errors="replace", check=False)
    assert run.returncode == 0, run.stdout[-2000:]
    assert (folder / f"{name}-document.pdf").read_bytes().startswith(b"%PDF")
    return (folder / f"{name}-document.log").read_text(encoding="utf-8", errors="replace")


def faults(log: str) -> list[str]:
    return re.findall(r"^(?:Overfull .*|LaTeX Warning: (?:Float too large|Reference).*)", log, flags=re.MULTILINE)


@pytest.mark.parametrize("full", [False, True], ids=["compact", "full"])
@pytest.mark.parametrize("name", SETS)
def test_it_compiles_and_fits_the_page(tmp_path: Path, name: str, full: bool) -> None:
    records = SETS[name]()
    tables = [make_table(summary, compact=not full) for summary in summaries(records, load_grid(records[0].grid))]
    text = to_latex(tables, "table", full)
    (tmp_path / f"table{'-full' if full else ''}.tex").write_text(text, encoding="utf-8")
    assert "textwidth=5.5in" in latex_document(full) and (r"\centering\small\set" in text) != full
    assert faults(compiled(tmp_path, full)) == []


def test_the_check_sees_a_table_that_is_too_wide(tmp_path: Path) -> None:
    [summary] = summaries(single_runs(), load_grid("table2"))
    text = to_latex([make_table(summary)], "t").replace(
        r"\begin{tabularx}{\linewidth}", r"\begin{tabularx}{0.5\linewidth}"
    )
    (tmp_path / "table.tex").write_text(text, encoding="utf-8")
    assert any(fault.startswith("Overfull") for fault in faults(compiled(tmp_path, full=False)))


def test_labels_of_any_length_break_into_lines(tmp_path: Path) -> None:
    grid = load_grid("table2")
    label = "a label that says in many words what other grids say in three of them"
    cells = tuple(cell.model_copy(update={"label": label, "group": f"{label}, {label}"}) for cell in grid.cells)
    grid = grid.model_copy(update={"cells": cells})
    [summary] = summaries(quick_records(grid), grid)
    (tmp_path / "table.tex").write_text(to_latex([make_table(summary, compact=True)], "t"), encoding="utf-8")
    assert faults(compiled(tmp_path, full=False)) == []


def test_the_caption_of_the_compact_table_stands_alone() -> None:
    [summary] = summaries(quick_records(), load_grid("table2"))
    text = to_latex([make_table(summary, compact=True)], "t")
    caption = " ".join(text.partition(r"\caption{")[2].partition(r"\label")[0].split())
    for said in (
        "fashion-mnist-10k, 16x16 pixels", "n training runs (seeds 0, 1, 2) of 400 steps of 64 images",
        "512 samples a run in 100 steps", "features: embedded", "on 640 test images", "Published: Ho, Jain, Abbeel 2020",
        r"$\pm$: sample standard deviation over n training runs",
        r"Bold: the best, and what the 95\% interval of the paired difference cannot tell from it",
        "Not comparable with published numbers",
    ):  # fmt: skip
        assert said in caption, said


def test_quotation_marks_are_set_as_such() -> None:
    [summary] = summaries(quick_records(), load_grid("table2"))
    assert "``unstable to train" in to_latex([make_table(summary)], "t")
