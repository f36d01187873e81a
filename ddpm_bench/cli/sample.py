"""The command `sample`: images from a checkpoint, or pictures of its chains."""

from pathlib import Path
from typing import Annotated

import typer

from ddpm_bench.cli.options import (
    Batch,
    Ckpt,
    DataRoot,
    Device,
    Json,
    Precision,
    Raw,
    Resizing,
    plain_text,
    refuse,
)
from ddpm_bench.cli.sampling_options import UNASKED, SamplingOptions, with_sampling_options
from ddpm_bench.cli.show import print_json, print_table
from ddpm_bench.config.limits import LARGEST_SEED, MOST_IMAGES
from ddpm_bench.errors import UserError
from ddpm_bench.text import brief


@with_sampling_options
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
    slerp: Annotated[
        tuple[str, str] | None,
        typer.Option(
            metavar="A B",
            help="Draw a picture: along the sphere in x_T, from sample A to sample B; with --encode between images, named as "
            "for --interpolate.",
        ),
    ] = None,
    encode: Annotated[
        bool,
        typer.Option(
            "--encode",
            help="Encode test images to x_T and decode them again, by ddim with eta 0: their errors by number of steps, and a picture.",
        ),
    ] = False,
    at: Annotated[
        list[int] | None,
        typer.Option(help="The t at which --interpolate mixes. Repeatable: a row each [default: the eighths of T]."),
    ] = None,
    seed: Annotated[
        int | None,
        typer.Option(min=0, max=LARGEST_SEED, help="Sample i depends on the seed and on i alone [default: 0]."),
    ] = None,
    steps: Annotated[
        list[int] | None,
        typer.Option(
            min=1,
            help="Sampling steps, a strided chain with re-derived betas where fewer than T; repeatable with --encode "
            "[default: the checkpoint's own].",
        ),
    ] = None,
    sampling: SamplingOptions = UNASKED,
    raw: Raw = False,
    data: Annotated[
        str | None,
        typer.Option(
            callback=plain_text, help="Whose test images are numbered or encoded [default: what the checkpoint saw]."
        ),
    ] = None,
    data_root: DataRoot = None,
    resize: Resizing = None,
    device: Device = "auto",
    batch: Batch = None,
    precision: Precision = None,
    as_json: Json = False,
) -> None:
    """Sample images from a checkpoint (moving average of the weights, no dropout), or draw its chains.

    Example: `ddpm-bench sample --ckpt runs/eps --samples 1000 --out samples.npz`

    Example: `ddpm-bench sample --ckpt runs/eps --progressive --out chain.png`

    Example: `ddpm-bench sample --ckpt runs/eps --interpolate 3 17 --at 500 --out between.png`

    Example: `ddpm-bench sample --ckpt runs/eps --sampler ddim --steps 50 --out samples.npz`

    Example: `ddpm-bench sample --ckpt runs/eps --encode --steps 10 --steps 100 --out again.png`
    """
    from ddpm_bench.cli.setup import asked_of, device_runtime, for_model, sampling_wish
    from ddpm_bench.files import check_free
    from ddpm_bench.measurement.pictures import check_png, draw_interpolation, draw_progressive, draw_slerp
    from ddpm_bench.measurement.reconstruction import draw_reconstructions, reconstruction_table
    from ddpm_bench.measurement.samples import write_samples
    from ddpm_bench.models.model import load_model
    from ddpm_bench.models.reference import chosen_images, reference_data
    from ddpm_bench.runtime.interrupt import Stop
    from ddpm_bench.runtime.observer import noting, say

    if interpolate:
        others = {"--samples": samples, "--progressive": progressive, "--slerp": slerp, "--encode": encode}
        refuse(others, "does not go with --interpolate.")
    else:
        refuse({"--at": at}, "goes with --interpolate alone.")
    if slerp:
        refuse({"--samples": samples, "--progressive": progressive}, "does not go with --slerp.")
    if encode:
        refuse({"--progressive": progressive, "--seed": seed}, "does not go with --encode.")
    elif not interpolate:
        of_images = {"--data": data, "--data-root": data_root, "--resize": resize}
        refuse(of_images, "goes with --interpolate or --encode alone.")
    if len(steps or ()) > 1 and (slerp or not encode):
        raise UserError("--steps is given several times for the table of --encode alone. Give one number.")
    ends = _sample_numbers(slerp) if slerp and not encode else None
    (check_png if progressive or interpolate or slerp or encode else check_free)(out)
    runtime, model = device_runtime(device, batch=batch, precision=precision), load_model(ckpt, raw)
    runtime = for_model(runtime, precision, model)
    asked = asked_of(sampling)
    if encode:
        asked |= {"sampler": sampling.sampler or "ddim"}
    wishes = [sampling_wish(model, samples or 64, asked | {"steps": count}) for count in steps or (None,)]
    with Stop():
        if progressive:
            made = draw_progressive(out, model, wishes[0], samples or 8, seed or 0, runtime)
        elif ends:
            made = draw_slerp(out, model, wishes[0], ends, seed or 0, runtime) | {"between": ends}
        elif named := interpolate or slerp:
            with noting() as notes:
                images = chosen_images(model, named, data, data_root, resize)
            if interpolate:
                made = draw_interpolation(out, model, wishes[0], images, at, seed or 0, runtime)
            else:
                made = draw_slerp(out, model, wishes[0], images, seed or 0, runtime)
            made |= {"sources": named, "notes": notes}
        elif encode:
            test = reference_data(model, data, root=data_root, resize=resize)
            made = draw_reconstructions(out, model, wishes, test, samples, runtime)
        else:
            made = write_samples(model, wishes[0], seed or 0, runtime, out)
    say(f"Made '{out}'")
    if as_json:
        print_json(made)
    elif encode and not slerp:
        print_table(reconstruction_table(made))


def _sample_numbers(slerp: tuple[str, str]) -> tuple[int, int]:
    """The samples that --slerp names."""
    if not all(word.isascii() and word.isdecimal() and len(word) <= len(str(MOST_IMAGES)) for word in slerp):
        raise UserError(
            f"--slerp {brief(' '.join(slerp))}: samples are numbered 0, 1, 2, ...; give --encode for images, by path or number."
        )
    return int(slerp[0]), int(slerp[1])
