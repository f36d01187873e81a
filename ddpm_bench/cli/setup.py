"""Options of several commands turned into what the commands work with. Imported inside commands: it needs torch."""

from collections.abc import Mapping
from pathlib import Path
from typing import TypeVar

import torch
from pydantic import ValidationError

from ddpm_bench.config.networks import Settings
from ddpm_bench.config.settings import OF_SAMPLERS, CellSettings, SamplingSettings
from ddpm_bench.config.values import first_fault
from ddpm_bench.diffusion.spacing import visited
from ddpm_bench.errors import UserError
from ddpm_bench.metrics.extractors import Extractor, load_extractor
from ddpm_bench.models.build import build_sampler
from ddpm_bench.models.model import Model
from ddpm_bench.runtime.device import choose_device
from ddpm_bench.runtime.observer import say, say_once
from ddpm_bench.runtime.runtime import Runtime

Section = TypeVar("Section", bound=Settings)


def section(kind: type[Section], values: Mapping[str, object]) -> Section:
    """The settings that options stand for; UserError for a value that they cannot have."""
    try:
        return kind.model_validate(values)
    except ValidationError as error:
        raise UserError(f"What was asked for cannot be: {first_fault(error)}.") from error


def device_runtime(
    device: str | torch.device,
    cache: Path | None = None,
    batch: int | None = None,
    compiled: bool = False,
    keep: int = 2,
) -> Runtime:
    """The runtime on the device of that name, which is set up; UserError when it is not there. One that is no name is another
    machine's, and taken as it is."""
    cache = cache and cache.expanduser()
    found = choose_device(device, compiled) if isinstance(device, str) else device
    return Runtime(found, cache, batch, compiled=compiled, keep=keep)


def sampling_wish(model: Model, count: int, asked: Mapping[str, object]) -> SamplingSettings:
    """As the checkpoint says it is sampled, where `asked`, by the names of the settings, says nothing else.

    Another sampler than its own comes without the options of that, and clips x_0 as its source does. Says which steps a
    strided chain visits, and what the sampler does not use or does otherwise than its source.
    """
    own, wished = model.sampling.model_dump(), {name: value for name, value in asked.items() if value is not None}
    if wished.get("sampler", own["sampler"]) != own["sampler"]:
        sampler = build_sampler(SamplingSettings(sampler=str(wished["sampler"])))
        own |= dict.fromkeys(OF_SAMPLERS) | {"clip_x0": sampler.clips}
    wish = section(SamplingSettings, own | wished | {"samples": count})
    model.chain(wish)  # refused before anything is said
    if (kept := model.kept_steps(wish)) and wish.steps:
        say(visited(kept, model.T, wish.spacing, wish.steps))
    elif (spacing := wished.get("spacing")) is not None:
        raise _nothing_to_choose(spacing, model.T)
    for remark in model.sampling_remarks(wish):
        say_once(remark)
    return wish


def strided(model: Model, steps: int, spacing: str | None) -> tuple[int, ...] | None:
    """The steps that a strided chain visits, which are said; None for all, of which a spacing has nothing to choose.

    UserError for that, and for more steps than the model has.
    """
    wish = section(SamplingSettings, {"steps": steps, "spacing": spacing or model.sampling.spacing})
    kept = model.kept_steps(wish)
    if kept:
        say(visited(kept, model.T, wish.spacing, steps))
    elif spacing is not None:
        raise _nothing_to_choose(spacing, model.T)
    return tuple(kept) if kept else None


def _nothing_to_choose(spacing: object, T: int) -> UserError:
    return UserError(
        f"--spacing {spacing} chooses among the {T:,} steps of the checkpoint's chain, but all of them are visited; give fewer "
        "--steps, or leave it out."
    )


def extractor_of(settings: CellSettings, weights: Path | None, allow_unverified: bool, cache: Path) -> Extractor:
    """The extractor that the settings name, for images of their size."""
    return load_extractor(
        settings.scoring.extractor, size=settings.data.size, inception_weights=weights,
        allow_unverified=allow_unverified, cache=cache,
    )  # fmt: skip
