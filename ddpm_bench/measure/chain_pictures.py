"""`ddpm-bench sample --progressive` and `--interpolate`: pictures of a checkpoint's chains, as in the paper."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ddpm_bench.data.image_files import read_files
from ddpm_bench.data.pictures import write_labelled_grid
from ddpm_bench.diffusion.chains import interpolate, progressive, stations
from ddpm_bench.errors import UserError
from ddpm_bench.measure.sample_command import chain_of, check_free
from ddpm_bench.models.model import Model, load_model
from ddpm_bench.models.reference import reference_data
from ddpm_bench.runtime.batch import default_batch
from ddpm_bench.runtime.observer import progress
from ddpm_bench.runtime.interrupt import Stop

COLUMNS = 11
"""Points of the chain that a row of progressive generation shows, the sample itself among them."""
WEIGHTS = [i / 10 for i in range(11)]
"""The lambdas of an interpolation, as in Figure 8."""


def draw_progressive(
    ckpt: Path, out: Path, rows: int, seed: int, steps: int | None, raw: bool, device: torch.device, batch: int | None,
    stop: Stop,
) -> dict[str, Any]:  # fmt: skip
    """Draw `out`, a PNG: a row for the first samples of `seed`, x_0 as predicted at evenly spaced t (Figure 6).

    The last column, t = 0, is what `sample` gives. Returns what the picture says of itself.
    """
    _check_png(out)
    model = load_model(ckpt, raw)
    diffusion = chain_of(model, steps)
    at = stations(diffusion.schedule.T, COLUMNS)
    with progress("progressive generation", rows, "images") as meter:
        images = progressive(
            diffusion, model.network.to(device), shape=model.shape, count=rows, at=at, seed=seed,
            batch=batch or default_batch(device, model.shape[1]), device=device, stop=stop, on_progress=meter.update,
        )  # fmt: skip
    shown = {"columns": "x_0 predicted at t; the sample at t = 0", "t": at, "samples": rows}
    return _draw(out, images, [f"t={t}" for t in at], [str(row) for row in range(rows)], model, steps, seed, shown)


def draw_interpolation(
    ckpt: Path, out: Path, sources: tuple[str, str], at: Sequence[int] | None, seed: int, steps: int | None, raw: bool,
    data: str | None, data_root: Path | None, device: torch.device, batch: int | None, stop: Stop,
) -> dict[str, Any]:  # fmt: skip
    """Draw `out`, a PNG: a row for each t of `at`: source A, lambda = 0, 0.1, ..., 1, source B (Figures 8 and 9).

    A source is the number of a test image of `data` (the checkpoint's own when None), or a path. `at` counts steps of
    the chain that is run; by default it is the eighths of it. Returns what the picture says of itself.
    """
    _check_png(out)
    model = load_model(ckpt, raw)
    diffusion = chain_of(model, steps)
    T = diffusion.schedule.T
    at = at or sorted({max(1, T * eighth // 8) for eighth in range(1, 9)}, reverse=True)
    if wrong := [t for t in at if not 1 <= t <= T]:
        raise UserError(f"--at {wrong[0]} is no step of this chain, whose steps are 1 to {T}.")
    ends = _sources(model, sources, data, data_root)
    network, rows, before = model.network.to(device), [], 0
    with progress("interpolation", sum(at) * len(WEIGHTS), "network calls") as meter:
        for t in at:
            between = interpolate(
                diffusion, network, ends, t, WEIGHTS, seed=seed, batch=batch or default_batch(device, model.shape[1]), device=device,
                stop=stop, on_progress=lambda calls, before=before: meter.update(before + calls),
            )  # fmt: skip
            before += t * len(WEIGHTS)
            rows.append(torch.cat([ends[:1], between, ends[1:]]))
    heads = ["source", *(f"{weight:g}" for weight in WEIGHTS), "source"]
    shown = {"columns": "lambda", "lambda": WEIGHTS, "t": list(at), "sources": list(sources)}
    return _draw(out, torch.stack(rows), heads, [f"t={t}" for t in at], model, steps, seed, shown)


def _check_png(out: Path) -> None:
    if out.suffix.lower() != ".png":
        raise UserError(f"--out '{out}' must be a .png file: a picture is drawn.")
    check_free(out)


def _sources(model: Model, sources: tuple[str, str], data: str | None, root: Path | None) -> Tensor:
    """The two images, uint8 (2, C, H, W). UserError for one that is not there or not of the model's shape."""
    test: Tensor | None = None
    if any(source.isdecimal() for source in sources):
        test = reference_data(model, data, root=root).test.images
    images = []
    for source in sources:
        if not source.isdecimal():
            image = read_files([Path(source).expanduser()])[0]
        elif int(source) < len(test):
            image = test[int(source)]
        else:
            raise UserError(f"--interpolate {source}: the test images are numbered 0 to {len(test) - 1}.")
        if tuple(image.shape) != model.shape:
            raise UserError(
                f"--interpolate {source}: the image has (C, H, W) = {tuple(image.shape)}, and the checkpoint makes "
                f"{model.shape}. Convert the image, or choose another."
            )
        images.append(image)
    return torch.stack(images)


def _draw(
    out: Path, images: Tensor, heads: list[str], sides: list[str], model: Model, steps: int | None, seed: int,
    shown: dict[str, Any],
) -> dict[str, Any]:  # fmt: skip
    about = shown | {
        "checkpoint": model.name, "weights": model.weights, "weights_sha256": model.identity["weights_sha256"],
        "step": model.step, "T": model.diffusion.schedule.T, "sampling_steps": steps or model.diffusion.schedule.T,
        "seed": seed,
    }  # fmt: skip
    write_labelled_grid(out, images, heads, sides, about)
    return about | {"out": str(out)}
