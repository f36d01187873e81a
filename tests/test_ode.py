"""The probability flow ODE and the likelihood by it: Gaussian data, where both are known in closed form."""

import json
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from diffusion_cases import normals
from tiny_models import tiny_checkpoint, tiny_data
from torch import Tensor, nn

from ddpm_bench.data.codec import PIXELS, Unit
from ddpm_bench.diffusion.denoiser import Denoiser
from ddpm_bench.diffusion.noise import ODE, block_uniforms
from ddpm_bench.diffusion.ode import FlowODE
from ddpm_bench.diffusion.parameterization import X0, Eps, Mu, Score
from ddpm_bench.diffusion.reverse import Diffusion, Network
from ddpm_bench.diffusion.samplers import Chain
from ddpm_bench.diffusion.schedule import Schedule, cosine, geometric, linear
from ddpm_bench.diffusion.variance import FixedBeta, LearnedRange
from ddpm_bench.errors import Interrupted, NotFinite, UserError
from ddpm_bench.likelihood.ode import Solving, ode_bits_per_dim, spread
from ddpm_bench.likelihood.pieces import Pieces
from ddpm_bench.networks.unet import UNet
from ddpm_bench.runtime.interrupt import Stop
from ddpm_bench.runtime.runtime import Runtime

MEAN, STD = 0.2, 0.3
SHAPE = (1, 2, 2)


def told_levels(schedule: Schedule) -> Schedule:
    """Its network is told log sigma^2 itself, so that it knows where it is between two steps, and below the first."""
    return replace(schedule, network_steps=schedule.sigma.square().log())


def gaussian(x: Tensor, step: Tensor) -> Tensor:
    """E[eps | x_t] for x_0 ~ N(MEAN, STD^2)."""
    a = torch.sigmoid(-step).reshape(-1, 1, 1, 1)
    return (1 - a).sqrt() * (x - a.sqrt() * MEAN) / (a * STD**2 + 1 - a)


def denoiser(schedule: Schedule, network: Network = gaussian) -> Denoiser:
    return Denoiser(Diffusion(schedule, Eps(), FixedBeta()), network, SHAPE)


def carried_in_closed_form(x: Tensor, start: float, end: float) -> tuple[Tensor, float]:
    """x from level `start` to `end`, and the integral of the divergence a dimension."""
    a, b = (1 / (1 + math.exp(level)) for level in (start, end))
    ratio = ((b * STD**2 + 1 - b) / (a * STD**2 + 1 - a)) ** 0.5
    return b**0.5 * MEAN + (x - a**0.5 * MEAN) * ratio, math.log(ratio)


@pytest.mark.parametrize("make", [linear, cosine])
def test_the_ode_of_gaussian_data_is_their_closed_form_with_the_exact_trace(make) -> None:
    flow = FlowODE(denoiser(told_levels(make(100))), rtol=1e-9, atol=1e-9)
    first, last = flow.levels[[0, -1]]
    x = math.sqrt(0.999) * (MEAN + STD * normals(3, *SHAPE))
    units = torch.eye(4, dtype=torch.float64).reshape(4, 1, *SHAPE).expand(4, 3, *SHAPE)
    found = flow.carry(x, first, last, units)
    expected, log_ratio = carried_in_closed_form(x, first, last)
    torch.testing.assert_close(found.x, expected, rtol=0, atol=1e-7)
    torch.testing.assert_close(
        found.divergence, torch.full((3,), 4 * log_ratio, dtype=torch.float64), rtol=0, atol=1e-6
    )
    back = flow.carry(found.x, last, first)
    torch.testing.assert_close(back.x, x, rtol=0, atol=1e-7)
    assert back.divergence.abs().max() == 0


def test_every_way_of_predicting_eps_has_the_same_velocity_and_x0_is_not_clipped() -> None:
    schedule, x, level = told_levels(linear(100)), 3 * normals(3, *SHAPE), -1.3
    a = 1 / (1 + math.exp(level))
    as_x0 = lambda x, step: (x - (1 - a) ** 0.5 * gaussian(x, step)) / a**0.5  # noqa: E731
    as_score = lambda x, step: -gaussian(x, step) / math.exp(level / 2)  # noqa: E731
    expected = 0.5 * (1 - a) ** 0.5 * (gaussian(x, torch.tensor([level])) - (1 - a) ** 0.5 * x)
    for parameterization, network in ((Eps(), gaussian), (X0(), as_x0), (Score(), as_score)):
        one = Denoiser(Diffusion(schedule, parameterization, FixedBeta()), network, SHAPE, clip_x0=True)
        torch.testing.assert_close(FlowODE(one).velocity(x, level)[0], expected, rtol=1e-6, atol=1e-8)


def test_the_network_is_told_its_own_step_at_a_step_and_one_between_between_two() -> None:
    asked = []

    def network(x: Tensor, step: Tensor) -> Tensor:
        asked.append(float(step[0]))
        return 0 * x

    for schedule in (linear(100), linear(100).rescaled(), geometric(100), linear(100).respaced([1, 50, 100])):
        flow = FlowODE(denoiser(schedule, network))
        told = schedule.network_steps.double().numpy()
        for level in flow.levels[1:-1]:
            flow.velocity(normals(1, *SHAPE), float(level))
        np.testing.assert_allclose(asked, told[1:-1], rtol=1e-6)
        asked.clear()
        for level in (flow.levels[0] - 3, *(flow.levels[1:] + flow.levels[:-1]) / 2, flow.levels[-1] + 3):
            flow.velocity(normals(1, *SHAPE), float(level))
        assert asked[0] == told[0] and asked[-1] == pytest.approx(told[-1])
        assert all(low < step < high for low, step, high in zip(told[:-1], asked[1:-1], told[1:], strict=True))
        asked.clear()


def test_the_mean_over_rademacher_probes_is_the_trace() -> None:
    mixing = torch.randn(4, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))

    def network(x: Tensor, step: Tensor) -> Tensor:
        return (torch.sin(x.flatten(1)) @ mixing.T).reshape(x.shape)

    flow, x = FlowODE(denoiser(told_levels(linear(100)), network)), normals(1, *SHAPE)
    units = torch.eye(4, dtype=torch.float64).reshape(4, 1, *SHAPE)
    signs = torch.tensor([[(i >> bit & 1) * 2.0 - 1 for bit in range(4)] for i in range(16)]).reshape(16, 1, *SHAPE)
    exact = flow.velocity(x, 0.3, units)[1]
    every_probe = torch.cat([flow.velocity(x, 0.3, probe[None])[1] for probe in signs])
    assert every_probe.std() > 0.1
    torch.testing.assert_close(every_probe.mean(), exact[0], rtol=1e-10, atol=1e-12)


def chain(network: Network = gaussian, schedule: Schedule | None = None) -> Chain:
    return Chain(denoiser(schedule or told_levels(linear(100)), network))


def images(count: int) -> Tensor:
    x = MEAN + STD * normals(count, *SHAPE, seed=3)
    return ((x + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)


def test_bits_of_gaussian_data_are_the_closed_form() -> None:
    """-log2 N(x; MEAN, STD^2 + sigma_1^2) of the dequantised image, whose last step is nearly N(0, 1)."""
    schedule = told_levels(linear(100, 1e-4, 0.2))
    pixels, solving = images(6), Solving(draws=3, sigma_0=0.1, rtol=1e-9, atol=1e-9)
    found = ode_bits_per_dim(chain(schedule=schedule), pixels, seed=5, solving=solving)
    sigma_1, a_T = schedule.sigma[0].item(), schedule.alpha_bar[-1].item()
    per_image = []
    for draw in range(3):
        u = torch.from_numpy(block_uniforms(5, 0, 6, (2, *SHAPE), ODE + draw))[:, 0]
        x = pixels.double() / 127.5 - 1 + (u - 0.5) * 2 / 255
        data = STD**2 + sigma_1**2
        x_T = a_T**0.5 * MEAN + (x - MEAN) * ((a_T * STD**2 + 1 - a_T) / data) ** 0.5
        log_ratio = 0.5 * math.log((a_T * STD**2 + 1 - a_T) / data)
        log_p = -0.5 * x_T.square() - 0.5 * math.log(2 * math.pi) + log_ratio
        per_image.append(-(log_p + math.log(2 / 255)).flatten(1).mean(1) / math.log(2))
    torch.testing.assert_close(found.total, torch.stack(per_image, 1), rtol=0, atol=1e-6)
    exact = -(-0.5 * ((x - MEAN) ** 2 / data) - 0.5 * math.log(2 * math.pi * data) + math.log(2 / 255)) / math.log(2)
    torch.testing.assert_close(found.total[:, 2], exact.flatten(1).mean(1), rtol=0, atol=3e-3)  # x_T is nearly N(0, 1)


def test_the_errors_are_those_of_images_and_of_draws() -> None:
    found = ode_bits_per_dim(chain(), images(40), seed=0, solving=Solving(draws=4))
    assert found.total.shape == (40, 4) and found.calls > 20
    assert found.standard_error == pytest.approx(float(found.total.mean(1).std()) / 40**0.5)
    assert found.draw_error == pytest.approx(float(found.total.var(1).mean() / 160) ** 0.5)
    assert ode_bits_per_dim(chain(), images(4), seed=0, solving=Solving(draws=1)).draw_error is None


def test_an_image_has_its_own_draws_whatever_the_batch() -> None:
    fine = Solving(draws=2, rtol=1e-8, atol=1e-8)
    whole, parts = (
        ode_bits_per_dim(chain(), images(7), seed=0, solving=fine, runtime=Runtime(batch=batch)).total
        for batch in (7, 3)
    )
    torch.testing.assert_close(whole, parts, rtol=0, atol=1e-6)
    assert not torch.allclose(whole[:, 0], whole[:, 1], atol=1e-6)
    other = ode_bits_per_dim(chain(), images(7), seed=1, solving=fine).total
    assert not torch.allclose(whole, other, atol=1e-6)


def test_dequantisation_is_over_the_models_levels_or_as_released() -> None:
    levels, u = torch.arange(256, dtype=torch.uint8).reshape(1, 1, 16, 16), torch.full((1, 1, 16, 16), 0.25).double()
    k = levels.double()
    for codec, how, expected, width in (
        (PIXELS, "level", (k - 0.25) / 127.5 - 1, 2 / 255),
        (PIXELS, "released", (k + 0.25) / 128 - 1, 2 / 256),
        (Unit(), "level", (k + 0.25) / 256, 1 / 256),
        (Unit(), "released", (k + 0.25) / 256, 1 / 256),
    ):
        x0, found = spread(codec, levels, u, how)
        torch.testing.assert_close(x0, expected, rtol=0, atol=1e-6)
        assert found == pytest.approx(width)


def test_a_stopped_measurement_goes_on_and_more_draws_are_added(tmp_path) -> None:
    calls = []

    def counted(x: Tensor, step: Tensor) -> Tensor:
        calls.append(len(x))
        if stop and len(calls) == 120:
            stop.requested = True
        return gaussian(x, step)

    stop = None
    expected = ode_bits_per_dim(chain(counted), images(8), seed=0, runtime=Runtime(batch=2)).total
    whole, stop = len(calls), Stop(())
    calls.clear()
    with stop, pytest.raises(Interrupted):
        ode_bits_per_dim(chain(counted), images(8), seed=0, runtime=Runtime(batch=2), pieces=Pieces(tmp_path))
    kept = len(list(tmp_path.glob("draw0-*")))
    stop = None
    calls.clear()
    found = ode_bits_per_dim(chain(counted), images(8), seed=0, runtime=Runtime(batch=2), pieces=Pieces(tmp_path))
    assert torch.equal(found.total, expected) and 0 < kept < 8 and len(calls) < whole
    calls.clear()
    more = ode_bits_per_dim(
        chain(counted), images(8), seed=0, solving=Solving(3), runtime=Runtime(batch=2), pieces=Pieces(tmp_path)
    )
    assert torch.equal(more.total[:, :2], expected) and 0 < len(calls) < whole


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"variance": LearnedRange()}, "variance 'learned-range' is learned for the variational bound"),
        ({"parameterization": Mu()}, "a network that predicts mu"),
        ({"schedule": linear(1)}, "a chain of one step has none"),
    ],
)
def test_models_without_such_a_likelihood_are_refused_with_the_reason(changed: dict, said: str) -> None:
    diffusion = replace(Diffusion(linear(10), Eps(), FixedBeta()), **changed)
    with pytest.raises(UserError, match=said):
        ode_bits_per_dim(Chain(Denoiser(diffusion, gaussian, SHAPE)), images(2), seed=0)


def test_bad_requests_are_refused() -> None:
    with pytest.raises(UserError, match=r"rtol = 2 of the ODE must be from 1e-12 to 0\.1, such as 1e-05"):
        Solving(rtol=2.0)
    with pytest.raises(UserError, match="at least one draw an image, not 0"):
        Solving(draws=0)
    with pytest.raises(UserError, match="uint8 images, at least one, not on 2 of"):
        ode_bits_per_dim(chain(), images(2).float(), seed=0)
    with pytest.raises(NotFinite, match="cannot be followed"):
        ode_bits_per_dim(chain(lambda x, step: x * math.nan), images(2), seed=0)


def test_modules_are_scored_in_evaluation_mode_in_their_own_precision() -> None:
    class Layer(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.ones(()))

        def forward(self, x: Tensor, step: Tensor) -> Tensor:
            assert not self.training and x.dtype == torch.float32
            return self.weight * gaussian(x, step.float())

    layer = Layer()
    found = ode_bits_per_dim(chain(layer), images(3), seed=0).total
    torch.testing.assert_close(found, ode_bits_per_dim(chain(), images(3), seed=0).total, rtol=0, atol=2e-4)
    assert layer.training and layer.weight.grad is None


# ---- at the command line --------------------------------------------------------------------------------------------


@pytest.fixture
def nll(call, small_run, tmp_path):
    def run(*arguments, cell: str = "eps-mse-fixed", code: int = 0):
        ckpt = small_run.results / "work" / f"{cell}-seed0"
        done = call("nll", "--ckpt", ckpt, "--images", 4, "--cache", tmp_path / "cache", "--device", "cpu", *arguments)
        assert done.code == code, done.err
        return done

    return run


def test_the_likelihood_stands_beside_the_bound_in_a_table_of_its_own(nll, monkeypatch) -> None:
    found = json.loads(nll("--ode", "--split", "both", "--rtol", 1e-3, "--json").out)
    assert (
        [one["split"] for one in found["likelihoods"]] == [one["split"] for one in found["bounds"]] == ["test", "train"]
    )
    one = found["likelihoods"][0]
    assert (one["images"], one["draws"], one["dequantisation"], one["sigma_0"], one["rtol"], one["atol"]) == (
        4, 2, "level", 1e-3, 1e-3, 1e-5,
    )  # fmt: skip
    assert one["total"] == pytest.approx(one["prior"] + one["flow"]) and one["draw_error"] > 0
    monkeypatch.setattr(UNet, "forward", None)  # everything is kept
    shown = nll("--ode", "--split", "both", "--rtol", 1e-3).out
    assert "Bits/dim (ODE)" in shown and f"{one['total']:.4f}" in shown
    assert "no variational bound" in " ".join(shown.split())


def test_a_model_without_a_bound_has_its_likelihood_alone_and_refuses_options_of_the_bound(call, tmp_path) -> None:
    ckpt, data = tiny_checkpoint(tmp_path / "ncsn"), tiny_data(tmp_path / "data.npz")
    card = json.loads((ckpt / "model.json").read_text())
    ends = {"beta_1": 1e-4, "beta_T": 0.02}
    card["process"] |= ends | {"schedule": "geometric", "codec": "unit"}
    (ckpt / "model.json").write_text(json.dumps(card))
    command = (
        "nll", "--ckpt", ckpt, "--data", data, "--images", 2, "--ode", "--rtol", 1e-2, "--device", "cpu", "--cache",
        tmp_path / "cache",
    )  # fmt: skip
    done = call(*command, "--json")
    assert done.code == 0 and "since its schedule is geometric" in " ".join(done.err.split()), done.err
    assert json.loads(done.out)["bounds"] == [] and len(json.loads(done.out)["likelihoods"]) == 1
    for option in ("--progressive", "--exact", "--no-clip"):
        done = call(*command, option)
        assert done.code == 2 and "is of the variational bound, which this model does not have" in done.err, done.err


def test_options_of_the_ode_without_it_and_models_that_have_none_are_refused(nll) -> None:
    assert "--sigma-0 goes with --ode alone" in nll("--sigma-0", 0.1, code=2).err
    assert "variance 'learned'" in nll("--ode", cell="mu-L-learned", code=2).err
