"""The command `gpu`: what a GPU can show in a few minutes, as one archive."""

from pathlib import Path
from typing import Annotated

import typer

from ddpm_bench.cli.options import Data, DataName, DataRoot, Device, Json, Resizing, Seeds, numbers, words
from ddpm_bench.cli.show import print_json, print_table
from ddpm_bench.errors import Interrupted, UserError, near_miss


def gpu(
    minutes: Annotated[float, typer.Option(min=1, help="All that it may take, the archive included.")] = 9.0,
    data: Data = None,
    data_name: DataName = None,
    data_root: DataRoot = None,
    resize: Resizing = None,
    out: Annotated[Path, typer.Option(help="Folder of everything, and of what the same command goes on from.")] = Path(
        "gpu"
    ),
    stages: Annotated[
        str,
        typer.Option(
            help="Only these, separated by commas [default: tests,speed,small,study,training,sampling,precision]."
        ),
    ] = "",
    preset: Annotated[
        str, typer.Option(help="Of the network that is timed, trained and sampled alone; --data are its images.")
    ] = "h200",
    grid_preset: Annotated[str, typer.Option(help="Of Table 2's grid.")] = "study",
    seeds: Seeds = "0,1,2",
    workers: Annotated[
        int | None, typer.Option(min=1, help="Cells of the grid at a time [default: as many as were fastest together].")
    ] = None,
    device: Device = "auto",
    as_json: Json = False,
) -> None:
    """Do what one GPU can show in a few minutes, in stages, the most telling first, and put it into one archive of 16 MiB at most.

    Tests; speed by precision, compiled, beside diffusers; Table 2 with a small network; the paper's network for the rest of
    the time; bfloat16 beside float32. A stage that does not fit into the time is named and not begun. The same command goes
    on where it stopped, by the time or by Ctrl-C, and does nothing again that is finished.

    Example: `ddpm-bench gpu --minutes 9 --data folder:photos --data-name photos`
    """
    from ddpm_bench.config.preset import load_preset
    from ddpm_bench.runtime.device import choose_device
    from ddpm_bench.runtime.interrupt import Stop, stop_requested
    from ddpm_bench.runtime.observer import say
    from ddpm_bench.runtime.owner import owned
    from ddpm_bench.speed.gpu.archive import pack
    from ddpm_bench.speed.gpu.session import Session
    from ddpm_bench.speed.gpu.stages import STAGES, Plan
    from ddpm_bench.speed.gpu.summary import summarise, summary_table

    names = words(stages) or list(STAGES)
    for name in names:
        if name not in STAGES:
            raise UserError(f"There is no stage '{name}'{near_miss(name, STAGES)}")
    load_preset(preset), load_preset(grid_preset), numbers("--seeds", seeds)  # refused before anything starts
    given = {"--data": data, "--data-name": data_name, "--data-root": data_root, "--resize": resize}
    of_data = tuple(str(word) for option, value in given.items() if value is not None for word in (option, value))
    chosen = choose_device(device)
    if chosen.type != "cuda":
        say(f"There is no GPU: all of it runs on {chosen.type}, whose numbers are its own.")
    plan = Plan(out, preset, grid_preset, seeds, of_data, workers, chosen.type, minutes)
    with Stop(), owned(out):
        session = Session(plan)
        for _ in session.stages(names):  # after each, since whoever lends a machine may take it back
            summary = summarise(plan, session.results)
            archive = pack(out, out / "gpu.zip")
        stopped = stop_requested()
    left = ", ".join(f"{why}: {count}" for why, count in archive.left_out.items())
    say(f"{archive.files} files in '{archive.path}'" + (f"; left out: {left}" if left else ""))
    if as_json:
        print_json(summary.model_dump(mode="json") | {"archive": str(archive.path), "left_out": archive.left_out})
    else:
        print_table(summary_table(summary))
    if stopped:
        raise Interrupted
    if any(stage.outcome == "failed" for stage in session.results):
        raise typer.Exit(1)
