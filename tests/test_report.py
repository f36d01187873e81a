"""The whole report, rendered from records into a folder, as `ablate` and `report` do it."""

import contextlib
import io
import json
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure
from PIL import Image
from records import make_record, paper_records, quick_records, write_results

from ddpm_bench.config.grid import Grid
from ddpm_bench.config.shipped import load_grid
from ddpm_bench.errors import UserError
from ddpm_bench.records.record import Divergence, Record, read_records
from ddpm_bench.report import render
from ddpm_bench.report.figures.measured_and_published import draw_comparison
from ddpm_bench.report.figures.training_curves import draw_losses
from ddpm_bench.report.pictures import PictureFolder, copy_pictures
from ddpm_bench.report.readable_records import readable_records, usual_grid
from ddpm_bench.report.results_table import make_table
from ddpm_bench.report.sections import page
from ddpm_bench.report.summary import summaries
from ddpm_bench.report.writers.markdown import to_markdown
from ddpm_bench.runtime.terminal import at_the_terminal

pytestmark = pytest.mark.usefixtures("messages")
GRID = load_grid("table2")
NASTY = r"a_b|c*d*`e`$f$<i>&amp;[g](h)\i#j{k}~l^m%n é中 -- “q”"


@dataclass(frozen=True)
class Rendered:
    """A report, what `render` returned and said, and the results folder it was made from."""

    results: Path
    out: Path
    paths: list[Path]
    said: str

    @property
    def page(self) -> str:
        return (self.out / "report.md").read_text()


@pytest.fixture(scope="module")
def rendered(tmp_path_factory: pytest.TempPathFactory) -> Rendered:
    """Three seeds of quick; a broken picture, two missing ones, one that is a link, and one other git commit."""
    folder = tmp_path_factory.mktemp("report")
    results, out = folder / "results", folder / "out"
    records = quick_records()
    places = {(record.cell, record.seed): index for index, record in enumerate(records)}
    index = places["mu-L-learned", 2]
    records[index] = records[index].model_copy(update={"git_commit": "fedcba"})
    write_results(results, records)
    Image.new("L", (4, 4)).save(folder / "secret.png")
    (results / "mu-mse-fixed-seed0.png").unlink()
    (results / "mu-mse-fixed-seed0.png").symlink_to(folder / "secret.png")
    (results / "mu-L-learned-seed0.png").write_bytes(b"\x89PNG broken")
    (results / "mu-L-fixed-seed0.png").unlink()
    (results / "mu-L-fixed-seed1.png").unlink()
    said = io.StringIO()
    with contextlib.redirect_stderr(said), at_the_terminal():
        paths = render(read_records(results), GRID, out, results)
    return Rendered(results, out, paths, " ".join(said.getvalue().split()))


def test_every_returned_file_exists_and_nothing_else_was_written(rendered: Rendered) -> None:
    assert sorted(rendered.paths) == sorted(path for path in rendered.out.rglob("*") if path.is_file())
    assert rendered.paths[0].name == "report.md"


def test_every_picture_is_a_readable_png_and_the_page_shows_it(rendered: Rendered) -> None:
    pictures = [path for path in rendered.paths if path.suffix == ".png"]
    assert {path.name for path in pictures} >= {"distance.png", "score.png", "loss.png", "progressive.png"}
    for path in pictures:
        with Image.open(path) as image:
            image.load()
        assert f"({path.name})" in rendered.page or f'"samples/{path.name}"' in rendered.page


def test_every_file_that_the_page_links_to_exists(rendered: Rendered) -> None:
    links = re.findall(r'\]\(([^)]+)\)|src="([^"]+)"', rendered.page)
    assert len(links) >= 5
    for link in links:
        assert (rendered.out / "".join(link)).is_file()


def test_a_broken_picture_gives_way_to_another_seeds(rendered: Rendered) -> None:
    assert 'alt="samples of mu-L-learned" width="264"><br>seed 1' in rendered.page
    assert "mu-L-learned-seed0.png is broken" in rendered.said or "mu-L-learned-seed0.png is not a PNG" in rendered.said


def test_a_missing_picture_is_said_and_the_rest_still_comes_out(rendered: Rendered) -> None:
    assert "no picture: mu-L-fixed-seed0.png is missing in" in rendered.page
    assert "mu-L-fixed-seed1.png is missing" in rendered.said
    assert not (rendered.out / "samples" / "mu-L-fixed.png").exists()


def test_a_picture_that_is_a_link_to_another_place_is_not_followed(rendered: Rendered) -> None:
    assert "mu-mse-fixed-seed0.png is a link, which is not followed" in rendered.said
    with Image.open(rendered.out / "samples" / "mu-mse-fixed.png") as image:
        assert image.size != (4, 4)


def test_the_page_says_how_the_numbers_came_about(rendered: Rendered) -> None:
    for needed in (
        "d" * 64, "e" * 64, "torch 2.15.0", "Synthetic CPU @ 2.00 GHz", "| samples | 50,000 |", "119.1",
        "ddpm-bench ablate --grid table2 --preset quick --cells", "--seeds 0,1,2",
    ):  # fmt: skip
        assert needed in rendered.page


def test_a_fact_that_differs_between_records_is_told_for_each(rendered: Rendered) -> None:
    row = next(line for line in rendered.page.splitlines() if "| git commit" in line)
    assert "0123456789abcdef0123456789abcdef01234567 (mu-L-learned, seeds 0, 1; mu-L-fixed, seed" in row
    assert "<br>fedcba (mu-L-learned, seed 2)" in row


def test_the_csv_has_a_line_for_every_cell(rendered: Rendered) -> None:
    frame = pd.read_csv(rendered.out / "table.csv")
    assert list(frame["cell"]) == [cell.name for cell in GRID.cells]
    assert set(frame["distance"]) == {"FD (embedded)"}


def test_the_same_records_give_the_same_bytes(rendered: Rendered, tmp_path: Path) -> None:
    again = render(read_records(rendered.results), GRID, tmp_path, rendered.results)
    assert [path.relative_to(tmp_path) for path in again] == [path.relative_to(rendered.out) for path in rendered.paths]
    for first, second in zip(rendered.paths, again, strict=True):
        assert first.read_bytes() == second.read_bytes(), first.name


def test_records_of_other_conditions_are_said_and_the_rest_comes_out(tmp_path: Path, capsys) -> None:
    odd = make_record(GRID, "mu-L-fixed", 1, overrides={"training": {"steps": 9}})
    render([odd, *(make_record(GRID, "mu-L-fixed", seed) for seed in (0, 2))], GRID, tmp_path / "out", tmp_path)
    page = (tmp_path / "out" / "report.md").read_text()
    for text in (page, " ".join(capsys.readouterr().err.split())):
        assert "cell 'mu-L-fixed', seed 1: " in text and "training.steps: was 400, now 9" in text
    assert "**Set aside, and in no number of this report** (1)" in page
    assert pd.read_csv(tmp_path / "out" / "table.csv").set_index("cell").loc["mu-L-fixed", "n"] == 2


def test_a_broken_and_a_newer_record_are_said_and_the_rest_is_read(tmp_path: Path, capsys) -> None:
    write_results(tmp_path, [make_record(GRID, "mu-L-fixed", seed) for seed in (0, 1, 2)])
    (tmp_path / "mu-L-fixed-seed0.json").write_text("{")
    newer = json.loads((tmp_path / "mu-L-fixed-seed1.json").read_text()) | {"schema_version": 99}
    (tmp_path / "mu-L-fixed-seed1.json").write_text(json.dumps(newer))
    assert [record.seed for record in readable_records(tmp_path)] == [2]
    said = " ".join(capsys.readouterr().err.split())
    assert "mu-L-fixed-seed0.json' is not a record of ddpm-bench" in said and "it has schema 99" in said


def test_a_folder_without_readable_records_is_one_message(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="holds no records"):
        readable_records(tmp_path)
    (tmp_path / "x-seed0.json").write_text("[]")
    with pytest.raises(UserError, match=r"None of the records can be read\.\n.*x-seed0"):
        readable_records(tmp_path)
    with pytest.raises(UserError, match="no results folder"):
        readable_records(tmp_path / "none")


def test_the_grid_of_most_records_is_the_reports() -> None:
    records = [make_record(GRID, "eps-L-fixed", seed) for seed in (0, 1)]
    other = make_record(load_grid("table1"), "eps-L-fixed")
    assert usual_grid([other, *records]) == "table2" and usual_grid([other, records[0]]) == "table1"


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


@pytest.mark.filterwarnings("ignore:Glyph")
def test_hostile_text_comes_through_every_writer(tmp_path: Path) -> None:
    grid, records = nasty()
    render(records, grid, tmp_path / "out", tmp_path)
    page = (tmp_path / "out" / "report.md").read_text()
    assert "<i>" not in page.replace("<img", "") and "$f$" not in page
    check_latex(tmp_path / "out", "table", "table")
    check_latex(tmp_path / "out", "table-full", "sidewaystable")


def check_latex(folder: Path, name: str, environment: str) -> None:
    """Compile the table's document where pdflatex is installed; braces and environments are balanced in any case."""
    source = (folder / f"{name}.tex").read_text()
    bare = re.sub(r"\\.", "", source.replace(r"\\", ""))
    assert bare.count("{") == bare.count("}") and bare.count("$") % 2 == 0
    for part in (environment, "tabularx", "minipage"):
        assert source.count(rf"\begin{{{part}}}") == source.count(rf"\end{{{part}}}") >= 1
    if shutil.which("pdflatex"):
        command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "-draftmode", f"{name}-document.tex"]
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


def test_a_spread_over_splits_is_not_drawn_among_spreads_over_seeds() -> None:
    several, one = [make_record(GRID, "mu-L-learned", seed) for seed in (0, 1)], make_record(GRID, "mu-L-fixed")
    _, mixed = draw_comparison(Figure(), summaries([*several, one], GRID), "is_mean")
    _, alone = draw_comparison(Figure(), summaries([one], GRID), "is_mean")
    assert [bars.has_xerr for bars in mixed.containers] == [True, False]
    assert [bars.has_xerr for bars in alone.containers] == [True]
    assert "95% bootstrap interval" in alone.get_legend_handles_labels()[1][0]
    bare = one.model_copy(update={"checkpoints": (one.last.model_copy(update={"quantiles": {}}),)})
    _, split = draw_comparison(Figure(), summaries([bare], GRID), "is_mean")
    assert split.containers[0].has_xerr and "± over splits" in split.get_legend_handles_labels()[1][0]


def test_rows_of_both_panels_are_in_the_tables_order() -> None:
    figure = Figure()
    published, measured = draw_comparison(figure, summaries(quick_records(), GRID), "fd_train")
    heights = {axes: [float(bar.lines[0].get_ydata()[0]) for bar in axes.containers] for axes in (published, measured)}
    for found in heights.values():
        assert found == sorted(found, reverse=True)
    # The first two rows are in both panels at the same heights, the third is blank in the source.
    assert heights[published][:2] == heights[measured][:2]


def test_a_grid_where_everything_diverged_still_has_its_page_and_plots(tmp_path: Path) -> None:
    gone = Divergence(step=2, reason="the loss is not finite")
    records = [make_record(GRID, cell.name, diverged=gone) for cell in GRID.cells]
    measured = summaries([record.model_copy(update={"training_log": (), "anchors": {}}) for record in records], GRID)
    pictures = copy_pictures(measured[0].rows, PictureFolder(tmp_path), tmp_path / "samples")
    said = to_markdown(page(measured, [make_table(measured[0])], pictures))
    assert said.count("diverged before sampling") == len(GRID.cells)
    for key in ("fd_train", "is_mean"):
        _, axes = draw_comparison(Figure(), measured, key)
        assert [text.get_text() for text in axes.texts].count("× diverged here") == len(GRID.cells)
    assert draw_losses(Figure(), measured, PictureFolder(tmp_path))


def test_nothing_about_reports_loads_torch() -> None:
    code = "import sys, ddpm_bench.report, ddpm_bench.records.record, ddpm_bench.config.grid; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
