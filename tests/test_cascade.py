"""Cascades: networks that enlarge images, their training with augmented ones, and chains on top of chains."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusion_cases import Heard, gaussian_eps
from resumed import SETTINGS, goes_on_bitwise_the_same
from scipy.ndimage import convolve
from tiny_models import tiny_bench, tiny_checkpoint, tiny_data, tiny_preset
from torch import Tensor, nn

from ddpm_bench.config.networks import MixedSettings, UNetSettings
from ddpm_bench.config.preset import load_preset, resolve
from ddpm_bench.config.sampling import SamplingSettings
from ddpm_bench.config.settings import CellSettings, ProcessSettings
from ddpm_bench.config.shipped import load_grid
from ddpm_bench.data import load_data, small_data
from ddpm_bench.data.codec import PIXELS
from ddpm_bench.data.images import ImageData, Split
from ddpm_bench.data.resize import averaged
from ddpm_bench.diffusion.augmentation import blurred, noised
from ddpm_bench.diffusion.denoiser import Denoiser
from ddpm_bench.diffusion.noise import BlockNoise
from ddpm_bench.diffusion.objective import LSimple
from ddpm_bench.diffusion.parameterization import Eps
from ddpm_bench.diffusion.process import posterior
from ddpm_bench.diffusion.reverse import Diffusion
from ddpm_bench.diffusion.sample_labels import SampleLabels
from ddpm_bench.diffusion.samplers import Below, Chain, sample
from ddpm_bench.diffusion.schedule import linear
from ddpm_bench.diffusion.times import Uniform
from ddpm_bench.diffusion.variance import FixedBeta
from ddpm_bench.errors import UserError
from ddpm_bench.experiment.ablate import plan, run_jobs
from ddpm_bench.experiment.cell import run_cell
from ddpm_bench.experiment.launchers import Asked, choose_launcher
from ddpm_bench.measurement.bounds import condition_of
from ddpm_bench.measurement.samples import draw_samples
from ddpm_bench.models.build import build_diffusion, build_network
from ddpm_bench.models.cascade import cascade, stacked
from ddpm_bench.models.model import Model, load_model, save_model
from ddpm_bench.models.model_card import ModelCard
from ddpm_bench.networks.condition import Condition
from ddpm_bench.networks.mixed import Mixed
from ddpm_bench.networks.unet import UNet
from ddpm_bench.runtime.observer import observed_by
from ddpm_bench.runtime.runtime import Runtime
from ddpm_bench.training.batches import Batches, Labels, Small
from ddpm_bench.training.trainer import Trainer, Training

CPU = torch.device("cpu")
PLAIN = UNetSettings(base=8, multipliers=(1,), blocks=1, attention=(), groups=2, dropout=0.1)
ENLARGING = PLAIN.model_copy(update={"small": 4})
AUGMENTED = PLAIN.model_copy(update={"small": 4, "augmentation": 6})
DIFFUSION = Diffusion(linear(10, 1e-2, 0.9), Eps(), FixedBeta())


def images(count: int = 10, side: int = 8, channels: int = 1) -> Tensor:
    shape = (count, channels, side, side)
    return torch.randint(0, 256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(1))


def woken(network: nn.Module) -> nn.Module:
    """With last layers that do not begin at 0, so that outputs depend on all that the network is told."""
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(3)))
    return network.eval()


def unet(settings: UNetSettings, channels: int = 1, side: int = 8) -> UNet:
    torch.manual_seed(0)
    return UNet(channels, channels, side, settings)


# ---- the network ----------------------------------------------------------------------------------------------------------


def test_the_small_image_stands_beside_x_t_on_channels_of_its_own_enlarged_as_the_release_does() -> None:
    """As a plain network of twice the channels that is given both: its first convolution has 2x the image channels."""
    network = woken(unet(ENLARGING, channels=3))
    assert network.first.weight.shape[1] == 6
    plain = UNet(6, 3, 8, PLAIN).eval()
    plain.load_state_dict(network.state_dict())
    x, step, small = torch.randn(2, 3, 8, 8), torch.tensor([0, 7]), torch.randn(2, 3, 4, 4)
    upsampled = torch.nn.functional.interpolate(small, (8, 8), mode="bilinear")  # SuperResModel
    with torch.no_grad():
        assert torch.equal(network(x, step, Condition(small=small)), plain(torch.cat([x, upsampled], 1), step))
    row = torch.tensor([0.0, 1.0, 3.0, 7.0])  # by hand: between centres, the borders repeated
    by_hand = torch.tensor([0.0, 0.25, 0.75, 1.5, 2.5, 4.0, 6.0, 7.0])
    torch.testing.assert_close(
        torch.nn.functional.interpolate(row.expand(1, 1, 4, 4), (8, 8), mode="bilinear")[0, 0, 3], by_hand
    )


def test_a_level_is_added_to_the_time_embedding_and_all_else_begins_as_without() -> None:
    with_levels, clean = unet(AUGMENTED), unet(ENLARGING)
    state = with_levels.state_dict()
    assert all(torch.equal(held, state.pop(name)) for name, held in clean.state_dict().items())
    assert {name.partition(".")[0] for name in state} == {"level"}
    network = woken(with_levels)
    x, step, small, level = torch.randn(3, 1, 8, 8), torch.arange(3), torch.randn(3, 1, 4, 4), torch.tensor([0, 2, 6])
    with torch.no_grad():
        found = network(x, step, Condition(small=small, level=level))
        clean.load_state_dict({name: held for name, held in network.state_dict().items() if name in clean.state_dict()})
        clean.eval()
        for i in range(3):  # a level is a bias of the time embedding's last layer
            clean.time.out.bias.copy_(network.time.out.bias + network.level.embedded(level[i : i + 1])[0])
            alone = clean(x[i : i + 1], step[i : i + 1], Condition(small=small[i : i + 1]))
            torch.testing.assert_close(alone, found[i : i + 1], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("settings", "told", "said"),
    [
        (PLAIN, Condition(small=torch.zeros(1, 1, 4, 4)), "enlarges none is called with a small image"),
        (ENLARGING, None, "is called without a small image"),
        (
            ENLARGING,
            Condition(small=torch.zeros(1, 1, 4, 4), level=torch.tensor([0])),
            "0 levels of noise is called with",
        ),
        (AUGMENTED, Condition(small=torch.zeros(1, 1, 4, 4)), "6 levels of noise is called without"),
    ],
)
def test_a_network_is_never_told_a_small_image_in_silence(settings, told: Condition | None, said: str) -> None:
    with pytest.raises(TypeError, match=said):
        unet(settings)(torch.zeros(1, 1, 8, 8), torch.tensor([0]), told)


def test_a_mix_passes_the_small_image_on() -> None:
    settings = MixedSettings(network=AUGMENTED, below=3, above=7)
    assert (settings.told_small, settings.told_levels) == (4, 6)
    mixed = woken(Mixed(1, 1, 8, settings))
    x, step = torch.randn(2, 1, 8, 8), torch.tensor([1, 5])
    told = Condition(small=torch.randn(2, 1, 4, 4), level=torch.tensor([0, 3]))
    with torch.no_grad():
        expected = torch.stack([mixed.ends(x, step, told)[0], mixed.middle(x, step, told)[1]])
        assert torch.equal(mixed(x, step, told), expected)


def test_what_enlarges_nothing_is_named_as_before_there_were_small_images() -> None:
    assert not {"small", "augmentation"} & PLAIN.named.keys() and AUGMENTED.named["augmentation"] == 6
    assert not {"small", "augmentation"} & MixedSettings(network=PLAIN, below=1, above=2).named["network"].keys()


def cell(network: dict[str, object], **more: dict[str, object]) -> CellSettings:
    sections = {"data": {"size": 16}, "training": {}, "sampling": {}, "scoring": {}} | more
    axes = {"parameterization": "eps", "variance": "fixed", "objective": "L_simple", **more.get("diffusion", {})}
    return CellSettings.model_validate(sections | {"diffusion": axes, "network": {"base": 32, **network}})


@pytest.mark.parametrize(
    ("network", "more", "said"),
    [
        ({"small": 5}, {}, r"network.small = 5.*choose among 8, 4, 2"),
        ({"small": 16}, {}, r"network.small = 16.*choose among 8, 4, 2"),
        ({"augmentation": 3}, {}, r"augmentation = 3 is noise of the small image .*give network.small"),
        ({"small": 8, "augmentation": 11}, {"diffusion": {"T": 10}}, r"augmentation = 11 exceeds diffusion.T = 10"),
        ({}, {"training": {"blur": True}}, r"training.blur = true is of the small images .*give network.small"),
        ({"small": 8}, {"diffusion": {"codec": "unit"}}, r"network.small = 8 is of pixels.*use the codec 'pixels'"),
    ],
)
def test_small_images_that_cannot_be_are_refused_by_name(network: dict, more: dict, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        cell(network, **more)
    assert cell({"small": 8, "augmentation": 10}, training={"blur": True}).network.told_levels == 10


# ---- training -------------------------------------------------------------------------------------------------------------


def batches(small: Small | None, labels: Labels | None = None, size: int = 6) -> Batches:
    return Batches(
        images(), size, flips=True, seed=3, times=Uniform(10), device=CPU, labels=labels, small=small
    )  # fmt: skip


@pytest.mark.parametrize("labels", [None, Labels(torch.arange(10) % 3, 0.5, 3)])
def test_small_images_are_the_means_of_the_batchs_own_and_change_no_other_draw(labels: Labels | None) -> None:
    plain, told = batches(None, labels), batches(Small(4, 6, DIFFUSION.schedule, blur=True), labels)
    clean = batches(Small(4, 0, DIFFUSION.schedule), labels)
    for step in range(4):
        without, batch, alone = plain.at(step), told.at(step), clean.at(step)
        assert all(torch.equal(a, b) for a, b in zip(without[:3], batch[:3], strict=True))
        if labels:
            assert torch.equal(without.condition.labels, batch.condition.labels)
        levels = ((without.x0.double() + 1) * 127.5).round().numpy()  # the images, flipped as they were drawn
        means = np.floor(levels.reshape(-1, 1, 4, 2, 4, 2).mean((3, 5)) + 0.5)
        np.testing.assert_allclose(alone.condition.small, means / 127.5 - 1, atol=1e-6)
        assert alone.condition.level is None
        assert batch.condition.level.min() >= 0 and batch.condition.level.max() <= 6
        assert len(batch.own().condition.small) == 6


def test_noise_and_blur_of_small_images_are_those_of_the_paper() -> None:
    """Against clean ones: levels even in 0..S; at level s the error is N(0, 1 - alpha_bar_s); half of the clean ones are blurred."""
    levels, errors, changed = [], {s: [] for s in range(3)}, []
    noisy, clean = (batches(Small(4, n, DIFFUSION.schedule), size=500) for n in (2, 0))
    blurry = batches(Small(4, 0, DIFFUSION.schedule, blur=True), size=500)
    bars = np.concatenate([[1.0], np.cumprod(1 - DIFFUSION.schedule.betas.numpy())])
    for step in range(4):
        batch, z0 = noisy.at(step).condition, clean.at(step).condition.small.double()
        levels.append(batch.level)
        for s in range(3):
            rows = batch.level == s
            errors[s].append((batch.small[rows].double() - bars[s] ** 0.5 * z0[rows]).flatten())
        changed.append((blurry.at(step).condition.small != z0.float()).flatten(1).any(1))
    counts = torch.cat(levels).bincount() / 2000
    assert len(counts) == 3 and (counts - 1 / 3).abs().max() < 4 * (2 / 9 / 2000) ** 0.5
    assert not torch.cat(errors[0]).any()
    for s in (1, 2):
        error = torch.cat(errors[s])
        assert abs(error.square().mean() / (1 - bars[s]) - 1) < 5 * (2 / len(error)) ** 0.5
    assert abs(torch.cat(changed).double().mean() - 0.5) < 4 * (0.25 / 2000) ** 0.5


def test_the_blur_is_a_gaussian_of_three_by_three() -> None:
    z, sigma = torch.randn(3, 2, 5, 5, dtype=torch.float64), torch.tensor([0.4, 0.5, 0.6], dtype=torch.float64)
    found = blurred(z, sigma)
    for i, s in enumerate(sigma.tolist()):
        k = np.exp(-(np.arange(-1, 2) ** 2) / (2 * s**2))
        kernel = np.outer(k, k) / np.outer(k, k).sum()
        for c in range(2):
            np.testing.assert_allclose(found[i, c], convolve(z[i, c].numpy(), kernel, mode="mirror"), rtol=1e-12)


def test_level_0_is_the_clean_image_bit_for_bit_and_a_level_is_a_step_of_the_diffusion() -> None:
    z0, eps = torch.randn(3, 1, 4, 4, dtype=torch.float64), torch.randn(3, 1, 4, 4, dtype=torch.float64)
    found = noised(DIFFUSION.schedule, z0, torch.tensor([0, 1, 10]), eps)
    bars = np.cumprod(1 - DIFFUSION.schedule.betas.numpy())
    assert torch.equal(found[0], z0[0])
    for row, bar in ((1, bars[0]), (2, bars[9])):
        np.testing.assert_allclose(found[row], bar**0.5 * z0[row] + (1 - bar) ** 0.5 * eps[row], rtol=1e-12)


def trainer(folder: Path) -> Trainer:
    network = unet(AUGMENTED.model_copy(update={"classes": 3, "null_class": True}))
    training = Training(
        Denoiser(DIFFUSION, network, (1, 8, 8), clip_x0=False), LSimple(), images(), SETTINGS, 3, {"base": 8},
        labels=Labels(torch.arange(10) % 3, 0.3, 3), small=Small(4, 6, DIFFUSION.schedule, blur=True),
    )  # fmt: skip
    return Trainer(training, folder)


def test_augmented_training_with_labels_goes_on_bitwise_the_same(tmp_path: Path) -> None:
    began = trainer(tmp_path / "new").network.level.out.weight.detach().clone()
    whole = goes_on_bitwise_the_same(trainer, tmp_path)
    assert not torch.equal(whole.network.level.out.weight, began)


# ---- chains ---------------------------------------------------------------------------------------------------------------


def enlarging(x: Tensor, step: Tensor, condition: Condition) -> Tensor:
    """A network that draws to the small image, more so the less noise that has."""
    near = torch.nn.functional.interpolate(condition.small, x.shape[2:], mode="nearest")
    known = 1.0 if condition.level is None else 1 / (1 + condition.level).reshape(-1, 1, 1, 1)
    return 0.7 * (x - known * near)


def lower(network=None, **more) -> Chain:
    network = network or (lambda x, step: 0.4 * x)
    return Chain(Denoiser(DIFFUSION, network, (1, 4, 4)), **more)


def upper(below: Chain, level: int | None = None, side: int = 8, **more) -> Chain:
    return Chain(Denoiser(DIFFUSION, enlarging, (1, side, side)), below=Below(below, DIFFUSION.schedule, level), **more)


def drawn(chain: Chain, count: int = 7, first: int = 0, batch: int = 7) -> Tensor:
    return torch.cat(
        [made for _, made in sample(chain, count=count, seed=1, first=first, runtime=Runtime(batch=batch))]
    )


def plain_cascade(small: Tensor, stream: int) -> Tensor:
    """By hand: Algorithm 2 of the larger model, told the finished small images."""
    denoiser = Denoiser(DIFFUSION, enlarging, (1, 8, 8)).given(Condition(small=PIXELS.encode(small)))
    noise = BlockNoise(1, 0, len(small), (1, 8, 8), CPU, stream=stream)
    x = noise.draw()
    for t in range(10, 0, -1):
        reverse, z = denoiser(x, t), noise.draw()
        x = (reverse.mean + (0.5 * reverse.log_variance).exp() * z * (t > 1)).to(x.dtype)
    return PIXELS.decode(x)


def test_level_0_is_the_plain_cascade_bit_for_bit() -> None:
    """Its small images are the samples that the model below draws alone."""
    expected = plain_cascade(drawn(lower()), upper(lower()).stream)
    assert torch.equal(drawn(upper(lower())), expected)
    assert torch.equal(drawn(upper(lower(), level=0)), expected)
    assert not torch.equal(drawn(upper(lower(), level=3)), expected)


def test_samples_of_a_cascade_depend_on_seed_and_index_alone() -> None:
    three = upper(upper(lower(), level=2), level=4, side=16)
    whole = drawn(three)
    assert whole.shape == (7, 1, 16, 16) and torch.equal(drawn(three, count=5, first=2, batch=2), whole[2:])
    assert (three.height, three.steps, three.network_calls) == (2, 30, 30)
    streams = [three.stream, three.below.chain.stream, three.below.chain.below.chain.stream]
    assert len({*streams, streams[0] + 1, streams[1] + 1}) == 5  # every chain and every noise has its own


def test_noise_in_small_images_is_a_stream_of_its_own_by_the_samples_index() -> None:
    small = images(3, side=4)
    told = upper(lower(), level=6).shown(small, first=5, seed=1).denoiser.condition
    eps = BlockNoise(1, 5, 3, (1, 4, 4), CPU, stream=3003).draw()  # of the second chain: 3002 is that of its steps
    assert torch.equal(told.small, noised(DIFFUSION.schedule, PIXELS.encode(small), torch.full((3,), 6), eps))
    assert told.level.tolist() == [6, 6, 6] and upper(lower()).shown(small, 5, 1).denoiser.condition.level is None


def test_every_chain_of_a_cascade_is_told_the_class_of_the_sample() -> None:
    seen: list[Tensor] = []

    def network(x: Tensor, step: Tensor, condition: Condition) -> Tensor:
        seen.append(condition.labels)
        return 0.4 * x if condition.small is None else enlarging(x, step, condition)

    labels = SampleLabels(3)
    below = Below(Chain(Denoiser(DIFFUSION, network, (1, 4, 4)), labels=labels), DIFFUSION.schedule, 2)
    drawn(Chain(Denoiser(DIFFUSION, network, (1, 8, 8)), labels=labels, below=below), first=4, count=3)
    assert len(seen) == 20 and all(each.tolist() == [1, 2, 0] for each in seen)


def test_progress_counts_the_steps_of_all_chains_and_watchers_see_the_last() -> None:
    seen, heard = [], Heard()
    with observed_by(heard):
        list(sample(upper(lower()), count=4, seed=0, watch=lambda first, now: seen.append(now.x.shape[-1])))
    assert heard.done == [4 * step // 20 for step in range(1, 21)] and seen == [8] * 10


def test_truncated_and_non_truncated_noise_agree_for_an_exact_model_below() -> None:
    """Gaussian data, for which mean and variance go through exact chains in closed form: the chain stopped at s, and the chain
    finished and noised to s, have one distribution."""
    schedule, mean, variance, s = linear(200, 1e-4, 0.1), 0.3, 0.4, 60
    optimal, one = gaussian_eps(schedule, mean, variance), torch.ones(1, 1, 1, 1, dtype=torch.float64)
    bar = schedule.alpha_bar

    def step_down(m: float, v: float, t: int) -> tuple[float, float]:
        at, ends = torch.tensor([t]), []
        for x in (0 * one, one):  # the mean is affine in x_t
            eps = optimal(x, at - 1)
            x0 = (x - (1 - bar[t - 1]).sqrt() * eps) / bar[t - 1].sqrt()
            ends.append(posterior(schedule, x0, x, at).mean.item())
        of_x0 = (variance * (1 - bar[t - 1]) / (bar[t - 1] * variance + 1 - bar[t - 1])).item()
        added = schedule.beta_tilde[t - 1].item() + schedule.posterior_x0[t - 1].item() ** 2 * of_x0
        slope = ends[1] - ends[0]
        return slope * m + ends[0], slope**2 * v + added

    m, v = (bar[-1].sqrt() * mean).item(), (bar[-1] * variance + 1 - bar[-1]).item()
    for t in range(200, 0, -1):
        if t == s:
            truncated = m, v
        m, v = step_down(m, v, t)
    level = torch.tensor([s])
    offset, slope = noised(schedule, 0 * one, level, 0 * one), noised(schedule, one, level, 0 * one)
    spread = noised(schedule, 0 * one, level, one)
    finished = (slope - offset).item() * m + offset.item(), (slope - offset).item() ** 2 * v + spread.item() ** 2
    assert (m, v) == pytest.approx((mean, variance), abs=1e-9)
    assert finished == pytest.approx(truncated, abs=1e-9)


# ---- models ---------------------------------------------------------------------------------------------------------------


def checkpoint(folder: Path, side: int, small: int | None = None, augmentation: int = 0, **changed) -> Path:
    """A checkpoint of random weights, of grey images of this side unless told otherwise."""
    process = ProcessSettings(parameterization="eps", variance="fixed", T=6, beta_1=0.05, beta_T=0.7)
    settings = UNetSettings(
        base=4, multipliers=(1,), blocks=1, attention=(), groups=2, small=small, augmentation=augmentation,
        classes=changed.get("classes", 0),
    )  # fmt: skip
    shape = (changed.get("channels", 1), side, side)
    network = woken(build_network(settings, shape, build_diffusion(process), side))
    sampling = SamplingSettings(**changed.get("sampling", {}))
    card = ModelCard(name=folder.name, weights=changed.get("weights", "ema"), shape=shape, process=process,
                     network=settings, sampling=sampling, source={"path": "nowhere"})  # fmt: skip
    save_model(folder, card, network.state_dict())
    return folder


def pipeline(folder: Path, *levels: int, **changed) -> Model:
    """16x16 in three stages: 8 is enlarged to 16 with 5 levels of noise, 16 to 32."""
    one = load_model(checkpoint(folder / "8", 8, **changed))
    two = load_model(checkpoint(folder / "16", 16, small=8, augmentation=5, **changed))
    three = load_model(checkpoint(folder / "32", 32, small=16, augmentation=5, **changed))
    save_model(folder / "all", *cascade([one, two, three], levels))
    return load_model(folder / "all")


def test_a_cascade_is_kept_as_one_checkpoint_that_draws_what_its_models_draw(tmp_path: Path) -> None:
    whole = pipeline(tmp_path, 3, 2)
    one, two, three = (load_model(tmp_path / side) for side in ("8", "16", "32"))
    assert whole.parameters == one.parameters + two.parameters + three.parameters
    assert (whole.shape, whole.below.shape, whole.below.below.shape) == ((1, 32, 32), (1, 16, 16), (1, 8, 8))
    sampling = SamplingSettings(samples=4)
    first = one.chain(sampling)
    second = Chain(two.whole_chain(True).denoiser, below=Below(first, two.diffusion.schedule, 3))
    third = Chain(three.whole_chain(True).denoiser, below=Below(second, three.diffusion.schedule, 2))
    by_hand = torch.cat([made for _, made in sample(third, count=4, seed=5)])
    assert torch.equal(
        draw_samples(whole, whole.sampling.model_copy(update={"samples": 4}), 5, Runtime(), tmp_path / "s"), by_hand
    )
    again = load_model(tmp_path / "all")
    assert again.function == whole.function and "below" not in one.function


def test_kept_samples_are_those_of_the_levels_and_of_the_models_below(tmp_path: Path) -> None:
    whole, asked = pipeline(tmp_path, 3, 2), SamplingSettings(samples=4)
    draw_samples(whole, asked, 0, Runtime(), tmp_path / "s")
    draw_samples(whole, asked.model_copy(update={"augmentation": 2}), 0, Runtime(), tmp_path / "s")
    draw_samples(whole, asked.model_copy(update={"augmentation": 0}), 0, Runtime(), tmp_path / "s")  # as the first
    assert len(list((tmp_path / "s").glob("samples-*"))) == 2
    other = pipeline(tmp_path / "other", 3, 2, sampling={"steps": 3})
    assert other.weights_sha256 == whole.weights_sha256 and other.function != whole.function
    shards = sorted((tmp_path / "s").glob("samples-*/*.safetensors"))
    before = {path: path.read_bytes() for path in shards}
    shards[0].unlink()  # drawn again, the same
    for level in (2, 0):
        draw_samples(whole, asked.model_copy(update={"augmentation": level}), 0, Runtime(), tmp_path / "s")
    assert {path: path.read_bytes() for path in shards} == before


@pytest.mark.parametrize(
    ("models", "levels", "said"),
    [
        (["8"], (), "takes two models or more"),
        (["16", "32"], (), "'16' is the lowest model, and enlarges images of 8 pixels. Name a model that draws those"),
        (["8", "32"], (), "one draws images of 8x8 pixels, and the other enlarges those of 16x16"),
        (["8", "8"], (), "'8' enlarges nothing: it was trained without network.small"),
        (["8", "16"], (1, 2), "given 2 times, and 1 of the models"),
        (["8", "16"], (6,), r"augmentation = 6: the network was trained with levels 0 to 5.*network.augmentation=6"),
        (["8", "clean"], (1,), r"augmentation = 1: the network was trained with clean images alone"),
        (["colour", "16"], (), "one is of 3 channels, the other of 1"),
        (["told", "16"], (), "one is told 2 classes, the other 0"),
        (["raw", "16"], (), "the weights of one are raw, not EMA, of the other EMA"),
        (["batch", "16"], (), "norms over a batch"),
    ],
)
def test_models_that_do_not_chain_are_refused_by_name(tmp_path: Path, models: list[str], levels, said: str) -> None:
    of = {
        "8": {"side": 8}, "16": {"side": 16, "small": 8, "augmentation": 5}, "32": {"side": 32, "small": 16},
        "clean": {"side": 16, "small": 8}, "colour": {"side": 8, "channels": 3}, "told": {"side": 8, "classes": 2},
        "raw": {"side": 8, "weights": "raw"},
        "batch": {"side": 8, "sampling": {"sampler": "reverse-diffusion", "corrector_norm": "batch", "corrector_steps": 1}},
    }  # fmt: skip
    for name in set(models):
        checkpoint(tmp_path / name, **of[name])
    loaded = [load_model(tmp_path / name, raw=name == "raw") for name in models]
    with pytest.raises(UserError, match=said):
        cascade(loaded, levels)


def test_a_super_resolution_model_is_bounded_on_the_small_images_of_the_data_and_not_sampled_alone(
    tmp_path: Path,
) -> None:
    model = load_model(checkpoint(tmp_path / "16", 16, small=8, augmentation=5))
    data = ImageData("ten", Split(images(side=16)), Split(images(side=16)), "hash")
    told = condition_of(model, data, "test", 5)
    assert torch.equal(told.small, PIXELS.encode(averaged(images(side=16)[::2], 8)))
    assert told.labels is None and told.level.tolist() == [0] * 5
    with pytest.raises(UserError, match=r"'16' enlarges images of 8x8 pixels, and has none .*ddpm-bench cascade LOWER"):
        model.chain(SamplingSettings())
    plain = load_model(tiny_checkpoint(tmp_path / "plain"))
    with pytest.raises(UserError, match="augmentation = 1 is noise in small images, and the network enlarges none"):
        plain.chain(SamplingSettings(augmentation=1))
    with pytest.raises(UserError, match=r"is a cascade, and has no bound in bits/dim here.*--bound-images 0"):
        condition_of(pipeline(tmp_path / "c"), data, "test", 5)


def test_the_command_makes_a_model_that_is_sampled_and_scored(call, messages, tmp_path: Path) -> None:
    checkpoint(tmp_path / "8", 8, classes=2)
    checkpoint(tmp_path / "16", 16, small=8, augmentation=5, classes=2)
    out, data = tmp_path / "both", tiny_data(tmp_path / "data.npz")
    made = call("cascade", tmp_path / "8", tmp_path / "16", "--augmentation", 4, "--out", out, "--json")
    assert made.code == 0, made.err
    assert json.loads(made.out)["below"]["name"] == "8"
    done = call("sample", "--ckpt", out, "--samples", 3, "--device", "cpu", "--out", tmp_path / "s.npz", "--json")
    assert done.code == 0, done.err
    told = json.loads(done.out)
    assert (told["augmentation"], told["network_calls"], told["small_images_by"]["checkpoint"]) == (4, 12, "8")
    assert "drawn by '8' in 6 steps of 'ancestral'" in " ".join(told["remarks"])
    assert np.load(tmp_path / "s.npz")["labels"].tolist() == [0, 1, 0]
    chain = tmp_path / "chain.png"
    assert call("sample", "--ckpt", out, "--progressive", "--samples", 2, "--device", "cpu", "--out", chain).code == 0
    options = ("--ckpt", out, "--data", data, "--count", 12, "--cache", tmp_path / "cache", "--results", tmp_path / "r")
    refused = call("evaluate", *options)
    assert refused.code == 2 and "is a cascade, and has no bound" in " ".join(refused.err.split())
    done = call("evaluate", *options, "--bound-images", 0, "--augmentation", 2, "--json")
    assert done.code == 0, done.err
    assert json.loads(done.out)["setup"]["sampler_options"]["augmentation"] == 2
    for asked in (("--slerp", "0", "1", "--sampler", "ddim"), ("--interpolate", "0", "1", "--data", data)):
        refused = call("sample", "--ckpt", out, "--labels", 0, "--device", "cpu", "--out", tmp_path / "x.png", *asked)
        assert refused.code == 2 and "this is a cascade of 2" in " ".join(refused.err.split()), refused.err


# ---- grids ----------------------------------------------------------------------------------------------------------------


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
