"""The whole report, rendered from records into a folder, as `ablate` and `report` do it."""

import hashlib
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure
from PIL import Image
from records import make_record, paper_records, quick_records, write_results

from ddpm_bench.errors import UserError
from ddpm_bench.grid import Grid, load_grid
from ddpm_bench.report import render
from ddpm_bench.report.comparison import draw_comparison
from ddpm_bench.report.layouts import DOCUMENT, to_latex
from ddpm_bench.report.summary import summaries
from ddpm_bench.report.table import make_table
from ddpm_bench.store import Divergence, Record, read_records

GRID = load_grid("table2")
NASTY = r"a_b|c*d*`e`$f$<i>&amp;[g](h)\i#j{k}~l^m%n é中 -- “q”"


@pytest.fixture(scope="module")
def rendered(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Path]]:
    """A report of three seeds of quick with one broken and one missing picture, and the paths that `render` returned."""
    folder = tmp_path_factory.mktemp("report")
    write_results(folder / "results", quick_records())
    (folder / "results" / "mu-L-learned-seed0.png").write_bytes(b"\x89PNG broken")
    (folder / "results" / "mu-L-fixed-seed0.png").unlink()
    (folder / "results" / "mu-L-fixed-seed1.png").unlink()
    return folder / "out", render(read_records(folder / "results"), GRID, folder / "out", folder / "results")


def test_every_returned_file_exists_and_nothing_else_was_written(rendered: tuple[Path, list[Path]]) -> None:
    out, paths = rendered
    assert sorted(paths) == sorted(path for path in out.rglob("*") if path.is_file())
    assert paths[0] == out / "report.md"


def test_every_picture_is_a_readable_png_and_the_page_shows_it(rendered: tuple[Path, list[Path]]) -> None:
    out, paths = rendered
    page = (out / "report.md").read_text()
    pictures = [path for path in paths if path.suffix == ".png"]
    assert {path.name for path in pictures} >= {"distance.png", "score.png", "loss.png"}
    for path in pictures:
        with Image.open(path) as image:
            image.load()
        assert f"({path.name})" in page or f'"samples/{path.name}"' in page


def test_every_file_that_the_page_links_to_exists(rendered: tuple[Path, list[Path]]) -> None:
    out, _ = rendered
    links = re.findall(r'\]\(([^)]+)\)|src="([^"]+)"', (out / "report.md").read_text())
    assert len(links) >= 5
    for link in links:
        assert (out / "".join(link)).is_file()


def test_a_broken_picture_gives_way_to_another_seeds_and_a_missing_one_to_a_message(
    rendered: tuple[Path, list[Path]],
) -> None:
    out, _ = rendered
    page = (out / "report.md").read_text()
    assert 'alt="samples of mu-L-learned" width="264"><br>seed 1' in page
    assert "no picture: mu-L-fixed-seed0.png is missing in" in page
    assert not (out / "samples" / "mu-L-fixed.png").exists()


def test_bad_pictures_are_said_at_the_terminal(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    record = make_record(GRID, "mu-L-fixed")
    render([record], GRID, tmp_path / "out", tmp_path)
    assert "mu-L-fixed-seed0.png is missing" in " ".join(capsys.readouterr().err.split())
    assert (tmp_path / "out" / "table.csv").is_file()


def test_a_record_cannot_point_at_a_picture_elsewhere(tmp_path: Path) -> None:
    Image.new("L", (4, 4)).save(tmp_path / "secret.png")
    record = make_record(GRID, "mu-L-fixed").model_copy(update={"sample_grid": "../secret.png"})
    render([record], GRID, tmp_path / "out", tmp_path / "results")
    assert not (tmp_path / "out" / "samples").exists()
    assert "not a plain file name" in (tmp_path / "out" / "report.md").read_text()


def test_the_page_says_how_the_numbers_came_about(rendered: tuple[Path, list[Path]]) -> None:
    page = (rendered[0] / "report.md").read_text()
    for needed in (
        "d" * 64, "e" * 64, "0123456789abcdef0123456789abcdef01234567", "torch 2.15.0", "Synthetic CPU @ 2.00 GHz",
        "ddpm-bench ablate --grid table2 --preset quick --cells", "--seeds 0,1,2", "| samples | 50,000 | 512 |", "119.1",
    ):  # fmt: skip
        assert needed in page


def test_a_fact_that_differs_between_records_is_told_for_each(tmp_path: Path) -> None:
    other = make_record(GRID, "mu-L-fixed", 1).model_copy(update={"git_commit": "fedcba"})
    render([make_record(GRID, "mu-L-fixed"), other], GRID, tmp_path / "out", tmp_path)
    row = next(line for line in (tmp_path / "out" / "report.md").read_text().splitlines() if "| git commit" in line)
    assert "0123456789abcdef0123456789abcdef01234567 (mu-L-fixed 0)<br>fedcba (mu-L-fixed 1)" in row


def test_the_csv_has_a_line_for_every_cell(rendered: tuple[Path, list[Path]]) -> None:
    frame = pd.read_csv(rendered[0] / "table.csv")
    assert list(frame["cell"]) == [cell.name for cell in GRID.cells]
    assert set(frame["distance"]) == {"FD (embedded)"}


def test_the_same_records_give_the_same_bytes(tmp_path: Path) -> None:
    def digest(folder: Path) -> list[tuple[str, str]]:
        render([make_record(GRID, "mu-L-fixed")], GRID, folder, tmp_path)
        return [(p.name, hashlib.sha256(p.read_bytes()).hexdigest()) for p in sorted(folder.rglob("*")) if p.is_file()]

    assert digest(tmp_path / "a") == digest(tmp_path / "b")


def test_mixed_records_write_nothing(tmp_path: Path) -> None:
    records = [
        make_record(GRID, "mu-L-fixed"),
        make_record(GRID, "mu-L-fixed", 1, overrides={"training": {"steps": 9}}),
    ]
    with pytest.raises(UserError, match="training.steps: was 450, now 9"):
        render(records, GRID, tmp_path / "out", tmp_path)
    assert not (tmp_path / "out").exists()


def test_an_unwritable_report_folder_is_one_clear_message(tmp_path: Path) -> None:
    (tmp_path / "out").write_text("a file")
    with pytest.raises(UserError, match="Choose another folder"):
        render([make_record(GRID, "mu-L-fixed")], GRID, tmp_path / "out", tmp_path)


def nasty() -> tuple[Grid, list[Record]]:
    """A grid and a record in which everything a user can write is hostile to Markdown, LaTeX and mathtext."""
    cells = tuple(cell.model_copy(update={"label": NASTY, "group": NASTY}) for cell in GRID.cells)
    grid = GRID.model_copy(update={"title": NASTY, "source": NASTY, "cells": cells})
    record = make_record(grid, "mu-L-fixed", diverged=Divergence(step=1, reason=NASTY))
    extractor = record.extractor.model_copy(
        update={"name": NASTY, "labels": (f"FD ({NASTY})", f"IS ({NASTY})"), "verified": False}
    )
    update = {"extractor": extractor, "data": record.data.model_copy(update={"name": NASTY})}
    return grid, [record.model_copy(update=update), make_record(grid, "eps-L-fixed").model_copy(update=update)]


def test_hostile_text_comes_through_every_writer(tmp_path: Path) -> None:
    grid, records = nasty()
    render(records, grid, tmp_path / "out", tmp_path)
    page = (tmp_path / "out" / "report.md").read_text()
    assert "<i>" not in page.replace("<img", "") and "$f$" not in page
    check_latex(tmp_path / "out")


@pytest.mark.parametrize("records", [quick_records(), paper_records()], ids=["quick", "paper"])
def test_the_latex_table_compiles_in_a_document_of_its_own(tmp_path: Path, records: list[Record]) -> None:
    tables = [make_table(summary) for summary in summaries(records, GRID)]
    (tmp_path / "table.tex").write_text(to_latex(tables, "table2"))
    (tmp_path / "table-document.tex").write_text(DOCUMENT)
    check_latex(tmp_path)


def check_latex(folder: Path) -> None:
    """Compile table-document.tex where pdflatex is installed; braces and environments are balanced in any case."""
    source = (folder / "table.tex").read_text()
    bare = re.sub(r"\\.", "", source.replace(r"\\", ""))
    assert bare.count("{") == bare.count("}") and bare.count("$") % 2 == 0
    for name in ("table", "tabular", "minipage"):
        assert source.count(rf"\begin{{{name}}}") == source.count(rf"\end{{{name}}}") >= 1
    if shutil.which("pdflatex"):
        command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "-draftmode", "table-document.tex"]
        run = subprocess.run(command, cwd=folder, capture_output=True, text=True, errors="replace", check=False)
        assert run.returncode == 0, run.stdout[-2000:]
        if "中" not in source and "U+" not in source:
            assert "Overfull" not in run.stdout


def values_in(axes: object) -> set[float]:
    return {round(float(x), 6) for line in axes.lines for x in np.atleast_1d(line.get_xdata())}


@pytest.mark.parametrize(("key", "number"), [("fd_train", 23.69), ("is_mean", 7.28)])
def test_measured_and_published_values_share_no_axis_unless_comparable(key: str, number: float) -> None:
    tables = summaries(quick_records(), GRID)
    published, measured = draw_comparison(Figure(), tables, key)
    mean = round(tables[0].rows[0].estimates[key].mean, 6)
    assert published is not measured
    assert number in values_in(published) and mean not in values_in(published)
    assert mean in values_in(measured) and number not in values_in(measured)
    assert published.get_shared_x_axes().joined(published, measured) is False
    assert "not comparable" in measured.get_xlabel() and "(embedded)" in measured.get_title()


def test_comparable_values_share_an_axis_with_last_and_best_apart() -> None:
    tables = summaries(paper_records(), GRID)
    published, measured = draw_comparison(Figure(), tables, "fd_train")
    assert published is measured
    names = measured.get_legend_handles_labels()[1]
    assert {23.69, 92.0, 73.6} <= values_in(measured)
    assert any("last checkpoint" in name for name in names) and any("lowest FID" in name for name in names)


def test_rows_of_both_panels_are_in_the_tables_order() -> None:
    figure = Figure()
    published, measured = draw_comparison(figure, summaries(quick_records(), GRID), "fd_train")
    heights = {
        axes: [
            float(line.get_ydata()[0])
            for line in axes.lines
            if line.get_marker() in "so" and len(line.get_ydata()) == 1
        ]
        for axes in (published, measured)
    }
    for found in heights.values():
        assert found == sorted(found, reverse=True)
    # The first two rows are in both panels at the same heights, the third is blank in the source.
    assert heights[published][:2] == heights[measured][:2]


def test_a_grid_where_everything_diverged_still_has_a_report(tmp_path: Path) -> None:
    gone = Divergence(step=2, reason="the loss is not finite")
    records = [make_record(GRID, cell.name, diverged=gone) for cell in GRID.cells]
    bare = [record.model_copy(update={"training_log": (), "anchors": {}}) for record in records]
    render(bare, GRID, tmp_path / "out", tmp_path)
    assert (tmp_path / "out" / "report.md").read_text().count("diverged before sampling") == len(GRID.cells)


def test_nothing_about_reports_loads_torch() -> None:
    code = "import sys, ddpm_bench.report, ddpm_bench.store, ddpm_bench.grid; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
