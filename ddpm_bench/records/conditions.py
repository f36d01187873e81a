"""The conditions of records: alike among themselves, and as published or not.

Everything here is computed from the records and the grid; nothing is claimed. Every number has conditions of its own: a
bound depends on no samples, a score on no way of measuring bounds. Published are the conditions that the grid states,
its settings among them; what a grid does not state is not compared, and said.
"""

import json
from collections import Counter
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, lru_cache, partial
from typing import Any, Literal

from ddpm_bench.config.grid import Cell, Grid, flat, merged
from ddpm_bench.config.metrics import BOUNDS, METRICS
from ddpm_bench.config.sampling import OF_SAMPLERS
from ddpm_bench.config.settings import CellSettings
from ddpm_bench.errors import UserError, near_miss
from ddpm_bench.records.differences import HASHED
from ddpm_bench.records.differences import differences as differing_lines
from ddpm_bench.records.fields import networks_in
from ddpm_bench.records.likelihoods import BoundTerms, OdeLikelihood
from ddpm_bench.records.record import DataInfo, ExtractorInfo, Record, common_settings

Selection = Literal["last", "best"]
"""Which checkpoint a number belongs to: the last, or the one with the lowest distance to the training set."""

REFERENCE = "images behind precision and recall"
"""Of the reference: more of them have smaller balls."""
QUANTISED = "rounded to uint8"
"""What samples are before anything scores them, in every record."""
MAY_BE_UNSTATED = (
    "hash of the data", "training steps", "weights", "checkpoint", "sampling steps", "quantisation", REFERENCE
)  # fmt: skip
_OF_NEIGHBOURS = ("scoring.neighborhood", "scoring.density_neighborhood")
_BOUND_WORDS = {"evals": "network calls an image", "clip_x0": "clipping of x_0"}
# Settings that change no number, and one that has a name of its own.
_NO_CONDITIONS = {"training.steps", "training.checkpoint_every", "training.log_every", "training.snapshot_every"}


@dataclass(frozen=True)
class Difference:
    """One condition that is not as published."""

    name: str
    published: str
    here: str


@dataclass(frozen=True)
class SetAside:
    """A record that a report goes without, and why."""

    what: str
    why: str


def sorted_out(records: Sequence[Record], grid: Grid) -> tuple[list[Record], list[SetAside]]:
    """The records that share a table, in the grid's order of cells, then by seed; and the others, with reasons.

    A table holds one set of conditions: those that most records share, of equally many the ones that come first. Set
    aside are records of other conditions, of another grid, of a cell that the grid has not or has with other axes, and
    a second record of a cell and seed. UserError when nothing is left.
    """
    aside: list[SetAside] = []
    order = {cell.name: place for place, cell in enumerate(grid.cells)}
    kept: dict[tuple[str, int], Record] = {}
    foreign = cache(partial(_foreign, grid))
    for record in records:
        if fault := foreign(record.grid, record.cell, record.preset, record.settings):
            aside.append(SetAside(_name(record), fault))
        elif (record.cell, record.seed) in kept:
            aside.append(SetAside(_name(record), "another record is of the same cell and seed"))
        else:
            kept[record.cell, record.seed] = record
    alike = list(kept.values())
    for conditions in (shared, *(_bound_conditions(split) for split in BOUNDS), *map(_autoencoder_of, order)):
        alike, odd = _majority(alike, conditions)
        aside += odd
    if not alike:
        reasons = "".join(f"\n  {one.what}: {one.why}" for one in aside)
        raise UserError(
            f"There are no records of grid '{grid.name}' to report. Make some with `ddpm-bench ablate`.{reasons}"
        )
    return sorted(alike, key=lambda record: (order[record.cell], record.seed)), aside


def _name(record: Record) -> str:
    return f"cell '{record.cell}', seed {record.seed}"


def _foreign(grid: Grid, of_grid: str, of_cell: str, preset: str, settings: CellSettings) -> str:
    """Why a record of such a grid and cell does not belong to `grid`; empty when it does."""
    cells = {cell.name: cell for cell in grid.cells}
    if of_grid != grid.name:
        return f"it is of grid '{of_grid}', not of '{grid.name}'; report it with `--grid {of_grid}`"
    if of_cell not in cells:
        return f"grid '{grid.name}' has no such cell{near_miss(of_cell, cells)}"
    expected, found = cells[of_cell].axes_under(preset), _flat(settings)
    if lines := differing_lines(expected, {axis: found.get(axis) for axis in expected}):
        return f"it has other axes than the grid's row:{_joined(lines)}"
    return ""


def _majority(
    records: Sequence[Record], conditions: Callable[[Record], Mapping[str, Any] | None]
) -> tuple[list[Record], list[SetAside]]:
    """The records of the conditions that most of them have, and the others; None is at home everywhere."""
    found = {id(record): value for record in records if (value := conditions(record)) is not None}
    distinct = {id(value): value for value in found.values()}
    written = {key: json.dumps(value, sort_keys=True) for key, value in distinct.items()}
    texts = {key: written[id(value)] for key, value in found.items()}
    if len(set(texts.values())) < 2:
        return list(records), []
    [(usual, _)] = Counter(texts.values()).most_common(1)
    aside = [
        SetAside(_name(record), f"it was measured under other conditions than the others:{_joined(lines)}")
        for record in records
        if texts.get(id(record), usual) != usual
        and (lines := differing_lines(json.loads(usual), json.loads(texts[id(record)])))
    ]
    return [record for record in records if texts.get(id(record), usual) == usual], aside


def _joined(lines: Sequence[str]) -> str:
    return ";".join(f" {line.strip()}" for line in lines)


def shared(record: Record) -> Mapping[str, Any]:
    """What must be equal in all records of a table: all but the axes and the seed."""
    return _shared(
        record.settings, record.axes, record.data, record.extractor, record.preset, networks_in(record.hardware)
    )


@lru_cache(maxsize=256)  # of a few cells there may be thousands of records
def _shared(
    settings: CellSettings, axes: Sequence[str], data: DataInfo, extractor: ExtractorInfo, preset: str, networks: str
) -> Mapping[str, Any]:
    common = common_settings(settings, axes)
    del common["data"]["resize"]
    return common | {
        "networks": networks,
        "preset": preset,
        "data_set": data.model_dump(mode="json", exclude=set(HASHED)),
        "extractor": extractor.model_dump(mode="json", exclude=set(HASHED)),
    }


def _bound_conditions(split: str) -> Callable[[Record], dict[str, Any] | None]:
    def of(record: Record) -> dict[str, Any] | None:
        bound = _bound(record, split)
        if bound is None:
            return None
        how = how_measured(bound)
        if {"diffusion.T", "sampling.steps"} & set(record.axes):  # a chain whose length is the cell's own
            how = {name: value for name, value in how.items() if name not in ("steps", "method", "evals")}
        return {f"{split} bound": how}

    return of


def _autoencoder_of(cell: str) -> Callable[[Record], dict[str, Any] | None]:
    """What must be equal in all records of a cell, whose codec may be an axis."""

    def of(record: Record) -> dict[str, Any] | None:
        sha256 = record.settings.diffusion.autoencoder if record.cell == cell else None
        return {"diffusion.autoencoder": sha256} if sha256 else None

    return of


def _bound(record: Record, split: str) -> BoundTerms | None:
    return next((bound for bound in record.bounds if bound.split == split), None)


def how_measured(bound: BoundTerms) -> dict[str, Any]:
    """Everything that a bound depends on beside the model, its data and the draws."""
    return {name: getattr(bound, name) for name in ("images", "method", "evals", "steps", "clip_x0", "decoder")}


def one_of_each(records: Sequence[Record]) -> list[Record]:
    """The records without those that have the conditions of an earlier one, whatever the metric."""
    firsts: dict[Hashable, Record] = {}
    for record in records:
        bounds = tuple((bound.split, *how_measured(bound).values()) for bound in record.bounds)
        ode = tuple(_how_by_ode(record.ode).values())
        firsts.setdefault((record.settings, record.data, record.extractor, bounds, ode), record)
    return list(firsts.values())


def _how_by_ode(ode: OdeLikelihood | None) -> dict[str, Any]:
    """Everything that a likelihood by the ODE depends on beside the model, its data and the draws; nothing without one."""
    return ode.model_dump(include={"images", "draws", "dequantisation", "sigma_0", "rtol", "atol"}) if ode else {}


def model_conditions(record: Record, key: str, selection: Selection = "last") -> dict[str, Any]:
    """What was trained, on what, which of its weights the number `key` is of, and for scores the sampling."""
    settings, extractor = record.settings, record.extractor
    conditions: dict[str, Any] = {
        "data": settings.data.source,
        "hash of the data": record.data.sha256,
        "size": settings.data.size,
        "training steps": settings.training.steps,
        "weights": "ema",
        "checkpoint": "last" if selection == "last" else f"lowest {extractor.labels[0]} during training",
    }
    if not METRICS[key].is_bound:
        conditions["sampling steps"] = settings.sampling.steps or settings.diffusion.T
        conditions["sampling.spacing"] = settings.sampling.spacing_of(settings.diffusion.T)
        conditions["sampling.clip_x0"] = settings.sampling.clip_x0
        conditions["sampling.sampler"] = settings.sampling.sampler
        conditions |= {f"sampling.{name}": getattr(settings.sampling, name) for name in OF_SAMPLERS}
    sections = ("diffusion.", "network.", "training.")
    return conditions | {
        name: value
        for name, value in flat_settings(record).items()
        if name.startswith(sections) and name not in _NO_CONDITIONS
    }


def flat_settings(record: Record) -> dict[str, Any]:
    """By name as `training.steps`."""
    return dict(_flat(record.settings))


@lru_cache(maxsize=256)  # of a few cells there may be thousands of records
def _flat(settings: CellSettings) -> Mapping[str, Any]:
    return {f"{section}.{name}": value for section, part in settings for name, value in part}


def measurement_conditions(record: Record, key: str) -> dict[str, Any]:
    """How the metric `key` was measured: a bound's way, or the samples and the features behind a score."""
    metric = METRICS[key]
    if split := metric.bound_split:
        bound = _bound(record, split)
        here = how_measured(bound) if bound else {}
        return {_bound_name(split, name): value for name, value in here.items()}
    if metric.kind == "likelihood":
        return {f"ODE's {name}": value for name, value in _how_by_ode(record.ode).items()}
    settings, extractor = record.settings, record.extractor
    # Only the setting 'inception' is Inception: an extractor of one's own may carry any name.
    named_so = extractor.name if settings.scoring.extractor == extractor.name else f"{extractor.name} (of one's own)"
    conditions = {
        "samples": settings.sampling.samples,
        "quantisation": QUANTISED,
        "extractor": named_so + ("" if extractor.verified else " (unverified weights)"),
        "hash of the extractor": extractor.sha256,
    }
    if metric.split:
        conditions["reference split"] = metric.split
    if metric.neighbours:
        conditions[metric.neighbours] = getattr(settings.scoring, metric.neighbours)
        conditions[REFERENCE] = record.data.train_images
    return conditions


def _bound_name(split: str, name: str) -> str:
    if name == "images":
        return f"bound's {split} images"
    return f"bound's {_BOUND_WORDS.get(name, name)}"


def published_conditions(grid: Grid, key: str, cell: Cell | None = None) -> dict[str, Any]:
    """What the grid says of the conditions of its number for the metric `key`; None where the source does not say.

    Of a cell, its own settings among them; without one, of all its cells.
    """
    stated, metric = grid.conditions, METRICS[key]
    told = flat(merged(stated.settings, cell.under("") if cell else {}))
    conditions = {
        "data": stated.data,
        "hash of the data": stated.data_sha256,
        "size": stated.size,
        "training steps": told.pop("training.steps", stated.training_steps),
        "weights": stated.weights,
        "checkpoint": stated.checkpoint,
    }
    if split := metric.bound_split:
        if stated.nll:
            nll = {"method": "exact"} | stated.nll.model_dump()
            nll["images"] = nll[f"{split}_images"]
            names = ("images", "method", "evals", "clip_x0", "decoder")
            conditions |= {_bound_name(split, name): nll[name] for name in names}
    elif metric.kind == "likelihood":
        if stated.ode:
            ode = stated.ode.model_dump()
            conditions["checkpoint"] = ode.pop("checkpoint") or stated.checkpoint
            conditions |= {f"ODE's {name}": value for name, value in ode.items()}
    else:
        conditions |= {
            "samples": stated.samples,
            "sampling steps": told.pop("sampling.steps", stated.sampling_steps),
            "extractor": stated.extractor,
            "quantisation": stated.quantisation,
        }
        if metric.neighbours:
            conditions[REFERENCE] = stated.reference_images
    no_matter = ("sampling.", "scoring.") if metric.is_bound else () if metric.neighbours else _OF_NEIGHBOURS
    return conditions | {name: value for name, value in told.items() if not name.startswith(no_matter)}


def differences(record: Record, grid: Grid, key: str, selection: Selection) -> tuple[Difference, ...]:
    """What is not as published in the number `key` of the checkpoint chosen by `selection`; empty means comparable.

    The record's cell is one of the grid's.
    """
    cell = next((cell for cell in grid.cells if cell.name == record.cell), None)
    here = flat_settings(record) | model_conditions(record, key, selection) | measurement_conditions(record, key)
    said = here | ({} if record.data.name == grid.conditions.data else {"data": record.data.name})
    return tuple(
        Difference(name, _show(value), _show(said[name]))
        for name, value in published_conditions(grid, key, cell).items()
        if name in here and not (value is None and _may_be_unstated(name)) and here[name] != value
    )


def unstated(grid: Grid, key: str) -> list[str]:
    """The conditions that the source states for no cell, so that nobody can compare them."""
    of_cells = [published_conditions(grid, key, cell) for cell in grid.cells]
    return [name for name in of_cells[0] if _may_be_unstated(name) and all(of[name] is None for of in of_cells)]


def _may_be_unstated(name: str) -> bool:
    return name in MAY_BE_UNSTATED or name.startswith(("bound's", "ODE's"))


def _show(value: object) -> str:
    if isinstance(value, bool):
        return "on" if value else "off"
    if isinstance(value, tuple):
        return ", ".join(map(str, value))
    return "none" if value is None else f"{value:,}" if isinstance(value, int) else str(value)
