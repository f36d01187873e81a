"""Gradient noise: the estimator against closed forms, and the command on a checkpoint."""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_models import tiny_checkpoint, tiny_data
from torch import Tensor

from ddpm_bench.config.settings import DataSettings, ProcessSettings
from ddpm_bench.data import ImageData, load_data
from ddpm_bench.diffusion.denoiser import Denoiser
from ddpm_bench.diffusion.objective import OBJECTIVES, LVlb
from ddpm_bench.diffusion.reverse import Diffusion
from ddpm_bench.diffusion.times import TimeSampler, Uniform
from ddpm_bench.errors import Interrupted, UserError
from ddpm_bench.measurement import spread
from ddpm_bench.measurement.gradient_noise import measure_gradient_noise
from ddpm_bench.measurement.spread import Spread, spread_of
from ddpm_bench.models.build import build_diffusion
from ddpm_bench.models.model import Model, load_model
from ddpm_bench.records.gradient_noise import GradientNoise
from ddpm_bench.report.gradient_noise import draw_gradient_noise
from ddpm_bench.runtime.runtime import Runtime
from ddpm_bench.training.batches import Batch, Batches

MEAN, DEVIATIONS = (
    torch.tensor([0.5, -0.25, 0.1], dtype=torch.float64),
    torch.tensor([1.0, 2.0, 0.5], dtype=torch.float64),
)


def linear_model(batch: int, seed: int) -> Tensor:
    """The gradient of mean_i (w . x_i) by w: the mean of `batch` x_i ~ N(MEAN, diag(DEVIATIONS^2))."""
    draw = torch.Generator().manual_seed(seed)
    return (MEAN + DEVIATIONS * torch.randn(batch, 3, generator=draw, dtype=torch.float64)).mean(0)


def in_parts(vector: Tensor) -> Sequence[Tensor]:
    return vector[:2].reshape(2, 1), vector[2:]


def test_a_spread_is_numpys_of_all_vectors_at_once() -> None:
    vectors = [linear_model(4, seed) for seed in range(30)]
    stacked = torch.stack(vectors).numpy()
    trace = np.cov(stacked, rowvar=False).trace()
    mean = stacked.mean(0)
    for found in (
        spread_of(lambda number: in_parts(vectors[number]), range(30)),
        spread_of(lambda number: in_parts(vectors[number]), range(7))
        + spread_of(lambda number: in_parts(vectors[number]), range(7, 30)),
    ):
        assert found.count == 30
        np.testing.assert_allclose(torch.cat([part.flatten() for part in found.mean]), mean, rtol=1e-13)
        np.testing.assert_allclose(found.noise(4), (4 * trace, (mean**2).sum() - trace / 30), rtol=1e-12)


@pytest.mark.parametrize("batch", [1, 5])
def test_the_estimate_of_a_linear_model_has_no_bias(batch: int) -> None:
    """Over 1,000 estimates from 6 batches each; tr(cov) = sum of variances, whatever the batch."""
    found = np.array([
        spread_of(lambda number, first=6 * trial: in_parts(linear_model(batch, first + number)), range(6)).noise(batch)
        for trial in range(1000)
    ])  # fmt: skip
    error = found.std(0) / len(found) ** 0.5
    known = np.array([DEVIATIONS.square().sum(), MEAN.square().sum()])
    assert (np.abs(found.mean(0) - known) < 4 * error).all() and (error < known / 3).all()


def test_one_mean_and_one_scatter_are_all_that_is_held() -> None:
    small, large = (spread_of(lambda number: in_parts(linear_model(1, number)), range(n)) for n in (2, 200))
    for one in (small, large):
        assert [part.numel() for part in one.mean] == [2, 1] and one.scatter.numel() == 1
    assert set(vars(large)) == {"count", "mean", "scatter"} == set(Spread.__annotations__)


@pytest.fixture
def place(tmp_path: Path) -> tuple[Model, ImageData]:
    model = load_model(tiny_checkpoint(tmp_path / "model", variance="learned-range"))
    return model, load_data(DataSettings(source=tiny_data(tmp_path / "data.npz"), size=16))


def measured(
    place: tuple[Model, ImageData],
    *objectives: str,
    batches: int = 6,
    batch: int = 3,
    seed: int = 0,
    runtime: Runtime | None = None,
) -> GradientNoise:
    return measure_gradient_noise(*place, objectives, batches, batch, seed, runtime or Runtime())


def as_slope(model: Model, process: ProcessSettings) -> Model:
    return replace(model, process=process, diffusion=build_diffusion(process), network=Slope())


class Slope(torch.nn.Module):
    """Predicts w at every pixel, whatever it is given."""

    def __init__(self) -> None:
        super().__init__()
        self.w = torch.nn.Parameter(torch.tensor(0.3, dtype=torch.float64))

    def forward(self, x_t: Tensor, step: Tensor) -> Tensor:
        return self.w.to(x_t.dtype).expand(x_t.shape)


def test_the_noise_of_l_simple_is_the_closed_form_of_a_network_with_one_weight(place) -> None:
    """The gradient of mean (eps - w)^2 is 2 (w - mean eps): mean 2 w, variance 4 / 256 for an image of 256 pixels."""
    model, data = place
    process = model.process.model_copy(update={"variance": "fixed"})
    model = as_slope(model, process)
    noise = measured((model, data), "L_simple", batches=600, batch=4).noises[0]
    assert noise.squared_norm == pytest.approx(0.36, rel=0.03)
    assert noise.trace == pytest.approx(4 / 256, rel=0.25)
    assert noise.scale == pytest.approx(noise.trace / noise.squared_norm)


class Uneven(LVlb):
    """t^2 w^2, which no image changes: the gradient, 2 t^2 w, is in proportion to the loss."""

    name = "uneven"

    def check(self, diffusion: Diffusion) -> None:
        """Nothing to refuse."""

    def __call__(self, denoiser: Denoiser, x0: Tensor, t: Tensor, eps: Tensor) -> Tensor:
        assert isinstance(denoiser.network, Slope)
        return t**2 * denoiser.network.w**2


class UnevenUniform(Uneven):
    name = "uneven-uniform"

    def times(self, T: int) -> TimeSampler:
        return Uniform(T)


def test_importance_sampling_keeps_the_mean_and_takes_the_noise_of_t_away(
    place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Over t = 1..6 uniform, 2 w t^2 has the variance (2 w)^2 var(t^2); drawn in proportion to t^2 next to none."""
    for objective in (Uneven(), UnevenUniform()):
        monkeypatch.setitem(OBJECTIVES, objective.name, objective)
    model = as_slope(place[0], place[0].process)
    sampled, uniform = measured((model, place[1]), "uneven", "uneven-uniform", batches=400, batch=4).noises
    squares = np.arange(1, 7) ** 2
    assert uniform.trace == pytest.approx(0.36 * squares.var(), rel=0.15)
    assert uniform.squared_norm == pytest.approx(0.36 * squares.mean() ** 2, rel=0.15)
    assert sampled.squared_norm == pytest.approx(0.36 * squares.mean() ** 2, rel=1e-3)
    assert sampled.trace < 1e-4 * uniform.trace


def test_what_is_measured_by_default_depends_on_the_diffusion(place, tmp_path: Path) -> None:
    fixed = load_model(tiny_checkpoint(tmp_path / "fixed")), place[1]
    process = ProcessSettings(parameterization="eps", variance="fixed", schedule="geometric", T=6)
    ncsn = replace(fixed[0], process=process, diffusion=build_diffusion(process)), place[1]
    for subject, names in (
        (place, ["L_hybrid", "L_vlb-uniform", "L_vlb"]),
        (fixed, ["L_simple", "L_vlb-uniform", "L_vlb"]),
        (ncsn, ["L_simple"]),
    ):
        found = measured(subject, batches=4, batch=2)
        assert [noise.objective for noise in found.noises] == names
        assert all(noise.trace > 0 for noise in found.noises)
    with pytest.raises(UserError, match="'L_hybrid' cannot train with the variance 'fixed-beta'"):
        measured(fixed, "L_hybrid")
    with pytest.raises(UserError, match="'L_vlb' does not go with the schedule 'geometric'"):
        measured(ncsn, "L_vlb")
    with pytest.raises(UserError, match=r"no objective 'L_hybird'.*L_hybrid"):
        measured(place, "L_hybird")


def test_a_measurement_repeats_bitwise_and_leaves_the_model_as_it_was(place) -> None:
    model, _ = place
    before = {name: held.clone() for name, held in model.network.state_dict().items()}
    torch.manual_seed(5)
    first, drawn = measured(place, "L_vlb"), torch.rand(1)
    torch.manual_seed(5)
    assert torch.equal(torch.rand(1), drawn)
    assert measured(place, "L_vlb").noises == first.noises
    assert measured(place, "L_vlb", seed=1).noises != first.noises
    assert not any(module.training for module in model.network.modules())
    assert all(torch.equal(held, before[name]) for name, held in model.network.state_dict().items())
    assert all(parameter.grad is None for parameter in model.network.parameters())


@pytest.mark.parametrize("after", [1, 4])
def test_an_interrupted_measurement_goes_on_and_comes_to_the_same_numbers(
    place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, after: int
) -> None:
    """Of 6 gradients, 3 a half: stopped within the first half, and within the second."""
    kept, made = Runtime(cache=tmp_path / "cache"), []
    batch_at = Batches.at

    def counted(batches: Batches, number: int) -> Batch:
        made.append(number)
        return batch_at(batches, number)

    monkeypatch.setattr(Batches, "at", counted)
    monkeypatch.setattr(spread, "stop_requested", lambda: made[-1] == after)
    with pytest.raises(Interrupted):
        measured(place, "L_vlb", runtime=kept)
    monkeypatch.undo()
    monkeypatch.setattr(Batches, "at", counted)
    made.clear()
    going_on = measured(place, "L_vlb", runtime=kept)
    assert made == list(range(after + 1, 6))  # nor is what the time sampler learned learned again
    assert going_on.noises == measured(place, "L_vlb").noises
    made.clear()
    assert measured(place, "L_vlb", runtime=kept).noises == going_on.noises and not made
    assert not list((tmp_path / "cache").rglob("*.safetensors"))


def test_the_command_prints_and_draws_checkpoints_side_by_side(call, tmp_path: Path) -> None:
    data = tiny_data(tmp_path / "data.npz")
    ckpts = [tiny_checkpoint(tmp_path / name, variance="learned-range", seed=seed) for seed, name in enumerate("ab")]
    arguments = ["--data", data, "--batches", 4, "--batch", 2, "--device", "cpu"]
    done = call(
        "gradient-noise", "--ckpt", ckpts[0], "--ckpt", ckpts[1], *arguments, "--objective", "L_hybrid", "--objective", "L_vlb",
        "--out", tmp_path / "noise.png", "--json",
    )  # fmt: skip
    assert done.code == 0, done.err
    found = json.loads(done.out)
    assert [one["checkpoint"] for one in found] == ["a", "b"]
    assert [noise["objective"] for noise in found[0]["noises"]] == ["L_hybrid", "L_vlb"]
    assert (tmp_path / "noise.png").read_bytes().startswith(b"\x89PNG") and (tmp_path / "noise.pdf").exists()
    table = call("gradient-noise", "--ckpt", ckpts[0], *arguments)
    assert table.code == 0 and "L_vlb-uniform" in table.out and "noise scale" in table.out
    assert call("gradient-noise", "--ckpt", ckpts[0], *arguments, "--out", tmp_path / "noise.png").code == 2


def test_a_scale_that_noise_hides_is_drawn_as_nothing(place, tmp_path: Path) -> None:
    found = measured(place, "L_hybrid")
    hidden = found.model_copy(update={
        "noises": tuple(noise.model_copy(update={"scale": None, "halves": (None, 2.0)}) for noise in found.noises)
    })  # fmt: skip
    assert draw_gradient_noise([found, hidden], tmp_path / "noise.png").exists()
