"""The files that come with the package, and anyone's own: grids, published tables and codes, TOML in and types out."""

import tomllib
from decimal import Decimal
from functools import cache
from pathlib import Path
from typing import Any, get_args

from pydantic import BaseModel, ValidationError

from ddpm_bench.config.grid import Grid, in_print
from ddpm_bench.config.published import Coding, PublishedTable
from ddpm_bench.config.settings import CellSettings, section_of
from ddpm_bench.config.values import first_fault
from ddpm_bench.errors import UserError, near_miss
from ddpm_bench.files import read_text

PACKAGE = Path(__file__).parent.parent


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


def published_names() -> list[str]:
    """Every shipped grid with a published number, and everything published that is no grid."""
    return [*(name for name in shipped_grids() if _has_numbers(_shipped_grid(name))), *shipped_published()]


def _has_numbers(grid: Grid) -> bool:
    return any(in_print(row.published) for row in grid.rows)


def read_toml(kind: str, name: str, shipped: dict[str, Path], parse_float: type = float) -> tuple[Path, dict[str, Any]]:
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
    return _shipped_grid(name) if name in shipped_grids() else _read_grid(name)


@cache
def _shipped_grid(name: str) -> Grid:
    """Read once: every report quotes all of them."""
    return _read_grid(name)


def _read_grid(name: str) -> Grid:
    path, content = read_toml("grid", name, shipped_grids(), parse_float=Decimal)
    for kind in ("cell", "other", "claim"):
        if kind in content:
            content[f"{kind}s"] = content.pop(kind)
    try:
        return Grid.model_validate(content)
    except ValidationError as error:
        raise UserError(f"Grid file '{path}': {explain(error, Grid, content)}") from error


def load_coding(name: str) -> Coding:
    """A shipped published progressive code by name, or a user's own by path (ending in .toml)."""
    path, content = read_toml("published code", name, shipped_published())
    if "point" in content:
        content["points"] = content.pop("point")
    try:
        return Coding.model_validate(content)
    except ValidationError as error:
        raise UserError(f"Published code '{path}': {explain(error, Coding, content)}") from error


def shipped_published() -> dict[str, Path]:
    """Name and file of everything published that comes with the package and is no grid."""
    return _shipped("ablations/published")


def load_published(name: str) -> PublishedTable:
    """What a source published, as a table: a shipped one by name, a grid's or a code's too, or a file's by path."""
    grids = shipped_grids()
    if name in grids:
        if not _has_numbers(grid := load_grid(name)):
            raise UserError(f"Grid '{name}' has no published numbers: its source is '{grid.source}'.")
        return grid.table
    path, content = read_toml("published table", name, shipped_published() | grids, parse_float=Decimal)
    if "point" in content:
        return load_coding(name).table
    if "row" in content:
        content["rows"] = content.pop("row")
    try:
        return PublishedTable.model_validate(content)
    except ValidationError as error:
        raise UserError(f"Published table '{path}': {explain(error, PublishedTable, content)}") from error


def explain(error: ValidationError, model: type[BaseModel], content: Any = None) -> str:
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
