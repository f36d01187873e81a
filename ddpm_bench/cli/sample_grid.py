"""`ablate --ckpt`: a grid of samplers measured of one checkpoint."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from ddpm_bench.cli.options import numbers
from ddpm_bench.cli.show import print_json, print_table
from ddpm_bench.config.resizing import Resize
from ddpm_bench.errors import UserError

if TYPE_CHECKING:
    from ddpm_bench.cli.setup import Wanted
    from ddpm_bench.experiment.sample_grid import SampledCell
    from ddpm_bench.records.row import Row


def sample_grid(
    ckpt: Path, grid: str, preset: str, cells: Sequence[str], seeds: str, assign: Sequence[str], raw: bool,
    data: str | None, data_name: str | None, data_root: Path | None, resize: Resize | None,
    extractor: str | None, weights: Path | None, unverified: bool,
    device: str, gpus: int | None, batch: int | None, precision: "Wanted", compiled: bool, cache: Path, results: Path | None,
    fresh: bool, as_json: bool,
) -> None:  # fmt: skip
    """Measure a row for every cell, render their table, and print it. Exit code 1 if one failed."""
    from ddpm_bench.cli.setup import device_runtime, for_model, on_gpus
    from ddpm_bench.config.preset import parse_set
    from ddpm_bench.config.shipped import load_grid
    from ddpm_bench.experiment.classifiers import named_classifier, train_if_missing
    from ddpm_bench.experiment.sample_grid import check_rows, measure_rows, plan_rows
    from ddpm_bench.measurement.measure import Task
    from ddpm_bench.metrics.extractors import choose_extractor, load_extractor
    from ddpm_bench.models.model import load_model
    from ddpm_bench.models.reference import reference_data
    from ddpm_bench.records.row import read_rows
    from ddpm_bench.report.checkpoint_rows import make_tables, write_tables
    from ddpm_bench.report.writers.terminal_tables import rows_at_terminal
    from ddpm_bench.runtime.interrupt import Stop
    from ddpm_bench.runtime.observer import say, say_once
    from ddpm_bench.runtime.owner import RENDERING_S, owned

    seed, *more = numbers("--seeds", seeds)
    if more:
        raise UserError(f"--seeds {seeds}: a row is of samples of one seed. Give one, and each a folder: --results.")
    table, model = load_grid(grid), load_model(ckpt, raw)
    runtime = device_runtime(device, cache, batch, compiled, precision=precision)
    planned = plan_rows(table, preset, cells, assign, model)
    for remark in dict.fromkeys(remark for one in planned for remark in one.remarks):
        say_once(remark)
    folder = results or Path("results/checkpoints") / table.name
    runtime = for_model(runtime, precision, model, folder)
    with Stop(), on_gpus(gpus, runtime.device):
        images = reference_data(model, data, data_name, data_root, resize)
        asked = extractor or parse_set(assign).get("scoring", {}).get("extractor")
        usual = planned[0].scoring.extractor
        name = str(asked or choose_extractor(usual, images.train.images, weights, cache))
        features = load_extractor(name, inception_weights=weights, allow_unverified=unverified, cache=cache)
        features.check_size(*images.shape[1:])
        tasks = []
        for one in planned:
            sampling = named_classifier(one.sampling, model.process, images)
            train_if_missing(sampling, model.process, images, runtime)
            tasks.append(Task(images, features, sampling, one.scoring.model_copy(update={"extractor": name}), seed))
        check_rows(planned, model, tasks)
        rows, failed = measure_rows(planned, model, tasks, runtime, folder, fresh)
        with owned(folder, RENDERING_S):
            held = read_rows(folder)
            write_tables(folder, held)
            figure = _figure(table.across, planned, rows, folder)
    if as_json:
        print_json([row.as_json() for row in rows])
    else:
        print_table(rows_at_terminal(make_tables(held)))
    drawn = f", their distances in '{figure}'" if figure else ""
    say(f"{len(rows)} rows of '{model.name}' and the tables are in '{folder}'{drawn}")
    if failed:
        raise typer.Exit(1)


def _figure(axis: str | None, planned: "Sequence[SampledCell]", rows: "Sequence[Row]", folder: Path) -> Path | None:
    """The distances along the axis that stands across the grid; None where there is none, or nothing to compare along it."""
    from ddpm_bench.experiment.sample_grid import along
    from ddpm_bench.report.figures.rows_across import draw_rows

    return draw_rows(axis, along(axis, planned, rows), folder / "figures" / "distance.png") if axis else None
