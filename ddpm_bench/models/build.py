"""Names become objects, the one place: settings turn into a process, a codec, a network and an objective; in `build_sampling.py`, into
how samples are drawn."""

from collections.abc import Mapping
from typing import TypeVar

import torch
from torch import nn

from ddpm_bench.config.autoencoders import plain_codec
from ddpm_bench.config.networks import NetworkSettings
from ddpm_bench.config.settings import DiffusionSettings, NoiseSettings, ProcessSettings
from ddpm_bench.data.autoencoders import latents_of
from ddpm_bench.data.codec import CODECS, Codec
from ddpm_bench.data.latents import UNTRAINED
from ddpm_bench.diffusion.objective import OBJECTIVES, Objective
from ddpm_bench.diffusion.parameterization import PARAMETERIZATIONS
from ddpm_bench.diffusion.reverse import Diffusion
from ddpm_bench.diffusion.schedule import SCHEDULES, Schedule
from ddpm_bench.diffusion.variance import VARIANCES
from ddpm_bench.errors import UserError, near_miss
from ddpm_bench.networks.built import built
from ddpm_bench.training.batches import Small

Named = TypeVar("Named")

AUTOENCODER = "autoencoder"
"""The codec of an autoencoder that is given: diffusion.codec = "autoencoder:PATH"."""


def build_diffusion(settings: ProcessSettings) -> Diffusion:
    """The forward and reverse process; UserError for an unknown name."""
    variance = named(
        "variance", settings.fixed_variance if settings.variance == "fixed" else settings.variance, VARIANCES
    )
    schedule = build_schedule(settings)
    if schedule.exploding and variance.outputs != 1:
        raise UserError(
            f"The variance '{variance.name}' does not go with the schedule '{settings.schedule}': it is learned by a variational "
            "bound, and score matching has none. Use a fixed variance."
        )
    return Diffusion(schedule, named("parameterization", settings.parameterization, PARAMETERIZATIONS), variance)


def build_schedule(noise: NoiseSettings) -> Schedule:
    """The noise of each step, and how a network is told it; UserError for an unknown name."""
    schedule = named("schedule", noise.schedule, SCHEDULES)(noise.T, *noise.ends)
    return schedule.rescaled() if noise.rescale_timesteps else schedule


def build_objective(settings: DiffusionSettings) -> Objective:
    """What a cell is trained with; UserError for an unknown name, or one that cannot train the diffusion or on such an x_0."""
    objective, codec = named("objective", settings.objective, OBJECTIVES), build_codec(settings)
    objective.check(build_diffusion(settings))
    objective.check_codec(codec)
    return objective


def build_codec(settings: NoiseSettings) -> Codec:
    """What the process works on; UserError for an unknown name, and for an autoencoder that is not on this machine."""
    if settings.autoencoder:
        if settings.codec not in (AUTOENCODER, *UNTRAINED):
            raise UserError(f"The codec '{settings.codec}' has no autoencoder; leave diffusion.autoencoder out.")
        return latents_of(settings.autoencoder, settings.codec)
    if plain_codec(settings.codec) == AUTOENCODER:
        raise UserError(
            f"The codec '{settings.codec}' needs a file: {AUTOENCODER}:PATH. Give it to `ablate` or `train`."
        )
    return named("codec", settings.codec, CODECS)


def build_small(network: NetworkSettings, diffusion: Diffusion, blur: bool = False) -> Small | None:
    """The small images that the network is trained to enlarge; None where it enlarges none."""
    side = network.told_small
    return None if side is None else Small(side, network.told_levels, diffusion.schedule, blur)


def build_network(
    settings: NetworkSettings, shape: tuple[int, int, int], diffusion: Diffusion, seed: int = 0
) -> nn.Module:
    """The network for x_t of `shape` (C, H, W), initial values drawn from `seed`; the variance decides its outputs."""
    channels, side, _ = shape
    settings.check(side)
    with torch.random.fork_rng(devices=[]):  # the caller's generator stays as it was
        torch.manual_seed(seed)
        return built(settings, channels, channels * diffusion.variance.outputs, side)


def named(axis: str, name: str, known: Mapping[str, Named]) -> Named:
    """What an axis calls so; UserError, with the nearest name, where it has none."""
    if name not in known:
        raise UserError(f"There is no {axis} '{name}'{near_miss(name, known)}")
    return known[name]
