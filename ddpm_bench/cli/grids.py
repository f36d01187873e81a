"""Commands around a grid: `ablate`, `train`, `report`, `compare`, `grids`."""

from pathlib import Path
from typing import Annotated

import typer

from ddpm_bench.cli.show import print_json, print_table
from ddpm_bench.options import (
    CACHE,
    Batch,
    Cache,
    Cells,
    Data,
    DataName,
    DataRoot,
    Device,
    Extractor,
    Fresh,
    Grid,
    Json,
    Keep,
    Preset,
    Reports,
    Results,
    Seeds,
    Set,
    Tensorboard,
    Unverified,
    Weights,
    Workers,
    assignments,
    numbers,
    words,
)


def ablate(
    grid: Grid = "table2",
    preset: Preset = "quick",
    cells: Cells = "",
    seeds: Seeds = "0",
    assign: Set = None,
    data: Data = None,
    data_name: DataName = None,
    data_root: DataRoot = None,
    extractor: Extractor = None,
    inception_weights: Weights = None,
    allow_unverified_weights: Unverified = False,
    device: Device = "auto",
    results: Results = None,
    reports: Reports = None,
    keep: Keep = 1,
    batch: Batch = None,
    workers: Workers = None,
    cache: Cache = CACHE,
    fresh: Fresh = False,
    tensorboard: Tensorboard = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only list the cells with their cost and disk space.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Measure a grid: train, sample and score every cell, then render the report.

    The same command goes on where it was interrupted.

    Example: `ddpm-bench ablate --grid table2 --preset quick --seeds 0,1,2`
    """
    from ddpm_bench.ablate import check_results, plan, run_jobs, set_aside
    from ddpm_bench.cost import estimate
    from ddpm_bench.data import load_data
    from ddpm_bench.events import check_tensorboard
    from ddpm_bench.files import make_folder
    from ddpm_bench.grid import load_grid
    from ddpm_bench.interrupt import Stop
    from ddpm_bench.metrics.anchors import anchors
    from ddpm_bench.provenance import choose_device
    from ddpm_bench.run import Bench
    from ddpm_bench.workers import choose_workers

    check_tensorboard(tensorboard)
    chosen, table = choose_device(device), load_grid(grid)
    assign = [*(assign or ()), *assignments(data, data_name, data_root, extractor)]
    jobs = plan(table, preset, words(cells), numbers("--seeds", seeds), assign)
    folder = results or Path("results") / f"{table.name}-{jobs[0].preset}"
    settings = jobs[0].settings
    with Stop() as stop:
        if dry_run:
            return _show_costs(estimate(jobs, load_data(settings.data), chosen, keep), as_json)
        images, features = _load(settings, inception_weights, allow_unverified_weights, cache)
        if fresh:
            set_aside(folder, jobs)
        held = check_results(folder, jobs, images, features)
        make_folder(folder)
        scale = {} if len(held) == len(jobs) else anchors(
            images, features, settings.sampling.samples, device=chosen, cache=cache,
            test_reference=settings.scoring.test_reference, precision_recall=settings.scoring.precision_recall,
            neighborhood=settings.scoring.neighborhood, stop=stop,
        )  # fmt: skip
        bench = Bench(folder, chosen, images, features, scale, cache, keep, batch, stop, tensorboard)
        outcome = run_jobs(jobs, bench, held, choose_workers(workers, len(jobs) - len(held), chosen))
    _render(folder, table, reports or Path("reports") / f"{table.name}-{jobs[0].preset}", as_json)
    if outcome.failed:
        raise typer.Exit(1)


def train(
    cell: Annotated[str, typer.Option(help="The cell of the grid to train.")],
    out: Annotated[Path, typer.Option(help="Folder of the checkpoints.")],
    grid: Grid = "table2",
    preset: Preset = "quick",
    seed: Annotated[int, typer.Option(min=0, help="Seed of every random draw.")] = 0,
    assign: Set = None,
    data: Data = None,
    data_name: DataName = None,
    data_root: DataRoot = None,
    device: Device = "auto",
    keep: Keep = 1,
    tensorboard: Tensorboard = None,
    as_json: Json = False,
) -> None:
    """Train one cell and keep its checkpoint, without scoring it.

    Example: `ddpm-bench train --cell eps-mse-fixed --preset quick --out runs/eps`
    """
    from ddpm_bench.ablate import plan
    from ddpm_bench.console import say
    from ddpm_bench.data import load_data
    from ddpm_bench.events import check_tensorboard, event_log
    from ddpm_bench.grid import load_grid
    from ddpm_bench.interrupt import Stop
    from ddpm_bench.provenance import choose_device
    from ddpm_bench.run import make_trainer

    check_tensorboard(tensorboard)
    chosen = choose_device(device)
    (job,) = plan(load_grid(grid), preset, [cell], [seed], [*(assign or ()), *assignments(data, data_name, data_root)])
    with Stop() as stop, event_log(tensorboard) as events:
        trainer, _ = make_trainer(job, load_data(job.settings.data), chosen, out, keep, events)
        divergence = trainer.run(job.settings.training.steps, stop)
    said = (
        f"diverged at step {divergence.step}: {divergence.reason}" if divergence else f"trained to step {trainer.step}"
    )
    say(f"{job.name}: {said}; checkpoint in '{out}'")
    if as_json:
        print_json({"checkpoint": str(out), "step": trainer.step, "diverged": divergence and divergence.model_dump()})


def report(
    results: Annotated[Path, typer.Option(help="Folder of records.")],
    reports: Annotated[
        Path | None, typer.Option(help="Folder of the report [default: reports/NAME OF THE FOLDER].")
    ] = None,
    grid: Annotated[
        str | None, typer.Option(help="The grid file, where the records' grid is not a shipped one.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Render records: Markdown, LaTeX, CSV, the terminal table and pictures.

    Example: `ddpm-bench report --results results/table2-quick`
    """
    from ddpm_bench.grid import load_grid
    from ddpm_bench.store import read_records

    name = grid or read_records(results)[0].grid
    _render(results, load_grid(name), reports or Path("reports") / results.resolve().name, as_json)


def compare(
    measured: Annotated[Path, typer.Argument(help="Folder of new records.")],
    reference: Annotated[Path, typer.Argument(help="Folder of the records to repeat, two or more seeds a cell.")],
    as_json: Json = False,
) -> None:
    """Does a new measurement repeat the committed one, within the spread over seeds? Exit code 1 if not.

    Example: `ddpm-bench compare reproduced/table2-quick results/table2-quick`
    """
    from dataclasses import asdict

    from ddpm_bench.compare import checks_table
    from ddpm_bench.compare import compare as check
    from ddpm_bench.store import read_records

    checks = check(read_records(measured), read_records(reference))
    if as_json:
        print_json([asdict(each) for each in checks])
    else:
        print_table(checks_table(checks))
    if not all(each.passed for each in checks):
        raise typer.Exit(1)


def grids(as_json: Json = False) -> None:
    """List the grids with their cells, and the presets.

    Example: `ddpm-bench grids`
    """
    from ddpm_bench.grid import load_grid, load_preset, shipped_grids, shipped_presets

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


def _load(settings, weights: Path | None, allow_unverified: bool, cache: Path):
    """The data and the extractor of a command, before anything long starts."""
    from ddpm_bench.data import load_data
    from ddpm_bench.metrics.extractors import load_extractor

    features = load_extractor(
        settings.scoring.extractor, size=settings.data.size, inception_weights=weights,
        allow_unverified=allow_unverified, cache=cache,
    )  # fmt: skip
    return load_data(settings.data), features


def _render(results: Path, grid, reports: Path, as_json: bool) -> None:
    from ddpm_bench.console import say
    from ddpm_bench.report import render, terminal_table
    from ddpm_bench.store import read_records

    records = [record for record in read_records(results) if record.grid == grid.name]
    render(records, grid, reports, results)
    if as_json:
        print_json([record.model_dump(mode="json") for record in records])
    else:
        print_table(terminal_table(records, grid))
    say(f"Records in '{results}', report in '{reports}'")


def _show_costs(costs, as_json: bool) -> None:
    from dataclasses import asdict

    if as_json:
        return print_json([asdict(cost) for cost in costs])
    for cost in costs:
        size = f"{cost.disk_bytes / 1e6:,.0f} MB"
        typer.echo(f"{cost.job:<24} {cost.parameters:>12,} parameters  {cost.hours:>8.2f} h  {size:>10}")
    hours, total = sum(cost.hours for cost in costs), sum(cost.disk_bytes for cost in costs) / 1e6
    typer.echo(f"{len(costs)} cells: about {hours:.2f} h one after the other and {total:,.0f} MB; scoring not counted")
