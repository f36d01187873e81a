"""The settings of a cascade: which models draw what a cell's own enlarges. No torch is imported."""

from typing import Annotated, Any

from pydantic import Field, model_validator

from ddpm_bench.config.limits import LEAST_SIDE, MOST_SIDE
from ddpm_bench.config.networks import Settings

STAGED = ("diffusion", "network", "training", "sampling")
"""The sections in which the models of a cascade may differ."""


class CascadeSettings(Settings):
    """The models that draw what the cell's own enlarges; none where a cell is one model.

    below: the sides of their images, the smallest first. otherwise: by side, and there by section, what such a model has otherwise
    than the cell, as {"8": {"network": {"attention": [4]}}}.
    """

    below: tuple[Annotated[int, Field(ge=LEAST_SIDE, le=MOST_SIDE)], ...] = Field((), max_length=8)
    otherwise: dict[str, dict[str, dict[str, Any]]] = Field(default_factory=dict)

    def __hash__(self) -> int:
        return hash(self.below)

    @model_validator(mode="after")
    def _of_models_below(self) -> "CascadeSettings":
        for side, sections in self.otherwise.items() if self.below else ():
            if side not in map(str, self.below):
                raise ValueError(f"otherwise names a model of side {side}, and those below are {list(self.below)}")
            for section in sections:
                if section not in STAGED:
                    raise ValueError(
                        f"otherwise, side {side}: '{section}' is of the whole cascade; choose among {', '.join(STAGED)}"
                    )
        return self
