"""`ddpm-bench sample`: a checkpoint -> images on the disk."""

import shutil
from pathlib import Path
from typing import Any

import torch

from ddpm_bench.data import write_images
from ddpm_bench.diffusion.reverse import Diffusion
from ddpm_bench.errors import UserError
from ddpm_bench.measure.samples import generate
from ddpm_bench.models.model import Model, load_model
from ddpm_bench.runtime.interrupt import Stop


def sample_checkpoint(
    ckpt: Path, out: Path, count: int, seed: int, steps: int | None, raw: bool, device: torch.device, batch: int | None,
    stop: Stop,
) -> dict[str, Any]:  # fmt: skip
    """Write `count` samples to `out`, PNG files in a folder or an .npz; interrupted, the same call goes on.

    Returns what they are, as JSON values. UserError when `out` exists already: nothing is overwritten.
    """
    check_free(out)
    model = load_model(ckpt, raw)
    partial = out.with_name(out.name + ".partial")
    images = generate(
        chain_of(model, steps), model.network.to(device), shape=model.shape, count=count, seed=seed,
        folder=partial, identity=model.identity | {"sampling_steps": steps},
        device=device, batch=batch, stop=stop,
    )  # fmt: skip
    write_images(out, images)
    shutil.rmtree(partial)
    return {"samples": count, "out": str(out), "weights": model.weights}


def check_free(out: Path) -> None:
    """UserError when something is at `out` already."""
    if out.exists() and (out.is_file() or any(out.iterdir())):
        raise UserError(f"'{out}' exists already and is left as it is; choose another --out.")


def chain_of(model: Model, steps: int | None) -> Diffusion:
    """The chain that is sampled: the model's own, or one of fewer `steps`. UserError for more than it has."""
    T = model.diffusion.schedule.T
    if steps is None or steps == T:
        return model.diffusion
    if steps > T:
        raise UserError(f"--steps {steps} exceeds the {T} steps of the checkpoint's chain.")
    return model.diffusion.respaced(steps)
