"""Samples on the disk: generated in uint8 shards, so that 50,000 of them can be interrupted and go on, and are never held in float."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ddpm_bench.config.settings import completed
from ddpm_bench.diffusion.reverse import Diffusion, Network
from ddpm_bench.diffusion.sampler import sample
from ddpm_bench.errors import UserError
from ddpm_bench.files import make_folder, replacing, write_json
from ddpm_bench.records.differences import differences
from ddpm_bench.runtime.batch import default_batch
from ddpm_bench.runtime.observer import progress, say
from ddpm_bench.runtime.interrupt import NEVER, Stop


def generate(
    diffusion: Diffusion,
    network: Network,
    *,
    shape: tuple[int, int, int],
    count: int,
    seed: int,
    folder: Path,
    identity: dict[str, Any],
    device: torch.device,
    batch: int | None = None,
    clip_x0: bool = True,
    stop: Stop = NEVER,
    title: str = "sampling",
) -> Tensor:
    """`count` samples, uint8 (count, C, H, W) on the CPU; those that `folder` already holds are not made again.

    `identity` says what the samples depend on beside `seed`, `shape` and `clip_x0` (weights, chain). A folder of other
    samples is refused with a UserError: features and scores must never come from the samples of another model.
    """
    _claim(folder, identity | {"seed": seed, "shape": list(shape), "clip_x0": clip_x0})
    done = sum(len(shard) for shard in _shards(folder))
    if 0 < done < count:
        say(f"{title}: going on after {done} of {count} samples in '{folder}'")
    if done < count:
        with progress(title, count, "images", done) as meter:
            batches = sample(
                diffusion, network, shape=shape, first=done, count=count - done, seed=seed, batch=batch or default_batch(device, shape[1]),
                device=device, clip_x0=clip_x0, stop=stop, on_progress=lambda more: meter.update(done + more),
            )  # fmt: skip
            for start, images in batches:
                end = start + len(images)
                with replacing(folder / f"{start:08d}-{end:08d}.npy") as path, path.open("wb") as stream:
                    np.save(stream, images.numpy(), allow_pickle=False)
    images = torch.empty((count, *shape), dtype=torch.uint8)
    filled = 0
    for shard in _shards(folder):
        part = shard[: count - filled]
        images[filled : filled + len(part)] = torch.from_numpy(np.array(part))
        filled += len(part)
    return images


def _claim(folder: Path, identity: dict[str, Any]) -> None:
    path = make_folder(folder) / "samples.json"
    if not path.exists():
        write_json(path, identity)
        return
    held = json.loads(path.read_text(encoding="utf-8"))
    if lines := differences(completed(held), completed(json.loads(json.dumps(identity)))):
        raise UserError(
            f"'{folder}' holds samples of something else:\n"
            + "\n".join(lines)
            + "\nChoose another folder, or remove this one."
        )


def _shards(folder: Path) -> list[np.ndarray]:
    """Memory-mapped shards, one after another from index 0; what lies behind a gap does not count."""
    shards, end = [], 0
    for path in sorted(folder.glob("????????-????????.npy")):
        if int(path.stem[:8]) != end:
            break
        shards.append(np.load(path, mmap_mode="r", allow_pickle=False))
        end += len(shards[-1])
    return shards
