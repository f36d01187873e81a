"""Figures from records and the pictures beside them: what is drawn, from what, and what if it is not there."""

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image
from records import make_checkpoint, make_record, metrics, paper_records, quick_records, write_results

from ddpm_bench.config.settings import ProcessSettings
from ddpm_bench.config.shipped import load_grid
from ddpm_bench.data.pictures import write_image_grid, write_labelled_grid
from ddpm_bench.diffusion.schedule import SCHEDULES
from ddpm_bench.records.likelihoods import BoundTerms
from ddpm_bench.records.record import Record
from ddpm_bench.report.figures import PLOTS, draw_figures
from ddpm_bench.report.figures.bound_terms import draw_terms
from ddpm_bench.report.figures.forward_process import BETAS, draw_schedule, noised
from ddpm_bench.report.figures.measured_and_published import draw as draw_comparison
from ddpm_bench.report.figures.measured_and_published import draw_comparison as fill_comparison
from ddpm_bench.report.figures.mosaics import WHITE, WIDE, draw_generation, draw_neighbours, draw_samples, mosaic
from ddpm_bench.report.figures.neighbour_distances import draw_nearness
from ddpm_bench.report.figures.scores_by_step import draw_scores
from ddpm_bench.report.figures.training_curves import draw_losses
from ddpm_bench.report.pictures import GRID_SIDE, LABELLED_SIDE, PictureFolder
from ddpm_bench.report.summary import summaries

pytestmark = pytest.mark.usefixtures("messages")
GRID = load_grid("table2")
CELL, OTHER = "mu-L-learned", "eps-L-learned"


def images(*shape: int) -> torch.Tensor:
    return torch.randint(0, 256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(sum(shape)))


def write_pictures(folder: Path, records: list[Record]) -> None:
    """Records with pictures of the layout that runs write; the first pixel of every image is the record's seed."""
    write_results(folder, records)
    for record in records:
        if not record.sample_grid:
            continue
        made = images(64, *record.data.shape)
        made[..., 0, 0] = record.seed
        write_image_grid(folder / record.sample_grid, made)
        rows = images(8, 11, *record.data.shape)
        heads = [f"t={t}" for t in range(10, -1, -1)]
        for name in record.pictures.values():
            write_labelled_grid(folder / name, rows, heads, list("01234567"), {"t": list(range(10, -1, -1))})


def drawn(draw: Callable, records: list[Record], folder: Path = Path()) -> tuple[Figure, str]:
    """The figure and its caption, which is empty where nothing is drawn."""
    figure = Figure()
    said = draw(figure, summaries(records, GRID), PictureFolder(folder))
    return figure, said.caption if said else ""


def panels(figure: Figure) -> list[Axes]:
    return [axes for axes in figure.axes if axes.lines or axes.images]


@pytest.mark.parametrize("shape", [(1, 16, 16), (3, 16, 16), (3, 32, 32), (1, 64, 64)])
def test_images_are_read_back_as_they_were_drawn(tmp_path: Path, shape: tuple[int, int, int]) -> None:
    made, rows = images(16, *shape), images(3, 5, *shape)
    write_image_grid(tmp_path / "grid.png", made)
    write_labelled_grid(tmp_path / "rows.png", rows, [f"t={t}" for t in range(5)], ["1000", "2", "3"], {"t": [4, 3]})
    folder = PictureFolder(tmp_path)
    read = folder.tiles("grid.png", shape, GRID_SIDE)
    assert np.array_equal(read.reshape(16, *read.shape[2:]), made.permute(0, 2, 3, 1))
    assert np.array_equal(folder.tiles("rows.png", shape, LABELLED_SIDE), rows.permute(0, 1, 3, 4, 2))
    assert json.loads(folder.about("rows.png")) == {"t": [4, 3]} and folder.about("grid.png") == ""


@pytest.mark.parametrize(
    "process", [{}, {"T": 37, "beta_1": 3e-4, "beta_T": 0.03}, {"T": 2, "beta_1": 1e-5, "beta_T": 1e-3}]
)
def test_schedules_drawn_are_those_that_train(process: dict) -> None:
    assert BETAS.keys() == SCHEDULES.keys()
    for name, make in SCHEDULES.items():
        ends = {key.replace("beta", "sigma") if name == "geometric" else key: value for key, value in process.items()}
        settings = ProcessSettings(schedule=name, parameterization="eps", variance="fixed", **ends)
        trained = make(settings.T, *settings.ends)
        assert np.allclose(BETAS[name](settings), trained.betas, rtol=1e-12)
        assert np.allclose(np.cumprod(1 - BETAS[name](settings)), trained.alpha_bar, rtol=1e-9)


def test_the_strip_goes_from_the_image_to_noise() -> None:
    image = np.full((40, 40, 1), 200, dtype=np.uint8)
    alpha_bar = np.array([0.9, 0.25, 1e-12])
    clear, some, most, noise = noised(image, alpha_bar, [0, 1, 2, 3]).astype(float)
    assert (clear == 200).all()
    x0 = 200 / 127.5 - 1
    assert some.mean() == pytest.approx(127.5 * (0.9**0.5 * x0 + 1), abs=4) and 30 < some.std() < 45
    assert np.array_equal(noise, noised(255 - image, alpha_bar, [3])[0])  # nothing is left of the image
    assert np.corrcoef(some.ravel(), most.ravel())[0, 1] > 0.9  # one noise for all t


def test_every_figure_is_png_and_pdf_with_a_caption(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_pictures(tmp_path, quick_records(seeds=(0,)))
    found = draw_figures(summaries(quick_records(seeds=(0,)), GRID), PictureFolder(tmp_path), tmp_path / "out")
    others = (
        "scores-by-step",
        "across-distance",
        "across-agreement",
        "across-bound",
        "trade-off",
    )  # of runs scored twice, and of tables across an axis
    assert [one.name for one in found] == [plot.name for plot in PLOTS if plot.name not in others]
    for one in found:
        with Image.open(one.png) as image:
            image.load()
            assert 1200 < image.width <= 1400  # readable in a column
        assert one.pdf.read_bytes().startswith(b"%PDF")
        assert one.title and ("Fashion-MNIST, 10,000 images" in one.caption or one.name == "schedule")
        assert one.seen and one.block.image.alternative == one.seen
    assert capsys.readouterr().err == ""


def test_bad_pictures_are_said_once_and_the_other_cells_remain(tmp_path: Path, capsys) -> None:
    records = [make_record(GRID, CELL), make_record(GRID, OTHER)]
    pictures = records[0].pictures | {"neighbours-pixel": "../elsewhere.png"}
    records[0] = records[0].model_copy(update={"pictures": pictures})
    write_pictures(tmp_path / "results", records)
    (tmp_path / "results" / f"{CELL}-seed0.png").write_bytes(b"\x89PNG broken")
    (tmp_path / "results" / f"{CELL}-seed0-progressive.png").unlink()
    Image.new("L", (20, 20)).save(tmp_path / "results" / f"{CELL}-seed0-neighbours-feature.png")
    folder = PictureFolder(tmp_path / "results")
    measured = summaries(records, GRID)
    neighbours = [partial(draw_neighbours, space=space) for space in ("pixel", "feature")]
    for draw in (draw_samples, draw_generation, *neighbours):
        for _ in range(2):
            figure = Figure()
            assert draw(figure, measured, folder)
            assert len(panels(figure)) == 1
            assert "no picture" in [text.get_text() for axes in figure.axes for text in axes.texts]
    said = " ".join(capsys.readouterr().err.split())
    for words in (
        f"{CELL}-seed0.png is ", "progressive.png is missing", "elsewhere.png is not a plain file name",
        "feature.png is too small",
    ):  # fmt: skip
        assert said.count(words) == 1


def test_without_pictures_the_other_figures_come_out(tmp_path: Path) -> None:
    without = {"sample_grid": None, "pictures": {}, "neighbours": {}, "bounds": ()}
    record = make_record(GRID, CELL).model_copy(update=without)
    checkpoint = record.checkpoints[0]
    scores = {key: value for key, value in checkpoint.metrics.items() if "bound" not in key}
    record = record.model_copy(update={"checkpoints": (checkpoint.model_copy(update={"metrics": scores}),)})
    found = draw_figures(summaries([record], GRID), PictureFolder(tmp_path), tmp_path)
    assert [one.name for one in found] == ["distance", "score", "loss", "schedule"]


def test_all_cells_show_the_seed_that_most_of_them_have(tmp_path: Path) -> None:
    records = [make_record(GRID, CELL, 0), make_record(GRID, CELL, 1), make_record(GRID, OTHER, 1)]
    write_pictures(tmp_path, records)
    figure, caption = drawn(draw_samples, records, tmp_path)
    assert [axes.images[0].get_array()[0, 0] for axes in panels(figure)] == [1, 1] and "(seed 1)" in caption
    figure, caption = drawn(draw_samples, [*records[:1], *records[2:]], tmp_path)
    assert [axes.images[0].get_array()[0, 0] for axes in panels(figure)] == [0, 1]
    assert ["(seed 0)" in axes.get_title() for axes in panels(figure)] == [True, False]
    assert "same noise for the same seed" in caption


def test_of_many_seeds_only_the_pictures_that_are_shown_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read, tiles = [], PictureFolder.tiles
    monkeypatch.setattr(PictureFolder, "tiles", lambda self, name, *how: read.append(name) or tiles(self, name, *how))
    records = [make_record(GRID, cell, seed) for cell in (CELL, OTHER) for seed in range(1, 40)]
    write_pictures(tmp_path, [record for record in records if record.seed in (1, 2)])
    figure, caption = drawn(draw_samples, records, tmp_path)
    assert [axes.images[0].get_array()[0, 0] for axes in panels(figure)] == [1, 1] and "(seed 1)" in caption
    assert read == [f"{CELL}-seed1.png", f"{OTHER}-seed1.png"]
    (tmp_path / f"{OTHER}-seed1.png").unlink()
    _, caption = drawn(draw_samples, records, tmp_path)
    assert "(seed 2)" in caption


def test_a_mosaic_sets_its_first_columns_apart() -> None:
    tiles = np.arange(1, 7, dtype=np.uint8).reshape(2, 3, 1, 1, 1)
    assert mosaic(tiles).tolist() == [[1, WHITE, 2, WHITE, 3], [WHITE] * 5, [4, WHITE, 5, WHITE, 6]]
    assert mosaic(tiles, apart=1)[0].tolist() == [1, *[WHITE] * (1 + WIDE), 2, WHITE, 3]


def test_generation_is_headed_by_the_steps_that_the_picture_tells(tmp_path: Path) -> None:
    write_pictures(tmp_path, [make_record(GRID, CELL)])
    figure, _ = drawn(draw_generation, [make_record(GRID, CELL)], tmp_path)
    [axes] = panels(figure)
    assert [label.get_text() for label in axes.get_xticklabels()] == ["10", "8", "6", "4", "2", "0"]
    last = PictureFolder(tmp_path).tiles(f"{CELL}-seed0-progressive.png", (1, 16, 16), LABELLED_SIDE)[0, -1, ..., 0]
    assert np.array_equal(axes.images[0].get_array()[:16, -16:], last)


def test_terms_are_drawn_by_t_and_averaged_over_seeds() -> None:
    runs = [make_record(GRID, CELL, seed) for seed in (0, 1)]
    figure, caption = drawn(draw_terms, runs)
    [line] = [line for axes in figure.axes for line in axes.lines if len(line.get_xdata())]
    expected = np.mean([run.every_term.terms for run in runs], axis=0)
    assert list(line.get_xdata()) == list(range(1, len(expected) + 1)) and np.allclose(line.get_ydata(), expected)
    assert "means over the seeds" in caption


def test_early_records_have_terms_without_errors() -> None:
    def early(bound: BoundTerms) -> BoundTerms:
        return bound.model_copy(update={"mse": ()})

    record = make_record(GRID, CELL)
    record = record.model_copy(update={"bounds": tuple(map(early, record.bounds))})
    assert record.every_term is None and drawn(draw_terms, [record])[1]


def scored(seed: int, cell: str = CELL) -> Record:
    steps = [make_checkpoint(step, metrics(cell, seed, factor)) for step, factor in ((100, 2.0), (400, 1.0))]
    return make_record(GRID, cell, seed, checkpoints=tuple(steps))


def test_scores_by_step_have_the_band_of_one_seed_or_of_several() -> None:
    assert drawn(draw_scores, quick_records())[1] == ""
    figure, caption = drawn(draw_scores, [scored(0)])
    distances, scores = panels(figure)
    assert list(distances.lines[0].get_xdata()) == [100, 400] and list(distances.lines[0].get_ydata()) == [184.0, 92.0]
    assert list(scores.lines[0].get_ydata()) == [4.4, 4.4]
    low, high = distances.collections[0].get_datalim(distances.transData).intervaly
    assert (low, high) == pytest.approx((0.97 * 92, 1.03 * 184)) and "bootstrap" in caption
    figure, caption = drawn(draw_scores, [scored(seed) for seed in (0, 1, 2)])
    values = [scored(seed).last.metrics["fd_train"] for seed in (0, 1, 2)]
    low = panels(figure)[0].collections[0].get_datalim(distances.transData).intervaly[0]
    assert low == pytest.approx(np.mean(values) - np.std(values, ddof=1)) and "over seeds" in caption


def test_scores_by_step_show_the_anchors_as_lines_and_say_since_when_a_cell_leads() -> None:
    figure = Figure()
    said = draw_scores(figure, summaries([scored(0), scored(0, OTHER)], GRID), PictureFolder(Path()))
    distances, scores = panels(figure)
    assert [line.get_ydata()[0] for line in distances.lines[2:]] == [4.2, 61.5, 522.0]
    assert [text.get_text() for text in scores.texts] == ["held-out real 7.31", "blurred 4.02", "uniform noise 1.31"]
    assert distances.get_ylim()[0] == 0 and distances.get_ylim()[1] > 522
    assert "ε prediction (the paper's): L, learned diagonal Σ has had the lowest distance since step 100" in said.seen


def test_one_seed_has_the_bootstraps_interval_as_whiskers() -> None:
    record = make_record(GRID, CELL)
    low, *_, high = record.last.quantiles["fd_train"]
    _, axes = fill_comparison(Figure(), summaries([record], GRID), "fd_train")
    [bars] = axes.containers
    assert bars.lines[2][0].get_segments()[0][:, 0] == pytest.approx([low, high])
    assert set(axes.get_legend_handles_labels()[1]) == {
        "measured (one seed; 95% bootstrap interval)", "extrapolated to infinitely many samples"
    }  # fmt: skip


def test_a_bound_stands_beside_published_ones_or_alone() -> None:
    measured, theirs = make_record(GRID, "eps-L-fixed"), 3.70
    published, axes = fill_comparison(Figure(), summaries([measured], GRID), "bound_test_bits_per_dim")
    assert theirs in [line.get_xdata()[0] for line in published.lines] and "bits/dim" in axes.get_xlabel()
    assert "(upper bound)" in published.get_legend_handles_labels()[1][0]
    folder, key = PictureFolder(Path()), "bound_test_bits_per_dim"
    caption = draw_comparison(Figure(), summaries([measured], GRID), folder, key=key).caption
    assert "over the images" in caption and "not comparable" in caption
    figure = Figure()
    draw_comparison(figure, summaries(paper_records(), GRID), folder, key=key)
    assert len(figure.axes[-1].containers) == len(GRID.cells)  # where the best checkpoint has none, the last one's


def test_distances_of_samples_stand_beside_those_of_test_images() -> None:
    figure, caption = drawn(draw_nearness, [make_record(GRID, CELL), make_record(GRID, OTHER)])
    found = make_record(GRID, CELL).neighbours
    for space, axes in zip(("pixel", "feature"), figure.axes, strict=True):
        shown = [tuple(line.get_xdata()) for line in axes.lines]
        assert shown.count(found[space].samples) == 2 and shown.count(found[space].test) == 1
        assert (np.median(found[space].samples),) in shown and (np.median(found[space].test),) * 2 in shown
    assert "first 8 samples" in caption


def test_a_schedule_that_is_not_known_here_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    record = make_record(GRID, CELL, overrides={"diffusion": {"schedule": "linear"}})
    diffusion = record.settings.diffusion.model_copy(update={"schedule": "mine"})
    record = record.model_copy(update={"settings": record.settings.model_copy(update={"diffusion": diffusion})})
    assert drawn(draw_schedule, [record])[1] == "" and "'mine'" in capsys.readouterr().err


def test_the_forward_process_is_drawn_over_all_steps(tmp_path: Path) -> None:
    write_pictures(tmp_path, [make_record(GRID, CELL)])
    figure, caption = drawn(draw_schedule, [make_record(GRID, CELL)], tmp_path)
    beta, linear, logarithmic, strip = figure.axes
    settings = make_record(GRID, CELL).settings.diffusion
    assert np.allclose(beta.lines[0].get_ydata(), np.linspace(settings.beta_1, settings.beta_T, settings.T))
    assert list(linear.lines[0].get_ydata()) == list(logarithmic.lines[0].get_ydata())
    assert logarithmic.get_yscale() == "log" and linear.get_yscale() == "linear"
    first = PictureFolder(tmp_path).tiles(f"{CELL}-seed0.png", (1, 16, 16), GRID_SIDE)[0, 0, ..., 0]
    assert np.array_equal(strip.images[0].get_array()[:16, :16], first)
    assert "generated, not an image of the data" in caption


def test_losses_have_a_panel_a_cell_and_a_cross_where_a_run_diverged() -> None:
    figure, _ = drawn(draw_losses, quick_records())
    assert len(figure.axes) == len(GRID.cells)
    crosses = [sum(line.get_marker() == "x" for line in axes.lines) for axes in figure.axes]
    assert crosses == [0, 1, 0, 0, 3, 0]


def test_of_many_seeds_the_losses_are_a_median_in_a_band() -> None:
    [one] = [record for record in quick_records() if record.cell == CELL and record.seed == 0]
    up = [point.model_copy(update={"loss": point.loss * 3}) for point in one.training_log]
    many = [one.model_copy(update={"seed": seed}) for seed in range(30)]
    figure, caption = drawn(draw_losses, [*many, one.model_copy(update={"seed": 30, "training_log": tuple(up)})])
    [axes] = [axes for axes in figure.axes if axes.lines]
    [line], [band] = axes.lines, axes.collections
    assert list(line.get_ydata()) == [point.loss for point in one.training_log]
    assert band.get_paths()[0].get_extents().y1 >= max(line.get_ydata())
    assert "of more than 30 seeds the median" in caption
    assert "median" not in drawn(draw_losses, many)[1]


def test_last_and_best_checkpoints_are_both_in_the_comparison() -> None:
    figure = Figure()
    caption = draw_comparison(figure, summaries(paper_records(), GRID), PictureFolder(Path()), key="fd_train").caption
    [legend] = figure.legends
    names = [text.get_text() for text in legend.get_texts()]
    assert len(names) == len(set(names)) == 4 and names[-1].startswith("extrapolated") and "share an axis" in caption
