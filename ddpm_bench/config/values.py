"""What values that may come from anyone's file have in common, in settings, grids and records."""

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from ddpm_bench.config.limits import LARGEST_SEED, MOST
from ddpm_bench.text import brief, check_plain

Count = Annotated[int, Field(ge=0, le=MOST)]
Seed = Annotated[int, Field(ge=0, le=LARGEST_SEED)]


def plain(value: Any) -> Any:
    """The validator of every field: texts hold nothing that is not seen (`ddpm_bench/text.py`)."""
    check_plain(value)
    return value


class Frozen(BaseModel):
    """Values of settings, grids and what was published: an unknown key is an error, numbers are finite, texts plain."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)
    _plain = field_validator("*")(plain)


def first_fault(error: ValidationError, where: str | None = None) -> str:
    """The first fault in words: where, what, and the value unless it is long."""
    first = error.errors()[0]
    where = ".".join(map(str, first["loc"])) if where is None else where
    message = first["msg"].removeprefix("Value error, ").removeprefix("Input ").rstrip(".")
    given = "" if isinstance(first["input"], (dict, list)) else f", not {brief(first['input'])}"
    return f"{where}{': ' if where else ''}{message}{given}"
