"""Names become objects: the one place where a cell's settings turn into a diffusion, an objective and a network."""

from collections.abc import Mapping
from typing import TypeVar

import torch

from ddpm_bench.diffusion.objective import OBJECTIVES, Objective
from ddpm_bench.diffusion.parameterization import PARAMETERIZATIONS
from ddpm_bench.diffusion.reverse import Diffusion
from ddpm_bench.diffusion.schedule import SCHEDULES
from ddpm_bench.diffusion.variance import VARIANCES
from ddpm_bench.errors import UserError, near_miss
from ddpm_bench.network.unet import UNet
from ddpm_bench.settings import CellSettings, DiffusionSettings

Named = TypeVar("Named")


def build_diffusion(settings: DiffusionSettings) -> tuple[Diffusion, Objective]:
    """The forward and reverse process of a cell, and what it is trained with.

    UserError for an unknown name, or for an objective that cannot train the variance.
    """
    variance = settings.fixed_variance if settings.variance == "fixed" else settings.variance
    schedule = _named("schedule", settings.schedule, SCHEDULES)(settings.T, settings.beta_1, settings.beta_T)
    diffusion = Diffusion(
        schedule,
        _named("parameterization", settings.parameterization, PARAMETERIZATIONS),
        _named("variance", variance, VARIANCES),
    )
    objective = _named("objective", settings.objective, OBJECTIVES)
    objective.check(diffusion.variance)
    return diffusion, objective


def build_network(settings: CellSettings, channels: int, diffusion: Diffusion, seed: int) -> UNet:
    """The cell's U-Net with initial values drawn from `seed`; the variance says how many output channels it needs."""
    torch.manual_seed(seed)
    return UNet(channels, channels * diffusion.variance.outputs, settings.data.size, settings.network)


def _named(axis: str, name: str, known: Mapping[str, Named]) -> Named:
    if name not in known:
        raise UserError(f"There is no {axis} '{name}'{near_miss(name, known)}")
    return known[name]
