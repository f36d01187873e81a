"""Names become objects: the one place where settings turn into a denoiser, a chain and an objective."""

import re
from collections.abc import Mapping
from dataclasses import fields
from typing import TypeVar

import torch
from torch import nn

from ddpm_bench.config.autoencoder import plain_codec
from ddpm_bench.config.networks import NetworkSettings
from ddpm_bench.config.settings import DiffusionSettings, ProcessSettings, SamplingSettings
from ddpm_bench.data.autoencoders import latents_of
from ddpm_bench.data.codec import CODECS, Codec
from ddpm_bench.data.latents import UNTRAINED
from ddpm_bench.diffusion.objective import OBJECTIVES, Objective
from ddpm_bench.diffusion.parameterization import PARAMETERIZATIONS
from ddpm_bench.diffusion.reverse import Diffusion
from ddpm_bench.diffusion.samplers import SAMPLERS, Sampler
from ddpm_bench.diffusion.schedule import SCHEDULES
from ddpm_bench.diffusion.spacing import SPACINGS, Spacing, kept_steps
from ddpm_bench.diffusion.variance import VARIANCES
from ddpm_bench.errors import UserError, near_miss
from ddpm_bench.networks.built import built

Named = TypeVar("Named")

AUTOENCODER = "autoencoder"
"""The codec of an autoencoder that is given: diffusion.codec = "autoencoder:PATH"."""


def build_diffusion(settings: ProcessSettings) -> Diffusion:
    """The forward and reverse process; UserError for an unknown name."""
    variance = _named(
        "variance", settings.fixed_variance if settings.variance == "fixed" else settings.variance, VARIANCES
    )
    schedule = _named("schedule", settings.schedule, SCHEDULES)(settings.T, *settings.ends)
    if schedule.exploding and variance.outputs != 1:
        raise UserError(
            f"The variance '{variance.name}' does not go with the schedule '{settings.schedule}': it is learned by a variational "
            "bound, and score matching has none. Use a fixed variance."
        )
    return Diffusion(
        schedule.rescaled() if settings.rescale_timesteps else schedule,
        _named("parameterization", settings.parameterization, PARAMETERIZATIONS),
        variance,
    )


def build_objective(settings: DiffusionSettings) -> Objective:
    """What a cell is trained with; UserError for an unknown name, or one that cannot train the diffusion or on such an x_0."""
    objective, codec = _named("objective", settings.objective, OBJECTIVES), build_codec(settings)
    objective.check(build_diffusion(settings))
    if objective.bounds and not codec.lossless:
        raise UserError(
            f"The objective '{objective.name}' does not go with the codec '{codec.name}': it trains a bound, whose decoder is of "
            "pixels on the 256 levels of [-1, 1]. Use the codec 'pixels', or the objective 'L_simple'."
        )
    return objective


def build_codec(settings: ProcessSettings) -> Codec:
    """What the process works on; UserError for an unknown name, and for an autoencoder that is not on this machine."""
    if settings.autoencoder:
        if settings.codec not in (AUTOENCODER, *UNTRAINED):
            raise UserError(f"The codec '{settings.codec}' has no autoencoder; leave diffusion.autoencoder out.")
        return latents_of(settings.autoencoder, settings.codec)
    if plain_codec(settings.codec) == AUTOENCODER:
        raise UserError(
            f"The codec '{settings.codec}' needs a file: {AUTOENCODER}:PATH. Give it to `ablate` or `train`."
        )
    return _named("codec", settings.codec, CODECS)


def build_sampler(settings: SamplingSettings) -> Sampler:
    """How a step of the chain is taken; UserError for an unknown name, and for an option that it has not."""
    kind, asked = _named("sampler", settings.sampler, SAMPLERS), settings.options
    for name, value in asked.items():
        if name not in _options(kind):
            those = ", ".join(other for other, its in SAMPLERS.items() if name in _options(its))
            raise UserError(
                f"The sampler '{settings.sampler}' has no {name}, which is {value} here. Of these it is an option: {those}."
            )
    return kind(**asked)


def _options(kind: type[Sampler]) -> set[str]:
    return {field.name for field in fields(kind)}


def build_spacing(settings: SamplingSettings) -> Spacing:
    """Which steps a strided chain visits; UserError for an unknown name."""
    if re.fullmatch(r"ddim\d+|[\d, ]+", settings.spacing):
        raise UserError(
            f"The spacing '{settings.spacing}' is one of OpenAI's that is not offered: 'openai' is their one section of "
            "evenly spaced steps, and where N divides T their ddimN is 'leading' in N steps. The number goes to --steps."
        )
    return _named("spacing", settings.spacing, SPACINGS)


def strided_steps(settings: SamplingSettings, T: int) -> list[int] | None:
    """The steps of 1..T that a strided chain visits; None for the whole chain. UserError for more steps than T."""
    spacing = build_spacing(settings)
    if settings.steps is None or not settings.strided(T):
        return None
    return kept_steps(T, settings.steps, spacing)


def steps_made(settings: SamplingSettings, T: int) -> int:
    """So many steps are made for a sample: T, or those of `strided_steps`."""
    kept = strided_steps(settings, T)
    return len(kept) if kept else T


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
