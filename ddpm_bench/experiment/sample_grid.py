"""`ddpm-bench ablate --ckpt`: a grid whose cells differ in sampling and scoring alone, measured of one checkpoint: a row a cell."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ddpm_bench.config.grid import STEPS, Cell, Grid, flat
from ddpm_bench.config.preset import load_preset, parse_set, resolve_sampling
from ddpm_bench.config.sampling import SamplingSettings
from ddpm_bench.config.settings import ScoringSettings
from ddpm_bench.errors import NotFinite, UserError
from ddpm_bench.experiment.ablate import chosen_cells
from ddpm_bench.measurement.evaluate import evaluate, row_name, setup_of
from ddpm_bench.measurement.kept import work_beside
from ddpm_bench.measurement.measure import Task
from ddpm_bench.models.model import Model
from ddpm_bench.records.row import Row, row_path
from ddpm_bench.runtime.observer import say
from ddpm_bench.runtime.owner import owned
from ddpm_bench.runtime.runtime import Runtime

OF_SAMPLES = ("sampling", "scoring")
"""The sections of settings that are not the checkpoint's own."""


@dataclass(frozen=True)
class SampledCell:
    """A cell as a model is measured in it. `name`: of its row. remarks: what the grid has otherwise than the model."""

    name: str
    cell: Cell
    sampling: SamplingSettings
    scoring: ScoringSettings
    remarks: tuple[str, ...]


def plan_rows(
    grid: Grid, preset: str, cells: Sequence[str] | None, assignments: Sequence[str], model: Model
) -> list[SampledCell]:
    """Every cell as `model` is sampled and scored in it. UserError for a grid that has it trained otherwise.

    Pictures of neighbours and single terms of the bound are left to records.
    """
    for axis in grid.axes:
        if axis.partition(".")[0] not in OF_SAMPLES:
            raise UserError(
                f"The cells of grid '{grid.name}' differ in {axis}, which a checkpoint has one of: --ckpt is for grids of sampling "
                "and scoring alone. Measure it by itself: `ddpm-bench evaluate --ckpt`."
            )
    size, overrides = load_preset(preset), parse_set(assignments)
    for name in flat(overrides):
        if name.partition(".")[0] not in OF_SAMPLES:
            raise UserError(f"--set {name} is the checkpoint's own; --set sampling and scoring settings alone.")
    found = []
    for cell in chosen_cells(grid, size, cells):
        sampling, scoring = resolve_sampling(cell, size, overrides)
        if scoring.bound_of != "whole chain":
            raise UserError(
                f"Cell '{cell.name}' asks for the bound of the sampled chain, which rows do not hold. `ddpm-bench nll` measures it."
            )
        scoring = scoring.model_copy(update={"precision_recall": True, "terms_images": 0, "neighbours": 0})
        found.append(
            SampledCell(f"{row_name(model, None)}-{cell.name}", cell, sampling, scoring, otherwise(cell, model))
        )
    return found


def otherwise(cell: Cell, model: Model) -> tuple[str, ...]:
    """What the grid says of all its models and the checkpoint has not, in words."""
    held = model.process.model_dump() | dict(model.identity.get("diffusion", {}))
    said = []
    for name, value in cell.common.get("diffusion", {}).items():
        found = held.get(name, "not known")
        fixed = value == "fixed" and str(found).startswith("fixed")
        if found != value and not fixed:
            said.append(f"{name} is {found} where the grid has {value}")
    return tuple(said)


def check_rows(planned: Sequence[SampledCell], model: Model, tasks: Sequence[Task]) -> None:
    """UserError, with the cell's name, for the first that cannot be measured of the model."""
    for one, task in zip(planned, tasks, strict=True):
        try:
            setup_of(model, task)
        except UserError as error:
            raise UserError(f"Cell '{one.cell.name}': {error} Choose others with --cells.") from error


def measure_rows(
    planned: Sequence[SampledCell], model: Model, tasks: Sequence[Task], runtime: Runtime, folder: Path, fresh: bool
) -> tuple[list[Row], list[str]]:
    """The rows, and the names of those that failed since their samples are no images. Raises Interrupted after saving."""
    rows, failed = [], []
    for one, task in zip(planned, tasks, strict=True):
        try:
            with owned(work_beside(row_path(folder, one.name))):
                rows.append(evaluate(model, task, runtime, folder, one.name, fresh, one.remarks))
        except NotFinite as error:
            failed.append(one.name)
            say(f"{one.name}: FAILED: {error}")
    return rows, failed


def along(axis: str, planned: Sequence[SampledCell], rows: Sequence[Row]) -> dict[str, list[tuple[float, Row]]]:
    """By label, the rows of planned cells and where each lies along the axis: of sampling steps, the network calls of an image."""
    made, lines = {row.name: row for row in rows}, dict[str, list[tuple[float, Row]]]()
    for one in planned:
        if row := made.get(one.name):
            said = flat({"sampling": one.sampling.model_dump(), "scoring": one.scoring.model_dump()})
            at = row.setup.network_calls if axis == STEPS else said[axis]
            if isinstance(at, int | float):
                lines.setdefault(one.cell.label, []).append((float(at), row))
    return lines
