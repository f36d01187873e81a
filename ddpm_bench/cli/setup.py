"""Options of several commands turned into what the commands work with. Imported inside commands: it needs torch."""

from pathlib import Path

from ddpm_bench.config.settings import SamplingSettings
from ddpm_bench.models.model import Model
from ddpm_bench.runtime.device import choose_device
from ddpm_bench.runtime.runtime import Runtime


def device_runtime(
    device: str, cache: Path | None = None, batch: int | None = None, compiled: bool = False, keep: int = 2
) -> Runtime:
    """The runtime on the device of that name, which is set up. UserError when it is not there."""
    cache = cache and cache.expanduser()
    return Runtime(choose_device(device, compiled), cache, batch, compiled=compiled, keep=keep)


def sampling_wish(model: Model, count: int, steps: int | None, clip: bool | None) -> SamplingSettings:
    """As the checkpoint says it is sampled, where the options say nothing else."""
    asked = {"samples": count, "steps": steps, "clip_x0": clip}
    return model.sampling.model_copy(update={name: value for name, value in asked.items() if value is not None})
