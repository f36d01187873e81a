"""The command `sample`: images from a checkpoint, or pictures of its chains."""

from pathlib import Path
from typing import Annotated

import typer

from ddpm_bench.cli.options import (
    Batch,
    Ckpt,
    Clip,
    DataRoot,
    Device,
    Json,
    Raw,
    Resizing,
    Spacing,
    Steps,
    plain_text,
    refuse,
)
from ddpm_bench.cli.show import print_json
from ddpm_bench.config.limits import LARGEST_SEED


def sample(
    ckpt: Ckpt,
    out: Annotated[Path, typer.Option(help="A folder for PNG files, or a .npz file; for the pictures a .png file.")],
    samples: Annotated[
        int | None, typer.Option(min=1, help="How many images [default: 64, or 8 rows with --progressive].")
    ] = None,
    progressive: Annotated[
        bool, typer.Option("--progressive", help="Draw a picture: x_0 as predicted along each sample's chain.")
    ] = False,
    interpolate: Annotated[
        tuple[str, str] | None,
        typer.Option(metavar="A B", help="Draw a picture: from A to B, paths or numbers of test images."),
    ] = None,
    at: Annotated[
        list[int] | None,
        typer.Option(help="The t at which --interpolate mixes. Repeatable: a row each [default: the eighths of T]."),
    ] = None,
    seed: Annotated[
        int, typer.Option(min=0, max=LARGEST_SEED, help="Sample i depends on the seed and on i alone.")
    ] = 0,
    steps: Steps = None,
    spacing: Spacing = None,
    clip: Clip = None,
    raw: Raw = False,
    data: Annotated[
        str | None,
        typer.Option(
            callback=plain_text, help="Whose test images --interpolate numbers [default: what the checkpoint saw]."
        ),
    ] = None,
    data_root: DataRoot = None,
    resize: Resizing = None,
    device: Device = "auto",
    batch: Batch = None,
    as_json: Json = False,
) -> None:
    """Sample images from a checkpoint (moving average of the weights, no dropout), or draw its chains.

    Example: `ddpm-bench sample --ckpt runs/eps --samples 1000 --out samples.npz`

    Example: `ddpm-bench sample --ckpt runs/eps --progressive --out chain.png`

    Example: `ddpm-bench sample --ckpt runs/eps --interpolate 3 17 --at 500 --out between.png`
    """
    from ddpm_bench.cli.setup import device_runtime, sampling_wish
    from ddpm_bench.files import check_free
    from ddpm_bench.measurement.pictures import check_png, draw_interpolation, draw_progressive
    from ddpm_bench.measurement.samples import write_samples
    from ddpm_bench.models.model import load_model
    from ddpm_bench.models.reference import chosen_images
    from ddpm_bench.runtime.interrupt import Stop
    from ddpm_bench.runtime.observer import noting, say

    if interpolate:
        refuse({"--samples": samples, "--progressive": progressive}, "does not go with --interpolate.")
    else:
        of_ends = {"--at": at, "--data": data, "--data-root": data_root, "--resize": resize}
        refuse(of_ends, "goes with --interpolate alone.")
    (check_png if progressive or interpolate else check_free)(out)
    runtime, model = device_runtime(device, batch=batch), load_model(ckpt, raw)
    wish = sampling_wish(model, samples or 64, steps, clip, spacing)
    with Stop():
        if progressive:
            made = draw_progressive(out, model, wish, samples or 8, seed, runtime)
        elif interpolate:
            with noting() as notes:
                ends = chosen_images(model, interpolate, data, data_root, resize)
            about = {"sources": interpolate, "notes": notes}
            made = draw_interpolation(out, model, wish, ends, at, seed, runtime) | about
        else:
            made = write_samples(model, wish, seed, runtime, out)
    say(f"Made '{out}'")
    if as_json:
        print_json(made)
