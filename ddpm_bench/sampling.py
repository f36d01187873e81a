"""`ddpm-bench sample`: a checkpoint -> images on the disk."""

import shutil
from pathlib import Path

import torch

from ddpm_bench.data import write_images
from ddpm_bench.errors import UserError
from ddpm_bench.generate import generate
from ddpm_bench.interrupt import Stop
from ddpm_bench.model import load_model


def sample_checkpoint(
    ckpt: Path, out: Path, count: int, seed: int, steps: int | None, raw: bool, device: torch.device, batch: int | None, stop: Stop
) -> None:
    """Write `count` samples to `out`, PNG files in a folder or an .npz; interrupted, the same call goes on.

    UserError when `out` exists already: nothing is overwritten.
    """
    if out.exists() and (out.is_file() or any(out.iterdir())):
        raise UserError(f"'{out}' exists already and is left as it is; choose another --out.")
    model = load_model(ckpt, raw)
    diffusion = model.diffusion
    if steps is not None and steps > diffusion.schedule.T:
        raise UserError(f"--steps {steps} exceeds the {diffusion.schedule.T} steps of the checkpoint's chain.")
    partial = out.with_name(out.name + ".partial")
    images = generate(
        diffusion.respaced(steps) if steps else diffusion, model.network.to(device), shape=model.shape, count=count, seed=seed,
        folder=partial, identity=model.identity | {"sampling_steps": steps},
        device=device, batch=batch, stop=stop,
    )  # fmt: skip
    write_images(out, images)
    shutil.rmtree(partial)
