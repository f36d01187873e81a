"""How large an experiment is: presets, `--set`, and the settings of a cell that come of them and its grid. Imports no torch."""

import tomllib
from collections.abc import Sequence
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from ddpm_bench.config.grid import Cell
from ddpm_bench.config.sampling import SamplingSettings
from ddpm_bench.config.settings import GEOMETRIC, CellSettings, ScoringSettings
from ddpm_bench.config.shipped import explain, read_toml, shipped_presets
from ddpm_bench.config.values import Frozen, first_fault
from ddpm_bench.errors import UserError
from ddpm_bench.text import brief

Held = TypeVar("Held", bound=BaseModel)


class Preset(Frozen):
    """The size of an experiment: partial settings by section."""

    name: str
    summary: str
    sections: dict[str, dict[str, Any]]


def load_preset(name: str) -> Preset:
    """A shipped preset by name, or a user's own by path (ending in .toml)."""
    path, content = read_toml("preset", name, shipped_presets())
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
        raise UserError(f"{what}: {explain(error, kind, values)}") from error


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
