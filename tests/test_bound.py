"""The bound: each term against a closed form, and the whole as their sum."""

import math

import numpy as np
import pytest
import torch
from diffusion_cases import SHORT, all_steps, chain_of, finite_eps, gaussian_eps, levels, normals, some_network
from torch import Tensor
from torch.distributions import Normal, kl_divergence

from ddpm_bench.data.images import to_model
from ddpm_bench.diffusion.bound import bound_term, gaussian_kl, prior_bits_per_dim
from ddpm_bench.diffusion.decoder import DECODERS
from ddpm_bench.diffusion.denoiser import Denoiser
from ddpm_bench.diffusion.noise import BOUND, BlockNoise
from ddpm_bench.diffusion.parameterization import PARAMETERIZATIONS, Eps, Mu
from ddpm_bench.diffusion.process import q_sample
from ddpm_bench.diffusion.reverse import Diffusion, Network
from ddpm_bench.diffusion.schedule import Schedule, linear
from ddpm_bench.diffusion.variance import VARIANCES, FixedBeta, FixedBetaTilde
from ddpm_bench.errors import Interrupted, UserError
from ddpm_bench.likelihood import bits_per_dim
from ddpm_bench.runtime.interrupt import Stop
from ddpm_bench.runtime.runtime import Runtime

CPU = torch.device("cpu")
T_ALL = all_steps(SHORT)
LATER = T_ALL[1:]


def unclipped(diffusion: Diffusion, network: Network) -> Denoiser:
    return chain_of(diffusion, network, clip_x0=False).denoiser


def uint8_images(count: int, *shape: int) -> Tensor:
    return torch.randint(0, 256, (count, *shape), generator=torch.Generator().manual_seed(3)).to(torch.uint8)


def test_kl_agrees_with_torch_distributions() -> None:
    m_q, m_p, v_q, v_p = normals(4, 100)
    expected = kl_divergence(Normal(m_q, (v_q / 2).exp()), Normal(m_p, (v_p / 2).exp()))
    torch.testing.assert_close(gaussian_kl(m_q, v_q, m_p, v_p), expected, rtol=1e-12, atol=1e-14)


def test_kl_of_nearly_equal_variances_keeps_its_digits_in_float32() -> None:
    zero, log_variance = torch.zeros(1), torch.tensor([-9.0])
    ratio = torch.tensor([2.0**-10])
    kl = gaussian_kl(zero, log_variance, zero, log_variance + ratio)
    assert kl.item() == pytest.approx(0.5 * (2.0**-10 + math.expm1(-(2.0**-10))), rel=1e-4)


def test_the_prior_term_is_the_kl_to_a_standard_normal() -> None:
    x0, a = levels(3, 2, 4, 4), SHORT.alpha_bar[-1]
    kl = kl_divergence(Normal(a.sqrt() * x0, (1 - a).sqrt()), Normal(torch.zeros_like(x0), 1.0))
    expected = kl.mean(dim=(1, 2, 3)) / math.log(2)
    torch.testing.assert_close(prior_bits_per_dim(SHORT, x0), expected, rtol=1e-9, atol=0)


def test_the_prior_of_the_paper_schedule_is_about_1e_5_bits() -> None:
    prior = prior_bits_per_dim(linear(1000), levels(8, 3, 8, 8, dtype=torch.float32))
    assert 5e-6 < prior.mean().item() < 2e-5


@pytest.mark.parametrize("variance", [FixedBeta(), FixedBetaTilde()])
def test_later_terms_are_the_weighted_noise_error_of_equation_12(variance: FixedBeta | FixedBetaTilde) -> None:
    x0, eps = levels(SHORT.T - 1, 1, 4, 4), normals(SHORT.T - 1, 1, 4, 4)
    network = some_network()
    error = (eps - network(q_sample(SHORT, x0, LATER, eps), LATER - 1)).square().mean(dim=(1, 2, 3))
    beta, alpha, alpha_bar, beta_tilde = (
        table[1:] for table in (SHORT.betas, SHORT.alpha, SHORT.alpha_bar, SHORT.beta_tilde)
    )
    sigma2 = beta if variance.name == "fixed-beta" else beta_tilde
    constant = 0.5 * ((sigma2 / beta_tilde).log() - 1 + beta_tilde / sigma2)
    expected = (beta**2 / (2 * sigma2 * alpha * (1 - alpha_bar)) * error + constant) / math.log(2)
    found = bound_term(unclipped(Diffusion(SHORT, Eps(), variance), network), x0, LATER, eps).bits
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-13)


@pytest.mark.parametrize("decoder", DECODERS)
def test_the_first_term_is_the_decoder(decoder: str) -> None:
    x0, eps, t = levels(3, 1, 4, 4), normals(3, 1, 4, 4), torch.ones(3, dtype=torch.int64)
    diffusion = Diffusion(SHORT, Eps(), FixedBeta())
    x_1 = q_sample(SHORT, x0, t, eps)
    a = SHORT.alpha_bar[0]
    mean = (x_1 - (1 - a).sqrt() * some_network()(x_1, t - 1)) / a.sqrt()
    expected = -DECODERS[decoder](x0, mean, SHORT.beta_tilde[1].log()).mean(dim=(1, 2, 3)) / math.log(2)
    found = bound_term(unclipped(diffusion, some_network()), x0, t, eps, decoder).bits
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=0)


@pytest.mark.parametrize(("variance", "mean", "spread"), [(FixedBeta(), 0.2, 0.5), (FixedBetaTilde(), -0.4, 0.1)])
def test_gaussian_data_with_its_optimal_network_has_the_known_bound(
    variance: FixedBeta | FixedBetaTilde, mean: float, spread: float
) -> None:
    """Every term is quadratic in (x_0, eps), so Gauss-Hermite quadrature takes its expectation exactly."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(4)
    z, w = torch.from_numpy(nodes), torch.from_numpy(weights / weights.sum())
    x0, eps = (grid.reshape(-1, 1, 1, 1) for grid in torch.meshgrid(mean + spread * z, z, indexing="ij"))
    weight = (w[:, None] * w[None, :]).flatten()
    diffusion = Diffusion(SHORT, Eps(), variance)
    total, expected = 0.0, 0.0
    for t in LATER.tolist():
        steps = torch.full((len(x0),), t)
        terms = bound_term(unclipped(diffusion, gaussian_eps(SHORT, mean, spread**2)), x0, steps, eps).bits
        total += (weight * terms).sum().item()
        # What remains unknown of eps, its posterior variance given x_t, in equation 12:
        beta, a, beta_tilde = (table[t - 1].item() for table in (SHORT.betas, SHORT.alpha_bar, SHORT.beta_tilde))
        unknown = a * spread**2 / (a * spread**2 + 1 - a)
        sigma2 = beta if variance.name == "fixed-beta" else beta_tilde
        error = beta**2 / (2 * sigma2 * (1 - beta) * (1 - a)) * unknown
        expected += (error + 0.5 * (math.log(sigma2 / beta_tilde) - 1 + beta_tilde / sigma2)) / math.log(2)
    assert total == pytest.approx(expected, rel=1e-9)


def test_a_finite_data_set_costs_its_entropy() -> None:
    """2 bits tell four equally likely images apart; given enough steps, the optimal network's bound comes near."""
    images = uint8_images(4, 1, 2, 2)
    alpha_bar = torch.sigmoid(torch.linspace(11.5, -9, 150, dtype=torch.float64))
    schedule = Schedule(1 - alpha_bar / torch.cat([torch.ones(1), alpha_bar[:-1]]))
    network = finite_eps(schedule, to_model(images, torch.float64))
    diffusion = Diffusion(schedule, Eps(), FixedBetaTilde())
    chain = chain_of(diffusion, network, (1, 2, 2))
    bound = bits_per_dim(chain, images.repeat(16, 1, 1, 1), seed=0, runtime=Runtime(batch=64))
    entropy = 2 / 4  # bits, over 4 dimensions
    standard_error = bound.total.std().item() / 64**0.5
    assert entropy - 3 * standard_error < bound.total.mean().item() < 1.2 * entropy


@pytest.mark.parametrize("parameterization", PARAMETERIZATIONS)
@pytest.mark.parametrize("variance", VARIANCES)
def test_float32_terms_keep_six_digits_at_every_step(parameterization: str, variance: str) -> None:
    schedule = linear(1000)
    diffusion = Diffusion(schedule, PARAMETERIZATIONS[parameterization], VARIANCES[variance])
    x0, eps, t = levels(1000, 1, 4, 4, dtype=torch.float32), normals(1000, 1, 4, 4).float(), all_steps(schedule)

    def network(x: Tensor, step: Tensor) -> Tensor:
        return some_network(diffusion.variance.outputs)(x.double(), step)  # only its own rounding is not ours

    single = bound_term(unclipped(diffusion, network), x0, t, eps).bits
    double = bound_term(unclipped(diffusion, network), x0.double(), t, eps.double()).bits
    torch.testing.assert_close(single, double, rtol=3e-6, atol=3e-7)


def test_a_mixed_batch_is_its_rows() -> None:
    x0, eps = levels(SHORT.T, 1, 4, 4), normals(SHORT.T, 1, 4, 4)
    denoiser = unclipped(Diffusion(SHORT, Mu(), VARIANCES["learned"]), some_network(2))
    together = bound_term(denoiser, x0, T_ALL, eps).bits
    rows = [bound_term(denoiser, x0[i : i + 1], T_ALL[i : i + 1], eps[i : i + 1]).bits for i in range(SHORT.T)]
    torch.testing.assert_close(together, torch.cat(rows), rtol=1e-12, atol=0)


@pytest.mark.parametrize(("clip", "decoder"), [(True, "exact"), (False, "paper")])
def test_the_bound_is_the_sum_of_its_terms_over_every_t(clip: bool, decoder: str) -> None:
    images = uint8_images(5, 1, 4, 4)
    chain = chain_of(Diffusion(SHORT, Eps(), FixedBeta()), some_network(), clip_x0=clip)
    bound = bits_per_dim(chain, images, seed=7, decoder=decoder, runtime=Runtime(batch=5))
    x0, noise = to_model(images), BlockNoise(7, 0, 5, (1, 4, 4), CPU, stream=BOUND)
    terms = torch.zeros(SHORT.T, 5, dtype=torch.float64)
    for t in range(SHORT.T, 0, -1):
        terms[t - 1] = bound_term(chain.denoiser, x0, torch.full((5,), t), noise.draw(), decoder).bits
    torch.testing.assert_close(bound.terms, terms.mean(1), rtol=1e-12, atol=0)
    torch.testing.assert_close(bound.prior, prior_bits_per_dim(SHORT, x0), rtol=1e-12, atol=0)
    torch.testing.assert_close(bound.total, bound.prior + terms.sum(0), rtol=1e-12, atol=0)
    assert {bound.total.dtype, bound.prior.dtype, bound.terms.dtype} == {torch.float64}
    assert not bound.total.is_inference()


def test_the_bound_does_not_depend_on_the_batch() -> None:
    images = uint8_images(70, 1, 2, 2)
    chain = chain_of(Diffusion(linear(4, 1e-2, 0.5), Eps(), FixedBeta()), some_network(), (1, 2, 2))
    whole, parts = (bits_per_dim(chain, images, seed=1, runtime=Runtime(batch=batch)) for batch in (70, 33))
    other = bits_per_dim(chain, images, seed=2, runtime=Runtime(batch=70))
    torch.testing.assert_close(whole.total, parts.total, rtol=1e-5, atol=0)
    torch.testing.assert_close(whole.terms, parts.terms, rtol=1e-5, atol=0)
    assert (whole.total - other.total).abs().max() > 1e-3


def test_bad_requests_are_refused_and_a_stop_is_heard() -> None:
    chain, images = chain_of(Diffusion(SHORT, Eps(), FixedBeta()), some_network(), (1, 2, 2)), uint8_images(2, 1, 2, 2)
    with pytest.raises(UserError, match="did you mean 'exact'"):
        bits_per_dim(chain, images, seed=0, decoder="exat")
    with pytest.raises(UserError, match="uint8"):
        bits_per_dim(chain, images.float(), seed=0)
    with pytest.raises(UserError, match="at least one"):
        bits_per_dim(chain, images[:0], seed=0)
    with Stop() as stop, pytest.raises(Interrupted):
        stop.requested = True
        bits_per_dim(chain, images, seed=0)
