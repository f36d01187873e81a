"""Objectives: what each is the mean of, how its gradient splits, and what each refuses."""

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from diffusion_cases import SHORT, all_steps, levels, normals, some_network
from torch import Tensor

from ddpm_bench.diffusion.bound import bound_term
from ddpm_bench.diffusion.denoiser import Denoiser
from ddpm_bench.diffusion.objective import OBJECTIVES, L, LHybrid, LSimple
from ddpm_bench.diffusion.parameterization import PARAMETERIZATIONS, Eps, Mu, Parameterization
from ddpm_bench.diffusion.reverse import Diffusion, Network
from ddpm_bench.diffusion.times import LossSecondMoment, Uniform
from ddpm_bench.diffusion.variance import VARIANCES, FixedBeta, LearnedDiagonal, LearnedRange, Variance
from ddpm_bench.errors import UserError

T_ALL = all_steps(SHORT)
X0 = levels(SHORT.T, 1, 4, 4)
EPS = normals(SHORT.T, 1, 4, 4)
HYBRIDS = {"L_hybrid": SHORT.T / 1000, "L_hybrid-unscaled": 1.0}
"""The weight of L_{t-1} beside L_simple."""


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
    variance, outputs = (LearnedRange(), 2) if name in HYBRIDS else (FixedBeta(), 1)
    losses = OBJECTIVES[name](denoiser(Eps(), variance, some_network(outputs)), X0.float(), T_ALL, EPS.float())
    assert losses.dtype == torch.float32
    assert losses.shape == (SHORT.T,)


def test_l_accepts_every_variance_and_l_simple_refuses_a_learned_one_with_the_reason() -> None:
    for variance in VARIANCES.values():
        L().check(Diffusion(SHORT, Eps(), variance))
    for name in ("fixed-beta", "fixed-beta-tilde"):
        LSimple().check(Diffusion(SHORT, Eps(), VARIANCES[name]))
    with pytest.raises(UserError, match="'L_simple' cannot train the variance 'learned': the squared error does not"):
        LSimple().check(Diffusion(SHORT, Eps(), LearnedDiagonal()))
    with pytest.raises(UserError, match="'L_simple'"):
        LSimple()(denoiser(Eps(), LearnedDiagonal(), some_network(2)), X0, T_ALL, EPS)


# ---- improved DDPM --------------------------------------------------------------------------------------------------------


def released_terms(network: Network) -> tuple[np.ndarray, np.ndarray]:
    """The squared error and L_{t-1} in bits at every t, (T,) each, of a network that predicts eps and a learned range.

    As improved-diffusion computes them, in numpy, with 0-based tables of its own; the decoder is integrated exactly.
    """
    betas = SHORT.betas.numpy()
    alpha_bar = np.cumprod(1 - betas)
    before = np.append(1.0, alpha_bar[:-1])
    small = betas * (1 - before) / (1 - alpha_bar)
    log_small, log_large = np.log(np.append(small[1], small[1:])), np.log(betas)
    errors, bits = [], []
    for i in range(SHORT.T):
        x0, eps = X0[i].numpy(), EPS[i].numpy()
        x_t = math.sqrt(alpha_bar[i]) * x0 + math.sqrt(1 - alpha_bar[i]) * eps
        output = network(torch.from_numpy(x_t)[None], torch.tensor([i]))[0].numpy()
        noise, v = output[:1], output[1:]
        share = (v + 1) / 2
        log_variance = share * log_large[i] + (1 - share) * log_small[i]
        predicted = (x_t - math.sqrt(1 - alpha_bar[i]) * noise) / math.sqrt(alpha_bar[i])
        of_x0, of_x_t = (
            math.sqrt(before[i]) * betas[i] / (1 - alpha_bar[i]),
            math.sqrt(1 - betas[i]) * (1 - before[i]) / (1 - alpha_bar[i]),
        )
        truth, mean = (of_x0 * x + of_x_t * x_t for x in (x0, predicted))
        if i == 0:
            std = np.exp(0.5 * log_variance)
            upper, lower = ((x0 - mean + side / 255) / std for side in (1, -1))
            upper, lower = np.where(x0 > 0.999, np.inf, upper), np.where(x0 < -0.999, -np.inf, lower)
            phi = np.vectorize(lambda x: 0.5 * math.erfc(-x / math.sqrt(2)))
            nats = -np.log(phi(upper) - phi(lower))
        else:
            ratio = log_variance - log_small[i]
            nats = 0.5 * (-1 + ratio + np.exp(-ratio) + (truth - mean) ** 2 * np.exp(-log_variance))
        errors.append(((eps - noise) ** 2).mean())
        bits.append(nats.mean() / math.log(2))
    return np.array(errors), np.array(bits)


def closely(outputs: int = 2) -> Network:
    """Predicts about the noise that was added, so that the decoder can be integrated by differences; v leaves [-1, 1]."""

    def network(x: Tensor, step: Tensor) -> Tensor:
        s = step.reshape(-1, 1, 1, 1).to(x.dtype)
        noise = EPS[step] + 0.1 * torch.sin(2 * x + s)
        return torch.cat([noise, 1.5 * torch.cos(3 * x + s)], 1)[:, :outputs]

    return network


@pytest.mark.parametrize(("name", "weight"), HYBRIDS.items())
def test_l_hybrid_is_what_the_release_computes(name: str, weight: float) -> None:
    errors, bits = released_terms(closely())
    losses = OBJECTIVES[name](denoiser(Eps(), LearnedRange(), closely()), X0, T_ALL, EPS)
    np.testing.assert_allclose(losses.numpy(), errors + weight * bits, rtol=1e-9)


@pytest.mark.parametrize("name", ["L_vlb", "L_vlb-uniform"])
def test_l_vlb_is_t_times_the_term_so_that_its_mean_over_t_is_the_bound(name: str) -> None:
    _, bits = released_terms(closely())
    losses = OBJECTIVES[name](denoiser(Eps(), LearnedRange(), closely()), X0, T_ALL, EPS)
    np.testing.assert_allclose(losses.numpy(), SHORT.T * bits, rtol=1e-9)
    assert losses.mean().item() == pytest.approx(bits.sum(), rel=1e-9)


class TwoHeads(torch.nn.Module):
    """Its parameters are its outputs at every t, so that their gradients are those of the two halves."""

    def __init__(self) -> None:
        super().__init__()
        self.calls = 0
        x_t = SHORT.sqrt_alpha_bar[:, None, None, None] * X0 + SHORT.sqrt_one_minus_alpha_bar[:, None, None, None] * EPS
        both = closely()(x_t, T_ALL - 1)
        self.head, self.raw = (torch.nn.Parameter(half.clone()) for half in both.split(1, 1))

    def forward(self, x: Tensor, step: Tensor) -> Tensor:
        self.calls += 1
        return torch.cat([self.head, self.raw], 1)


def gradients(objective: Callable[..., Tensor], variance: Variance, outputs: int = 2) -> tuple[Tensor, Tensor | None]:
    """Of the sum of the losses at every t, by the mean's output and by the variance's."""
    heads = TwoHeads()
    network = heads if outputs == 2 else lambda x, step: heads(x, step)[:, :1]
    objective(denoiser(Eps(), variance, network), X0, T_ALL, EPS).sum().backward()
    assert heads.calls == 1
    assert heads.head.grad is not None
    return heads.head.grad, heads.raw.grad


@pytest.mark.parametrize("variance", [LearnedRange(), LearnedDiagonal()])
@pytest.mark.parametrize(("name", "weight"), HYBRIDS.items())
def test_the_gradient_of_l_hybrid_is_l_simples_by_the_mean_and_the_bounds_by_the_variance(
    name: str, weight: float, variance: Variance
) -> None:
    of_mean, of_variance = gradients(OBJECTIVES[name], variance)
    assert torch.equal(of_mean, gradients(LSimple(), FixedBeta(), 1)[0])
    wanted = gradients(OBJECTIVES["L"], variance)[1]
    assert wanted is not None and (wanted.abs().flatten(1).sum(1) > 0).all()
    torch.testing.assert_close(of_variance, weight * wanted, rtol=1e-12, atol=1e-18)


def test_at_the_ends_of_the_range_l_is_that_of_the_two_fixed_variances() -> None:
    for v, fixed in ((1.0, "fixed-beta"), (-1.0, "fixed-beta-tilde")):
        heads = TwoHeads()
        heads.raw.data.fill_(v)
        learned = L()(denoiser(Eps(), LearnedRange(), heads), X0, T_ALL, EPS)
        known = L()(denoiser(Eps(), VARIANCES[fixed], lambda x, step, heads=heads: heads.head), X0, T_ALL, EPS)
        torch.testing.assert_close(learned[1:], known[1:], rtol=1e-12, atol=0)
        assert (learned[0] == known[0]) == (v == -1)  # at t = 1 the range ends at the true log beta_1


def test_only_l_vlb_draws_t_by_what_it_has_seen() -> None:
    kinds = {name: type(objective.times(7)) for name, objective in OBJECTIVES.items()}
    assert kinds.pop("L_vlb") is LossSecondMoment and set(kinds.values()) == {Uniform}


@pytest.mark.parametrize("name", HYBRIDS)
def test_l_hybrid_refuses_a_fixed_variance_with_the_remedy(name: str) -> None:
    for variance in ("learned", "learned-range"):
        OBJECTIVES[name].check(Diffusion(SHORT, Eps(), VARIANCES[variance]))
    with pytest.raises(UserError, match=f"'{name}' cannot train with the variance 'fixed-beta': .* 'learned-range'"):
        OBJECTIVES[name].check(Diffusion(SHORT, Eps(), FixedBeta()))
    with pytest.raises(UserError, match="cannot train with the variance"):
        LHybrid("mine", 0.1)(denoiser(Eps(), FixedBeta()), X0, T_ALL, EPS)
