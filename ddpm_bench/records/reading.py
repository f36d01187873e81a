"""Reading records and rows: files that may come from anywhere, refused with the reason before anything rests on them."""

from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel, ValidationError

from ddpm_bench.config.values import first_fault
from ddpm_bench.errors import UserError
from ddpm_bench.files import read_json

Read = TypeVar("Read", bound=BaseModel)

MOST_BYTES = 2**28
"""Of a record; one with the longest chain has a tenth of it."""


def read_part(path: Path, kind: type[Read], newest: int, noun: str, remedy: str) -> Read:
    """The file's JSON as `kind`, `noun` in words; UserError naming file and field for another, or of a newer schema."""
    try:
        content = read_json(path, MOST_BYTES)
        version = content.get("schema_version") if isinstance(content, dict) else None
        if not (isinstance(version, int) and version > newest):
            return kind.model_validate(content)
        problem, remedy = (
            f"it has schema {version}, and this ddpm-bench reads up to {newest}",
            "Install a newer ddpm-bench.",
        )
    except FileNotFoundError:
        raise UserError(f"There is no {noun} at '{path}'.") from None
    except ValidationError as error:
        problem = first_fault(error)
    except (OSError, ValueError) as error:
        problem = str(error)
    raise UserError(f"'{path}' is not a {noun} of ddpm-bench: {problem}. {remedy}")
