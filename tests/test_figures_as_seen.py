"""What a reader of the figures sees: a look for each cell, axes that fit, text that is large enough and on the canvas."""

import math
from collections.abc import Callable
from functools import partial
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from fontTools import subset
from matplotlib.axes import Axes
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.text import Text
from records import make_bound, make_checkpoint, make_record, metrics, paper_records, quick_records, write_results

from ddpm_bench.config.shipped import load_grid
from ddpm_bench.data.pictures import write_labelled_grid
from ddpm_bench.records.failure import why_failed
from ddpm_bench.records.record import LogPoint, Record
from ddpm_bench.report.figures import PLOTS
from ddpm_bench.report.figures.bound_terms import MANY, draw_terms
from ddpm_bench.report.figures.cell_styles import style_at, style_of
from ddpm_bench.report.figures.drawing import CROWD, SMALL, canvas, cell_panels, running_mean, save
from ddpm_bench.report.figures.measured_and_published import draw as draw_comparison
from ddpm_bench.report.figures.measured_and_published import draw_comparison as fill_comparison
from ddpm_bench.report.figures.mosaics import draw_generation, draw_neighbours
from ddpm_bench.report.figures.neighbour_distances import draw_nearness
from ddpm_bench.report.figures.progressive_coding import draw_codes
from ddpm_bench.report.figures.scales import fit_axis
from ddpm_bench.report.figures.scores_by_step import draw_scores
from ddpm_bench.report.figures.training_curves import draw_losses
from ddpm_bench.report.pictures import PictureFolder
from ddpm_bench.report.summary import summaries

GRID = load_grid("table2")
CELLS = [cell.name for cell in GRID.cells]
BOUND = "bound_test_bits_per_dim"
NOWHERE = PictureFolder(Path())


def everywhere(seeds: tuple[int, ...] = (0, 1)) -> list[Record]:
    """Every cell of the grid, scored at two steps."""
    found = []
    for cell in CELLS:
        for seed in seeds:
            scored = [make_checkpoint(step, metrics(cell, seed, factor)) for step, factor in ((100, 1.5), (400, 1.0))]
            found.append(make_record(GRID, cell, seed, checkpoints=tuple(scored)))
    return found


def with_bound(record: Record, bound: float) -> Record:
    checkpoint = record.final.model_copy(update={"metrics": record.final.metrics | {BOUND: bound}, "quantiles": {}})
    return record.model_copy(update={"checkpoints": (checkpoint,)})


def test_no_two_of_many_cells_look_alike() -> None:
    assert len({(style_at(place).colour, style_at(place).mark) for place in range(42)}) == 42
    for kind in ("colour", "mark"):
        assert len({getattr(style_at(place), kind) for place in range(6)}) == 6
    assert not {"x", "s"} & {style_at(place).mark for place in range(42)}  # crosses and squares mean other things


@pytest.mark.parametrize(
    "draw",
    [
        draw_losses, draw_terms, draw_codes, draw_nearness, draw_scores, partial(draw_comparison, key="fd_train"),
        partial(draw_comparison, key="is_mean"), partial(draw_comparison, key=BOUND),
    ],
)  # fmt: skip
def test_a_cell_has_its_colour_in_every_figure(draw: Callable) -> None:
    """A figure of one cell, wherever it stands in the grid, has no other cell's colour."""
    colours = {cell.name: style_of(cell, GRID).colour for cell in GRID.cells}
    for cell in (CELLS[1], CELLS[5]):
        figure = Figure()
        assert draw(figure, summaries([one for one in everywhere() if one.cell == cell], GRID), NOWHERE)
        seen = {to_hex(line.get_color()).upper() for axes in figure.axes for line in axes.lines}
        assert seen & set(colours.values()) == {colours[cell]}


@pytest.mark.parametrize("plot", PLOTS, ids=lambda plot: plot.name)
@pytest.mark.parametrize("records", [quick_records, paper_records])
def test_text_is_large_enough_for_a_column_and_stays_on_the_canvas(plot, records: Callable[[], list[Record]]) -> None:
    with canvas() as figure:
        if not plot.draw(figure, summaries(records(), GRID), NOWHERE):
            return
        figure.draw_without_rendering()
        # Ticks beyond the ends of an axis have labels that are not drawn.
        ticks = {label for axes in figure.axes for axis in (axes.xaxis, axes.yaxis) for label in axis.get_ticklabels()}
        for text in figure.findobj(lambda artist: isinstance(artist, Text) and artist.get_text()):
            assert text.get_fontsize() >= SMALL, text.get_text()
            box = text.get_window_extent()
            inside = box.x0 > -1 and box.x1 < figure.bbox.x1 + 1 and box.y0 > -1 and box.y1 < figure.bbox.y1 + 1
            assert inside or text in ticks, text.get_text()


def test_headings_of_small_images_are_large_enough_too(tmp_path: Path) -> None:
    record = make_record(GRID, CELLS[0])
    write_results(tmp_path, [record])
    rows = torch.zeros(4, 7, *record.data.shape, dtype=torch.uint8)
    heads = [str(column) for column in range(7)]
    for name in record.pictures.values():
        write_labelled_grid(tmp_path / name, rows, heads, list("0123"), {"t": [1000, 800, 600, 400, 200, 100, 0]})
    for draw in (draw_generation, partial(draw_neighbours, space="pixel")):
        with canvas() as figure:
            assert draw(figure, summaries([record], GRID), PictureFolder(tmp_path))
            [axes] = [axes for axes in figure.axes if axes.images]
            figure.draw_without_rendering()
            labels = axes.get_xticklabels()
            assert len(labels) == 6 and all(label.get_fontsize() >= SMALL for label in labels)
            if draw is draw_generation:  # the widest stand side by side
                ends = [label.get_window_extent() for label in labels]
                assert all(left.x1 < right.x0 for left, right in pairwise(ends))


def test_a_pdf_has_truetype_fonts_alone(tmp_path: Path) -> None:
    with canvas() as figure:
        figure.set_size_inches(2, 1)
        figure.text(0.1, 0.5, r"text and $\tilde{\mu}$")
        pdf = save(figure, tmp_path / "a.png").read_bytes()
    assert b"/CIDFontType2" in pdf and b"/Type3" not in pdf


def test_fonts_in_a_pdf_hold_their_glyphs_and_nothing_that_places_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fonts, whole, cut = [], subset.Options, subset.Subsetter.subset
    monkeypatch.setattr(
        subset.Subsetter, "subset", lambda self, font: cut(self, font) or fonts.append(set(font.keys()))
    )
    with canvas() as figure:
        figure.text(0.1, 0.5, r"text and $\tilde{\mu}$")
        save(figure, tmp_path / "a.png")
    assert fonts and subset.Options is whole
    assert all({"glyf", "head", "hmtx"} <= tables and not {"GSUB", "GPOS"} & tables for tables in fonts)


@pytest.mark.parametrize(("marks", "pictures"), [(CROWD, 0), (CROWD + 1, 1)])
def test_a_crowd_of_marks_is_a_picture_in_a_pdf(tmp_path: Path, marks: int, pictures: int) -> None:
    with canvas() as figure:
        axes = figure.subplots()
        axes.plot(range(marks), range(marks), "o")
        axes.plot(range(10 * CROWD), range(10 * CROWD))  # a line without marks
        pdf = save(figure, tmp_path / "a.png").read_bytes()
    assert pdf.count(b"/Subtype /Image") == 2 * pictures  # with the picture's mask


def test_panels_lie_at_round_places_which_no_process_computes_otherwise(tmp_path: Path) -> None:
    with canvas() as figure:
        panels = [frame.subplots() for frame in figure.subfigures(3, 1)]
        save(figure, tmp_path / "a.png")
    for axes in panels:
        for place in (*axes.get_position().bounds, *axes.figure.bbox_relative.bounds):
            assert f"{place:.12f}".endswith("000")


def fitted(key: str, cells: list[float], anchors: list[float]) -> Axes:
    axes = Figure().subplots()
    fit_axis(axes, "x", key, cells, anchors)
    return axes


def test_a_distance_is_seen_from_0_with_all_anchors_on_the_axis() -> None:
    axes = fitted("fd_train", [8.0, 15.0], [0.4, 9.99, 26.77])
    assert axes.get_xlim()[0] == 0 and axes.get_xlim()[1] > 26.77 and axes.get_xscale() == "linear"
    low, high = fitted("is_mean", [2.4, 3.5], [1.59, 7.55]).get_xlim()
    assert low < 1.59 and high > 7.55


def test_an_axis_on_which_one_cell_would_press_the_others_together_is_logarithmic() -> None:
    squeezed = fitted(BOUND, [3.6, 4.3, 29.96], [8.0])
    assert squeezed.get_xscale() == "log" and squeezed.get_xlim()[0] < 3.6 and squeezed.get_xlim()[1] > 29.96
    assert fitted(BOUND, [4.2, 5.7], []).get_xscale() == "linear"
    assert fitted("fd_train", [3.2, 23.7], [400.0]).get_xscale() == "log"  # FID as the paper has it, and noise
    assert fitted("fd_train", [2.9, 27.9], [0.4, 26.77]).get_xscale() == "linear"  # a small anchor presses nothing


def test_what_is_not_finite_has_no_place_on_an_axis() -> None:
    assert fitted(BOUND, [4.0, math.inf, 5.0], []).get_xlim()[1] < 6
    with pytest.raises(ValueError, match="no number is finite"):
        fitted(BOUND, [math.inf], [])


def test_a_running_mean_keeps_the_ends_and_what_is_straight() -> None:
    assert running_mean([1.0, 9.0, 2.0, 4.0], [1] * 4) == pytest.approx([1.0, 4.0, 5.0, 4.0])
    straight = [3.0 * i for i in range(50)]
    assert running_mean(straight, [7] * 50) == pytest.approx(straight)


def test_lines_of_a_thousand_terms_are_smoothed_and_the_caption_says_how() -> None:
    record = make_record(GRID, CELLS[0], preset="cpu")
    bound = make_bound(CELLS[0], 0, "test", record.settings)
    assert len(bound.terms) > MANY
    rough = tuple(term * (1.5 if t % 2 else 0.5) for t, term in enumerate(bound.terms))
    record = record.model_copy(update={"bounds": (bound.model_copy(update={"terms": rough}),)})
    figure = Figure()
    said = draw_terms(figure, summaries([record], GRID), NOWHERE)
    [line] = [line for axes in figure.axes for line in axes.lines]
    assert line.get_ydata()[500] == pytest.approx(bound.terms[500], rel=0.05) and "running means" in said.caption
    assert line.get_ydata()[0] == rough[0] and line.get_ydata()[-1] == rough[-1]


def test_a_cross_stands_only_where_training_diverged_and_a_failed_cell_is_called_so() -> None:
    failed = with_bound(make_record(GRID, CELLS[0]), 20.0)
    assert why_failed(failed)
    figure = Figure()
    caption = draw_losses(figure, summaries([failed], GRID), NOWHERE).caption
    assert not [line for axes in figure.axes for line in axes.lines if line.get_marker() == "x"]
    assert "cross" not in caption
    _, axes = fill_comparison(Figure(), summaries([failed, make_record(GRID, CELLS[5])], GRID), BOUND)
    words = [text.get_text() for text in axes.texts]
    assert words.count("failed") == 1 and not any("diverged" in word for word in words)
    assert axes.get_xscale() == "log" and "8.000" in words  # uniform coding stands on the axis as well


def test_an_alternative_text_says_who_is_best_and_worst_and_where_the_anchors_lie() -> None:
    seen = draw_comparison(Figure(), summaries(everywhere((0,)), GRID), NOWHERE, key="fd_train").seen
    assert "best ε prediction (the paper's): ‖ε − ε_θ‖² (L_simple) 33.00" in seen
    assert "then ε prediction (the paper's): L, fixed isotropic Σ 61.00" in seen
    assert "worst μ̃ prediction (baseline): ‖μ̃ − μ_θ‖² 160.00" in seen
    assert "held-out real 4.20, blurred 61.50, uniform noise 522.00" in seen
    best = draw_comparison(Figure(), summaries(everywhere((0,)), GRID), NOWHERE, key="is_mean").seen
    assert "higher is better: best ε prediction (the paper's): ‖ε − ε_θ‖² (L_simple) 5.90" in best


def test_axes_have_words_for_data_sets() -> None:
    record = make_record(GRID, CELLS[0])
    record = record.model_copy(update={"data": record.data.model_copy(update={"name": "fashion-mnist-10k"})})
    published, measured = fill_comparison(Figure(), summaries([record], GRID), "fd_train")
    assert "CIFAR-10" in published.get_xlabel() and "Fashion-MNIST, 10,000 images" in measured.get_xlabel()


def test_a_loss_of_thousands_of_ticks_is_smoothed() -> None:
    log = tuple(LogPoint(step=i + 1, loss=1.0 + 0.5 * (-1) ** i, gradient_norm=0.5) for i in range(1000))
    record = make_record(GRID, CELLS[0]).model_copy(update={"training_log": log})
    figure = Figure()
    said = draw_losses(figure, summaries([record], GRID), NOWHERE)
    assert max(abs(y - 1.0) for y in figure.axes[0].lines[0].get_ydata()[10:-10]) < 0.05
    assert "running means over 21 ticks" in said.caption


@pytest.mark.parametrize("beside", [0.0, 0.5], ids=["pictures", "curves"])
def test_titles_of_panels_stay_on_the_canvas_and_apart_whatever_the_labels(beside: float) -> None:
    labels = [cell.label for name in ("ncsn", "iddpm-imagenet64", "table2") for cell in load_grid(name).cells]
    rows = [SimpleNamespace(cell=SimpleNamespace(name=f"{i}", label=label, group="")) for i, label in enumerate(labels)]
    with canvas() as figure:
        found = [axes for _, axes in cell_panels(figure, rows, 1.5, beside=beside)]
        for axes in found:
            axes.set_ylabel("loss" if beside else "")
            axes.tick_params(left=bool(beside), labelleft=bool(beside))
        figure.draw_without_rendering()
        boxes = [axes.title.get_window_extent() for axes in found]
        for i, box in enumerate(boxes):
            assert box.x0 >= 0 and box.x1 <= figure.bbox.x1, labels[i]
            assert not any(box.overlaps(other) for other in boxes[:i]), labels[i]
