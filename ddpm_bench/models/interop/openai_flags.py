"""The flags of OpenAI's scripts: as their READMEs print them, for the files that they published, and what they mean.

improved-diffusion and guided-diffusion share them; guided-diffusion has a few more, and another default of
--rescale_timesteps, which only matters where --diffusion_steps is not 1000.
"""

import re
import shlex
from typing import Any, Literal

from pydantic import Field, ValidationError

from ddpm_bench.config.networks import Settings
from ddpm_bench.errors import UserError, near_miss
from ddpm_bench.models.interop.user_says import reasons
from ddpm_bench.models.model import Kind

IMPROVED = (
    "--num_channels 128 --num_res_blocks 3 --learn_sigma True --diffusion_steps 4000 --noise_schedule cosine "
    "--rescale_timesteps True"
)
BEDROOM = (
    "--image_size 256 --num_channels 128 --num_res_blocks 2 --num_heads 1 --learn_sigma True "
    "--use_scale_shift_norm False --attention_resolutions 16 --diffusion_steps 1000 --noise_schedule linear "
    "--rescale_timesteps False"
)
ADM = (
    "--attention_resolutions 32,16,8 --learn_sigma True --use_scale_shift_norm True --resblock_updown True "
    "--diffusion_steps 1000"
)
GUIDED = f"--image_size 256 --num_channels 256 --num_res_blocks 2 --num_head_channels 64 --noise_schedule linear {ADM}"
PUBLISHED = {
    "cifar10_uncond_50M_500K.pt": f"--image_size 32 {IMPROVED}",
    "cifar10_uncond_vlb_50M_500K.pt": f"--image_size 32 {IMPROVED}",
    "imagenet64_uncond_100M_1500K.pt": f"--image_size 64 {IMPROVED}",
    "imagenet64_uncond_vlb_100M_1500K.pt": f"--image_size 64 {IMPROVED}",
    "lsun_uncond_100M_1200K_bs128.pt": BEDROOM,
    "lsun_uncond_100M_2400K_bs64.pt": BEDROOM,
    "imagenet64_cond_270M_250K.pt": (
        "--image_size 64 --num_channels 192 --num_res_blocks 3 --learn_sigma True --class_cond True --diffusion_steps 4000 "
        "--noise_schedule cosine --rescale_timesteps False"
    ),
    "64x64_diffusion.pt": (
        "--image_size 64 --num_channels 192 --num_res_blocks 3 --num_head_channels 64 --use_new_attention_order True "
        "--noise_schedule cosine --class_cond True " + ADM
    ),
    "128x128_diffusion.pt": (
        "--image_size 128 --num_channels 256 --num_res_blocks 2 --num_heads 4 --noise_schedule linear --class_cond True "
        + ADM
    ),
    "256x256_diffusion.pt": f"{GUIDED} --class_cond True",
    "256x256_diffusion_uncond.pt": GUIDED,
    "lsun_bedroom.pt": GUIDED,
    "lsun_cat.pt": GUIDED,
    "lsun_horse.pt": GUIDED,
    "lsun_horse_nodropout.pt": GUIDED,
}
"""The files that were published, with the flags of the READMEs; that of 512x512, whose first multiplier is 0.5, is not supported."""

MULTIPLIERS = {
    32: "1,2,2,2", 64: "1,2,3,4", 128: "1,1,2,3,4", 256: "1,1,2,2,4,4", 512: "0.5,1,1,2,2,4,4",
}  # fmt: skip
"""What --image_size means for the widths where --channel_mult is not given."""

GUIDED_ONLY = {"num_head_channels", "resblock_updown", "use_new_attention_order"}
TRAINING = {
    "dropout", "use_checkpoint", "use_fp16", "use_kl", "rescale_learned_sigmas", "lr", "weight_decay", "lr_anneal_steps",
    "microbatch", "ema_rate", "log_interval", "save_interval", "resume_checkpoint", "fp16_scale_growth", "schedule_sampler",
    "data_dir",
}  # fmt: skip
"""Flags of their scripts that change neither a trained network nor what it predicts."""
SAMPLING = {
    "use_ddim": "`sample` and `evaluate` take DDPM's ancestral steps",
    "clip_denoised": "give --clip or --no-clip to `sample` and `evaluate`",
    "num_samples": "give --samples to `sample`, --count to `evaluate`",
    "batch_size": "give --batch to `sample` and `evaluate`",
    "model_path": "the file is what is given to `import`",
}
"""Flags of how they sample, and what says the same here."""
RESPACING = "timestep_respacing"
"""The one of these whose value decides what does."""
KNOWN = {*TRAINING, *SAMPLING, RESPACING}


class Flags(Settings):
    """Their flags with their defaults; None where the tensors tell, or where it depends on the repository."""

    image_size: int = 64
    num_channels: int | None = None
    num_res_blocks: int | None = None
    channel_mult: str | None = None
    attention_resolutions: str | None = None
    learn_sigma: bool | None = None
    use_scale_shift_norm: bool | None = None
    resblock_updown: bool | None = None
    class_cond: bool | None = None
    num_heads: int = 4
    num_heads_upsample: int = -1
    num_head_channels: int = -1
    use_new_attention_order: bool = False
    diffusion_steps: int = Field(1000, ge=2, le=100_000)
    noise_schedule: Literal["linear", "cosine"] = "linear"
    sigma_small: bool = False
    predict_xstart: bool = False
    rescale_timesteps: bool | None = None


def read_flags(given: str | None, file: str, where: str) -> Flags:
    """The flags given, or those published for a file of that name. UserError for neither, or for what is not scored."""
    text = given if given is not None else PUBLISHED.get(file)
    if text is None:
        raise UserError(
            f"{where} does not say how it was trained, and its name is none that OpenAI published; give the flags of "
            'its training, as --flags "--image_size 32 --diffusion_steps 4000 --noise_schedule cosine ..."; '
            "those left out take the defaults of OpenAI's scripts."
        )
    try:
        flags = Flags(**parse(text))
    except ValidationError as error:
        raise UserError(f"--flags: {reasons(error)}.") from error
    if flags.num_head_channels == -1 and flags.num_heads_upsample not in (-1, flags.num_heads):
        raise UserError(f"--num_heads_upsample {flags.num_heads_upsample} is not --num_heads {flags.num_heads}: "
                        "ddpm-bench has one number of heads for a whole network.")  # fmt: skip
    return flags


def parse(text: str) -> dict[str, str]:
    """`--a 1 --b=2` -> {"a": "1", "b": "2"}, without those that `not_used` tells of."""
    return {name: value for name, value in _pairs(text).items() if name in Flags.model_fields}


def not_used(text: str) -> tuple[str, ...]:
    """Remarks on the flags that say nothing of a trained network, and what to give instead."""
    given = _pairs(text)
    sampling = dict(SAMPLING)
    if "lr" in given:  # the flags of a training, whose batch it is
        del sampling["batch_size"]
    about = [f"--{name}" for name in given if name in TRAINING or (name == "batch_size" and name not in sampling)]
    if respaced := given.get(RESPACING):
        sampling[RESPACING] = _steps(respaced)
    training = [f"{', '.join(about)} of --flags tell of training alone and are not used"] if about else []
    return (
        *(f"--{name} {given[name]} of --flags is not used: {sampling[name]}" for name in given if name in sampling),
        *training,
    )


def _steps(respaced: str) -> str:
    """What visits the steps of --timestep_respacing."""
    if respaced.isdecimal():
        return f"give --steps {respaced} to `sample` and `evaluate`, which visit the same steps"
    if respaced.startswith("ddim"):
        count = respaced.removeprefix("ddim")
        return f"--steps {count} --spacing leading visits the same steps where {count} divides their number"
    return "sections of different strides cannot be had"


def _pairs(text: str) -> dict[str, str]:
    """Every flag; as in their scripts the last counts of one given twice. UserError for what is no pair or no flag."""
    try:
        words = [part for word in shlex.split(text) for part in word.split("=", 1 if word.startswith("--") else 0)]
    except ValueError as error:
        raise UserError(f"--flags '{text}' cannot be read: {error}.") from error
    names, values = words[::2], words[1::2]
    if len(words) % 2 or not all(name.startswith("--") for name in names):
        raise UserError(f"--flags '{text}' must be pairs of --name value, as OpenAI's READMEs print them.")
    found = {name.removeprefix("--"): value for name, value in zip(names, values, strict=True)}
    for name in found:
        if name not in Flags.model_fields and name not in KNOWN:
            raise UserError(f"--flags: there is no flag '--{name}'{near_miss(name, Flags.model_fields)}")
    return found


def process(flags: Flags, learned: bool, guided: bool) -> dict[str, Any]:
    """Fields of ProcessSettings (their `create_gaussian_diffusion`). learned: the network gives a variance too.

    guided: the network has what only guided-diffusion has.
    """
    T = flags.diffusion_steps
    rescale = flags.rescale_timesteps
    if rescale is None and T != 1000 and not (guided or GUIDED_ONLY & flags.model_fields_set):
        raise UserError(f"--diffusion_steps {T} needs --rescale_timesteps in --flags: by default it is True in "
                        "improved-diffusion and False in guided-diffusion.")  # fmt: skip
    # betas of T = 1000 times 1000 / T, so that the whole chain adds about the same noise
    betas = {"beta_1": 0.1 / T, "beta_T": 20 / T} if flags.noise_schedule == "linear" and T > 0 else {}
    fixed = "fixed-beta-tilde" if flags.sigma_small else "fixed-beta"
    return betas | {
        "schedule": flags.noise_schedule, "T": T, "parameterization": "x0" if flags.predict_xstart else "eps",
        "variance": "learned-range" if learned else fixed, "rescale_timesteps": bool(rescale) and T != 1000,
    }  # fmt: skip


def weights_and_step(file: str) -> tuple[Kind, int | None]:
    """What their training script's file names tell: ema_0.9999_200000.pt, model200000.pt; published: ..._500K.pt."""
    if match := re.fullmatch(r"ema_[\d.]+_(\d+)\.\w+", file):
        return "ema", int(match[1])
    if match := re.fullmatch(r"model(\d+)\.\w+", file):
        return "raw", int(match[1])
    thousands = re.search(r"_(\d+)K(?=[_.])", file)
    return "unknown", int(thousands[1]) * 1000 if thousands and file in PUBLISHED else None
