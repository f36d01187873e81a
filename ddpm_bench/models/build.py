"""Names become objects: the one place where settings turn into a denoiser, a chain and an objective."""

import re
from collections.abc import Mapping
from typing import TypeVar

import torch
from torch import nn

from ddpm_bench.config.networks import NetworkSettings
from ddpm_bench.config.settings import DiffusionSettings, ProcessSettings, SamplingSettings
from ddpm_bench.data.codec import CODECS, Codec
from ddpm_bench.diffusion.objective import OBJECTIVES, Objective
from ddpm_bench.diffusion.parameterization import PARAMETERIZATIONS
from ddpm_bench.diffusion.reverse import Diffusion
from ddpm_bench.diffusion.samplers import SAMPLERS, Sampler
from ddpm_bench.diffusion.schedule import SCHEDULES
from ddpm_bench.diffusion.spacing import SPACINGS, Spacing
from ddpm_bench.diffusion.variance import VARIANCES
from ddpm_bench.errors import UserError, near_miss
from ddpm_bench.networks.built import built

Named = TypeVar("Named")


def build_diffusion(settings: ProcessSettings) -> Diffusion:
    """The forward and reverse process; UserError for an unknown name."""
    variance = settings.fixed_variance if settings.variance == "fixed" else settings.variance
    schedule = _named("schedule", settings.schedule, SCHEDULES)(settings.T, settings.beta_1, settings.beta_T)
    return Diffusion(
        schedule.rescaled() if settings.rescale_timesteps else schedule,
        _named("parameterization", settings.parameterization, PARAMETERIZATIONS),
        _named("variance", variance, VARIANCES),
    )


def build_objective(settings: DiffusionSettings) -> Objective:
    """What a cell is trained with; UserError for an unknown name, or one that cannot train the variance."""
    objective = _named("objective", settings.objective, OBJECTIVES)
    objective.check(build_diffusion(settings).variance)
    return objective


def build_codec(settings: ProcessSettings) -> Codec:
    """What the process works on; UserError for an unknown name."""
    return _named("codec", settings.codec, CODECS)


def build_sampler(settings: SamplingSettings) -> Sampler:
    """How a step of the chain is taken; UserError for an unknown name."""
    return _named("sampler", settings.sampler, SAMPLERS)


def build_spacing(settings: SamplingSettings) -> Spacing:
    """Which steps a strided chain visits; UserError for an unknown name."""
    if re.fullmatch(r"ddim\d+|[\d, ]+", settings.spacing):
        raise UserError(
            f"The spacing '{settings.spacing}' is one of OpenAI's that is not offered: 'openai' is their one section of "
            "evenly spaced steps, and where N divides T their ddimN is 'leading' in N steps. The number goes to --steps."
        )
    return _named("spacing", settings.spacing, SPACINGS)


def build_network(
    settings: NetworkSettings, shape: tuple[int, int, int], diffusion: Diffusion, seed: int = 0
) -> nn.Module:
    """The network for x_t of `shape` (C, H, W), initial values drawn from `seed`; the variance decides its outputs."""
    channels, side, _ = shape
    settings.check(side)
    with torch.random.fork_rng(devices=[]):  # the caller's generator stays as it was
        torch.manual_seed(seed)
        return built(settings, channels, channels * diffusion.variance.outputs, side)


def _named(axis: str, name: str, known: Mapping[str, Named]) -> Named:
    if name not in known:
        raise UserError(f"There is no {axis} '{name}'{near_miss(name, known)}")
    return known[name]
