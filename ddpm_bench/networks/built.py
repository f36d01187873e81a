"""From the settings of a network to the network."""

import importlib

from torch import nn

from ddpm_bench.config.networks import NetworkSettings


def built(settings: NetworkSettings, in_channels: int, out_channels: int, side: int) -> nn.Module:
    """The network of the settings, whose kind says where its class is; initial values from torch's global generator."""
    module, _, name = settings.built_by.partition(":")
    network = getattr(importlib.import_module(module), name)
    return network(in_channels, out_channels, side, settings)
