"""`ddpm-bench sample --encode`: test images encoded to x_T and decoded again, and how far they are off, by number of steps."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from rich.table import Table
from torch import Tensor

from ddpm_bench.config.sampling import SamplingSettings
from ddpm_bench.config.shipped import load_published
from ddpm_bench.data import ImageData
from ddpm_bench.data.pictures import write_labelled_grid
from ddpm_bench.diffusion.encoding import check_reversible, reconstruct
from ddpm_bench.errors import UserError
from ddpm_bench.measurement.measure import data_info
from ddpm_bench.measurement.samples import described
from ddpm_bench.models.model import Model
from ddpm_bench.runtime.runtime import Runtime

PICTURED = 8
"""So many images are shown, a row each."""
USUAL = 64
"""So many images are encoded where nothing else is asked for, or all of fewer."""
PUBLISHED = "ddim-reconstruction"
OF_TABLE = {"data": "cifar10", "test images": 10_000, "T": 1000, "x_0 clipped": False}
"""What the published numbers are of, as far as the source says it."""


def draw_reconstructions(
    out: Path, model: Model, wishes: Sequence[SamplingSettings], data: ImageData, count: int | None, runtime: Runtime
) -> dict[str, Any]:
    """Draw a PNG: a row for each of the first test images, the image and what comes back in each number of steps.

    wishes: alike but for their steps. Returns JSON values: what the picture says of itself, and in `errors` the mean squared
    error a dimension of `count` test images, pixels in [0, 1], with its standard error over images, and what was published
    for so many steps. UserError for more images than there are.
    """
    for wish in wishes:
        check_reversible(model.chain(wish))
    count = count or min(USUAL, len(data.test))
    if count > len(data.test):
        raise UserError(f"--samples {count} are more than the {len(data.test)} test images of '{data.name}'.")
    runtime.place(model.network)
    images, errors, back = data.test.images[:count], [], []
    printed = load_published(PUBLISHED).rows[0].values
    for wish in wishes:
        chain, asked = model.chain(wish), wish.steps or model.T
        found = reconstruct(chain, images, runtime)
        back.append(found[:PICTURED])
        mse = ((found.double() - images.double()) / 255).square().flatten(1).mean(1)
        errors.append({
            "steps": asked,
            "steps_made": chain.T,
            "network_calls": 2 * chain.network_calls,
            "mse": float(mse.mean()),
            "standard_error": float(mse.std() / count**0.5) if count > 1 else None,
            "published": str(printed[f"s{asked}"]) if f"s{asked}" in printed else None,
        })  # fmt: skip
    shown = {"columns": "a test image, then encoded to x_T and decoded in so many steps", "images": count}
    shown |= described(model, wishes[0], 0) | {"data": data_info(data).model_dump(mode="json")}
    for name in ("seed", "sampling_steps", "network_calls", "kept_steps"):  # nothing is drawn, and each row has its own
        shown.pop(name, None)
    shown |= {"errors": errors, "otherwise": _otherwise(model, wishes[0], data, count)}
    _draw(out, images[:PICTURED], back, [wish.steps or model.T for wish in wishes], shown)
    return shown | {"out": str(out)}


def _otherwise(model: Model, wish: SamplingSettings, data: ImageData, count: int) -> list[str]:
    """What is not as it was for the published numbers."""
    here = {"data": data.name, "test images": count, "T": model.T, "x_0 clipped": wish.clip_x0}
    said = [f"{name}: there {there}, here {here[name]}" for name, there in OF_TABLE.items() if here[name] != there]
    return [*said, "another network, unless its weights are theirs", "the spacing of steps, which they do not name"]


def _draw(out: Path, images: Tensor, back: Sequence[Tensor], steps: Sequence[int], about: dict[str, Any]) -> None:
    columns = torch.stack([images, *back], 1)  # (rows, 1 + len(steps), C, H, W)
    heads = ["image", *(f"S={count}" for count in steps)]
    write_labelled_grid(out, columns, heads, [str(row) for row in range(len(images))], about)


def reconstruction_table(made: dict[str, Any]) -> Table:
    """A row for each number of steps."""
    caption = (
        f"Mean squared error a dimension, pixels in [0, 1], ± standard error over {made['images']:,} test images of "
        f"{made['data']['name']}. Published: {load_published(PUBLISHED).source}. Otherwise than there: "
        f"{'; '.join(made['otherwise'])}."
    )
    table = Table(title=f"{made['checkpoint']}: images encoded to x_T and decoded again", caption=caption)
    for head in ("steps", "steps made", "network calls", "error ↓", "published"):
        table.add_column(head, justify="right")
    for error in made["errors"]:
        spread = "" if error["standard_error"] is None else f" ± {error['standard_error']:.2g}"
        table.add_row(
            f"{error['steps']:,}", f"{error['steps_made']:,}", f"{error['network_calls']:,}",
            f"{error['mse']:.5f}{spread}", error["published"] or "",
        )  # fmt: skip
    return table
