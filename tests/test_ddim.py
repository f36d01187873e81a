"""DDIM: its steps against the paper's formulas, the release's and diffusers'; encoding and slerp against closed forms."""

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler
from diffusion_cases import SHORT, Given, finite_eps, gaussian_eps, levels, normals, some_network
from torch import Tensor

from ddpm_bench.data.images import to_uint8
from ddpm_bench.diffusion.ddim import DDIM, SigmaHat
from ddpm_bench.diffusion.denoiser import Denoiser
from ddpm_bench.diffusion.encoding import between, check_reversible, decode, encode, reconstruct, slerp
from ddpm_bench.diffusion.noise import BlockNoise
from ddpm_bench.diffusion.parameterization import X0, Eps, Mu
from ddpm_bench.diffusion.reverse import Diffusion
from ddpm_bench.diffusion.samplers import ANCESTRAL, Chain, sample
from ddpm_bench.diffusion.schedule import Schedule, linear
from ddpm_bench.diffusion.spacing import SPACINGS, kept_steps
from ddpm_bench.diffusion.step import Sampler
from ddpm_bench.diffusion.variance import VARIANCES, FixedBeta, FixedBetaTilde
from ddpm_bench.errors import UserError
from ddpm_bench.runtime.runtime import Runtime

LONG = linear(1000)


class NoNoise:
    """Noise that must not be drawn."""

    def draw(self) -> Tensor:
        raise AssertionError("noise was drawn")


def denoiser_of(
    kept=None, schedule: Schedule = LONG, network=None, clip_x0=False, variance=None, parameterization=None
):
    diffusion = Diffusion(schedule, parameterization or Eps(), variance or FixedBetaTilde())
    denoiser = Denoiser(diffusion, network or some_network(), (1, 4, 4), clip_x0)
    return denoiser.respaced(kept) if kept else denoiser


def release_step(x: Tensor, t: int, next_t: int, eta: float, z: Tensor) -> np.ndarray:
    """`generalized_steps` of DDIM's release: t and next_t counted from 0, -1 for x_0."""
    a = np.concatenate([[1.0], np.cumprod(1 - np.linspace(1e-4, 0.02, 1000))])
    at, at_next = a[t + 1], a[next_t + 1]
    x, et = x.numpy(), some_network()(x, torch.full((len(x),), t)).numpy()
    x0_t = (x - et * (1 - at) ** 0.5) / at**0.5
    c1 = eta * ((1 - at / at_next) * (1 - at_next) / (1 - at)) ** 0.5
    c2 = ((1 - at_next) - c1**2) ** 0.5
    return at_next**0.5 * x0_t + c1 * z.numpy() + c2 * et


@pytest.mark.parametrize("eta", [0.0, 0.2, 1.0])
@pytest.mark.parametrize("spacing", ["ddim-uniform", "ddim-quad", "even"])
def test_a_chain_is_that_of_the_release(eta: float, spacing: str) -> None:
    kept = kept_steps(1000, 20, SPACINGS[spacing])
    denoiser = denoiser_of(kept)
    ours, theirs = normals(2, 1, 4, 4), normals(2, 1, 4, 4)
    for i in range(len(kept), 0, -1):
        z = normals(2, 1, 4, 4, seed=i)
        before = kept[i - 2] - 1 if i > 1 else -1
        theirs = torch.from_numpy(release_step(theirs, kept[i - 1] - 1, before, eta, z))
        ours = DDIM(eta).step(denoiser, ours, i, Given(z)).x
    torch.testing.assert_close(ours, theirs, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("clip", [False, True])
@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("parameterization", [Eps(), X0()], ids=["eps", "x0"])
def test_every_step_agrees_with_diffusers(parameterization, eta: float, clip: bool) -> None:
    kept = [1 + 100 * i for i in range(10)]
    theirs = DDIMScheduler(1000, prediction_type={"eps": "epsilon", "x0": "sample"}[parameterization.name],
                           clip_sample=clip, set_alpha_to_one=True, timestep_spacing="leading")  # fmt: skip
    theirs.alphas_cumprod, theirs.final_alpha_cumprod = LONG.alpha_bar, torch.tensor(1.0, dtype=torch.float64)
    theirs.set_timesteps(10)
    assert [t + 1 for t in reversed(theirs.timesteps.tolist())] == kept
    denoiser = denoiser_of(kept, clip_x0=clip, parameterization=parameterization)
    x = normals(2, 1, 4, 4)
    for t in range(10, 0, -1):
        z = normals(2, 1, 4, 4, seed=t)
        output = some_network()(x, torch.full((2,), kept[t - 1] - 1))
        expected = theirs.step(output, kept[t - 1] - 1, x, eta=eta, use_clipped_model_output=True, variance_noise=z)
        done = DDIM(eta).step(denoiser, x, t, Given(z))
        torch.testing.assert_close(done.x, expected.prev_sample, rtol=1e-9, atol=1e-9)
        torch.testing.assert_close(done.x0, expected.pred_original_sample, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("kept", [None, [1, 30, 400, 777, 1000]])
@pytest.mark.parametrize("clip", [False, True])
def test_eta_1_is_the_ancestral_step_with_beta_tilde_and_sigma_hat_with_beta(kept, clip: bool) -> None:
    x, z = normals(2, 1, 4, 4), Given(normals(2, 1, 4, 4, seed=5))
    pairs = ((DDIM(1.0), FixedBetaTilde()), (SigmaHat(), FixedBeta()))
    for sampler, variance in pairs:
        ancestral, of_another = denoiser_of(kept, clip_x0=clip, variance=variance), denoiser_of(kept, clip_x0=clip)
        for t in (1, 2, 3, of_another.T):
            expected = ANCESTRAL.step(ancestral, x, t, z)
            torch.testing.assert_close(sampler.step(of_another, x, t, z).x, expected.x, rtol=1e-9, atol=1e-9)


def test_sigma_hat_is_the_ddpm_noisy_step_of_the_release() -> None:
    """`ddpm_steps`: x_0 clipped to [-1, 1], noise of the variance beta of the strided chain, none after step 0."""
    kept, a = [1, 101, 901], np.concatenate([[1.0], np.cumprod(1 - np.linspace(1e-4, 0.02, 1000))])
    denoiser, x, z = denoiser_of(kept, clip_x0=True), normals(2, 1, 4, 4), normals(2, 1, 4, 4, seed=3)
    for i, (t, before) in enumerate([(1, 0), (101, 1), (901, 101)], start=1):
        at, atm1 = a[t], a[before]
        beta, e = 1 - at / atm1, some_network()(x, torch.full((2,), t - 1))
        x0 = ((1 / at) ** 0.5 * x - (1 / at - 1) ** 0.5 * e).clamp(-1, 1)
        mean = (atm1**0.5 * beta * x0 + (1 - beta) ** 0.5 * (1 - atm1) * x) / (1 - at)
        expected = mean + (t > 1) * np.exp(0.5 * np.log(beta)) * z
        torch.testing.assert_close(SigmaHat().step(denoiser, x, i, Given(z)).x, expected, rtol=1e-9, atol=1e-9)
        # Appendix D.3: eq. 12 with the eps coefficient of sigma(1), unclipped
        sigma1 = (1 - atm1) / (1 - at) * beta
        x0 = (x - (1 - at) ** 0.5 * e) / at**0.5
        expected = atm1**0.5 * x0 + (1 - atm1 - sigma1) ** 0.5 * e + (t > 1) * beta**0.5 * z
        found = SigmaHat().step(denoiser_of(kept), x, i, Given(z)).x
        torch.testing.assert_close(found, expected, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("sampler", [DDIM(), DDIM(0.7), SigmaHat()])
def test_one_step_from_T_returns_the_predicted_x0_and_draws_nothing(sampler: Sampler) -> None:
    x = normals(2, 1, 4, 4)
    done = sampler.step(denoiser_of([1000]), x, 1, NoNoise())
    a = LONG.alpha_bar[-1]
    expected = (x - (1 - a).sqrt() * some_network()(x, torch.full((2,), 999))) / a.sqrt()
    torch.testing.assert_close(done.x, expected, rtol=1e-9, atol=1e-9)


def test_without_eta_no_noise_is_drawn_and_with_it_there_is() -> None:
    x, denoiser = normals(2, 1, 4, 4), denoiser_of(schedule=SHORT)
    *_, last = Chain(denoiser, DDIM()).denoise(x, SHORT.T, NoNoise())
    assert last.t == 1 and not DDIM().draws and DDIM(0.1).draws
    with pytest.raises(AssertionError, match="noise was drawn"):
        list(Chain(denoiser, DDIM(0.1)).denoise(x, SHORT.T, NoNoise()))


def test_a_single_image_as_data_is_reached_in_one_step() -> None:
    (point,) = points = levels(1, 1, 4, 4)
    denoiser = denoiser_of([1000], network=finite_eps(LONG, points))
    found = DDIM().step(denoiser, normals(3, 1, 4, 4), 1, NoNoise()).x
    torch.testing.assert_close(found, point.expand(3, 1, 4, 4), rtol=1e-9, atol=1e-9)


def gaussian_factor(kept: list[int], variance: float) -> float:
    """x_0 / x_T of data N(0, variance) with eta = 0: a product over the steps, from eq. 12 with the true eps."""
    factor, a = 1.0, [1.0, *LONG.alpha_bar[torch.tensor(kept) - 1].tolist()]
    for at, before in zip(a[1:], a[:-1], strict=True):
        eps = (1 - at) ** 0.5 / (at * variance + 1 - at)
        factor *= before**0.5 * (1 - (1 - at) ** 0.5 * eps) / at**0.5 + (1 - before) ** 0.5 * eps
    return factor


@pytest.mark.parametrize("steps", [1, 3, 10, 1000])
def test_for_gaussian_data_the_map_is_a_product_of_scalars(steps: int) -> None:
    kept, x = kept_steps(1000, steps), normals(2, 1, 4, 4)
    denoiser = denoiser_of(kept, network=gaussian_eps(LONG, 0.0, 0.09))
    *_, last = Chain(denoiser, DDIM()).denoise(x, steps, NoNoise())
    torch.testing.assert_close(last.x, gaussian_factor(kept, 0.09) * x, rtol=1e-8, atol=1e-10)


def test_with_many_steps_the_map_is_the_solution_of_the_ode() -> None:
    a, variance = float(LONG.alpha_bar[-1]), 0.09
    solution = (variance / (a * variance + 1 - a)) ** 0.5
    errors = [abs(gaussian_factor(kept_steps(1000, steps), variance) - solution) for steps in (10, 100, 1000)]
    assert errors[2] < errors[1] < errors[0] and errors[2] < 2e-3


def test_a_network_of_the_mean_is_refused_and_a_learned_variance_is_said_to_be_unused() -> None:
    mean = Diffusion(SHORT, Mu(), FixedBeta())
    with pytest.raises(UserError, match=r"'ddim' takes x_0 and eps .* 'ancestral' or 'sigma-hat'"):
        DDIM().check(mean)
    SigmaHat().check(mean)
    learned = Diffusion(SHORT, Eps(), VARIANCES["learned-range"])
    (said,) = DDIM().remarks(learned, clip_x0=False)
    assert "the one that the network learned is not used" in said
    assert ANCESTRAL.remarks(learned, clip_x0=True) == ANCESTRAL.remarks(mean, clip_x0=False) == ()
    assert "clipped, and eps derived from it again" in DDIM().remarks(mean, clip_x0=True)[0]


# ---- encoding and slerp -----------------------------------------------------------------------------------------------


def test_encoding_takes_eps_at_the_current_x_with_the_next_steps_alpha_bar() -> None:
    """`ddim_reverse_sample` of improved-diffusion between the visited steps, and the first step from the image itself."""
    kept = [1, 200, 700, 1000]
    x, a = levels(2, 1, 4, 4), LONG.alpha_bar[torch.tensor(kept) - 1]
    eps = some_network()(x, torch.zeros(2))
    expected = a[0].sqrt() * x + (1 - a[0]).sqrt() * eps
    for i in range(3):
        eps = some_network()(expected, torch.full((2,), kept[i] - 1))
        pred_xstart = (1 / a[i]).sqrt() * expected - (1 / a[i] - 1).sqrt() * eps
        eps = ((1 / a[i]).sqrt() * expected - pred_xstart) / (1 / a[i] - 1).sqrt()
        expected = pred_xstart * a[i + 1].sqrt() + (1 - a[i + 1]).sqrt() * eps
    torch.testing.assert_close(encode(Chain(denoiser_of(kept), DDIM()), x), expected, rtol=1e-8, atol=1e-8)


def test_encoding_and_decoding_tend_to_the_identity() -> None:
    x, network, errors = levels(2, 1, 4, 4), gaussian_eps(LONG, 0.1, 0.25), []
    for steps in (10, 30, 100, 300, 1000):
        chain = Chain(denoiser_of(kept_steps(1000, steps), network=network), DDIM())
        *_, last = chain.denoise(encode(chain, x), steps, NoNoise())
        errors.append(float((last.x - x).square().mean()))
    assert errors == sorted(errors, reverse=True) and errors[-1] < 2e-5


def test_images_come_back_through_the_whole_way_whatever_the_batch() -> None:
    images = to_uint8(levels(5, 1, 4, 4))
    chain = Chain(denoiser_of(network=gaussian_eps(LONG, 0.0, 0.3)), DDIM())
    whole, parts = (reconstruct(chain, images, Runtime(batch=batch)) for batch in (5, 2))
    assert torch.equal(whole, parts)
    assert (whole.int() - images.int()).abs().float().mean() < 2


@pytest.mark.parametrize("sampler", [ANCESTRAL, DDIM(0.3), SigmaHat()])
def test_encoding_and_decoding_are_refused_where_noise_is_drawn(sampler: Sampler) -> None:
    chain = Chain(denoiser_of(schedule=SHORT), sampler)
    with pytest.raises(UserError, match="'ddim' with eta = 0"):
        check_reversible(chain)
    with pytest.raises(UserError, match="draws more noise"):
        decode(chain, normals(1, 1, 4, 4))


def test_slerp_goes_along_the_sphere_at_an_even_pace() -> None:
    a, b = normals(1, 8, 8), normals(1, 8, 8, seed=2)
    b = b * a.norm() / b.norm()
    found = slerp(a, b, [0.0, 0.25, 0.5, 0.75, 1.0])
    torch.testing.assert_close(found[[0, -1]], torch.stack([a, b]))
    torch.testing.assert_close(found.flatten(1).norm(dim=1), a.norm().expand(5))
    cosines = torch.nn.functional.cosine_similarity(found[:-1].flatten(1), found[1:].flatten(1))
    torch.testing.assert_close(cosines, cosines[:1].expand(4))
    torch.testing.assert_close(slerp(a, a, [0.0, 0.3]), torch.stack([a, a]))


def test_between_two_codes_the_ends_are_the_samples_themselves() -> None:
    chain = Chain(denoiser_of(schedule=SHORT), DDIM())
    samples = torch.cat([x for _, x in sample(chain, count=70, seed=3, runtime=Runtime(batch=70))])
    codes = torch.cat([BlockNoise(3, index, 1, (1, 4, 4), "cpu").draw() for index in (2, 66)])
    found = between(chain, codes, [0.0, 0.5, 1.0], Runtime(batch=2))
    assert (found[[0, -1]].int() - samples[[2, 66]].int()).abs().max() <= 1
