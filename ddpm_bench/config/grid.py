"""Grids and presets: TOML in, validated cells out. Imports no torch.

A grid file lists the rows of a published table: for each cell the settings that tell it from the others (the grid's axes), its
label, and the numbers published for it. A preset says how large the experiment is. A cell's settings are the preset's,
then those of the whole grid, then its own, then what the grid says of this preset for all cells and for this one, then `--set`.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import Field, field_validator, model_validator

from ddpm_bench.config.autoencoders import plain_codec
from ddpm_bench.config.limits import NAME
from ddpm_bench.config.published import (
    Claim,
    Conditions,
    Printed,
    Published,
    PublishedTable,
    QuotedRow,
    Sections,
    in_words,
)
from ddpm_bench.config.values import Frozen
from ddpm_bench.errors import UserError, near_miss

SHORT = ("parameterization", "objective", "variance")
"""What a cell may say without its section, `diffusion`: the axes of Table 2."""
STEPS = "sampling.steps"
"""The axis along which samplers are compared by what they cost."""


class Cell(Frozen):
    """One row of a published table. `settings`: its own, by section; the table's axes are what its cells say there.

    common: those of the whole grid; they come from the grid file's [settings]. presets: what the grid file says of presets by name,
    of the whole grid or of this cell, whose axes have other values there.
    """

    name: str = Field(pattern=NAME)
    group: str = ""
    label: str
    settings: Sections = Field(default_factory=dict)
    common: Sections = Field(default_factory=dict)
    presets: dict[str, Sections] = Field(default_factory=dict)
    published: Published

    @model_validator(mode="before")
    @classmethod
    def _short(cls, value: Any) -> Any:
        if not isinstance(value, dict) or not any(name in value for name in SHORT):
            return value
        short = {"diffusion": {name: value[name] for name in SHORT if name in value}}
        rest = {name: held for name, held in value.items() if name not in SHORT}
        return rest | {"settings": merged(rest.get("settings", {}), short)}

    @field_validator("published", mode="before")
    @classmethod
    def _blank(cls, value: Any) -> Any:
        return {"blank": True} if value == "blank" else value

    def __hash__(self) -> int:
        return hash(self.name)

    @property
    def axes(self) -> dict[str, Any]:
        """Its own settings, by name as `diffusion.objective`."""
        return flat(self.settings)

    def under(self, preset: str) -> dict[str, dict[str, Any]]:
        """All that the grid file says of its settings under this preset."""
        return merged(self.common, self.settings, self.presets.get(preset, {}))

    @property
    def objective(self) -> str:
        """What it is trained with, by name; empty where the grid file leaves that to a preset."""
        return str(self.under("").get("diffusion", {}).get("objective", ""))

    def axes_under(self, preset: str) -> dict[str, Any]:
        """What its axes are under this preset, as records say them."""
        all_of_them = flat(self.under(preset))
        if (codec := all_of_them.get("diffusion.codec")) is not None:
            all_of_them["diffusion.codec"] = plain_codec(codec)
        return {axis: all_of_them[axis] for axis in self.axes}


def merged(*layers: Any) -> dict[str, dict[str, Any]]:
    """Settings by section; a later layer counts before an earlier one. ValueError for what holds no settings by section."""
    found: dict[str, dict[str, Any]] = {}
    for layer in layers:
        if not isinstance(layer, Mapping) or not all(isinstance(values, Mapping) for values in layer.values()):
            raise ValueError("settings stand in sections, as in settings = { training = { steps = 500 } }")
        for section, values in layer.items():
            found[section] = {**found.get(section, {}), **values}
    return found


def flat(sections: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """{"training": {"steps": 5}} -> {"training.steps": 5}"""
    return {f"{section}.{name}": value for section, values in sections.items() for name, value in values.items()}


COLUMNS = {
    "is": "IS ↑",
    "fid": "FID ↓",
    "sfid": "sFID ↓",
    "precision": "precision ↑",
    "recall": "recall ↑",
    "nll": "NLL, test (train), bits/dim ↓",
    "nll_ode": "NLL by the ODE, test, bits/dim ↓",
    "parameters": "parameters",
    "gflops": "Gflops",
    "epoch": "training, s an epoch",
    "image": "sampling, s an image",
    "hardware": "on",
}
"""Of the published half of a grid, by key of `Published.texts`."""


class OtherModel(Frozen):
    """A published row that is no cell: another model, which nothing here measures."""

    group: str = ""
    label: str
    published: Published


class Grid(Frozen):
    """A published table: its cells, its rows of other models, and what its source claims of their order.

    second_hand: transcribed from another text than the source itself. notes: what else is to be known of the numbers.
    labels_are: the heading over the rows' labels.
    coding: name of the progressive code that the same source published (see `load_coding`), if it did. blanks: what it says of
    the rows that it left blank. without: by preset, the cells that are left out of it unless they are asked for. across: the
    axis that tells the groups apart, by name as `sampling.steps`, where labels come again in each: such a table is laid out
    with a column for each group.
    """

    name: str = Field(pattern=NAME)
    title: str
    source: str
    second_hand: bool = False
    notes: tuple[str, ...] = ()
    labels_are: str = "Objective"
    coding: str | None = None
    blanks: str = ""
    conditions: Conditions
    cells: tuple[Cell, ...] = Field(min_length=1)
    others: tuple[OtherModel, ...] = ()
    claims: tuple[Claim, ...] = ()
    without: dict[str, tuple[str, ...]] = Field(default_factory=dict)
    across: str | None = None

    @model_validator(mode="before")
    @classmethod
    def _spread(cls, value: Any) -> Any:
        """What a grid file says of the whole grid goes to each of its cells, which are then complete."""
        if not isinstance(value, dict) or not ("settings" in value or "preset" in value):
            return value
        rest = {name: held for name, held in value.items() if name not in ("settings", "preset")}
        common, presets, cells = value.get("settings", {}), value.get("preset", {}), value.get("cells", ())
        if not isinstance(cells, list):
            return value
        return rest | {"cells": [_with(cell, common, presets) for cell in cells]}

    @model_validator(mode="after")
    def _names_differ(self) -> "Grid":
        names = [cell.name for cell in self.cells]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(f"two cells are named '{twice[0]}'; records are filed by cell name, so names must differ")
        return self

    @model_validator(mode="after")
    def _cells_are_complete(self) -> "Grid":
        for cell in self.cells:
            if missing := [name for name in SHORT if name not in cell.under("").get("diffusion", {})]:
                raise ValueError(
                    f"cell '{cell.name}', '{missing[0]}' is missing; the cell says it, or [settings.diffusion]"
                )
        return self

    @model_validator(mode="after")
    def _nll_has_conditions(self) -> "Grid":
        if self.conditions.nll is None and any(cell.published.has_nll for cell in self.cells):
            raise ValueError("a cell has a published NLL, so [conditions.nll] must say what it depends on")
        return self

    @model_validator(mode="after")
    def _ode_has_conditions(self) -> "Grid":
        if self.conditions.ode is None and any(cell.published.nll_ode is not None for cell in self.cells):
            raise ValueError("a cell has a published nll_ode, so [conditions.ode] must say what it depends on")
        return self

    @model_validator(mode="after")
    def _claims_are_of_cells(self) -> "Grid":
        names = [cell.name for cell in self.cells]
        for claim in self.claims:
            for name in (name for pair in claim.pairs for name in pair):
                if name not in names:
                    raise ValueError(f"the claim '{claim.text}' is of a cell '{name}'{near_miss(name, names)}")
        return self

    @model_validator(mode="after")
    def _left_out_exist(self) -> "Grid":
        names = [cell.name for cell in self.cells]
        for preset, cells in self.without.items():
            for name in cells:
                if name not in names:
                    raise ValueError(f"[without] {preset} names a cell '{name}'{near_miss(name, names)}")
        return self

    @model_validator(mode="after")
    def _cells_say_across(self) -> "Grid":
        for cell in self.cells if self.across else ():
            if self.across not in cell.axes:
                raise ValueError(f"cell '{cell.name}' does not say {self.across}, which stands across the table")
        return self

    @property
    def axes(self) -> tuple[str, ...]:
        """The settings that tell its cells apart, by name as `diffusion.objective`."""
        return tuple(dict.fromkeys(axis for cell in self.cells for axis in cell.axes))

    @property
    def table(self) -> PublishedTable:
        """The published half as a table, for listings: of rows that the source has."""
        columns = dict(COLUMNS)
        rows = [QuotedRow(group=row.group, label=row.label, values=in_print(row.published)) for row in self.rows]
        if self.across:
            columns, rows = _by_group(columns, rows)
        kept = {key: heading for key, heading in columns.items() if any(key in row.values for row in rows)}
        return PublishedTable(
            title=self.title,
            source=self.source,
            second_hand=self.second_hand,
            data=(self.conditions.data,),
            columns=kept,
            notes=self.notes,
            rows=tuple(row for row in rows if row.values),
        )

    @property
    def origin(self) -> str:
        """The source, and whether the numbers come from it at first hand."""
        return in_words(self.source, self.second_hand)

    @property
    def rows(self) -> list[Cell | OtherModel]:
        """All rows as they are shown: group after group, in each the other models first and then the cells."""
        rows: list[Cell | OtherModel] = [*self.others, *self.cells]
        groups = list(dict.fromkeys(row.group for row in rows))
        return sorted(rows, key=lambda row: groups.index(row.group))

    def select(self, names: Sequence[str] | None, preset: str = "") -> list[Cell]:
        """The named cells in the grid's order, or all of them but those that the preset leaves out."""
        known = [cell.name for cell in self.cells]
        for name in names or ():
            if name not in known:
                raise UserError(f"Grid '{self.name}' has no cell '{name}'{near_miss(name, known)}")
        wanted = names or [name for name in known if name not in self.without.get(preset, ())]
        return [cell for cell in self.cells if cell.name in wanted]


def _with(cell: Any, common: Any, presets: Any) -> Any:
    """A cell of a grid file with what is said of all cells."""
    if not isinstance(cell, dict):
        return cell
    own = cell.get("preset", {})
    for what in (presets, own):
        if not isinstance(what, dict):
            raise ValueError("'preset' holds settings by name of preset, as in [preset.quick.training]")
    names = dict.fromkeys([*presets, *own])
    rest = {name: held for name, held in cell.items() if name != "preset"}
    both = {name: merged(presets.get(name, {}), own.get(name, {})) for name in names}
    return {"common": common, **rest, "presets": both}


def _by_group(columns: dict[str, str], rows: list[QuotedRow]) -> tuple[dict[str, str], list[QuotedRow]]:
    """A column for every group, and a row for every label."""
    groups = list(dict.fromkeys(row.group for row in rows))
    wide: dict[str, str] = {}
    for key, heading in columns.items():
        name = heading.rstrip(" ↑↓")
        wide |= {f"{key} {group}": f"{name}, {group}{heading.removeprefix(name)}" for group in groups}
    found: dict[str, dict[str, Printed]] = {}
    for row in rows:
        found.setdefault(row.label, {}).update({f"{key} {row.group}": text for key, text in row.values.items()})
    return wide, [QuotedRow(label=label, values=values) for label, values in found.items()]


def in_print(published: Published) -> dict[str, Printed]:
    """The entries of a grid's row, a dash where the source left a blank."""
    dashes: dict[str, Printed] = {"is": "–", "fid": "–"} if published.blank else {}
    return dashes | {key: text for key, text in published.texts.items() if text}
