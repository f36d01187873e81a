"""`ddpm-bench sample`: a checkpoint of ours -> images on the disk."""

import shutil
from pathlib import Path

import torch

from ddpm_bench.build import build_diffusion, build_network
from ddpm_bench.data import write_images
from ddpm_bench.diffusion.reverse import Diffusion
from ddpm_bench.errors import UserError
from ddpm_bench.generate import generate
from ddpm_bench.interrupt import Stop
from ddpm_bench.network.unet import UNet
from ddpm_bench.settings import CellSettings, SamplingSettings, ScoringSettings
from ddpm_bench.training.checkpoint import load_weights


def load_model(ckpt: Path, which: str) -> tuple[CellSettings, Diffusion, UNet, dict]:
    """The settings, diffusion and network that a checkpoint was trained as, in evaluation mode, with its metadata.

    What the network predicts, its schedule and its variance come from the checkpoint, so it cannot be sampled as something else.
    """
    weights, metadata = load_weights(ckpt, which)
    identity = metadata["identity"]
    parts = {name: identity[name] for name in ("data", "diffusion", "network", "training")}
    settings = CellSettings(**parts, sampling=SamplingSettings(), scoring=ScoringSettings())
    diffusion, _ = build_diffusion(settings.diffusion)
    network = build_network(settings, identity["channels"], diffusion, seed=0)
    network.load_state_dict(weights)
    return settings, diffusion, network.eval(), metadata


def sample_checkpoint(
    ckpt: Path, out: Path, count: int, seed: int, steps: int | None, raw: bool, device: torch.device, batch: int | None, stop: Stop
) -> None:
    """Write `count` samples to `out`, PNG files in a folder or an .npz; interrupted, the same call goes on.

    UserError when `out` exists already: nothing is overwritten.
    """
    if out.exists() and (out.is_file() or any(out.iterdir())):
        raise UserError(f"'{out}' exists already and is left as it is; choose another --out.")
    which = "raw" if raw else "ema"
    settings, diffusion, network, metadata = load_model(ckpt, which)
    if steps is not None and steps > diffusion.schedule.T:
        raise UserError(f"--steps {steps} exceeds the {diffusion.schedule.T} steps of the checkpoint's chain.")
    shape = (metadata["identity"]["channels"], settings.data.size, settings.data.size)
    partial = out.with_name(out.name + ".partial")
    images = generate(
        diffusion.respaced(steps) if steps else diffusion, network.to(device), shape=shape, count=count, seed=seed,
        folder=partial, identity=metadata["identity"] | {"step": metadata["step"], "weights": which, "sampling_steps": steps},
        device=device, batch=batch, stop=stop,
    )  # fmt: skip
    write_images(out, images)
    shutil.rmtree(partial)
