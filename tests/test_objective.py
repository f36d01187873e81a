"""Objectives: what each is the mean of, and what each refuses."""

import pytest
import torch
from diffusion_cases import SHORT, all_steps, levels, normals, some_network

from ddpm_bench.diffusion.bound import bound_term
from ddpm_bench.diffusion.denoiser import Denoiser
from ddpm_bench.diffusion.objective import OBJECTIVES, L, LSimple
from ddpm_bench.diffusion.parameterization import PARAMETERIZATIONS, Eps, Mu, Parameterization
from ddpm_bench.diffusion.reverse import Diffusion, Network
from ddpm_bench.diffusion.variance import VARIANCES, FixedBeta, LearnedDiagonal, Variance
from ddpm_bench.errors import UserError

T_ALL = all_steps(SHORT)
X0 = levels(SHORT.T, 1, 4, 4)
EPS = normals(SHORT.T, 1, 4, 4)


def denoiser(
    parameterization: Parameterization, variance: Variance, network: Network | None = None, clip_x0: bool = False
) -> Denoiser:
    return Denoiser(Diffusion(SHORT, parameterization, variance), network or some_network(), (1, 4, 4), clip_x0)


def test_l_simple_of_eps_is_the_mean_squared_noise_error() -> None:
    losses = LSimple()(denoiser(Eps(), FixedBeta()), X0, T_ALL, EPS)
    for i, t in enumerate(T_ALL.tolist()):
        a = SHORT.alpha_bar[i].item()
        x_t = a**0.5 * X0[i] + (1 - a) ** 0.5 * EPS[i]
        output = some_network()(x_t[None], torch.tensor([t - 1]))[0]
        assert losses[i].item() == pytest.approx(((EPS[i] - output) ** 2).mean().item(), rel=1e-12)


def test_l_simple_of_mu_measures_the_distance_to_the_posterior_mean() -> None:
    losses = LSimple()(denoiser(Mu(), FixedBeta()), X0, T_ALL, EPS)
    for i, t in enumerate(T_ALL.tolist()):
        a, before, beta = SHORT.alpha_bar[i].item(), SHORT.alpha_bar_prev[i].item(), SHORT.betas[i].item()
        x_t = a**0.5 * X0[i] + (1 - a) ** 0.5 * EPS[i]
        mu_tilde = (before**0.5 * beta * X0[i] + (1 - beta) ** 0.5 * (1 - before) * x_t) / (1 - a)
        output = some_network()(x_t[None], torch.tensor([t - 1]))[0]
        assert losses[i].item() == pytest.approx(((mu_tilde - output) ** 2).mean().item(), rel=1e-12)


@pytest.mark.parametrize("parameterization", PARAMETERIZATIONS)
def test_l_is_the_bound_term_without_clipping(parameterization: str) -> None:
    unclipped, clips = (denoiser(PARAMETERIZATIONS[parameterization], FixedBeta(), clip_x0=clip) for clip in (0, 1))
    free, clipped = (bound_term(each, X0, T_ALL, EPS).bits for each in (unclipped, clips))
    assert torch.equal(L()(unclipped, X0, T_ALL, EPS), free)
    assert torch.equal(free, clipped) == (parameterization == "mu")


def test_l_trains_a_learned_variance_at_every_step() -> None:
    raw = torch.full((SHORT.T, 1, 4, 4), -3.0, requires_grad=True)
    network = some_network()
    learned = denoiser(Eps(), LearnedDiagonal(), lambda x, s: torch.cat([network(x, s), raw], 1))
    L()(learned, X0.float(), T_ALL, EPS.float()).sum().backward()
    assert (raw.grad.abs().flatten(1).sum(1) > 0).all()


@pytest.mark.parametrize("name", OBJECTIVES)
def test_losses_keep_the_dtype_of_the_images(name: str) -> None:
    losses = OBJECTIVES[name](denoiser(Eps(), FixedBeta()), X0.float(), T_ALL, EPS.float())
    assert losses.dtype == torch.float32
    assert losses.shape == (SHORT.T,)


def test_l_accepts_every_variance_and_l_simple_refuses_a_learned_one_with_the_reason() -> None:
    for variance in VARIANCES.values():
        L().check(variance)
    for name in ("fixed-beta", "fixed-beta-tilde"):
        LSimple().check(VARIANCES[name])
    with pytest.raises(UserError, match="'L_simple' cannot train the variance 'learned': the squared error does not"):
        LSimple().check(LearnedDiagonal())
    with pytest.raises(UserError, match="'L_simple'"):
        LSimple()(denoiser(Eps(), LearnedDiagonal(), some_network(2)), X0, T_ALL, EPS)
