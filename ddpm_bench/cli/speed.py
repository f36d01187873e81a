"""`speed`: our network and loops beside other packages'."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from ddpm_bench.cli.show import print_json, print_table
from ddpm_bench.options import Device, Json, Preset


class Dtype(StrEnum):
    float32 = "float32"
    tf32 = "tf32"
    bfloat16 = "bfloat16"


def speed(
    preset: Preset = "paper",
    batch: Annotated[
        int | None, typer.Option(min=1, help="Images a call [default: the preset's; on a CPU 16 of 32x32 at most].")
    ] = None,
    repeats: Annotated[int, typer.Option(min=2, help="Interleaved rounds; intervals need six or more.")] = 11,
    device: Device = "auto",
    threads: Annotated[int | None, typer.Option(min=1, help="CPU threads [default: torch's choice].")] = None,
    dtype: Annotated[
        Dtype | None, typer.Option(help="For all contenders [default: what each uses on this device].")
    ] = None,
    compiled: Annotated[
        bool, typer.Option("--compile", help="Also ours through torch.compile, with the time that it takes.")
    ] = False,
    out: Annotated[Path | None, typer.Option(help="Folder for speed.json, speed.md and a figure.")] = None,
    as_json: Json = False,
) -> None:
    """Measure training, sampling and bounds beside other packages, and where the time goes.

    Packages that are not installed are named, not measured: `pip install ddpm-bench[peers]`. Nothing passes or fails.

    Example: `ddpm-bench speed --preset quick --out reports/speed`
    """
    import torch

    from ddpm_bench.console import say
    from ddpm_bench.files import make_folder
    from ddpm_bench.interrupt import Stop
    from ddpm_bench.provenance import choose_device
    from ddpm_bench.speed.report import TerminalReport, write
    from ddpm_bench.speed.run import measure

    chosen = choose_device(device)
    if threads:
        torch.set_num_threads(threads)
    if out:
        make_folder(out)  # said before anything long starts
    with Stop() as stop:
        result = measure(
            preset, device=chosen, batch=batch, repeats=repeats, precision=dtype and dtype.value, compiled=compiled,
            stop=stop,
        )  # fmt: skip
    if out:
        write(result, out)
        say(f"Speed in '{out}'")
    if as_json:
        print_json(result.model_dump(mode="json"))
    else:
        print_table(TerminalReport(result))
