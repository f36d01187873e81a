"""The command that measures records again, read off the records."""

import json
import shlex
from collections.abc import Sequence
from typing import Any

from ddpm_bench.config.grid import Grid
from ddpm_bench.config.preset import load_preset, parse_set, resolve
from ddpm_bench.config.resizing import OLDER
from ddpm_bench.config.shipped import shipped_presets
from ddpm_bench.records.record import Record
from ddpm_bench.report.summary import in_rows


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
    parts += ["--seeds", in_rows((record.seed for record in records), to="-", comma=",")]
    if shipped:
        for key, value in _unlike_preset(first, grid).items():
            parts += ["--set", _assignment(key, value)]
    if first.settings.scoring.extractor == "inception" and not first.extractor.verified:
        parts += ["--inception-weights", "PATH", "--allow-unverified-weights"]
    return shlex.join(parts)


def _unlike_preset(record: Record, grid: Grid) -> dict[str, Any]:
    """The settings that are not the preset's, by the keys of --set."""
    [cell], preset, source = grid.select([record.cell]), load_preset(record.preset), record.settings.data.source
    own = resolve(cell, preset, {}).model_dump(mode="json")
    # Of other images the preset's way of resizing is none, and of its own an older version's did the same.
    due = resolve(cell, preset, {"data": {"source": source}}).model_dump(mode="json")
    due["data"]["source"] = own["data"]["source"]
    found = {
        f"{section}.{key}": value
        for section, values in record.settings.model_dump(mode="json").items()
        for key, value in values.items()
        if value != due[section][key]
    }
    if source == own["data"]["source"] and found.get("data.resize") == OLDER:
        del found["data.resize"]
    return found


def _assignment(key: str, value: Any) -> str:
    """`key=value` as --set reads it; a string is quoted only where it would be read as something else."""
    section, _, field = key.partition(".")
    if isinstance(value, str) and parse_set([f"{key}={value}"])[section][field] == value:
        return f"{key}={value}"
    return f"{key}={json.dumps(value)}"
