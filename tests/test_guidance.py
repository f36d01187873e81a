"""Classifier-free guidance against a mixture of Gaussians, whose every eps and p(c|x_t) are known."""

import json
import re
from pathlib import Path

import pytest
import torch
from tiny_models import tiny_checkpoint
from torch import Tensor, nn

from ddpm_bench.config.networks import MixedSettings, UNetSettings
from ddpm_bench.config.sampling import SamplingSettings
from ddpm_bench.diffusion.denoiser import Denoiser
from ddpm_bench.diffusion.guidance import Guided
from ddpm_bench.diffusion.parameterization import PARAMETERIZATIONS, Eps
from ddpm_bench.diffusion.reverse import Diffusion
from ddpm_bench.diffusion.schedule import linear
from ddpm_bench.diffusion.variance import FixedBeta, LearnedRange
from ddpm_bench.models.build_sampling import network_calls
from ddpm_bench.models.model import load_model
from ddpm_bench.networks.condition import Condition
from ddpm_bench.networks.mixed import Mixed
from ddpm_bench.networks.unet import UNet

SCHEDULE = linear(10, 1e-2, 0.5)
DIFFUSION = Diffusion(SCHEDULE, Eps(), FixedBeta())
SHARES = torch.tensor([0.2, 0.5, 0.3], dtype=torch.float64)
CENTRES = torch.tensor([[0.9, -0.4], [-0.7, 0.1], [0.2, 0.8]], dtype=torch.float64)
SPREADS = torch.tensor([0.3, 0.5, 0.2], dtype=torch.float64)
NONE = 3
"""The label of no class."""


def log_densities(x: Tensor, a: Tensor) -> Tensor:
    """log p(c) p(x_t | c) of points x (B, 2) at alpha_bar a (B,), up to a constant: (B, 3)."""
    variance = a[:, None] * SPREADS**2 + 1 - a[:, None]
    squares = (x[:, None] - a.sqrt()[:, None, None] * CENTRES).square().sum(2)
    return SHARES.log() - squares / (2 * variance) - variance.log()


class Mixture(nn.Module):
    """eps of the mixture's classes, and of the mixture where the class is NONE; exact, at points (B, 2, 1, 1)."""

    calls = 0

    def forward(self, x_t: Tensor, step: Tensor, condition: Condition) -> Tensor:
        self.calls += 1
        a, labels = SCHEDULE.alpha_bar[step], condition.labels
        with torch.enable_grad():
            x = x_t.detach()[:, :, 0, 0].requires_grad_()
            joint = log_densities(x, a)
            log_p = torch.where(labels == NONE, joint.logsumexp(1), joint[torch.arange(len(x)), labels % NONE])
            (score,) = torch.autograd.grad(log_p.sum(), x)
        return (-(1 - a).sqrt()[:, None] * score)[:, :, None, None]


def points(count: int) -> Tensor:
    return torch.randn(count, 2, 1, 1, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def classifier_gradient(x: Tensor, a: Tensor, labels: Tensor) -> Tensor:
    """grad log p(c | x_t), (B, 2, 1, 1)."""
    x = x[:, :, 0, 0].clone().requires_grad_()
    log_p = log_densities(x, a).log_softmax(1)[torch.arange(len(x)), labels]
    return torch.autograd.grad(log_p.sum(), x)[0][:, :, None, None]


@pytest.mark.parametrize("w", [-1.0, 0.0, 0.3, 4.0])
def test_it_is_classifier_guidance_of_the_unconditional_model_with_the_scale_1_plus_w(w: float) -> None:
    x, step, labels = points(6), torch.tensor([0, 2, 4, 6, 8, 9]), torch.tensor([0, 1, 2, 0, 1, 2])
    a, network = SCHEDULE.alpha_bar[step], Mixture()
    noise, gradient = (1 - a).sqrt()[:, None, None, None], classifier_gradient(x, a, labels)
    without, given = network(x, step, Condition(torch.full_like(labels, NONE))), network(x, step, Condition(labels))
    torch.testing.assert_close(without - given, noise * gradient, rtol=1e-9, atol=1e-12)
    found = Guided(network, 1 + w, NONE)(x, step, Condition(labels))
    torch.testing.assert_close(found, (1 + w) * given - w * without, rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(found, without - noise * (1 + w) * gradient, rtol=1e-9, atol=1e-12)


def test_x0_is_clipped_once_of_the_guided_prediction() -> None:
    x, t, labels, s = 2 * points(9), torch.full((9,), 4), torch.arange(9) % 3, 3.0
    a, network = SCHEDULE.alpha_bar[3], Mixture()
    halves = [network(x, t - 1, Condition(told)) for told in (labels, torch.full_like(labels, NONE))]
    x0_of = lambda eps: (x - (1 - a).sqrt() * eps) / a.sqrt()  # noqa: E731
    expected = x0_of(halves[1] + s * (halves[0] - halves[1])).clamp(-1, 1)
    each = [x0_of(eps).clamp(-1, 1) for eps in halves]
    told = Denoiser(DIFFUSION, Guided(network, s, NONE), (2, 1, 1)).given(Condition(labels))
    torch.testing.assert_close(told(x, t).x0, expected, rtol=1e-9, atol=1e-12)
    assert (expected - (each[1] + s * (each[0] - each[1]))).abs().max() > 0.1  # as clipping each half would have it


@pytest.mark.parametrize("name", sorted(PARAMETERIZATIONS))
def test_whatever_is_predicted_it_is_eps_that_is_guided(name: str) -> None:
    """A network of another parameterization is made of the exact eps; the means must agree."""
    x, t, labels = points(5), torch.tensor([1, 3, 5, 8, 10]), torch.tensor([0, 1, 2, 1, 0])
    a, beta = (table[t - 1].reshape(-1, 1, 1, 1) for table in (SCHEDULE.alpha_bar, SCHEDULE.betas))
    as_predicted = {
        "eps": lambda eps: eps,
        "x0": lambda eps: (x - (1 - a).sqrt() * eps) / a.sqrt(),
        "mu": lambda eps: (x - beta / (1 - a).sqrt() * eps) / (1 - beta).sqrt(),
        "score": lambda eps: -eps / ((1 - a) / a).sqrt(),
    }
    if name not in as_predicted:
        pytest.skip("it is told of in an example of the documents alone")
    exact = Mixture()

    class Other(nn.Module):
        def forward(self, x_t: Tensor, step: Tensor, condition: Condition) -> Tensor:
            return as_predicted[name](exact(x_t, step, condition))

    found, expected = (
        Denoiser(Diffusion(SCHEDULE, PARAMETERIZATIONS[of], FixedBeta()), Guided(network, 2.5, NONE), (2, 1, 1), False)
        .given(Condition(labels))(x, t)
        .mean
        for of, network in ((name, Other()), ("eps", exact))
    )
    torch.testing.assert_close(found, expected, rtol=1e-8, atol=1e-10)


# ---- networks -------------------------------------------------------------------------------------------------------------

NETWORK = UNetSettings(base=8, multipliers=(1,), blocks=1, attention=(), groups=2, classes=3, null_class=True)


def woken(network: nn.Module) -> nn.Module:
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(3)))
    return network.eval()


def asked(channels: int = 1) -> tuple[Tensor, Tensor, Condition]:
    x = torch.randn(4, channels, 8, 8, generator=torch.Generator().manual_seed(2))
    return x, torch.tensor([0, 3, 6, 9]), Condition(torch.tensor([0, 1, 2, 1]))


@pytest.mark.parametrize("s", [0.0, 1.7, 5.0])
def test_where_a_class_and_none_are_told_alike_no_scale_changes_anything(s: float) -> None:
    network = woken(UNet(1, 1, 8, NETWORK))
    with torch.no_grad():
        network.label.weight.copy_(network.label.weight[:1].expand(4, -1))
    assert torch.equal(Guided(network, s, 3)(*asked()), network(*asked()))


def test_a_learned_variance_is_that_of_the_conditional_half_and_channels_beyond_those_guided_too() -> None:
    network, (x, step, told) = woken(UNet(4, 8, 8, NETWORK)), asked(4)
    given, without = network(x, step, told), network(x, step, told.unlabelled(3))
    found, three = (Guided(network, 2.0, 3, channels)(x, step, told) for channels in (None, 3))
    torch.testing.assert_close(found[:, :4], 2 * given[:, :4] - without[:, :4])
    assert torch.equal(found[:, 4:], given[:, 4:])
    assert torch.equal(three[:, :3], found[:, :3]) and torch.equal(three[:, 3:], given[:, 3:])
    denoiser = Denoiser(Diffusion(SCHEDULE, Eps(), LearnedRange()), Guided(network, 2.0, 3), (4, 8, 8))
    plain = Denoiser(Diffusion(SCHEDULE, Eps(), LearnedRange()), network, (4, 8, 8))
    guided, unguided = (each.given(told)(x, step + 1) for each in (denoiser, plain))
    assert torch.equal(guided.log_variance, unguided.log_variance) and not torch.equal(guided.mean, unguided.mean)


def test_of_a_mix_the_network_of_the_step_is_guided() -> None:
    mixed, (x, _, told) = woken(Mixed(1, 1, 8, MixedSettings(network=NETWORK, below=3, above=7))), asked()
    denoiser = Denoiser(DIFFUSION, Guided(mixed, 3.0, 3), (1, 8, 8)).given(told)
    for t, of in ((2, mixed.ends), (6, mixed.middle)):
        expected = Denoiser(DIFFUSION, Guided(of, 3.0, 3), (1, 8, 8)).given(told)(x, t).mean
        assert torch.equal(denoiser(x, t).mean, expected)
        assert torch.equal(denoiser(x, torch.full((4,), t)).mean, expected)


# ---- models ---------------------------------------------------------------------------------------------------------------


def test_a_scale_of_1_is_the_conditional_model_itself_and_any_other_calls_it_twice(tmp_path: Path) -> None:
    model = load_model(tiny_checkpoint(tmp_path / "told", classes=3, null_class=True))
    plain, guided = SamplingSettings(), SamplingSettings(guidance=2.0)
    assert model.chain(plain).denoiser.network is model.network
    assert isinstance(model.chain(guided).denoiser.network, Guided)
    for sampling, calls in ((plain, 6), (guided, 12), (SamplingSettings(guidance=2.0, steps=3), 6)):
        assert model.chain(sampling).network_calls == network_calls(sampling, model.T) == calls
    assert model.whole_chain(True).denoiser.network is model.network  # whose bound is measured
    network = Mixture()
    Denoiser(DIFFUSION, Guided(network, 2.0, NONE), (2, 1, 1)).given(Condition(torch.tensor([1])))(points(1), 3)
    assert network.calls == 2


def test_the_command_says_the_scale_in_both_ways(call, tmp_path: Path) -> None:
    ckpt, out = tiny_checkpoint(tmp_path / "told", classes=3, null_class=True), tmp_path / "a.npz"
    done = call("sample", "--ckpt", ckpt, "--samples", 4, "--guidance", 1.3, "--device", "cpu", "--out", out, "--json")
    made = json.loads(done.out)
    assert done.code == 0 and (made["guidance"], made["guidance_channels"], made["network_calls"]) == (1.3, None, 12)
    assert "s = 1.3 = 1 + w, w = 0.3" in " ".join(made["remarks"])


@pytest.mark.parametrize(
    ("classes", "null", "options", "said"),
    [
        (0, False, ["--guidance", "2"], "guidance = 2 .* is told no classes.*training.label_dropout"),
        (3, False, ["--guidance", "2"], "guidance = 2 .* was trained with every label told"),
        (3, True, ["--guidance-channels", "1"], "guidance_channels = 1 is of guidance, and the scale is 1"),
        (3, True, ["--guidance", "2", "--guidance-channels", "3"], "guidance_channels = 3: the prediction has 1"),
        (3, True, ["--guidance", "-1"], "--guidance"),
    ],
)
def test_a_scale_that_there_is_nothing_for_is_refused(call, messages, tmp_path, classes, null, options, said) -> None:
    ckpt = tiny_checkpoint(tmp_path / "told", classes=classes, null_class=null)
    done = call("sample", "--ckpt", ckpt, "--device", "cpu", "--out", tmp_path / "a.npz", *options)
    assert done.code == 2 and re.search(said, " ".join(done.err.split())), done.err
