"""`speed`: our network and loops beside other packages'; `precision`: what bfloat16 makes to the numbers."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from ddpm_bench.cli.options import (
    CACHE,
    Batch,
    Cache,
    Ckpt,
    Data,
    DataName,
    DataRoot,
    Device,
    Extractor,
    Json,
    Preset,
    Raw,
    Resizing,
    Seed,
    Unverified,
    Weights,
    numbers,
    words,
)
from ddpm_bench.cli.show import print_json, print_table
from ddpm_bench.errors import UserError, near_miss


def speed(
    preset: Preset = "paper",
    batch: Annotated[
        int | None, typer.Option(min=1, help="Images a call [default: the preset's; on a CPU 16 of 32x32 at most].")
    ] = None,
    repeats: Annotated[int, typer.Option(min=2, help="Interleaved rounds; intervals need six or more.")] = 11,
    device: Device = "auto",
    threads: Annotated[int | None, typer.Option(min=1, help="CPU threads [default: torch's choice].")] = None,
    dtype: Annotated[
        Literal["float32", "tf32", "bfloat16"] | None,
        typer.Option(help="For all contenders [default: each that the device has]."),
    ] = None,
    compiled: Annotated[
        bool,
        typer.Option("--compile", help="Also ours through torch.compile, with the time that it takes."),
    ] = False,
    work: Annotated[
        str,
        typer.Option(
            help="Only these, separated by commas [default: training,sampling,bound, and the shares of a cell's time]."
        ),
    ] = "",
    processes: Annotated[
        str | None,
        typer.Option(help="Also so many processes at a time on the device, as 1,2,4: their images/s together."),
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Folder for speed.json, speed.md and a figure.")] = None,
    as_json: Json = False,
) -> None:
    """Measure training, sampling and bounds beside other packages, and where the time goes; each in every precision of the device.

    Packages that are not installed are named, not measured: `pip install ddpm-bench[peers]`. Nothing passes or fails.

    Example: `ddpm-bench speed --preset quick --out reports/speed`
    """
    from contextlib import nullcontext

    import torch

    from ddpm_bench.runtime.device import choose_device
    from ddpm_bench.runtime.interrupt import Stop
    from ddpm_bench.runtime.observer import say
    from ddpm_bench.runtime.owner import owned
    from ddpm_bench.speed.report import TerminalReport, write
    from ddpm_bench.speed.result import WORKS
    from ddpm_bench.speed.run import measure

    chosen, together = choose_device(device, compiled), numbers("--processes", processes) if processes else []
    if 0 in together:
        raise UserError("--processes 0: at least one process does the work. Give numbers of 1 and more, such as 1,2,4.")
    works = [each for each in WORKS if each in words(work)] or tuple(WORKS)
    if unknown := set(words(work)) - set(WORKS):
        raise UserError(f"--work: there is no '{min(unknown)}'{near_miss(min(unknown), WORKS)}")
    if threads:
        torch.set_num_threads(threads)
    with Stop(), owned(out) if out else nullcontext():  # refused, if at all, before anything long starts
        result = measure(
            preset, device=chosen, batch=batch, repeats=repeats, precision=dtype, compiled=compiled,
            works=works, processes=together,
        )  # fmt: skip
        if out:
            write(result, out)
            say(f"Speed in '{out}'")
    if as_json:
        print_json(result.model_dump(mode="json"))
    else:
        print_table(TerminalReport(result))


def precision(
    ckpt: Ckpt,
    out: Annotated[Path, typer.Option(help="Folder of precision.json, and of what an interrupted call goes on from.")],
    samples: Annotated[int, typer.Option(min=10, help="Samples a precision.")] = 512,
    bound_images: Annotated[int, typer.Option(min=2, help="Test images of the bound.")] = 512,
    evals: Annotated[int, typer.Option(min=5, help="Network calls an image that the bound's estimate may spend.")] = 10,
    seed: Seed = 0,
    raw: Raw = False,
    data: Data = None,
    data_name: DataName = None,
    data_root: DataRoot = None,
    resize: Resizing = None,
    extractor: Extractor = None,
    inception_weights: Weights = None,
    allow_unverified_weights: Unverified = False,
    device: Device = "auto",
    batch: Batch = None,
    cache: Cache = CACHE,
    as_json: Json = False,
) -> None:
    """Score a checkpoint with its network in bfloat16 and in float32, from the same noise: does the rounding matter?

    The same command goes on where it was interrupted.

    Example: `ddpm-bench precision --ckpt runs/eps --out reports/precision`
    """
    from ddpm_bench.cli.setup import device_runtime, sampling_wish, section
    from ddpm_bench.config.settings import ScoringSettings
    from ddpm_bench.files import write_json
    from ddpm_bench.measurement.measure import Task
    from ddpm_bench.measurement.precision import compare_precisions, precision_table
    from ddpm_bench.metrics.extractors import choose_extractor, load_extractor
    from ddpm_bench.models.model import load_model
    from ddpm_bench.models.reference import reference_data
    from ddpm_bench.runtime.interrupt import Stop
    from ddpm_bench.runtime.observer import say
    from ddpm_bench.runtime.owner import owned

    model, runtime = load_model(ckpt, raw), device_runtime(device, cache, batch)
    reference = reference_data(model, data, data_name, data_root, resize)
    extractor = extractor or choose_extractor("embedded", reference.train.images, inception_weights, cache)
    features = load_extractor(
        extractor, size=model.shape[-1], inception_weights=inception_weights,
        allow_unverified=allow_unverified_weights, cache=cache,
    )  # fmt: skip
    scored = {
        "extractor": extractor, "bound_images": bound_images, "bound_evals": evals, "bootstrap": 0, "neighbours": 0,
    }  # fmt: skip
    scoring = section(ScoringSettings, scored)
    task = Task(reference, features, sampling_wish(model, samples, {}), scoring, seed, bound_splits=("test",))
    with Stop(), owned(out):
        result = compare_precisions(model, task, runtime, out)
        write_json(out / "precision.json", result.as_json())
    if as_json:
        print_json(result.as_json())
    else:
        print_table(precision_table(result))
    say(f"Both precisions in '{out}'")
