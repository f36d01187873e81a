"""What every part of a result's file is: typed, frozen, and strict about what it does not know."""

import json
from collections.abc import Callable
from functools import lru_cache
from typing import Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, field_validator

from ddpm_bench.config.values import plain


class Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", ser_json_inf_nan="strings")
    _plain = field_validator("*")(plain)

    def as_json(self) -> dict[str, Any]:
        """Values of strict JSON: a number that is not finite becomes a string such as "NaN", which is read back as a number."""
        return json.loads(self.model_dump_json())


def read_once(kind: type[BaseModel], as_now: Callable[[Any], Any] = lambda values: values) -> BeforeValidator:
    """For a field of `kind` that most files of a folder hold alike: equal JSON values are read once, and are one object.

    as_now: what values of an older version mean now.
    """

    @lru_cache(maxsize=256)
    def read(text: str) -> BaseModel:
        return kind.model_validate(as_now(json.loads(text)))

    def once(values: Any) -> Any:
        if isinstance(values, BaseModel):
            return values
        try:
            return read(json.dumps(values))
        except (ValueError, TypeError, RecursionError):  # the field says what is wrong with it, and where
            return as_now(values)

    return BeforeValidator(once)
