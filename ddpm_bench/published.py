"""What a source printed, and what its numbers depend on: the typed form of the published half of a grid file."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError, field_validator

from ddpm_bench.errors import near_miss
from ddpm_bench.settings import CellSettings


class Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Published(Frozen):
    """The numbers that a source printed for a row. `blank`: a dash for IS and FID, so these are None.

    nll_test, nll_train: bits/dim; upper bounds where `nll_bound`. nll_source: where they stand, if elsewhere.
    """

    is_mean: float | None = None
    is_std: float | None = None
    fid: float | None = None
    nll_test: float | None = None
    nll_train: float | None = None
    nll_bound: bool = False
    nll_source: str | None = None
    blank: bool = False

    @property
    def has_scores(self) -> bool:
        return self.blank or self.is_mean is not None or self.fid is not None

    @property
    def has_nll(self) -> bool:
        return self.nll_test is not None or self.nll_train is not None


class NllConditions(Frozen):
    """What published bounds depend on beyond what all the numbers do. `evals`: network calls an image."""

    test_images: int
    train_images: int
    evals: int
    clip_x0: bool
    decoder: Literal["exact", "paper"]


class Conditions(Frozen):
    """What the published numbers depend on; the report computes the differences from a record's own.

    settings: by section and name (see `settings.py`), as far as the source says them; "none" stands for no value.
    """

    data: str
    size: int
    samples: int
    training_steps: int
    sampling_steps: int
    extractor: str
    checkpoint: Literal["last", "lowest FID during training"]
    nll: NllConditions | None = None
    settings: dict[str, dict[str, Any]] = {}

    @field_validator("settings")
    @classmethod
    def _exist(cls, settings: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
        return {
            section: {name: _checked(section, name, value) for name, value in values.items()}
            for section, values in settings.items()
        }


class CodingPoint(Frozen):
    """After `steps` reverse steps: `rate` bits/dim were sent, and the prediction is off by `rmse`, of pixels 0..255."""

    steps: int = Field(ge=1)
    rate: float
    rmse: float


class Coding(Frozen):
    """A published progressive code: of the model with these axes; rate and distortion in bits/dim of the whole code."""

    source: str
    label: str
    axes: dict[str, str]
    T: int = Field(ge=1)
    rate: float
    distortion: float
    points: tuple[CodingPoint, ...] = Field(min_length=1)


def _checked(section: str, name: str, value: Any) -> Any:
    """The value as the settings hold it; ValueError for one that they could not hold."""
    sections = CellSettings.model_fields
    if section not in sections:
        raise ValueError(f"there is no section '{section}' of settings{near_miss(section, list(sections))}")
    fields = sections[section].annotation.model_fields
    if name not in fields:
        raise ValueError(f"there is no setting '{section}.{name}'{near_miss(name, list(fields))}")
    field = fields[name]
    try:
        kind = TypeAdapter(Annotated[field.annotation, *field.metadata] if field.metadata else field.annotation)
        return kind.validate_python(None if value == "none" else value)
    except ValidationError as error:
        raise ValueError(f"{section}.{name}: {error.errors()[0]['msg'].removeprefix('Input ')}") from None
