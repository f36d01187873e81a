"""The command `gradient-noise`: how noisy the gradients of objectives are at a checkpoint."""

from pathlib import Path
from typing import Annotated

import typer

from ddpm_bench.cli.options import (
    CACHE,
    CKPT_HELP,
    Cache,
    Data,
    DataName,
    DataRoot,
    Device,
    Json,
    Raw,
    Resizing,
    Seed,
    plain_path,
)


def gradient_noise(
    ckpt: Annotated[list[Path], typer.Option(help=CKPT_HELP + " Repeatable: a place of the picture each.")],
    objective: Annotated[
        list[str] | None,
        typer.Option(
            help="Repeatable [default: L_simple, L_hybrid, L_vlb-uniform and L_vlb, as far as they can train the variance]."
        ),
    ] = None,
    batches: Annotated[int, typer.Option(min=4, max=1_000_000, help="So many gradients of each objective.")] = 100,
    batch: Annotated[int, typer.Option(min=1, max=100_000, help="Images a gradient.")] = 128,
    out: Annotated[Path | None, typer.Option(help="Draw a picture: a .png file, and a .pdf beside it.")] = None,
    seed: Seed = 0,
    raw: Raw = False,
    data: Data = None,
    data_name: DataName = None,
    data_root: DataRoot = None,
    resize: Resizing = None,
    device: Device = "auto",
    cache: Cache = CACHE,
    as_json: Json = False,
) -> None:
    """The gradient noise scale of objectives at a checkpoint: tr(cov of one image's gradient) / |mean gradient|^2, on training images.

    Where t is drawn by past losses (L_vlb), these are computed first: ten of every t. The same command goes on where it was
    interrupted.

    Example: `ddpm-bench gradient-noise --ckpt runs/hybrid --batches 100 --out noise.png`
    """
    from ddpm_bench.cli.setup import device_runtime
    from ddpm_bench.cli.show import print_json, print_table
    from ddpm_bench.measurement.gradient_noise import measure_gradient_noise
    from ddpm_bench.measurement.pictures import check_png
    from ddpm_bench.models.model import load_model
    from ddpm_bench.models.reference import reference_data
    from ddpm_bench.report.gradient_noise import draw_gradient_noise, gradient_noise_table
    from ddpm_bench.runtime.interrupt import Stop
    from ddpm_bench.runtime.observer import about, say

    if out:
        check_png(out)
    found, runtime = [], device_runtime(device, cache)
    with Stop():
        for path in ckpt:
            plain_path(path)
            model = load_model(path, raw)
            images = reference_data(model, data, data_name, data_root, resize)
            with about(model.name):
                found.append(measure_gradient_noise(model, images, objective or (), batches, batch, seed, runtime))
    if out:
        draw_gradient_noise(found, out)
        say(f"Made '{out}'")
    if as_json:
        print_json([one.as_json() for one in found])
    else:
        print_table(gradient_noise_table(found))
