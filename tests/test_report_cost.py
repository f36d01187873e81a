"""Grid mnist and the numbers that its source states: parameters and times beside those measured, each with its machine."""

import pytest
from matplotlib.figure import Figure
from records import make_checkpoint, make_record, metrics, quick_records

from ddpm_bench.config.preset import load_preset, resolve
from ddpm_bench.config.published import PublishedCost
from ddpm_bench.config.settings import CellSettings
from ddpm_bench.config.shipped import load_grid
from ddpm_bench.networks.blocks import Attention
from ddpm_bench.networks.unet import UNet
from ddpm_bench.networks.weights import outline
from ddpm_bench.records.record import Record
from ddpm_bench.report.figures.measured_and_published import draw
from ddpm_bench.report.results_table import make_table
from ddpm_bench.report.sections.cost import cost_section, epoch_s, image_s, machine
from ddpm_bench.report.summary import summaries
from ddpm_bench.report.writers.markdown import to_markdown

GRID = load_grid("mnist")
THESIS, RATE, ATTENTION = (cell.name for cell in GRID.cells)


def settings_of(cell: str, preset: str = "mnist") -> CellSettings:
    return resolve(GRID.select([cell])[0], load_preset(preset), {})


def network_of(settings: CellSettings) -> UNet:
    with outline():
        return UNet(1, 1, settings.data.size, settings.network)


def timed(cell: str, training: float, sampling: float, **updates: object) -> Record:
    times = {"wall_time_s": {"training": training, "sampling": sampling}, "axes": GRID.axes}
    return make_record(GRID, cell).model_copy(update=times | updates)


def test_under_its_preset_the_published_cell_has_the_published_number_of_parameters() -> None:
    network = network_of(settings_of(THESIS))
    assert sum(p.numel() for p in network.parameters()) == GRID.cells[0].published.cost.parameters == 7_339_297
    assert not any(isinstance(module, Attention) for module in network.modules())
    assert any(isinstance(module, Attention) for module in network_of(settings_of(ATTENTION)).modules())


def test_cells_differ_in_what_they_are_named_after_alone() -> None:
    thesis, rate, attention = (settings_of(cell).model_dump() for cell in (THESIS, RATE, ATTENTION))
    assert (thesis["training"].pop("learning_rate"), rate["training"].pop("learning_rate")) == (1e-4, 2e-4)
    assert thesis == rate
    attention["training"].pop("learning_rate")
    changed = {name: value for name, value in attention["network"].items() if value != thesis["network"][name]}
    assert changed == {"attention": (16,), "middle_attention": True}
    assert (thesis["diffusion"]["schedule"], thesis["diffusion"]["T"], thesis["data"]["size"]) == ("linear", 1000, 32)


@pytest.mark.parametrize("preset", ["smoke", "quick"])
def test_in_small_the_rates_are_larger_in_the_same_ratio_and_attention_is_at_half_the_side(preset: str) -> None:
    thesis, rate, attention = (settings_of(cell, preset) for cell in (THESIS, RATE, ATTENTION))
    assert rate.training.learning_rate == 2 * thesis.training.learning_rate == 2 * attention.training.learning_rate
    assert attention.network.attention == (8,) and attention.data.size == 16


def test_times_without_their_machine_are_refused() -> None:
    assert PublishedCost(parameters=5).texts["parameters"] == "5"
    with pytest.raises(ValueError, match="'hardware' must say which"):
        PublishedCost(image_s=13.4)


def test_an_epoch_is_the_training_images_once_and_an_image_a_share_of_the_sampling() -> None:
    record = timed(THESIS, 100.0, 64.0)  # 400 steps of 64 images, of which there are 10,000
    assert epoch_s(record) == pytest.approx(100 * 10_000 / 25_600)
    assert image_s(record) == 64 / 512
    scored = tuple(make_checkpoint(step, metrics(THESIS, 0)) for step in (200, 400))
    assert image_s(record.model_copy(update={"checkpoints": scored})) == 64 / 1024
    assert epoch_s(record.model_copy(update={"trained_with": RATE})) is None
    unknown = record.model_copy(update={"wall_time_s": {}})
    assert epoch_s(unknown) is None and image_s(unknown) is None


def test_a_machine_is_its_gpu_or_its_processor_with_the_threads() -> None:
    record = make_record(GRID, THESIS)
    assert machine(record) == "Synthetic CPU @ 2.00 GHz, 2 threads"
    assert machine(record.model_copy(update={"hardware": {"gpu": "A GPU", "threads": 8}})) == "A GPU"
    assert machine(record.model_copy(update={"hardware": {"device": "mps"}})) == "mps"


def test_the_report_shows_the_stated_numbers_beside_the_measured_ones_with_both_machines() -> None:
    seeds = [timed(THESIS, 100.0, 64.0, seed=seed) for seed in (0, 1)]
    [summary] = summaries([*seeds, timed(ATTENTION, 200.0, 128.0)], GRID)
    lines = [line for line in to_markdown(cost_section(summary)).splitlines() if line.startswith("|")]
    assert lines[2:] == [
        "| no self-attention: learning rate 1e-4 | published | 7,339,297 | 70 | 13.4 | Apple M2 Pro, MPS |",
        "| no self-attention: learning rate 1e-4 | measured | 412,345 | 39.1 | 0.125 | Synthetic CPU @ 2.00 GHz, 2 threads |",
        "| self-attention as in DDPM: learning rate 1e-4 | measured | 412,345 | 78.1 | 0.25 | Synthetic CPU @ 2.00 GHz, 2 threads |",
    ]
    assert make_table(summary).published == 0 and make_table(summary).verdict == ""


def test_where_a_source_states_no_cost_there_is_no_such_section() -> None:
    assert cost_section(summaries(quick_records(), load_grid("table2"))[0]) == []


def test_where_nothing_is_published_of_a_metric_its_figure_has_no_empty_panel() -> None:
    figure = Figure()
    said = draw(figure, summaries([make_record(GRID, THESIS)], GRID), None, key="fd_train")
    assert len(figure.axes) == 1 and "Published" not in said.caption
    figure = Figure()
    said = draw(figure, summaries(quick_records(), load_grid("table2")), None, key="fd_train")
    assert len(figure.axes) == 2 and "Published: Ho, Jain, Abbeel" in said.caption
