"""Grids and presets: TOML in, validated cells out. Imports no torch.

A grid file lists the rows of a published table: for each cell the settings that tell it from the others (the grid's axes), its
label, and the numbers published for it. A preset says how large the experiment is. A cell's settings are the preset's,
then those of the whole grid, then its own, then what the grid says of this preset, then `--set`.
"""

import tomllib
from collections.abc import Mapping, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any, TypeVar, get_args

from pydantic import BaseModel, Field, ValidationError, field_validator, model_validator

from ddpm_bench.config.limits import NAME
from ddpm_bench.config.published import (
    Claim,
    Coding,
    Conditions,
    Printed,
    Published,
    PublishedTable,
    QuotedRow,
    Sections,
    in_words,
)  # fmt: skip
from ddpm_bench.config.settings import GEOMETRIC, CellSettings, SamplingSettings, ScoringSettings, section_of
from ddpm_bench.config.values import Frozen, first_fault
from ddpm_bench.errors import UserError, near_miss
from ddpm_bench.files import read_text
from ddpm_bench.text import brief

Held = TypeVar("Held", bound=BaseModel)
PACKAGE = Path(__file__).parent.parent
SHORT = ("parameterization", "objective", "variance")
"""What a cell may say without its section, `diffusion`: the axes of Table 2."""


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
        """What its axes are under this preset."""
        all_of_them = flat(self.under(preset))
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
    "nll": "NLL, test (train), bits/dim ↓",
    "nll_ode": "NLL by the ODE, test, bits/dim ↓",
    "parameters": "parameters",
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
        rows = [QuotedRow(group=row.group, label=row.label, values=_printed(row.published)) for row in self.rows]
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


class Preset(Frozen):
    """The size of an experiment: partial settings by section."""

    name: str
    summary: str
    sections: dict[str, dict[str, Any]]


def _shipped(folder: str) -> dict[str, Path]:
    # A wheel carries `ablations/` inside the package; in a checkout it lies beside it.
    places = (PACKAGE / folder, PACKAGE.parent / folder)
    found = next((place for place in places if place.is_dir()), places[0])
    return {path.stem: path for path in sorted(found.glob("*.toml"))}


def shipped_grids() -> dict[str, Path]:
    """Name and file of every grid that comes with the package."""
    return _shipped("ablations")


def shipped_presets() -> dict[str, Path]:
    """Name and file of every preset that comes with the package."""
    return _shipped("config/presets")


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


def published_names() -> list[str]:
    """Every shipped grid with a published number, and everything published that is no grid."""
    grids = [name for name in shipped_grids() if any(_printed(row.published) for row in load_grid(name).rows)]
    return [*grids, *shipped_published()]


def _printed(published: Published) -> dict[str, Printed]:
    """The entries of a grid's row, a dash where the source left a blank."""
    dashes: dict[str, Printed] = {"is": "–", "fid": "–"} if published.blank else {}
    return dashes | {key: text for key, text in published.texts.items() if text}


def _read_toml(
    kind: str, name: str, shipped: dict[str, Path], parse_float: type = float
) -> tuple[Path, dict[str, Any]]:
    path = Path(name) if name.endswith(".toml") else shipped.get(name)
    if path is None:
        raise UserError(f"There is no {kind} '{name}'{near_miss(name, shipped)} Or give the path of a .toml file.")
    try:
        return path, tomllib.loads(read_text(path), parse_float=parse_float)
    except FileNotFoundError:
        raise UserError(f"There is no {kind} file '{path}'. Shipped: {', '.join(shipped)}.") from None
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"The {kind} file '{path}' cannot be read as TOML: {error}.") from error


def load_grid(name: str) -> Grid:
    """A shipped grid by name, or a user's own by path (ending in .toml). UserError for whatever is wrong with it."""
    path, content = _read_toml("grid", name, shipped_grids(), parse_float=Decimal)
    for kind in ("cell", "other", "claim"):
        if kind in content:
            content[f"{kind}s"] = content.pop(kind)
    try:
        return Grid.model_validate(content)
    except ValidationError as error:
        raise UserError(f"Grid file '{path}': {_explain(error, Grid, content)}") from error


def load_coding(name: str) -> Coding:
    """A shipped published progressive code by name, or a user's own by path (ending in .toml)."""
    path, content = _read_toml("published code", name, shipped_published())
    if "point" in content:
        content["points"] = content.pop("point")
    try:
        return Coding.model_validate(content)
    except ValidationError as error:
        raise UserError(f"Published code '{path}': {_explain(error, Coding, content)}") from error


def shipped_published() -> dict[str, Path]:
    """Name and file of everything published that comes with the package and is no grid."""
    return _shipped("ablations/published")


def load_published(name: str) -> PublishedTable:
    """What a source published, as a table: a shipped one by name, a grid's or a code's too, or a file's by path."""
    grids = shipped_grids()
    if name in grids:
        if name not in published_names():
            raise UserError(f"Grid '{name}' has no published numbers: its source is '{load_grid(name).source}'.")
        return load_grid(name).table
    path, content = _read_toml("published table", name, shipped_published() | grids, parse_float=Decimal)
    if "point" in content:
        return load_coding(name).table
    if "row" in content:
        content["rows"] = content.pop("row")
    try:
        return PublishedTable.model_validate(content)
    except ValidationError as error:
        raise UserError(f"Published table '{path}': {_explain(error, PublishedTable, content)}") from error


def load_preset(name: str) -> Preset:
    """A shipped preset by name, or a user's own by path (ending in .toml)."""
    path, content = _read_toml("preset", name, shipped_presets())
    summary = content.pop("summary", "")
    for section, values in content.items():
        if not isinstance(values, dict):
            raise UserError(f"Preset file '{path}': '{section}' must be a table such as [training], not a value.")
    try:
        return Preset(name=path.stem, summary=summary, sections=content)
    except ValidationError as error:
        raise UserError(f"Preset file '{path}': {first_fault(error)}.") from error


def parse_set(assignments: Sequence[str]) -> dict[str, dict[str, Any]]:
    """`training.steps=500` -> {"training": {"steps": 500}}; the value is TOML, or a plain word."""
    sections: dict[str, dict[str, Any]] = {}
    for assignment in assignments:
        key, equals, text = assignment.partition("=")
        section, dot, field = key.strip().partition(".")
        if not (equals and dot and field):
            raise UserError(f"--set '{assignment}' must look like section.key=value, for example training.steps=500.")
        sections.setdefault(section, {})[field] = _set_value(assignment, text)
    return sections


def _set_value(assignment: str, text: str) -> Any:
    try:
        content = tomllib.loads(f"value = {text}")
    except tomllib.TOMLDecodeError:
        return text.strip()
    except (ValueError, RecursionError) as error:  # thousands of digits, or of brackets
        raise UserError(f"--set {brief(assignment)} cannot be read: {error}.") from error
    if len(content) > 1:
        raise UserError(f"--set {brief(assignment)} holds more than one value; give each a --set of its own.")
    return content["value"]


def resolve(cell: Cell, preset: Preset, overrides: dict[str, dict[str, Any]]) -> CellSettings:
    """The cell's settings. An axis cannot be overridden: the row's label would no longer say what was run."""
    return _validated(CellSettings, _layered(cell, preset, overrides), f"Settings of cell '{cell.name}'")


def resolve_sampling(
    cell: Cell, preset: Preset, overrides: dict[str, dict[str, Any]]
) -> tuple[SamplingSettings, ScoringSettings]:
    """The cell's settings of sampling and scoring alone, as for a model that is there already."""
    sections, what = _layered(cell, preset, overrides), f"of cell '{cell.name}'"
    sampling = _validated(SamplingSettings, sections["sampling"], f"Settings of sampling {what}")
    return sampling, _validated(ScoringSettings, sections["scoring"], f"Settings of scoring {what}")


def _validated(kind: type[Held], values: dict[str, Any], what: str) -> Held:
    try:
        return kind.model_validate(values)
    except ValidationError as error:
        raise UserError(f"{what}: {_explain(error, kind, values)}") from error


def _layered(cell: Cell, preset: Preset, overrides: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """All values by section, unchecked; UserError for an axis that is overridden."""
    sections: dict[str, dict[str, Any]] = {name: {} for name in CellSettings.model_fields}
    for axis in cell.axes:
        section, _, name = axis.partition(".")
        if name in overrides.get(section, {}):
            raise UserError(
                f"{axis} is an axis of the grid and part of a row's label; choose rows with --cells, "
                "or write them into a grid file of your own."
            )
    data = overrides.get("data", {})
    own = preset.sections.get("data", {}).get("source")
    if data.get("source", own) != own and "resize" not in data:  # the preset's is for the preset's own images
        overrides = {**overrides, "data": {**data, "resize": None}}
    for layer in (preset.sections, cell.under(preset.name), overrides):
        for section, values in layer.items():
            held = sections.setdefault(section, {})
            was = held.get("kind", "unet")
            if section == "network" and values.get("kind", was) != was:
                held.clear()  # another kind of network has other settings
            if section == "diffusion" and values.get("schedule") == GEOMETRIC:
                held.pop("beta_1", None)  # the preset's ends are of betas, and this schedule's are of sigmas
                held.pop("beta_T", None)
            held.update(values)
    return sections


def _explain(error: ValidationError, model: type[BaseModel], content: Any = None) -> str:
    """The first fault in words: where, what, and for an unknown key the nearest known one."""
    first = error.errors()[0]
    where = list(first["loc"])
    dotted = ".".join(map(str, where))
    if len(where) > 1 and where[0] in ("cells", "others") and isinstance(where[1], int):
        row = content[where[0]][where[1]]
        name = row.get("name", row.get("label")) if isinstance(row, dict) else None
        dotted = f"{where[0][:-1]} '{name if isinstance(name, str) else where[1] + 1}'" + "".join(
            f", {part}" for part in where[2:]
        )
    if first["type"] == "extra_forbidden":
        return f"unknown key '{dotted}'{near_miss(str(where[-1]), _fields_at(model, where[:-1], content))}"
    if first["type"] == "missing":
        return f"'{dotted}' is missing."
    return f"{first_fault(error, dotted)}."


def _fields_at(model: type[BaseModel], where: list[Any], content: Any) -> list[str]:
    for part in where:
        if isinstance(part, int):
            continue
        model = section_of(part, content[part]) if model is CellSettings else _inside(model, part)
    return list(model.model_fields)


def _inside(model: type[BaseModel], name: str) -> type[BaseModel]:
    """The model that the field holds, or a tuple of."""
    annotation = model.model_fields[name].annotation
    kinds = (annotation, *get_args(annotation))
    return next(kind for kind in kinds if isinstance(kind, type) and issubclass(kind, BaseModel))
