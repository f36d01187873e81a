"""The conditions of records: alike among themselves, as published or not, and how to have them again.

Everything here is computed from the records and the grid; nothing is claimed. Published are the conditions that the
grid states, its settings among them; what a grid does not state is not compared.
"""

import json
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from ddpm_bench.differences import differences as differing_lines
from ddpm_bench.errors import UserError, near_miss
from ddpm_bench.grid import AXES, Grid, load_preset, parse_set, resolve, shipped_presets
from ddpm_bench.store import BoundTerms, Record

Selection = Literal["last", "best"]
"""Which checkpoint a number belongs to: the last, or the one with the lowest distance to the training set."""

_BOUND_WORDS = {"evals": "network calls an image", "clip_x0": "clipping of x_0"}


@dataclass(frozen=True)
class Difference:
    """One condition that is not as published."""

    name: str
    published: str
    here: str


def checked(records: Sequence[Record], grid: Grid) -> list[Record]:
    """The records in the grid's order of cells, then by seed.

    UserError when there are none, when one does not belong to the grid, when two are of the same cell and seed, or when
    they were not measured under the same conditions; the message prints the difference.
    """
    if not records:
        raise UserError(f"There are no records of grid '{grid.name}' to report. Make some with `ddpm-bench ablate`.")
    cells = {cell.name: cell for cell in grid.cells}
    seen: set[tuple[str, int]] = set()
    for record in records:
        if record.grid != grid.name:
            raise UserError(
                f"A record is of grid '{record.grid}', not of '{grid.name}'; report it with `--grid {record.grid}`."
            )
        if record.cell not in cells:
            raise UserError(
                f"Grid '{grid.name}' has no cell '{record.cell}', which a record is of{near_miss(record.cell, cells)}"
            )
        measured = {axis: getattr(record.settings.diffusion, axis) for axis in AXES}
        if lines := differing_lines(cells[record.cell].axes, measured):
            raise UserError(
                f"The record of cell '{record.cell}', seed {record.seed}, has other axes than the grid's row:\n"
                + "\n".join(lines)
                + "\nMeasure it again, or report it with the grid it was measured with."
            )
        if (record.cell, record.seed) in seen:
            raise UserError(f"Two records are of cell '{record.cell}', seed {record.seed}; keep one of them.")
        seen.add((record.cell, record.seed))
        _refuse_mixed(records[0], record)
    _refuse_mixed_bounds(records)
    order = list(cells)
    return sorted(records, key=lambda record: (order.index(record.cell), record.seed))


def _refuse_mixed(first: Record, other: Record) -> None:
    lines = differing_lines(_shared(first), _shared(other))
    if lines:
        raise UserError(
            "Records measured under different conditions do not share a table: "
            f"cell '{first.cell}', seed {first.seed} (was) and cell '{other.cell}', seed {other.seed} (now):\n"
            + "\n".join(lines)
            + "\nKeep one configuration in a results folder, or choose another with --results DIR."
        )


def _refuse_mixed_bounds(records: Sequence[Record]) -> None:
    first: dict[str, tuple[Record, dict[str, Any]]] = {}
    for record in records:
        for bound in record.bounds:
            one, was = first.setdefault(bound.split, (record, how_measured(bound)))
            if lines := differing_lines(was, how_measured(bound)):
                raise UserError(
                    f"The {bound.split} bounds of cell '{one.cell}', seed {one.seed} (was) and of cell "
                    f"'{record.cell}', seed {record.seed} (now) were measured in different ways:\n"
                    + "\n".join(lines)
                    + "\nBounds that are not measured alike do not share a column; measure one of the cells again."
                )


def how_measured(bound: BoundTerms) -> dict[str, Any]:
    """Everything that a bound depends on beside the model, its data and the draws."""
    return bound.model_dump(include={"images", "method", "evals", "clip_x0", "decoder"})


def _shared(record: Record) -> dict[str, Any]:
    """What must be equal in all records of a table: all but the axes and the seed."""
    settings = record.settings.model_dump(mode="json")
    for axis in AXES:
        del settings["diffusion"][axis]
    return settings | {
        "preset": record.preset,
        "data_set": record.data.model_dump(mode="json"),
        "extractor": record.extractor.model_dump(mode="json"),
    }


def differences(record: Record, grid: Grid, selection: Selection) -> tuple[Difference, ...]:
    """What is not as published when the checkpoint is chosen by `selection`; empty means comparable."""
    return tuple(_named(record, grid, selection) + _of_settings(record, grid))


def bound_differences(bounds: Sequence[BoundTerms], grid: Grid) -> tuple[Difference, ...]:
    """What is not as published in how these bounds were measured; nothing if the grid publishes none."""
    if grid.conditions.nll is None:
        return ()
    published = {"method": "exact"} | grid.conditions.nll.model_dump()
    found = []
    for bound in bounds:
        here = how_measured(bound)
        here[f"{bound.split}_images"] = here.pop("images")
        found += [
            Difference(
                f"bound's {_BOUND_WORDS.get(name, name.replace('_', ' '))}", _show(published[name]), _show(value)
            )
            for name, value in here.items()
            if value != published[name]
        ]
    return tuple(dict.fromkeys(found))


def _named(record: Record, grid: Grid, selection: Selection) -> list[Difference]:
    settings, extractor = record.settings, record.extractor
    weights = "" if extractor.verified else " (unverified weights)"
    # Only the setting 'inception' is Inception: an extractor of one's own may carry any name.
    named_so = extractor.name if settings.scoring.extractor == extractor.name else f"{extractor.name} (of one's own)"
    here: dict[str, object] = {
        "data": settings.data.source,
        "size": settings.data.size,
        "samples": settings.sampling.samples,
        "training_steps": settings.training.steps,
        "sampling_steps": settings.sampling.steps or settings.diffusion.T,
        "extractor": named_so + weights,
        "checkpoint": "last" if selection == "last" else f"lowest {extractor.labels[0]} during training",
    }
    published = grid.conditions.model_dump(exclude={"nll", "settings"})
    return [
        Difference(name.replace("_", " "), _show(value), _show(here[name]))
        for name, value in published.items()
        if here[name] != value
    ]


def _of_settings(record: Record, grid: Grid) -> list[Difference]:
    found = []
    for section, values in grid.conditions.settings.items():
        here = getattr(record.settings, section)
        for name, value in values.items():
            if getattr(here, name) != value:
                found.append(Difference(f"{section}.{name}", _show(value), _show(getattr(here, name))))
    return found


def _show(value: object) -> str:
    if isinstance(value, bool):
        return "on" if value else "off"
    if isinstance(value, tuple):
        return ", ".join(map(str, value))
    return f"{value:,}" if isinstance(value, int) else str(value)


def command(records: Sequence[Record], grid: Grid) -> str:
    """The command that measures these records again; settings unlike the preset's are spelled out with --set."""
    first = records[0]
    measured = {record.cell for record in records}
    shipped = first.preset in shipped_presets()
    parts = [
        "ddpm-bench",
        "ablate",
        "--grid",
        grid.name,
        "--preset",
        first.preset if shipped else f"{first.preset}.toml",
    ]
    if measured != {cell.name for cell in grid.cells}:
        parts += ["--cells", ",".join(cell.name for cell in grid.cells if cell.name in measured)]
    parts += ["--seeds", ",".join(map(str, sorted({record.seed for record in records})))]
    if shipped:
        [cell] = grid.select([first.cell])
        preset = resolve(cell, load_preset(first.preset), {}).model_dump(mode="json")
        for section, values in first.settings.model_dump(mode="json").items():
            for key, value in values.items():
                if value != preset[section][key]:
                    parts += ["--set", _assignment(f"{section}.{key}", value)]
    if first.settings.scoring.extractor == "inception" and not first.extractor.verified:
        parts += ["--inception-weights", "PATH", "--allow-unverified-weights"]
    return shlex.join(parts)


def _assignment(key: str, value: Any) -> str:
    """`key=value` as --set reads it; a string is quoted only where it would be read as something else."""
    section, _, field = key.partition(".")
    if isinstance(value, str) and parse_set([f"{key}={value}"])[section][field] == value:
        return f"{key}={value}"
    return f"{key}={json.dumps(value)}"
