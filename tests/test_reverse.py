"""From network output to p(x_{t-1} | x_t): channels, clipping, precision, evaluation mode."""

import pytest
import torch
from diffusion_cases import SHORT, all_steps, normals, some_network
from torch import nn

from ddpm_bench.diffusion.denoiser import Denoiser
from ddpm_bench.diffusion.parameterization import PARAMETERIZATIONS, X0, Eps
from ddpm_bench.diffusion.reverse import Diffusion
from ddpm_bench.diffusion.variance import FixedBeta, FixedBetaTilde, LearnedDiagonal
from ddpm_bench.errors import UserError

T_ALL = all_steps(SHORT)
X_T = normals(SHORT.T, 2, 3, 3)


def test_the_first_half_of_the_channels_is_the_mean_head_and_the_second_the_variance() -> None:
    step = Diffusion(SHORT, X0(), LearnedDiagonal()).reverse(some_network(2), X_T, T_ALL, clip_x0=False)
    output = some_network(2)(X_T, T_ALL - 1)
    assert torch.equal(step.x0, output[:, :2])
    assert torch.equal(step.log_variance, output[:, 2:])
    assert torch.equal(step.output, output)


@pytest.mark.parametrize(("variance", "outputs"), [(FixedBeta(), 2), (LearnedDiagonal(), 1)])
def test_a_network_with_other_channels_is_refused(variance: FixedBeta | LearnedDiagonal, outputs: int) -> None:
    diffusion = Diffusion(SHORT, Eps(), variance)
    with pytest.raises(UserError, match=rf"returned \(20, {2 * outputs}, 3, 3\).*'{variance.name}' needs \(20, "):
        diffusion.reverse(some_network(outputs), X_T, T_ALL, clip_x0=False)


def test_a_network_that_returns_another_size_is_refused() -> None:
    with pytest.raises(UserError, match=r"returned \(20, 2, 2, 3\)"):
        Diffusion(SHORT, Eps(), FixedBeta()).reverse(lambda x, s: x[:, :, 1:], X_T, T_ALL, clip_x0=False)


@pytest.mark.parametrize("name", PARAMETERIZATIONS)
def test_clipping_bounds_the_predicted_image(name: str) -> None:
    diffusion = Diffusion(SHORT, PARAMETERIZATIONS[name], FixedBeta())
    free, clipped = (diffusion.reverse(some_network(), X_T, T_ALL, clip_x0=clip).x0 for clip in (False, True))
    assert free.abs().max() > 1.5
    assert torch.equal(clipped, free.clamp(-1, 1))


@pytest.mark.parametrize("name", PARAMETERIZATIONS)
def test_a_float32_network_is_interpreted_in_float64(name: str) -> None:
    diffusion = Diffusion(SHORT, PARAMETERIZATIONS[name], LearnedDiagonal())
    output = some_network(2)(X_T.float(), T_ALL - 1)
    single = diffusion.reverse(lambda x, s: output, X_T.float(), T_ALL, clip_x0=False)
    double = diffusion.reverse(lambda x, s: output.double(), X_T.float().double(), T_ALL, clip_x0=False)
    assert torch.equal(single.mean, double.mean)
    assert torch.equal(single.log_variance, double.log_variance)


def test_the_network_gets_x_t_untouched() -> None:
    seen = []
    Diffusion(SHORT, Eps(), FixedBeta()).reverse(lambda x, s: seen.append(x) or x, X_T.float(), T_ALL, clip_x0=True)
    assert torch.equal(seen[0], X_T.float())


def test_respacing_keeps_what_the_network_predicts() -> None:
    strided = Diffusion(SHORT, Eps(), FixedBetaTilde()).respaced([1, 4, 9, 12, 20])
    assert strided.schedule.T == 5
    assert (strided.parameterization.name, strided.variance.name) == ("eps", "fixed-beta-tilde")


def test_evaluation_mode_ends_as_it_began_even_after_an_error() -> None:
    network = nn.Sequential(nn.Dropout(), nn.Sequential(nn.Dropout()))
    network[1].eval()
    denoiser = Denoiser(Diffusion(SHORT, Eps(), FixedBeta()), network, (2, 3, 3))
    with pytest.raises(RuntimeError), denoiser.evaluating():
        assert not any(module.training for module in network.modules())
        raise RuntimeError
    assert [module.training for module in network.modules()] == [True, True, False, False]
