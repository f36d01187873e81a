"""Guidance by a classifier: against a mixture of Gaussians, whose classes, scores and gradients are known."""

from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch
from diffusion_cases import SHORT, Given, normals
from torch import Tensor

from ddpm_bench.config.classifiers import CLASSIFIERS
from ddpm_bench.diffusion.classifier_guidance import ClassifierGuidance
from ddpm_bench.diffusion.ddim import DDIM, SigmaHat
from ddpm_bench.diffusion.denoiser import Denoiser
from ddpm_bench.diffusion.noise import BlockNoise
from ddpm_bench.diffusion.parameterization import Eps
from ddpm_bench.diffusion.reverse import Diffusion
from ddpm_bench.diffusion.samplers import ANCESTRAL, Chain
from ddpm_bench.diffusion.schedule import Schedule, geometric
from ddpm_bench.diffusion.step import predict
from ddpm_bench.diffusion.variance import FixedBeta, FixedBetaTilde, LearnedRange
from ddpm_bench.errors import UserError
from ddpm_bench.networks.classifier import NoisyClassifier
from ddpm_bench.networks.weights import outline

SHAPE = (1, 2, 2)
LABELS = torch.tensor([0, 1, 2, 1, 0])
ALL = list(range(1, SHORT.T + 1))
WEIGHTS = torch.tensor([0.2, 0.5, 0.3], dtype=torch.float64)
SPREADS = torch.tensor([0.3, 0.1, 0.5], dtype=torch.float64)
MEANS = normals(3, *SHAPE, seed=5)


@dataclass(frozen=True)
class Mixture:
    """Classes y of WEIGHTS, q(x_0 | y) = N(MEANS, SPREADS), on the chain of `schedule`: all of it in closed form."""

    schedule: Schedule

    def of_classes(self, x_t: Tensor, step: Tensor) -> tuple[Tensor, Tensor]:
        """log w q(x_t | y), (B, K), and eps of each class, (B, K, *SHAPE), at the steps of the whole chain."""
        a = self.schedule.alpha_bar[step.long()].reshape(-1, 1, 1, 1, 1)
        x_t = x_t * a[:, 0].sqrt() if self.schedule.exploding else x_t  # as a network is told it
        variance = a * SPREADS.reshape(3, 1, 1, 1) + 1 - a
        off = x_t[:, None] - a.sqrt() * MEANS
        log = -0.5 * (off.square() / variance + variance.log()).sum((2, 3, 4)) + WEIGHTS.log()
        return log, (1 - a).sqrt() * off / variance

    def classifier(self, x_t: Tensor, step: Tensor) -> Tensor:
        return self.of_classes(x_t, step)[0]

    def network(self, x_t: Tensor, step: Tensor) -> Tensor:
        """The best eps where the class is not known."""
        log, eps = self.of_classes(x_t, step)
        return (log.softmax(1)[:, :, None, None, None] * eps).sum(1)

    def told(self, x_t: Tensor, step: Tensor) -> Tensor:
        """The best eps where the class is LABELS."""
        return self.of_classes(x_t, step)[1][torch.arange(len(x_t)), LABELS]


def denoisers(schedule: Schedule = SHORT, scale: float = 1.0, at="x_t", clip_x0=False, kept=None, variance=None):
    """Of the mixture: one that is guided to LABELS, and one whose network is told them."""
    mixture, diffusion = Mixture(schedule), Diffusion(schedule, Eps(), variance or FixedBeta())
    alone, told = (Denoiser(diffusion, network, SHAPE, clip_x0) for network in (mixture.network, mixture.told))
    guided = replace(alone, classifier=ClassifierGuidance(mixture.classifier, scale, at, LABELS))
    return tuple(each.respaced(kept) if kept else each for each in (guided, told, alone))


def g_of(schedule: Schedule, x: Tensor, t: int) -> Tensor:
    """grad log p(y | x_t) = grad log q(x_t | y) - grad log q(x_t), each -eps / sqrt(1 - alpha_bar_t), on the whole chain."""
    mixture, step = Mixture(schedule), torch.full((len(x),), t - 1)
    return (mixture.network(x, step) - mixture.told(x, step)) / (1 - schedule.alpha_bar[t - 1]).sqrt()


def close(found: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-11)


@pytest.mark.parametrize("kept", [None, [2, 5, 11, 20]], ids=["whole", "strided"])
@pytest.mark.parametrize("schedule", [SHORT, geometric(20, 0.05, 3.0)], ids=["linear", "geometric"])
def test_at_scale_1_eps_and_x0_are_those_of_the_class(schedule, kept):
    guided, told, _ = denoisers(schedule, kept=kept)
    x_t = normals(5, *SHAPE)
    for t in range(1, guided.T + 1):
        (x0, eps), (x0_told, eps_told) = predict(guided, x_t, t), predict(told, x_t, t)
        close(eps, eps_told)
        close(x0, x0_told)


def test_the_gradient_is_that_of_the_log_probability():
    guided, _, _ = denoisers()
    x_t = normals(5, *SHAPE)
    for t in (1, 7, 20):
        close(guided.classifier.gradient(SHORT, x_t, torch.full((5,), t)), g_of(SHORT, x_t, t))


@pytest.mark.parametrize("scale", [1.0, 3.5])
def test_eps_is_shifted_as_released_and_x0_is_not_clipped_again(scale):
    guided, _, alone = denoisers(scale=scale, clip_x0=True)
    x_t, seen_beyond = normals(5, *SHAPE, seed=9), False
    for t in ALL:
        a = SHORT.alpha_bar[t - 1].item()
        x, eps = x_t.numpy(), Mixture(SHORT).network(x_t, torch.full((5,), t - 1)).numpy()
        x0 = np.clip((x - np.sqrt(1 - a) * eps) / np.sqrt(a), -1, 1)
        eps = (x - np.sqrt(a) * x0) / np.sqrt(1 - a)
        eps = eps - np.sqrt(1 - a) * scale * g_of(SHORT, x_t, t).numpy()
        found_x0, found_eps = predict(guided, x_t, t)
        close(found_eps, torch.from_numpy(eps))
        close(found_x0, torch.from_numpy((x - np.sqrt(1 - a) * eps) / np.sqrt(a)))
        seen_beyond |= bool((found_x0.abs() > 1).any())
        assert predict(alone, x_t, t)[0].abs().max() <= 1
    assert seen_beyond


class Ranged:
    """The network of the mixture with a learned variance beside."""

    def __call__(self, x_t: Tensor, step: Tensor) -> Tensor:
        return torch.cat([Mixture(SHORT).network(x_t, step), x_t.cos()], 1)


@pytest.mark.parametrize("variance", [FixedBeta(), FixedBetaTilde(), LearnedRange()], ids=lambda v: v.name)
def test_the_mean_is_shifted_by_scale_times_variance_times_gradient(variance):
    guided, _, alone = denoisers(scale=2.5, variance=variance, clip_x0=True)
    if variance.outputs == 2:
        guided, alone = replace(guided, network=Ranged()), replace(alone, network=Ranged())
    x_t = normals(5, *SHAPE)
    for t in ALL:
        now, was = guided(x_t, t), alone(x_t, t)
        close(now.mean - was.mean, 2.5 * was.log_variance.exp() * g_of(SHORT, x_t, t))
        assert torch.equal(now.x0, was.x0) and torch.equal(now.log_variance, was.log_variance)


def test_as_derived_the_gradient_is_taken_at_the_mean_and_its_step():
    guided, _, alone = denoisers(scale=2.0, at="mean")
    x_t = normals(5, *SHAPE)
    for t in ALL:
        now, was = guided(x_t, t), alone(x_t, t)
        close(now.mean - was.mean, 2 * was.log_variance.exp() * g_of(SHORT, was.mean, max(t - 1, 1)))
    strided, _, alone = denoisers(scale=2.0, at="mean", kept=[2, 5, 11, 20])
    now, was = strided(x_t, 3), alone(x_t, 3)
    close(now.mean - was.mean, 2 * was.log_variance.exp() * g_of(SHORT, was.mean, 5))


def test_sigma_hat_shifts_the_mean_by_the_variance_that_it_draws_with():
    guided, _, alone = denoisers(scale=2.0, variance=FixedBetaTilde())
    x_t, z = normals(5, *SHAPE), normals(5, *SHAPE, seed=2)
    for t in ALL:
        now, was = (SigmaHat().step(each, x_t, t, Given(z)).x for each in (guided, alone))
        close(now - was, 2 * SHORT.betas[t - 1] * g_of(SHORT, x_t, t))


@pytest.mark.parametrize("sampler", [ANCESTRAL, SigmaHat(), DDIM(eta=0.7)], ids=lambda s: s.name)
def test_the_noise_that_is_drawn_does_not_depend_on_guidance(sampler):
    guided, _, alone = denoisers()
    indifferent = replace(guided.classifier, classifier=lambda x, step: 0 * x.flatten(1)[:, :3])
    guided = replace(guided, classifier=indifferent)
    ends = [
        [done.x for done in Chain(each, sampler).denoise(noise.draw(), SHORT.T, noise)][-1]
        for each in (guided, alone)
        for noise in [BlockNoise(0, 0, 5, SHAPE, torch.device("cpu"))]
    ]
    torch.testing.assert_close(*ends, rtol=1e-5, atol=1e-5)


def test_a_chain_in_inference_mode_takes_gradients_of_a_network_that_has_none_of_its_own():
    network = small_classifier().requires_grad_(False).eval()
    guided, _, _ = denoisers(scale=5.0)
    shape = (1, 16, 16)
    guidance = replace(guided.classifier, classifier=network)
    denoiser = replace(guided, shape=shape, network=lambda x, step: 0.1 * x, classifier=guidance)
    noise = BlockNoise(0, 0, 5, shape, torch.device("cpu"))
    *_, last = Chain(denoiser).denoise(noise.draw(), SHORT.T, noise)
    x_t, t = last.x.clone(), torch.full((5,), 4)
    g = guidance.gradient(SHORT, x_t, t)
    assert g.dtype == torch.float32 and not g.requires_grad and torch.is_inference(last.x)
    by_hand = x_t.requires_grad_()
    with torch.inference_mode(False):
        chosen = network(by_hand, t - 1).log_softmax(1)[torch.arange(5), LABELS].sum()
        (expected,) = torch.autograd.grad(chosen, by_hand)
    torch.testing.assert_close(g, expected)
    assert all(parameter.grad is None for parameter in network.parameters())


def test_a_batch_that_memory_halves_has_the_same_gradients():
    guided, _, _ = denoisers()
    seen = []

    def small_memory(x: Tensor, step: Tensor) -> Tensor:
        seen.append(len(x))
        if len(x) > 2:
            raise RuntimeError("out of memory")
        return Mixture(SHORT).classifier(x, step)

    x_t, t = normals(5, *SHAPE), torch.full((5,), 6)
    few = replace(guided.classifier, classifier=small_memory)
    close(few.gradient(SHORT, x_t, t), g_of(SHORT, x_t, 6))
    assert seen == [5, 2, 2, 1]


def test_without_classes_nothing_is_guided():
    guided, _, _ = denoisers()
    aimless = replace(guided, classifier=replace(guided.classifier, labels=None))
    with pytest.raises(UserError, match="needs a class for each image"):
        aimless(normals(5, *SHAPE), 3)


def small_classifier() -> NoisyClassifier:
    torch.manual_seed(0)
    network = NoisyClassifier(1, 3, 16, CLASSIFIERS["tiny"].network)
    for parameter in network.parameters():  # the last layers begin at 0
        parameter.data += 0.1 * torch.randn_like(parameter)
    return network


@pytest.mark.parametrize(("side", "count"), [(64, 65_438_568), (128, 42_568_040), (256, 54_096_360), (512, 54_448_360)])
def test_the_classifiers_of_the_release_have_its_parameters(side, count):
    with outline():
        network = NoisyClassifier(3, 1000, side, CLASSIFIERS[f"adm-{side}"].network)
    assert sum(parameter.numel() for parameter in network.parameters()) == count
    assert network.pool.positions.shape == (8 * 8 + 1, 512)


def test_pooling_is_attention_over_the_mean_and_all_positions():
    pool = small_classifier().pool.double()
    x = normals(2, 16, 8, 8)
    tokens = x.flatten(2).transpose(1, 2).numpy()
    tokens = np.concatenate([tokens.mean(1, keepdims=True), tokens], 1) + pool.positions.detach().numpy()
    q, k, v = np.split(tokens @ pool.qkv.weight.detach().numpy().T + pool.qkv.bias.detach().numpy(), 3, axis=2)
    found = np.zeros((2, 16))
    for head in range(2):
        of = slice(8 * head, 8 * head + 8)
        weight = np.exp(q[:, :, of] @ k[:, :, of].transpose(0, 2, 1) / np.sqrt(8))
        found[:, of] = (weight / weight.sum(2, keepdims=True) @ v[:, :, of])[:, 0]
    expected = found @ pool.out.weight.detach().numpy().T + pool.out.bias.detach().numpy()
    torch.testing.assert_close(pool(x), torch.from_numpy(expected))
