"""Samples on the disk: kept in uint8 shards, so that 50,000 of them can be interrupted and go on, and are never held in float."""

import shutil
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ddpm_bench.config.networks import network_settings
from ddpm_bench.config.sampling import EVEN, SamplingSettings
from ddpm_bench.data import write_images
from ddpm_bench.diffusion.noise import batches
from ddpm_bench.diffusion.samplers import sample
from ddpm_bench.files import check_free, in_a_row, keyed_folder
from ddpm_bench.models.build_sampling import sampling_options
from ddpm_bench.models.model import Model
from ddpm_bench.runtime import ranks
from ddpm_bench.runtime.observer import say
from ddpm_bench.runtime.owner import owned
from ddpm_bench.runtime.runtime import Runtime
from ddpm_bench.sealed import read_arrays, write_arrays

IMAGES = "images"
"""The array in a shard."""


def samples_depend_on(
    function: Mapping[str, Any], sampling: SamplingSettings, seed: int, runtime: Runtime
) -> dict[str, Any]:
    """JSON values: all that samples depend on; each one depends on its index beside, so their number is not among it,
    unless a sampler's norms are over the batch.

    function: see `Model.function`. A CPU and a GPU draw other noise.
    """
    T = function["process"]["T"]
    chain: dict[str, Any] = {"sampler": sampling.sampler, "steps": sampling.steps or T, "clip_x0": sampling.clip_x0}
    if (spacing := sampling.spacing_of(T)) != EVEN:
        chain["spacing"] = spacing  # the default stays unnamed, so that what is kept already is found
    chain |= sampling_options(sampling, network_settings(function["network"]))
    if sampling.corrector_norm == "batch":
        chain |= {"batch": runtime.network_batch(function["shape"][1]), "samples": sampling.samples}
    return {**function, "sampling": chain, "seed": seed, **runtime.arithmetic}


def draw_samples(model: Model, sampling: SamplingSettings, seed: int, runtime: Runtime, folder: Path) -> Tensor:
    """`sampling.samples` samples, uint8 (N, C, H, W) on the CPU; those that `folder` holds already are not made again.

    Of several ranks each writes its own; whatever lies beyond the first that is missing is made again.
    """
    count, chain = sampling.samples, model.chain(sampling)
    kept = keyed_folder(folder, "samples", samples_depend_on(model.function, sampling, seed, runtime))
    done = sum(len(shard) for shard in _shards(kept))
    if 0 < done < count:
        say(f"Going on after {done} of {count} samples in '{kept}'")
    if done < count:
        # Decided once: the memory that is free differs from rank to rank.
        most = runtime.network_batch(chain.denoiser.shape[1])
        batch = most if sampling.corrector_norm == "batch" else ranks.batch_for(count - done, most)
        ranks.together(_draw, model, sampling, seed, replace(runtime, batch=batch), kept, done)
        ends = ((done + start, done + start + size) for start, size in batches(count - done, batch))
        ranks.check_seen(_path(kept, start, end) for start, end in ends)
    found = torch.empty((count, *model.shape), dtype=torch.uint8)
    filled = 0
    for pixels in _shards(kept):
        part = pixels[: count - filled]
        found[filled : filled + len(part)] = torch.from_numpy(part)
        filled += len(part)
    if filled < count:
        raise RuntimeError(
            f"'{kept}' holds {filled} samples in a row where {count} were written; remove it, and they are made again"
        )
    return found


def _draw(model: Model, sampling: SamplingSettings, seed: int, runtime: Runtime, kept: Path, done: int) -> None:
    """This rank's samples, from number `done` on, into the folder `kept`."""
    model.place(runtime)
    for start, images in sample(
        model.chain(sampling), count=sampling.samples - done, seed=seed, first=done, runtime=runtime
    ):
        write_arrays(_path(kept, start, start + len(images)), {IMAGES: images.numpy()})


def write_samples(model: Model, sampling: SamplingSettings, seed: int, runtime: Runtime, out: Path) -> dict[str, Any]:
    """Write samples to `out`, PNG files in a folder or an .npz; interrupted, the same call goes on.

    Returns what they are, as JSON values. UserError when `out` exists already: nothing is overwritten.
    """
    check_free(out)
    partial = out.with_name(out.name + ".partial")
    with owned(partial):
        check_free(out)  # another command may have been here
        images = draw_samples(model, sampling, seed, runtime, partial)
        labels = model.chain(sampling).labels
        write_images(out, images, labels.at(0, len(images)) if labels else None)
        shutil.rmtree(partial)
    return {"samples": len(images), "out": str(out)} | described(model, sampling, seed)


def described(model: Model, sampling: SamplingSettings, seed: int) -> dict[str, Any]:
    """JSON values: which model drew something, and how; of a strided chain which steps, counted from 1."""
    kept, chain, remarks = model.kept_steps(sampling), model.chain(sampling), model.sampling_remarks(sampling)
    strided = {"spacing": sampling.spacing, "kept_steps": kept} if kept else {}
    return {
        "checkpoint": model.name,
        "weights": model.weights,
        "weights_sha256": model.weights_sha256,
        "step": model.step,
        "T": model.T,
        "sampler": sampling.sampler,
        **model.sampling_options(sampling),
        "sampling_steps": chain.T,
        "network_calls": chain.network_calls,
        "clip_x0": sampling.clip_x0,
        "seed": seed,
        **strided,
        **({"small_images_by": described(model.below, model.below.sampling, seed)} if model.below else {}),
        **({"remarks": list(remarks)} if remarks else {}),
    }


def _shards(folder: Path) -> Iterator[np.ndarray]:
    """Shards, one after another from index 0, one at a time in memory. A damaged one is said, and counts as missing."""
    ranges = [(int(path.stem[:8]), int(path.stem[9:])) for path in folder.glob("????????-????????.safetensors")]
    for _, _, arrays in in_a_row(ranges, lambda start, end: read_arrays(_path(folder, start, end))):
        yield arrays[IMAGES]


def _path(folder: Path, start: int, end: int) -> Path:
    return folder / f"{start:08d}-{end:08d}.safetensors"
