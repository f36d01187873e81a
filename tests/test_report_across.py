"""A table that is laid out across an axis: its figure, its table in every format, and what the page leads with."""

import math
from functools import partial
from pathlib import Path

from matplotlib.figure import Figure
from records import make_checkpoint, make_record
from test_latex import compiled, faults

from ddpm_bench.config.published import Published
from ddpm_bench.config.shipped import load_grid
from ddpm_bench.records.record import Record
from ddpm_bench.report import render
from ddpm_bench.report.across import lines_across, place
from ddpm_bench.report.compact_table import across_table, compact_table
from ddpm_bench.report.figures import across, trade_off
from ddpm_bench.report.pictures import PictureFolder
from ddpm_bench.report.summary import summaries
from ddpm_bench.report.table_remarks import background, other_axes
from ddpm_bench.report.writers.latex import to_latex

GRID = load_grid("ddim-cifar10")
DISTANCES = {"eta-0.0-s10": 6.0, "eta-1.0-s10": 9.0, "sigma-hat-s10": 30.0, "eta-0.0-s50": 4.0, "eta-1.0-s50": 5.0}


def measured(seeds: tuple[int, ...] = (0, 1, 2)) -> list[Record]:
    """Five of the cells; network calls twice the steps, as of a sampler that asks the network twice."""
    found = []
    for seed in seeds:
        for cell, distance in DISTANCES.items():
            checkpoint = make_checkpoint(1600, {"is_mean": 3.0, "is_std": 0.1, "fd_train": distance + 0.1 * seed})
            record = make_record(GRID, cell, seed, checkpoints=(checkpoint,))
            calls = 2 * record.sampling_steps
            found.append(
                record.model_copy(update={"bounds": (), "trained_with": "eta-0.0-s10", "network_calls": calls})
            )
    return found


def test_the_compact_table_has_a_line_for_every_label_and_a_column_for_every_group() -> None:
    [summary] = summaries(measured(), GRID)
    table = compact_table(summary)
    assert [line.label for line in table.lines] == ["eta = 0.0", "eta = 0.2", "eta = 0.5", "eta = 1.0", "sigma-hat"]
    assert [head.text for head in table.heads] == [
        "S = 10",
        "S = 50",
        "S = 10",
        "S = 20",
        "S = 50",
        "S = 100",
        "S = 1000",
    ]
    assert table.published == 5 and "FD (embedded) ↓, beside FID" in table.title
    first = table.lines[0].fields
    assert [field.text for field in first[2:]] == ["13.36", "6.84", "4.67", "4.16", "4.04"]
    assert first[0].text.startswith("6.1") and first[0].bold and first[1].bold  # the best of each column
    assert [field.text for field in table.lines[1].fields[:2]] == ["…", "…"] and not table.lines[3].fields[0].bold
    assert table.lines[4].fields[1].text == "…" and any(
        said.startswith("…: there is no record") for said in table.remarks
    )
    scores = across_table(summary, lines_across(summary), "is_mean")
    assert scores.published == 0 and "beside" not in scores.title and len(scores.heads) == 2
    assert "samples a run in 10 to 50 steps" in scores.setting, scores.setting


def test_a_grid_without_such_an_axis_keeps_its_table() -> None:
    grid = load_grid("table2")
    [summary] = summaries([make_record(grid, "eps-mse-fixed")], grid)
    assert lines_across(summary) == [] and compact_table(summary).anchors == ()
    assert across.draw(Figure(), [summary], PictureFolder(Path()), key="fd_train") is None


def test_cells_lie_where_their_network_calls_are() -> None:
    [summary] = summaries(measured((0,)), GRID)
    rows = {row.cell.name: row for row in summary.rows}
    assert place(rows["eta-0.0-s10"], "sampling.steps") == 20 and place(rows["eta-0.2-s10"], "sampling.steps") is None
    figure = Figure()
    said = across.draw(figure, [summary], PictureFolder(Path()), key="fd_train")
    published, ours = figure.axes
    assert said and "network calls an image" in said.caption
    assert [list(line.get_xdata()) for line in published.lines[:1]] == [[10, 20, 50, 100, 1000]]
    drawn = [(list(line.get_xdata()), list(line.get_ydata())) for line in ours.lines]
    assert ([20, 100], [6.0, 4.0]) in drawn and ([20, 100], [9.0, 5.0]) in drawn


def test_axes_that_a_preset_gives_other_values_are_said() -> None:
    grid = load_grid("iddpm-cifar10")
    [summary] = summaries([make_record(grid, "cosine-hybrid"), make_record(grid, "cosine-hybrid-k25")], grid)
    assert other_axes(summary) == (
        "Labels are the source's. Measured here under preset quick: diffusion.T 100 for 1,000, 400 for 4,000."
    )
    assert not other_axes(summaries(measured((0,)), GRID)[0])


def test_the_page_leads_with_the_axis_and_shows_no_cell_that_its_preset_leaves_out(tmp_path: Path) -> None:
    render(measured(), GRID, tmp_path / "report", tmp_path)
    page = (tmp_path / "report" / "report.md").read_text(encoding="utf-8")
    assert page.index("across-distance.png") < page.index("| Sampler |") < page.index("## Table")
    assert "5 of 25 cells were measured, 1 model trained for 1,600 steps" in page
    assert not (tmp_path / "report" / "distance.png").exists()  # every cell one below the other
    samples = page[page.index("## Samples") :]
    assert "S = 100" in samples and "**S = 1000**" not in samples
    html = (tmp_path / "report" / "report.html").read_text(encoding="utf-8")
    assert 'href="#cell-eta-0.0-s10"' in html


def test_it_fits_a_column(tmp_path: Path) -> None:
    [summary] = summaries(measured(), GRID)
    (tmp_path / "table.tex").write_text(to_latex([compact_table(summary)], "t"), encoding="utf-8")
    assert faults(compiled(tmp_path, full=False)) == []


def test_guidance_is_drawn_as_what_it_trades_and_its_scale_is_said_in_both_ways() -> None:
    grid, found = load_grid("cfg-imagenet64"), []
    for cell, distance, score in (("p0.1-w0.0", 9.0, 3.0), ("p0.1-w1.0", 7.0, 4.0), ("p0.1-w4.0", 8.0, 5.0)):
        checkpoint = make_checkpoint(1600, {"is_mean": score, "is_std": 0.1, "fd_train": distance})
        record = make_record(grid, cell, checkpoints=(checkpoint,))
        found.append(record.model_copy(update={"bounds": (), "trained_with": "p0.1-w0.0"}))
    [summary] = summaries(found, grid)
    figure = Figure()
    said = trade_off.draw(figure, [summary], PictureFolder(Path()))
    assert said and "scale s = 1 + w" in said.caption
    published, here = (axes.get_lines()[0] for axes in figure.axes)
    assert here.get_xydata().tolist() == [[3.0, 9.0], [4.0, 7.0], [5.0, 8.0]]
    assert published.get_xydata()[:2].tolist() == [[53.71, 1.80], [66.11, 1.55]]
    assert any("s = 1 + w" in remark for remark in background(summary, ["fd_train"]))
    [other] = summaries(measured(), GRID)
    assert trade_off.draw(Figure(), [other], PictureFolder(Path())) is None


def test_published_lines_are_whole_and_the_names_of_their_ends_lie_apart() -> None:
    grid, found = load_grid("cfg-imagenet64"), []
    for cell, distance, score in (("p0.1-w0.0", 9.0, 3.0), ("p0.1-w4.0", 8.0, 5.0)):
        checkpoint = make_checkpoint(1600, {"is_mean": score, "is_std": 0.1, "fd_train": distance})
        record = make_record(grid, cell, checkpoints=(checkpoint,)).model_copy(update={"preset": "quick"})
        found.append(record.model_copy(update={"bounds": (), "trained_with": "p0.1-w0.0"}))
    [summary] = summaries(found, grid)
    for draw in (partial(across.draw, key="fd_train"), trade_off.draw):
        figure = Figure()
        draw(figure, [summary.shown], PictureFolder(Path()))
        published = figure.axes[0].get_lines()  # that of p_uncond = 0.2 too, which `quick` leaves out
        assert [len(line.get_xydata()) for line in published] == [14, 14, 14]
    for axes in figure.axes:
        names = [text.get_position() for text in axes.texts]
        assert len(names) == 2 * len(axes.get_lines())
        points = [axes.transLimits.transform(point) for line in axes.get_lines() for point in line.get_xydata()]
        for index, name in enumerate(names):
            assert min(math.dist(name, point) for point in points) > 0.03
            assert all(math.dist(name, other) > 0.03 for other in names[:index])


def test_numbers_that_were_published_in_one_place_alone_are_no_line() -> None:
    last = GRID.cells[-1].group
    cells = tuple(c if c.group == last else c.model_copy(update={"published": Published()}) for c in GRID.cells)
    for grid, panels in ((GRID, 2), (GRID.model_copy(update={"cells": cells}), 1)):
        figure = Figure()
        across.draw(figure, summaries(measured(), grid), PictureFolder(Path()), key="fd_train")
        assert len(figure.axes) == panels
