"""What every part of a result's file is: typed, frozen, and strict about what it does not know."""

import json
from typing import Any

from pydantic import BaseModel, ConfigDict, field_validator

from ddpm_bench.config.values import plain


class Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", ser_json_inf_nan="strings")
    _plain = field_validator("*")(plain)

    def as_json(self) -> dict[str, Any]:
        """Values of strict JSON: a number that is not finite becomes a string such as "NaN", which is read back as a number."""
        return json.loads(self.model_dump_json())
