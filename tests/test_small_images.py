"""Networks that enlarge small images, and their training with augmented ones."""

from pathlib import Path

import numpy as np
import pytest
import torch
from resumed import SETTINGS, goes_on_bitwise_the_same
from scipy.ndimage import convolve
from torch import Tensor, nn

from ddpm_bench.config.networks import MixedSettings, UNetSettings
from ddpm_bench.config.settings import CellSettings
from ddpm_bench.diffusion.augmentation import blurred, noised
from ddpm_bench.diffusion.denoiser import Denoiser
from ddpm_bench.diffusion.objective import LSimple
from ddpm_bench.diffusion.parameterization import Eps
from ddpm_bench.diffusion.reverse import Diffusion
from ddpm_bench.diffusion.schedule import linear
from ddpm_bench.diffusion.times import Uniform
from ddpm_bench.diffusion.variance import FixedBeta
from ddpm_bench.networks.condition import Condition
from ddpm_bench.networks.mixed import Mixed
from ddpm_bench.networks.unet import UNet
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
