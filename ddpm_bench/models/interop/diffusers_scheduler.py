"""scheduler_config.json of diffusers: the process, and how samples are drawn.

Each key is used, refused by name and value, or said and recorded as not used.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from pydantic import ValidationError

from ddpm_bench.config.networks import Settings
from ddpm_bench.config.sampling import SamplingSettings
from ddpm_bench.errors import UserError
from ddpm_bench.models.interop.diffusers_folder import NOTES
from ddpm_bench.models.interop.given import load_json
from ddpm_bench.models.interop.user_says import reasons


class SchedulerConfig(Settings):
    """scheduler_config.json of a DDPMScheduler or a DDIMScheduler: every key with diffusers' default, the process first."""

    num_train_timesteps: int = 1000
    beta_start: float = 1e-4
    beta_end: float = 0.02
    beta_schedule: Literal["linear", "scaled_linear", "squaredcos_cap_v2"] = "linear"
    trained_betas: None = None
    prediction_type: Literal["epsilon", "sample"] = "epsilon"
    predict_epsilon: bool = True  # of old versions
    variance_type: Literal["fixed_small", "fixed_small_log", "fixed_large", "learned_range"] = "fixed_small"
    rescale_betas_zero_snr: Literal[False] = False
    clip_sample: bool = True
    clip_sample_range: float = 1.0
    timestep_spacing: Literal["leading", "linspace", "trailing"] = "leading"
    steps_offset: int = 0
    thresholding: bool = False
    dynamic_thresholding_ratio: float = 0.995  # this and the next are of thresholding alone
    sample_max_value: float = 1.0
    set_alpha_to_one: bool | None = None  # of DDIMScheduler alone
    # Of the first versions: numpy or torch, and a list that nothing read.
    tensor_format: str | None = None
    timestep_values: None = None


SCHEDULES = {"linear": "linear", "scaled_linear": "quadratic", "squaredcos_cap_v2": "cosine"}
VARIANCES = {"fixed_small": "fixed-beta-tilde", "fixed_small_log": "fixed-beta-tilde", "fixed_large": "fixed-beta",
             "learned_range": "learned-range"}  # fmt: skip
CLIPPED = "x_0 is clipped to [-1, 1] or not at all"


@dataclass(frozen=True)
class Scheduler:
    """What a scheduler says: fields of ProcessSettings, how samples are drawn, and what of it is not used."""

    process: Mapping[str, Any] = field(default_factory=dict)
    sampling: SamplingSettings = field(default_factory=SamplingSettings)
    remarks: tuple[str, ...] = ()


def read_scheduler(file: Path | None) -> Scheduler:
    """Nothing of the process where there is none; the variance only from one that has it."""
    if file is None:
        return Scheduler()
    content = load_json(file)
    name = content.get("_class_name", "DDPMScheduler")
    if name not in ("DDPMScheduler", "DDIMScheduler"):
        raise UserError(f"'{file.name}' is of a {name}, which does not tell the process as DDPMScheduler does; "
                        "save the pipeline with the DDPMScheduler that it was trained with.")  # fmt: skip
    try:
        config = SchedulerConfig(**{key: value for key, value in content.items() if key not in NOTES})
    except ValidationError as error:
        raise UserError(f"'{file.name}' describes a process that is not known here: {reasons(error)}. A key that a {name} "
                        "itself does not use can be taken out of the file.") from error  # fmt: skip
    said = {
        "schedule": SCHEDULES[config.beta_schedule], "T": config.num_train_timesteps, "beta_1": config.beta_start,
        "beta_T": config.beta_end,
        "parameterization": "eps" if config.prediction_type == "epsilon" and config.predict_epsilon else "x0",
    }  # fmt: skip
    variance = {"variance": VARIANCES[config.variance_type]} if name == "DDPMScheduler" else {}
    return Scheduler(said | variance, _sampling(config, file), _remarks(config, name))


def _sampling(config: SchedulerConfig, file: Path) -> SamplingSettings:
    """How the scheduler draws samples. UserError for what our chain does not do."""

    def refuse(key: str, remedy: str) -> UserError:
        return UserError(f"'{file.name}' says {key} = {getattr(config, key)}, so its samples are not those of ddpm-bench's "
                         f"chain: {remedy} in a copy of the file to have the model sampled so.")  # fmt: skip

    if config.thresholding:
        raise refuse("thresholding", f"{CLIPPED}; set it to false")
    if config.clip_sample and config.clip_sample_range != 1:
        raise refuse("clip_sample_range", f"{CLIPPED}; set it to 1, or clip_sample to false,")
    if config.steps_offset and config.timestep_spacing == "leading":
        raise refuse("steps_offset", 'spacing "leading" begins with the first step; set it to 0')
    return SamplingSettings(spacing=config.timestep_spacing, clip_x0=config.clip_sample)


def _remarks(config: SchedulerConfig, name: str) -> tuple[str, ...]:
    """What is not used; of a DDIMScheduler the process, the clipping and the spacing are."""
    keys = ("set_alpha_to_one", "variance_type") if name == "DDIMScheduler" else ("set_alpha_to_one",)
    told = [f"{key} = {getattr(config, key)}" for key in keys if key in config.model_fields_set]
    if name == "DDIMScheduler":
        told = ["the chain without noise (eta = 0): samples are drawn by the ancestral chain", *told]
    return (f"not used of the {name}: {', '.join(told)}",) if told else ()
