"""Options of several commands turned into what the commands work with. Imported inside commands: it needs torch."""

from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Literal, TypeVar

import torch
from pydantic import ValidationError

from ddpm_bench.cli.sampling_options import SamplingOptions
from ddpm_bench.config.networks import Settings
from ddpm_bench.config.sampling import OF_SAMPLERS, SamplingSettings
from ddpm_bench.config.settings import CellSettings
from ddpm_bench.config.values import first_fault
from ddpm_bench.data.images import ImageData
from ddpm_bench.diffusion.spacing import visited
from ddpm_bench.errors import UserError
from ddpm_bench.experiment.job import Job
from ddpm_bench.metrics.extractors import Extractor, load_extractor
from ddpm_bench.models.build import build_codec, build_diffusion, build_network
from ddpm_bench.models.build_sampling import build_sampler
from ddpm_bench.models.classifiers import keep_file
from ddpm_bench.models.model import Model
from ddpm_bench.runtime import ranks
from ddpm_bench.runtime.device import choose_device
from ddpm_bench.runtime.observer import say, say_once
from ddpm_bench.runtime.precision import Choice, faster, settled
from ddpm_bench.runtime.runtime import Runtime

Wanted = Literal["float32", "bfloat16", "auto"] | None
"""--precision; None: as networks compute on the device."""
Section = TypeVar("Section", bound=Settings)


def section(kind: type[Section], values: Mapping[str, object]) -> Section:
    """The settings that options stand for; UserError for a value that they cannot have."""
    try:
        return kind.model_validate(values)
    except ValidationError as error:
        raise UserError(f"What was asked for cannot be: {first_fault(error)}.") from error


def device_runtime(
    device: str | torch.device, cache: Path | None = None, batch: int | None = None, compiled: bool = False,
    keep: int = 2, precision: Wanted = None,
) -> Runtime:  # fmt: skip
    """The runtime on the device of that name, which is set up; UserError when it is not there. One that is no name is another
    machine's, and taken as it is.

    precision: where it is `auto`, the network at hand decides: see `for_training` and `for_model`.
    """
    if isinstance(device, str):
        device = choose_device(device, compiled)
        ranks.check_device(device)
    return Runtime(
        device, cache and cache.expanduser(), batch, None if precision == "auto" else precision, compiled, keep
    )


def for_training(runtime: Runtime, precision: Wanted, job: Job, data: ImageData, kept: Path | None) -> Runtime:
    """With `auto` in the precision that a training step of the job is faster in, or that the file `kept` has from before."""
    if precision != "auto":
        return runtime
    diffusion, codec = build_diffusion(job.settings.diffusion), build_codec(job.settings.diffusion)
    shape = codec.shape(data.shape)

    def choose() -> Choice:
        network = build_network(job.settings.network, shape, diffusion, job.seed)
        return faster(
            network,
            shape,
            job.settings.training.batch,
            runtime.device,
            training=True,
            settings=job.settings.network,
        )

    return replace(runtime, precision=settled(choose, kept))


def for_model(runtime: Runtime, precision: Wanted, model: Model, results: Path | None = None) -> Runtime:
    """With `auto` in the precision that the model predicts faster in, or predicted for its rows in the folder `results`."""
    if precision != "auto":
        return runtime
    network, shape = model.network, build_codec(model.process).shape(model.shape)
    batch = runtime.network_batch(shape[-1])
    kept = results and results / "work" / f"precision-{model.weights_sha256[:8]}.json"

    def choose() -> Choice:
        return faster(network, shape, batch, runtime.device, training=False, settings=model.network_settings)

    return replace(runtime, precision=settled(choose, kept))


def on_gpus(gpus: int | None, device: torch.device) -> AbstractContextManager[None]:
    """The ranks that `--gpus` asks for, where it does, while the block runs. UserError for more than there are."""
    if gpus is None:
        return nullcontext()
    found = torch.cuda.device_count()
    if device.type != "cuda":
        raise UserError(
            f"--gpus {gpus}: the device is '{device.type}'. Leave it out, or start ranks on a CPU with torchrun: "
            "`torchrun --nproc-per-node N -m ddpm_bench ...`."
        )
    if gpus > found:
        raise UserError(f"--gpus {gpus}: torch finds {found} on this machine. Use --gpus {found}.")
    return ranks.started(gpus) if gpus > 1 else nullcontext()


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


def asked_of(options: SamplingOptions) -> dict[str, object]:
    """What is asked for by the names of the settings; a classifier that is given lies in the store from now on."""
    return options.asked | {"classifier": options.classifier and keep_file(options.classifier)}


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
