"""How many parameters the network has: the paper's number, those of other releases, and a count layer by layer."""

import pytest
import torch
from test_unet import inputs, reference

from ddpm_bench.config.grid import Cell
from ddpm_bench.config.networks import UNetSettings
from ddpm_bench.config.preset import load_preset, resolve
from ddpm_bench.config.shipped import load_grid
from ddpm_bench.models.build import build_diffusion, build_network
from ddpm_bench.networks.blocks import Attention
from ddpm_bench.networks.unet import UNet
from ddpm_bench.networks.weights import outline


@pytest.mark.parametrize(("out_channels", "parameters"), [(3, 35_746_307), (6, 35_749_766)])
def test_paper_size_has_the_papers_number_of_parameters(out_channels: int, parameters: int) -> None:
    with torch.device("meta"):
        network = UNet(3, out_channels, 32, UNetSettings())
    assert sum(parameter.numel() for parameter in network.parameters()) == parameters


@pytest.mark.parametrize(
    ("preset", "variance", "parameters"),
    [
        ("iddpm-cifar10", "fixed", 52_542_979),
        ("iddpm-cifar10", "learned-range", 52_546_438),
        ("iddpm-imagenet64", "learned-range", 121_063_942),
        ("adm-imagenet256", "learned-range", 552_814_086),  # the unconditional one
        ("cfg-imagenet64", "learned-range", 295_904_454 + 768),  # ADM's, and a row of 4 * 192 for no class
    ],
)
def test_presets_of_openais_networks_have_their_releases_numbers_of_parameters(
    preset: str, variance: str, parameters: int
) -> None:
    axes = {"parameterization": "eps", "objective": "L", "variance": variance, "published": {}}
    settings = resolve(Cell(name="cell", label="", **axes), load_preset(preset), {})
    shape, diffusion = (3, settings.data.size, settings.data.size), build_diffusion(settings.diffusion)
    with outline():
        network = build_network(settings.network, shape, diffusion)
    assert sum(parameter.numel() for parameter in network.parameters()) == parameters


def counted(base: int, multipliers: tuple[int, ...], blocks: int, attended: set[int], channels: int) -> int:
    """Parameters of the paper's U-Net, added up layer by layer from its description. attended: levels with self-attention."""
    time = 4 * base

    def conv(i: int, o: int, side: int) -> int:
        return i * o * side * side + o

    def block(i: int, o: int) -> int:
        return 2 * i + conv(i, o, 3) + conv(time, o, 1) + 2 * o + conv(o, o, 3) + (conv(i, o, 1) if i != o else 0)

    def attention(c: int) -> int:
        return 2 * c + 4 * conv(c, c, 1)

    widths = [base * multiplier for multiplier in multipliers]
    total, skips, c = conv(base, time, 1) + conv(time, time, 1) + conv(channels, base, 3), [base], base
    for level, width in enumerate(widths):
        for _ in range(blocks):
            total, c = total + block(c, width) + (attention(width) if level in attended else 0), width
            skips.append(c)
        if level < len(widths) - 1:
            total += conv(c, c, 3)
            skips.append(c)
    total += 2 * block(c, c) + attention(c)
    for level, width in reversed(list(enumerate(widths))):
        for _ in range(blocks + 1):
            total, c = total + block(c + skips.pop(), width) + (attention(width) if level in attended else 0), width
        total += conv(c, c, 3) if level else 0
    return total + 2 * c + conv(c, channels, 3)


@pytest.mark.parametrize(
    ("grid", "cell", "preset", "parameters"),
    [
        ("table2", "eps-mse-fixed", "celebahq", 113_673_219),
        ("table2", "eps-mse-fixed", "lsun", 113_673_219),
        ("ddpm-lsun-bedroom", "small", "lsun", 113_673_219),
        ("ddpm-lsun-bedroom", "large", "lsun", 255_677_955),
    ],
)
def test_the_networks_at_256_pixels_have_the_papers_numbers_of_parameters(
    grid: str, cell: str, preset: str, parameters: int
) -> None:
    """Which are 114 million, and about 256 million; diffusers' google/ddpm-celebahq-256 has the first, too."""
    settings = resolve(load_grid(grid).select([cell])[0], load_preset(preset), {})
    network, size, diffusion = settings.network, settings.data.size, build_diffusion(settings.diffusion)
    assert size == 256 and network.dropout == 0
    with outline():
        ours = build_network(network, (3, size, size), diffusion)
    with torch.device("meta"):
        theirs = reference(network, 3, 3, size)
    assert {sum(p.numel() for p in model.parameters()) for model in (ours, theirs)} == {parameters}
    assert counted(network.base, (1, 1, 2, 2, 4, 4), 2, {4}, 3) == parameters  # level 4: 256 halved four times is 16
    assert [sum(isinstance(m, Attention) for m in part.modules()) for part in (ours.down, ours.middle, ours.up)] == [
        2,
        1,
        3,
    ]


def test_the_network_at_256_pixels_makes_a_step_at_a_sixteenth_of_its_width() -> None:
    settings = resolve(load_grid("table2").select(["eps-mse-fixed"])[0], load_preset("celebahq"), {})
    torch.manual_seed(0)
    network, sides = UNet(3, 3, 256, settings.network.model_copy(update={"base": 8, "groups": 4})), []
    for module in network.modules():
        if isinstance(module, Attention):
            module.register_forward_hook(lambda module, inputs, output: sides.append(output.shape[-1]))
    x_t, step = inputs(1, 3, 256)
    output = network(x_t, step)
    assert output.shape == (1, 3, 256, 256) and sides == [16, 16, 8, 16, 16, 16]
    output.square().sum().backward()
    assert all(parameter.grad is not None for parameter in network.parameters())


def test_the_preset_of_mnist_has_the_parameters_that_its_source_states_and_no_self_attention():
    settings = resolve(load_grid("table2").select(["eps-mse-fixed"])[0], load_preset("mnist"), {})
    with outline():
        network = UNet(1, 1, settings.data.size, settings.network)
    assert sum(parameter.numel() for parameter in network.parameters()) == 7_339_297
    assert not any(isinstance(module, Attention) for module in network.modules())
    assert (settings.training.learning_rate, settings.diffusion.T, settings.diffusion.schedule) == (
        1e-4,
        1000,
        "linear",
    )
