"""Cells of a grid that are cascades: the models below are trained once for all cells."""

from pathlib import Path

import pytest
import torch
from test_small_images import CPU
from tiny_models import tiny_bench, tiny_data, tiny_preset

from ddpm_bench.config.preset import load_preset, resolve
from ddpm_bench.config.shipped import load_grid
from ddpm_bench.data import load_data, small_data
from ddpm_bench.data.resize import averaged
from ddpm_bench.errors import UserError
from ddpm_bench.experiment.ablate import plan, run_jobs
from ddpm_bench.experiment.cell import run_cell
from ddpm_bench.experiment.launchers import Asked, choose_launcher
from ddpm_bench.measurement.samples import draw_samples
from ddpm_bench.models.build import build_diffusion, build_network
from ddpm_bench.models.cascade import stacked
from ddpm_bench.models.model import load_model

GRID = """
name = "steps-up"
title = "t"
source = "s"

[conditions]
data = "tiny"
size = 16
samples = 12
extractor = "embedded"

[settings]
diffusion = { parameterization = "eps", objective = "L_simple", variance = "fixed" }
scoring = { bound_images = 0, bootstrap = 0, neighbours = 0 }
network = { small = 8, augmentation = 4 }
cascade = { below = [8], otherwise = { 8 = { network = { multipliers = [1], attention = [] }, training = { steps = 6 } } } }

[[cell]]
name = "one"
label = "s = 1"
settings = { sampling = { augmentation = 1 } }
published = {}

[[cell]]
name = "three"
label = "s = 3"
settings = { sampling = { augmentation = 3 } }
published = {}
"""


def jobs(folder: Path, *assigned: str):
    (folder / "grid.toml").write_text(GRID)
    preset = tiny_preset(folder, tiny_data(folder / "data.npz"))
    return plan(load_grid(str(folder / "grid.toml")), preset, None, [0], assigned)


def test_a_cell_is_a_cascade_whose_models_are_trained_once_for_all_cells(tmp_path: Path) -> None:
    bench, (one, three) = tiny_bench(tmp_path), jobs(tmp_path)
    records = [run_cell(job, bench) for job in (one, three)]
    trained = {path.name: load_model(path) for path in (tmp_path / "results" / "work" / "trained").iterdir()}
    (stage,) = [model for name, model in trained.items() if name.startswith("side8-")]
    (top,) = [model for name, model in trained.items() if not name.startswith("side8-")]
    assert (stage.shape, stage.step, top.shape, top.step) == ((1, 8, 8), 6, (1, 16, 16), 10)
    for record, level in zip(records, (1, 3), strict=True):
        assert record.parameters == stage.parameters + top.parameters and record.network_calls == 12
        assert any(f"level s = {level} " in remark for remark in record.sampling_remarks)
    whole = stacked([stage, top])
    drawn = [draw_samples(whole, job.settings.sampling, 0, bench.runtime, tmp_path / job.name) for job in (one, three)]
    for job, images in zip((one, three), drawn, strict=True):
        kept = draw_samples(whole, job.settings.sampling, 0, bench.runtime, tmp_path / "results" / "work" / job.name)
        assert torch.equal(kept, images)
    assert len(list((tmp_path / "results" / "work" / "one-seed0").glob("samples-*"))) == 1  # its own were found
    again = load_data(stage.data)  # what the model below learned is what its checkpoint says
    assert again.sha256 == stage.identity["data_sha256"] == small_data(bench.data, 8).sha256
    assert torch.equal(again.train.images, averaged(bench.data.train.images, 8))


def test_the_models_below_are_trained_once_for_each_of_their_settings(tmp_path: Path) -> None:
    one, three = jobs(tmp_path)
    assert len({one.settings, three.settings, jobs(tmp_path)[0].settings}) == 2  # settings are keys
    assert (
        one.trained_in == three.trained_in and one.stages[0].trained_as_stage_in == three.stages[0].trained_as_stage_in
    )
    (lowest,) = one.settings.stages
    assert (lowest.network.small, lowest.network.augmentation, lowest.sampling.augmentation) == (None, 0, None)
    assert (lowest.data.size, lowest.data.averaged_from, lowest.training.steps) == (8, 16, 6)
    other = jobs(tmp_path, "training.batch=5")[0].stages[0]
    assert other.trained_as_stage_in != one.stages[0].trained_as_stage_in


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("small = 8", "small = 4", r"cascade.below ends with images of side 8, and network.small = 4; give network.small = 8"),
        ("below = [8]", "below = [12, 8]", r"the model of side 12: .*averaged_from = 16 is no multiple of size = 12"),
        ("bound_images = 0", "bound_images = 4", r"a cascade has no bound in bits/dim.*scoring.bound_images = 0"),
        ("attention = [] }", "attention = [3] }", r"the model of side 8: .*attention at side 3"),
        ("otherwise = { 8", "otherwise = { 9", r"otherwise names a model of side 9, and those below are \[8\]"),
        ("otherwise = { 8 = { network", "otherwise = { 8 = { data", r"side 8: 'data' is of the whole cascade"),
    ],
)  # fmt: skip
def test_cells_that_do_not_chain_are_refused_by_name(tmp_path: Path, old: str, new: str, said: str) -> None:
    assert old in GRID
    (tmp_path / "grid.toml").write_text(GRID.replace(old, new))
    with pytest.raises(UserError, match=said):
        plan(load_grid(str(tmp_path / "grid.toml")), tiny_preset(tmp_path), None, [0], [])


def test_a_cell_whose_small_images_nothing_draws_is_refused(tmp_path: Path) -> None:
    alone = jobs(tmp_path, "cascade.below=[]")
    with pytest.raises(UserError, match=r"network.small = 8, and no model draws images.*cascade.below = \[8\]"):
        run_jobs(alone, tiny_bench(tmp_path), {}, choose_launcher(Asked("inline"), 1, CPU))


def test_the_pipeline_of_the_paper_has_its_shapes() -> None:
    """16 to 64 pixels, without memory: the larger model's first convolution takes 2 x 3 channels."""
    (cell,) = load_grid("cdm-imagenet").select(["s-1001"])
    settings = resolve(cell, load_preset("cdm-imagenet64"), {})
    (lowest,) = settings.stages
    assert (lowest.data.size, lowest.network.small, settings.network.small, settings.network.augmentation) == (
        16,
        None,
        16,
        1001,
    )
    diffusion = build_diffusion(settings.diffusion)
    with torch.device("meta"):
        network = build_network(settings.network, (3, 64, 64), diffusion)
    assert network.first.weight.shape == (256, 6, 3, 3) and network.last.weight.shape == (6, 256, 3, 3)
    assert network.label.weight.shape == (1000, 1024) and network.level.out.weight.shape == (1024, 1024)
