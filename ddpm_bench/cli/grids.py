"""Commands around a grid: `ablate`, `train`, `grids`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ddpm_bench.cli.options import (
    CACHE,
    CKPT_HELP,
    EXTRACTOR_HELP,
    IN_COLOUR,
    Address,
    Batch,
    Cache,
    Cells,
    Compile,
    CpusPerCell,
    Data,
    DataName,
    DataRoot,
    Device,
    Devices,
    Fresh,
    Gpus,
    GpusPerCell,
    Grid,
    Hours,
    Json,
    Keep,
    Launcher,
    Memory,
    Partition,
    Precision,
    Preset,
    Raw,
    Reports,
    Resizing,
    Results,
    Seed,
    Seeds,
    Set,
    Tensorboard,
    Unverified,
    Weights,
    Workers,
    assignments,
    device_numbers,
    numbers,
    plain_path,
    plain_text,
    refuse,
    words,
)
from ddpm_bench.cli.report import show_records
from ddpm_bench.cli.sample_grid import sample_grid
from ddpm_bench.cli.show import print_json
from ddpm_bench.errors import UserError

if TYPE_CHECKING:  # each command imports what it needs when it runs
    from ddpm_bench.experiment.cost import GridCost


def ablate(
    grid: Grid = "table2",
    preset: Preset = "quick",
    cells: Cells = "",
    seeds: Seeds = "0",
    assign: Set = None,
    data: Data = None,
    data_name: DataName = None,
    data_root: DataRoot = None,
    resize: Resizing = None,
    extractor: Annotated[
        str | None,
        typer.Option(
            help=f"{EXTRACTOR_HELP} [default: the preset's; where that is embedded and images are in colour, {IN_COLOUR}]."
        ),
    ] = None,
    inception_weights: Weights = None,
    allow_unverified_weights: Unverified = False,
    device: Device = "auto",
    gpus: Gpus = None,
    results: Results = None,
    reports: Reports = None,
    no_report: Annotated[
        bool, typer.Option("--no-report", help="Leave the report to `report`, as where several machines share a grid.")
    ] = False,
    keep: Keep = 2,
    batch: Batch = None,
    precision: Precision = None,
    compiled: Compile = False,
    workers: Workers = None,
    launcher: Launcher = None,
    devices: Devices = None,
    cpus_per_cell: CpusPerCell = None,
    gpus_per_cell: GpusPerCell = None,
    address: Address = None,
    partition: Partition = None,
    hours: Hours = None,
    memory: Memory = None,
    cache: Cache = CACHE,
    fresh: Fresh = False,
    tensorboard: Tensorboard = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only list the cells with their cost and disk space.")
    ] = False,
    ckpt: Annotated[
        Path | None,
        typer.Option(
            callback=plain_path,
            help=f"{CKPT_HELP} Instead of training, where the cells differ in sampling and scoring alone: each becomes a row, as "
            "of `evaluate` [default of --results: results/checkpoints/GRID].",
        ),
    ] = None,
    raw: Raw = False,
    as_json: Json = False,
) -> None:
    """Measure a grid: train, sample and score every cell, then render the report.

    The same command goes on where it was interrupted.

    Example: `ddpm-bench ablate --grid table2 --preset quick --seeds 0,1,2`

    Example: `ddpm-bench ablate --grid ddim-cifar10 --preset quick --ckpt runs/eps`
    """
    from ddpm_bench.storage.store import is_url

    at_url = results is not None and is_url(results)
    if ckpt:
        if at_url:
            raise UserError(f"--results '{results}' is a place of records; the rows of --ckpt go into a folder.")
        of_records = {
            "--reports": reports, "--no-report": no_report, "--workers": workers, "--launcher": launcher,
            "--devices": devices, "--cpus-per-cell": cpus_per_cell, "--gpus-per-cell": gpus_per_cell, "--address": address,
            "--partition": partition, "--hours": hours, "--memory": memory, "--tensorboard": tensorboard, "--dry-run": dry_run,
        }  # fmt: skip
        refuse(of_records, "does not go with --ckpt, which trains nothing and makes rows of a table, one by one.")
        return sample_grid(
            ckpt, grid, preset, words(cells), seeds, assign or (), raw, data, data_name, data_root, resize,
            extractor, inception_weights, allow_unverified_weights, device, gpus, batch, precision, compiled, cache,
            Path(results) if results else None, fresh, as_json,
        )  # fmt: skip
    refuse({"--raw": raw}, "goes with --ckpt alone.")
    from ddpm_bench.cli.elsewhere import copy_of, kept_at
    from ddpm_bench.cli.setup import device_runtime, extractor_of, for_training, on_gpus
    from ddpm_bench.config.preset import parse_set
    from ddpm_bench.config.shipped import load_grid
    from ddpm_bench.data import load_data
    from ddpm_bench.experiment.ablate import check_results, plan, run_jobs, scored_with, set_aside
    from ddpm_bench.experiment.autoencoders import with_autoencoders
    from ddpm_bench.experiment.classifiers import with_classifiers
    from ddpm_bench.experiment.cost import estimate
    from ddpm_bench.experiment.job import Bench
    from ddpm_bench.experiment.launchers import Asked, choose_launcher, device_elsewhere
    from ddpm_bench.files import make_folder
    from ddpm_bench.metrics.extractors import choose_extractor
    from ddpm_bench.report.readable_records import readable_records
    from ddpm_bench.runtime import ranks
    from ddpm_bench.runtime.device import cpu_threads
    from ddpm_bench.runtime.interrupt import Stop
    from ddpm_bench.runtime.owner import owned
    from ddpm_bench.runtime.tensorboard import check_tensorboard

    check_tensorboard(tensorboard)
    if at_url:
        refuse({"--fresh": fresh}, f"would set aside what lies at '{results}'; choose another place with --results.")
    if dry_run:
        of_scoring = {
            "--extractor": extractor, "--inception-weights": inception_weights,
            "--allow-unverified-weights": allow_unverified_weights, "--fresh": fresh, "--tensorboard": tensorboard,
            "--gpus": gpus,
        }  # fmt: skip
        refuse(of_scoring, "does not go with --dry-run, which times networks alone and measures nothing.")
    shared_by = max(gpus or 1, ranks.size())
    if shared_by > 1:
        of_cells = {"--workers": workers, "--launcher": launcher, "--devices": devices}
        refuse(of_cells, f"does not go with {shared_by} ranks, which share one cell after the other.")
        launcher = "inline"
    where = Asked(
        launcher, workers, None if devices is None else device_numbers(devices), cpus_per_cell, gpus_per_cell,
        plain_text(address), plain_text(partition), hours, memory,
    )  # fmt: skip
    away = device_elsewhere(where, device)
    if away:
        of_this_machine = {"--dry-run": dry_run, "--precision auto": precision == "auto", "--gpus": gpus}
        refuse(of_this_machine, f"is of this machine, and --launcher {launcher} has cells run on others.")
    if at_url and launcher == "slurm":
        raise UserError(
            f"--launcher slurm wants a folder that all machines share, for what its jobs tell, and not '{results}'."
        )
    runtime, table = device_runtime(away or device, cache, batch, compiled, keep, precision), load_grid(grid)
    assign = [*(assign or ()), *assignments(data, data_name, data_root, resize, extractor)]
    jobs = plan(table, preset, words(cells), numbers("--seeds", seeds), assign)
    # By all jobs: the last ones left have as many threads as in a run without a stop, and so the same digits.
    chosen = choose_launcher(where, len(jobs), runtime.device)
    place = results or f"results/{table.name}-{jobs[0].preset}"
    folder = copy_of(place, cache) if at_url else Path(place)
    out = None if no_report else reports or Path("reports") / f"{table.name}-{jobs[0].preset}"
    asked, settings = "extractor" in parse_set(assign).get("scoring", {}), jobs[0].settings
    with Stop(), on_gpus(gpus, runtime.device):
        images = load_data(settings.data)
        jobs = with_autoencoders(jobs, images, runtime, for_timing=dry_run)
        jobs = with_classifiers(jobs, images)
        if dry_run:
            with cpu_threads(chosen.threads):
                runtime = for_training(runtime, precision, jobs[0], images, None)
            return _show_costs(estimate(jobs, images, runtime, chosen.workers, chosen.threads), as_json)
        if not asked:  # the preset's own is for the preset's own images
            usual = settings.scoring.extractor
            jobs = scored_with(choose_extractor(usual, images.train.images, inception_weights, cache), jobs)
        features = extractor_of(jobs[0].settings, inception_weights, allow_unverified_weights, cache)
        if out:
            make_folder(out)  # refused, if at all, before anything long
        with owned(folder), kept_at(place, folder) as lease:
            if fresh:
                set_aside(folder, jobs)
            with cpu_threads(chosen.threads):
                runtime = for_training(runtime, precision, jobs[0], images, folder / "precision.json")
            held = check_results(folder, jobs, images, features, runtime)
            bench = Bench(folder, images, features, runtime, tensorboard, lease)
            outcome = run_jobs(jobs, bench, held, chosen)
            if outcome.records:
                show_records(readable_records(folder), folder, table, out, as_json)
            elif as_json:
                print_json([])
    if outcome.failed:
        raise typer.Exit(1)


def train(
    cell: Annotated[str, typer.Option(help="The cell of the grid to train.")],
    out: Annotated[Path, typer.Option(help="Folder of the checkpoints.")],
    grid: Grid = "table2",
    preset: Preset = "quick",
    seed: Seed = 0,
    assign: Set = None,
    data: Data = None,
    data_name: DataName = None,
    data_root: DataRoot = None,
    resize: Resizing = None,
    device: Device = "auto",
    gpus: Gpus = None,
    precision: Precision = None,
    compiled: Compile = False,
    keep: Keep = 2,
    tensorboard: Tensorboard = None,
    as_json: Json = False,
) -> None:
    """Train one cell and keep its checkpoint, without scoring it.

    Example: `ddpm-bench train --cell eps-mse-fixed --preset quick --out runs/eps`
    """
    from ddpm_bench.cli.setup import device_runtime, for_training, on_gpus
    from ddpm_bench.config.shipped import load_grid
    from ddpm_bench.data import load_data
    from ddpm_bench.experiment.ablate import plan
    from ddpm_bench.experiment.autoencoders import with_autoencoders
    from ddpm_bench.experiment.cell import make_trainer
    from ddpm_bench.experiment.classifiers import with_classifiers
    from ddpm_bench.runtime.batch import training_batch
    from ddpm_bench.runtime.interrupt import Stop
    from ddpm_bench.runtime.observer import about, say
    from ddpm_bench.runtime.owner import owned
    from ddpm_bench.runtime.tensorboard import check_tensorboard, event_files

    check_tensorboard(tensorboard)
    runtime = device_runtime(device, compiled=compiled, keep=keep, precision=precision)
    assign = [*(assign or ()), *assignments(data, data_name, data_root, resize)]
    (job,) = plan(load_grid(grid), preset, [cell], [seed], assign)
    with Stop(), on_gpus(gpus, runtime.device), owned(out), event_files(tensorboard), about(job.name):
        images = load_data(job.settings.data)
        [job] = with_autoencoders([job], images, runtime)
        (job,) = with_classifiers([job], images)
        runtime = for_training(runtime, precision, job, images, out / "precision.json")
        trainer = make_trainer(job, images, runtime, out)
        with training_batch(job.settings.training.batch):
            divergence = trainer.run(job.settings.training.steps)
    said = (
        f"diverged at step {divergence.step}: {divergence.reason}" if divergence else f"trained to step {trainer.step}"
    )
    say(f"{job.name}: {said}; checkpoint in '{out}'")
    if as_json:
        made = {"checkpoint": str(out), "step": trainer.step, "diverged": divergence and divergence.model_dump()}
        print_json(made | {"notes": images.notes})


def grids(as_json: Json = False) -> None:
    """List the grids with their cells, and the presets.

    Example: `ddpm-bench grids`
    """
    from ddpm_bench.config.preset import load_preset
    from ddpm_bench.config.shipped import load_grid, shipped_grids, shipped_presets

    tables = [load_grid(name) for name in shipped_grids()]
    sizes = [load_preset(name) for name in shipped_presets()]
    if as_json:
        return print_json({"grids": [g.model_dump() for g in tables], "presets": [p.model_dump() for p in sizes]})
    for table in tables:
        typer.echo(f"{table.name}: {table.title}\n  {table.source}")
        for cell in table.cells:
            typer.echo(f"  {cell.name:<16} {cell.group}: {cell.label}")
    typer.echo("\nPresets:")
    for size in sizes:
        typer.echo(f"  {size.name:<8} {size.summary}")


def _show_costs(grid: "GridCost", as_json: bool) -> None:
    from ddpm_bench.runtime.timing import in_words

    if as_json:
        return print_json(grid.as_json())
    for cell in grid.cells:
        size = f"{cell.disk_bytes / 1e6:,.0f} MB"
        typer.echo(f"{cell.job:<24} {cell.parameters:>12,} parameters  {in_words(cell.hours * 3600):>8}  {size:>10}")
    wall, in_a_row = (in_words(hours * 3600) for hours in (grid.hours, grid.hours_in_a_row))
    cells, threads = (
        f"{n} {what}{'s' if n > 1 else ''}" for n, what in ((len(grid.cells), "cell"), (grid.threads, "thread"))
    )
    typer.echo(
        f"{cells}, {grid.workers} at a time, {threads} each: about {wall} for the grid on a machine that does "
        f"nothing else ({in_a_row} of work in a row), and {grid.disk_bytes / 1e6:,.0f} MB.\n{grid.not_counted}"
    )
