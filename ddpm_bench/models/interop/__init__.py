"""Checkpoints of other people, converted once into folders that `--ckpt` takes.

    given.py          what was given: a file, a folder or a hub id; reads weights without executing anything
    wrapped.py        the state dict inside what a training script saved around it
    user_says.py      what the person says of it, against what the checkpoint says of itself
    convert.py        a state dict of theirs, by a table of names, into one of ours
    diffusers.py (with diffusers_folder.py, diffusers_scheduler.py, diffusers_dit.py and autoencoder_kl.py), openai.py
                      (with openai_flags.py), pytorch_ddpm.py, ddim.py, dit.py: a format each
    openai_classifier.py  classifiers that guide, by `ddpm-bench classifier import`
    others.py         what is known and not taken, and why

A format says whether it recognises a source, and reads one; one more is one file and one entry in FORMATS.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from pydantic import ValidationError

from ddpm_bench.config.settings import ProcessSettings
from ddpm_bench.errors import UserError, near_miss
from ddpm_bench.files import sha256_file
from ddpm_bench.models.build import build_codec, build_diffusion, build_network
from ddpm_bench.models.interop import ddim, diffusers, dit, openai, pytorch_ddpm
from ddpm_bench.models.interop.autoencoder_kl import given_codec
from ddpm_bench.models.interop.convert import Found
from ddpm_bench.models.interop.given import Given, check_filled
from ddpm_bench.models.interop.others import check_known
from ddpm_bench.models.interop.user_says import UserSays, reasons
from ddpm_bench.models.model import save_model
from ddpm_bench.models.model_card import KINDS, ModelCard
from ddpm_bench.networks.weights import outline

__all__ = ["FORMATS", "UserSays", "describe", "import_checkpoint"]


@dataclass(frozen=True)
class Format:
    """How a format is told from others, and read. UserErrors of `read` say what does not fit and the likely cause.

    of_latents: its networks may be of what a codec makes of images.
    """

    recognises: Callable[[Given], bool]
    read: Callable[[Given, UserSays], Found]
    of_latents: bool = False


FORMATS: dict[str, Format] = {
    "diffusers": Format(diffusers.recognises, diffusers.read),
    "openai": Format(openai.recognises, openai.read),
    "pytorch-ddpm": Format(pytorch_ddpm.recognises, pytorch_ddpm.read),
    "ddim": Format(ddim.recognises, ddim.read),
    "dit": Format(dit.recognises, dit.read, of_latents=True),
}


def import_checkpoint(
    given: str, out: Path, asked: UserSays, format: str | None = None, name: str | None = None
) -> ModelCard:
    """Convert the file, folder or hub id `given` into the folder `out`; returns the card that lies in it.

    format: a name in FORMATS; None recognises it. name: the model's name in results [default: that of the source].
    UserError when it cannot be read, cannot be expressed, or is not what was said of it; then nothing is written.
    """
    source = Given(given)
    format = format or _recognise(source)
    if format not in FORMATS:
        raise UserError(f"There is no format '{format}'{near_miss(format, FORMATS)}")
    if not FORMATS[format].recognises(source):
        check_known(source)
    if source.path.is_dir() and format != "diffusers":
        raise UserError(f"'{given}' is a folder, and the format {format} is one of files: give the file.")
    if "codec" in asked.process and not FORMATS[format].of_latents:
        raise UserError(f"--codec is of networks of latents, and the format {format} is one of images. Leave it out.")
    if "codec" in asked.process:
        asked = replace(asked, process={**asked.process, **given_codec(asked.process["codec"])})
    try:
        found = FORMATS[format].read(source, asked)
        card = ModelCard(
            name=name or source.name, weights=found.weights, step=found.step, shape=found.shape, process=found.process,
            network=found.network, sampling=found.sampling, remarks=found.remarks,
            source={"format": format, "path": source.label, "sha256": sha256_file(found.file)},
        )  # fmt: skip
    except ValidationError as error:
        raise UserError(f"'{given}' says of itself what ddpm-bench cannot express: {reasons(error)}.") from error
    check_filled(found.state.values(), f"'{given}'")
    return save_model(out, card, found.state)


def describe(card: ModelCard) -> Sequence[str]:
    """Lines saying what was recognised and how it will be scored."""
    process, network = card.process, card.network
    (channels, size, _), codec = card.shape, build_codec(process)
    inputs, side, _ = codec.shape(card.shape)
    diffusion = build_diffusion(process)
    with outline():
        built = build_network(network, (inputs, side, side), diffusion)
    parameters = sum(p.numel() for p in built.parameters())
    betas = "" if process.schedule == "cosine" else f" from {process.beta_1:g} to {process.beta_T:g}"
    told = f"t * 1000 / {process.T}" if process.rescale_timesteps else "t"
    return (
        f"{card.name}: {card.source['format']}, {parameters:,} parameters, images {channels}x{size}x{size}",
        f"network: {network.in_words}",
        f"process: {process.schedule}{betas}, T = {process.T}, predicts {process.parameterization}, "
        f"variance {process.variance}, the network is told {told} for t = 0..{process.T - 1}",
        *([f"x_0: {inputs}x{side}x{side} by the codec {_named(process)}"] if process.codec != "pixels" else []),
        f"sampling: {card.sampling.sampler}, x_0 {'clipped to [-1, 1]' if card.sampling.clip_x0 else 'not clipped'}, "
        f"all steps; fewer (--steps) are spaced as '{card.sampling.spacing}'",
        f"weights: {KINDS[card.weights]}" + (f", step {card.step:,}" if card.step is not None else ", step not known"),
        *card.remarks,
    )


def _recognise(source: Given) -> str:
    for name, each in FORMATS.items():
        if each.recognises(source):
            return name
    check_known(source)
    raise UserError(
        f"'{source.given}' is of no format that is known here ({', '.join(FORMATS)}): "
        f"{source.summary()}. Give --format where it is one of them all the same."
    )


def _named(process: ProcessSettings) -> str:
    """The codec by name, and which autoencoder it is of."""
    return process.codec + (f", SHA-256 {process.autoencoder}" if process.autoencoder else "")
