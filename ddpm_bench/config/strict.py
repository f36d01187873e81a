"""What every value that may come from a file is checked for, whatever the file: the base of settings, grids and records."""

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from ddpm_bench.text import brief, check_plain

NAME = r"^[A-Za-z0-9][A-Za-z0-9._-]*$"
"""Names of grids and cells: files are named after them."""
MOST = 10**12
"""Nothing that is counted comes to more."""
LARGEST_SEED = 2**64 - 1
"""The largest that torch's generators take."""
Count = Annotated[int, Field(ge=0, le=MOST)]
Seed = Annotated[int, Field(ge=0, le=LARGEST_SEED)]


class Strict(BaseModel):
    """Frozen; an unknown key is an error, so a misspelt option cannot pass silently; texts are plain (`ddpm_bench/text.py`)."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    @field_validator("*")
    @classmethod
    def _plain(cls, value: Any) -> Any:
        check_plain(value)
        return value


def first_fault(error: ValidationError, where: str | None = None) -> str:
    """The first fault in words: where, what, and the value unless it is long."""
    first = error.errors()[0]
    where = ".".join(map(str, first["loc"])) if where is None else where
    message = first["msg"].removeprefix("Value error, ").removeprefix("Input ").rstrip(".")
    given = "" if isinstance(first["input"], (dict, list)) else f", not {brief(first['input'])}"
    return f"{where}{': ' if where else ''}{message}{given}"
