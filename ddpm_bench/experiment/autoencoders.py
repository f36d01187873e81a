"""The autoencoders of jobs: settings say which by its hash, before anything is trained, sampled or looked up.

    autoencoder:PATH    a file of `ddpm-bench autoencoder train`, or a folder of diffusers' AutoencoderKL
    kl-f2, ...          trained on the job's own images when it is first needed, and kept (`config/autoencoders.py`)

A model's weights depend on it, so it is there before its hash is asked for, unlike a classifier (`classifiers.py`). On a CPU the same
images, settings and number of threads give the same weights; on another machine they may not, and then the hash differs.
"""

import hashlib
import json
import math
from collections.abc import Mapping, Sequence

from ddpm_bench.config.autoencoders import ON_DEMAND
from ddpm_bench.config.settings import CellSettings
from ddpm_bench.data.autoencoders import keep, store, stored
from ddpm_bench.data.images import ImageData
from ddpm_bench.errors import UserError
from ddpm_bench.experiment.job import Job
from ddpm_bench.models.build import build_codec
from ddpm_bench.models.interop.autoencoder_kl import given_codec
from ddpm_bench.runtime.observer import about, say, say_once
from ddpm_bench.runtime.owner import owned
from ddpm_bench.runtime.runtime import Runtime
from ddpm_bench.sealed import read_sealed, write_sealed
from ddpm_bench.training.autoencoder import train_autoencoder


def with_given_autoencoder(settings: CellSettings) -> CellSettings:
    """The settings, with the hash of the autoencoder that they give by its path, which lies in the store from now on."""
    codec = given_codec(settings.diffusion.codec)
    return _with(settings, codec) if "autoencoder" in codec else settings


def with_autoencoders(jobs: Sequence[Job], data: ImageData, runtime: Runtime, for_timing: bool = False) -> list[Job]:
    """The jobs, with the hashes of autoencoders that are trained on their images; each is trained once. `for_timing`: for a single
    step, which is said, since others of the same shape take as long.

    UserError for images that a codec does not take, and latents that a network does not. Raises Interrupted: what is finished is kept.
    """

    def trained(settings: CellSettings) -> CellSettings:
        return _trained(settings, data, runtime, for_timing)

    made = [job.with_settings(trained) for job in jobs]
    for job in made:
        if job.settings.diffusion.codec != "pixels":
            codec, network = build_codec(job.settings.diffusion), job.settings.network
            if codec.random and network.told_small:
                raise UserError(
                    f"network.small = {network.told_small} is of a network of pixels, and the codec '{codec.name}' makes latents. Leave "
                    "one of them out."
                )
            network.check(codec.shape(data.shape)[1])
    return made


def _trained(settings: CellSettings, data: ImageData, runtime: Runtime, for_timing: bool) -> CellSettings:
    """The settings, with the hash of the autoencoder that their codec's name stands for, where it stands for one."""
    name, given = settings.diffusion.codec, settings.diffusion.autoencoder
    if given or name not in ON_DEMAND:
        return settings
    build_codec(settings.diffusion).shape(data.shape)  # refused, if at all, before it is trained
    training = ON_DEMAND[name]
    if for_timing:
        say_once("Autoencoders that are trained when they are first needed are not counted.")
        training = training.model_copy(update={"steps": 1})
    of = {"training": training.model_dump(mode="json"), "data_sha256": data.sha256, "device": runtime.device.type}
    key = hashlib.sha256(json.dumps(of, sort_keys=True).encode()).hexdigest()
    kept = store() / f"trained-{key}.json"
    with owned(store(), math.inf, key):  # of two processes that want the same, one trains it
        found = read_sealed(kept)
        if found is None or not stored(found["sha256"]).exists():
            with about(name):
                content, card = train_autoencoder(data, training, runtime)
            quality = card.reconstruction
            found = {"sha256": keep(content), "card": card.model_dump(mode="json")}
            write_sealed(kept, found)
            say(
                f"{name}: trained for {training.steps:,} steps on '{data.name}' in {card.wall_time_s:g} s: PSNR "
                f"{quality.psnr:.1f} dB on test images, scale {card.scale:.4g}; kept as {stored(card.sha256)}"
            )
    return _with(settings, {"codec": name, "autoencoder": found["sha256"]})


def _with(settings: CellSettings, codec: Mapping[str, str]) -> CellSettings:
    diffusion = settings.diffusion.model_copy(update=codec)
    return settings.model_copy(update={"diffusion": diffusion})
