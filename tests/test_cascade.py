"""Cascades: chains on top of chains, and several models as one."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusion_cases import Heard, gaussian_eps
from test_small_images import CPU, DIFFUSION, images, woken
from tiny_models import tiny_checkpoint, tiny_data
from torch import Tensor

from ddpm_bench.config.networks import UNetSettings
from ddpm_bench.config.sampling import SamplingSettings
from ddpm_bench.config.settings import ProcessSettings
from ddpm_bench.data.codec import PIXELS
from ddpm_bench.data.images import ImageData, Split
from ddpm_bench.data.resize import averaged
from ddpm_bench.diffusion.augmentation import noised
from ddpm_bench.diffusion.denoiser import Denoiser
from ddpm_bench.diffusion.noise import BlockNoise
from ddpm_bench.diffusion.process import posterior
from ddpm_bench.diffusion.sample_labels import SampleLabels
from ddpm_bench.diffusion.samplers import Below, Chain, sample
from ddpm_bench.diffusion.schedule import linear
from ddpm_bench.errors import UserError
from ddpm_bench.measurement.bounds import condition_of
from ddpm_bench.measurement.samples import draw_samples
from ddpm_bench.models.build import build_diffusion, build_network
from ddpm_bench.models.cascade import cascade
from ddpm_bench.models.model import Model, load_model, save_model
from ddpm_bench.models.model_card import ModelCard
from ddpm_bench.networks.condition import Condition
from ddpm_bench.runtime.observer import observed_by
from ddpm_bench.runtime.runtime import Runtime

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
