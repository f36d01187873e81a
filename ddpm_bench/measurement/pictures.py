"""Pictures of a model: its chains, as in the paper's Figures 6, 8 and 9, and its samples beside their neighbours."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ddpm_bench.config.sampling import SamplingSettings
from ddpm_bench.data.pictures import write_labelled_grid
from ddpm_bench.diffusion.chains import interpolate, progressive, stations
from ddpm_bench.diffusion.encoding import between, check_deterministic, codes_of
from ddpm_bench.diffusion.noise import BlockNoise
from ddpm_bench.errors import UserError
from ddpm_bench.files import check_free
from ddpm_bench.measurement.samples import described
from ddpm_bench.metrics.neighbours import Neighbourhood
from ddpm_bench.models.model import Model
from ddpm_bench.runtime.observer import about
from ddpm_bench.runtime.runtime import Runtime

COLUMNS = 11
"""Points of the chain that a row of progressive generation shows, the sample itself among them."""
WEIGHTS = [i / 10 for i in range(11)]
"""The lambdas of an interpolation, as in Figure 8."""


def draw_progressive(
    out: Path, model: Model, sampling: SamplingSettings, rows: int, seed: int, runtime: Runtime
) -> dict[str, Any]:
    """Draw a PNG: a row for the first samples of `seed`, x_0 as predicted at evenly spaced t (Figure 6).

    The last column, t = 0, is what sampling gives. Returns what the picture says of itself, JSON values.
    """
    chain = model.chain(sampling)
    model.place(runtime)
    at = stations(chain.T, COLUMNS)
    with about("progressive generation"):
        images = progressive(chain, count=rows, at=at, seed=seed, runtime=runtime)
    shown = {"columns": "x_0 predicted at t; the sample at t = 0", "t": at, "samples": rows}
    shown |= described(model, sampling, seed)
    write_labelled_grid(out, images, [f"t={t}" for t in at], [str(row) for row in range(rows)], shown)
    return shown | {"out": str(out)}


def draw_interpolation(
    out: Path,
    model: Model,
    sampling: SamplingSettings,
    ends: Tensor,
    at: Sequence[int] | None,
    seed: int,
    runtime: Runtime,
) -> dict[str, Any]:
    """Draw a PNG: a row for each t of `at`: the first of `ends`, lambda = 0, 0.1, ..., 1, the second (Figures 8 and 9).

    ends: uint8 (2, C, H, W). `at` counts steps of the chain that is run; by default it is the eighths of it. Returns what
    the picture says of itself, JSON values. UserError for a t that is no step, and for images of another shape.
    """
    chain, T = model.chain(sampling), model.chain(sampling).T
    at = at or sorted({max(1, T * eighth // 8) for eighth in range(1, 9)}, reverse=True)
    if wrong := [t for t in at if not 1 <= t <= T]:
        raise UserError(f"--at {wrong[0]} is no step of this chain, whose steps are 1 to {T}.")
    model.place(runtime)
    rows = []
    for t in at:
        between = interpolate(chain, ends, t, WEIGHTS, seed=seed, runtime=runtime)
        rows.append(torch.cat([ends[:1], between, ends[1:]]))
    heads = ["source", *(f"{weight:g}" for weight in WEIGHTS), "source"]
    shown = {"columns": "lambda", "lambda": WEIGHTS, "t": list(at)} | described(model, sampling, seed)
    write_labelled_grid(out, torch.stack(rows), heads, [f"t={t}" for t in at], shown)
    return shown | {"out": str(out)}


def draw_slerp(
    out: Path, model: Model, sampling: SamplingSettings, ends: Tensor | tuple[int, int], seed: int, runtime: Runtime
) -> dict[str, Any]:
    """Draw a PNG: one row of images between two codes x_T, lambda = 0, 0.1, ..., 1 along the sphere.

    ends: two images, uint8 (2, C, H, W), which are encoded and stand beside the row; or the indices of two samples, whose
    x_T are those of `sample`. Returns what the picture says of itself, JSON values. UserError for a sampler that draws noise.
    """
    chain = model.chain(sampling)
    check_deterministic(chain)
    model.place(runtime)
    if isinstance(ends, Tensor):
        codes, heads, sides = codes_of(chain, ends, runtime.device), ["source"], [ends[:1], ends[1:]]
    else:
        noises = [BlockNoise(seed, index, 1, chain.denoiser.shape, runtime.device) for index in ends]
        codes, heads, sides = torch.cat([noise.draw() for noise in noises]), [], []
    with about("interpolation in x_T"):
        row = torch.cat([*sides[:1], between(chain, codes, WEIGHTS, runtime), *sides[1:]])
    shown = {"columns": "lambda, spherical in x_T", "lambda": WEIGHTS} | described(model, sampling, seed)
    write_labelled_grid(out, row[None], [*heads, *(f"{weight:g}" for weight in WEIGHTS), *heads], ["x_T"], shown)
    return shown | {"out": str(out)}


def draw_neighbours(out: Path, samples: Tensor, train: Tensor, found: Neighbourhood, space: str) -> None:
    """Draw a PNG: one row for each sample, which its nearest training images in this space follow; both uint8 (N, C, H, W)."""
    shown = torch.cat([samples[:, None], train[found.rows]], 1)  # (N, 1 + k, C, H, W)
    heads = ["sample", "nearest", *map(str, range(2, shown.shape[1]))]
    about_it = {"shown": f"samples and their nearest training images by {space} distance"}
    write_labelled_grid(out, shown, heads, [str(row) for row in range(len(samples))], about_it)


def check_png(out: Path) -> None:
    """UserError where a picture cannot be drawn to `out`."""
    if out.suffix.lower() != ".png":
        raise UserError(f"--out '{out}' must be a .png file: a picture is drawn.")
    check_free(out)
