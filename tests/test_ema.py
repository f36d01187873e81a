"""The average of the weights: its recursion, its ramp, and what it must never be mixed up with."""

import pytest
import torch
from torch import nn

from ddpm_bench.config.networks import UNetSettings
from ddpm_bench.networks.unet import UNet
from ddpm_bench.training.ema import Ema, decay_at, initial_share


def set_weights(network: nn.Module, value: float) -> None:
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.fill_(value)


def averaged(values: list[float], decay: float, ramp: bool) -> float:
    """The average of a network whose weights were 1 at first and then took `values`."""
    network = nn.Linear(2, 1)
    set_weights(network, 1)
    ema = Ema(network, decay, ramp)
    for step, value in enumerate(values):
        set_weights(network, value)
        ema.update(step)
    return ema.weights["weight"][0, 0].item()


def test_average_follows_its_recursion() -> None:
    assert averaged([2, 3, 5], decay=0.5, ramp=False) == pytest.approx(0.125 * 1 + 0.125 * 2 + 0.25 * 3 + 0.5 * 5)


def test_ramp_is_that_of_tensorflow_until_the_decay_is_reached() -> None:
    assert [decay_at(step, 0.9999, ramp=True) for step in (0, 1, 90)] == [1 / 10, 2 / 11, 91 / 100]
    assert decay_at(89_980, 0.9999, ramp=True) < 0.9999 == decay_at(90_000, 0.9999, ramp=True)
    assert decay_at(0, 0.9999, ramp=False) == 0.9999
    assert averaged([3], decay=0.9999, ramp=True) == pytest.approx(0.1 * 1 + 0.9 * 3)


def test_trap_14_a_young_average_of_decay_0_9999_is_its_random_start_unless_ramped() -> None:
    steps = 2000
    without, ramped = (averaged([0.0] * steps, 0.9999, ramp) for ramp in (False, True))
    assert without == pytest.approx(0.9999**steps, rel=1e-3)
    assert without > 0.8
    assert ramped < 1e-6


@pytest.mark.parametrize(("decay", "ramp"), [(0.9, False), (0.9, True), (0.99, True), (0.05, True), (0.0, True)])
def test_share_of_the_initial_weights_is_what_is_left_of_them(decay: float, ramp: bool) -> None:
    for steps in (0, 1, 5, 130):
        assert initial_share(steps, decay, ramp) == pytest.approx(
            averaged([0.0] * steps, decay, ramp), rel=1e-4, abs=1e-12
        )


def test_trap_4_the_averaged_network_has_the_average_and_no_dropout_and_shares_nothing() -> None:
    torch.manual_seed(0)
    network = UNet(
        1, 1, 8, UNetSettings(base=8, multipliers=(1,), blocks=1, attention=(), groups=4, dropout=0.5)
    ).train()
    ema = Ema(network, 0.5, ramp=False)
    set_weights(network, 0.3)
    ema.update(0)
    found = ema.network()
    assert not any(module.training for module in found.modules())
    assert not any(parameter.requires_grad for parameter in found.parameters())
    assert network.training
    for name, parameter in found.named_parameters():
        assert torch.equal(parameter, ema.weights[name])
        assert not torch.equal(parameter, network.get_parameter(name))
    x_t, step = torch.randn(2, 1, 8, 8), torch.tensor([0, 5])
    before = found(x_t, step)
    assert torch.equal(before, found(x_t, step))
    set_weights(network, 7.0)
    ema.update(1)
    assert torch.equal(before, found(x_t, step))


def test_buffers_are_the_networks_own() -> None:
    network = nn.BatchNorm1d(3)
    ema = Ema(network, 0.5, ramp=False)
    network(torch.randn(8, 3))
    assert torch.equal(ema.network().running_mean, network.running_mean)
