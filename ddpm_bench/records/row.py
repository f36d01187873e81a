"""The rows that `evaluate --ckpt` adds to a folder: a typed JSON file each, written atomically. Imports no torch."""

import re
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from ddpm_bench.config.limits import MOST_T
from ddpm_bench.config.sampling import EVEN
from ddpm_bench.config.settings import Quality, completed
from ddpm_bench.config.values import Count, Seed
from ddpm_bench.errors import UserError
from ddpm_bench.files import move_aside, write_json
from ddpm_bench.records.differences import HASHED, differences
from ddpm_bench.records.fields import networks_in
from ddpm_bench.records.part import Part
from ddpm_bench.records.reading import OwnFiles, read_part
from ddpm_bench.records.record import (
    PICTURES,
    DataInfo,
    ExtractorInfo,
    Measurement,
    picture_path,
    with_network_calls,
)

SCHEMA = 1
"""Version of the row's layout. A reader refuses a newer one."""
ROW_NAME = r"^\w[\w.+-]*$"
"""Files are named after it."""


Options = dict[str, int | float | str | None]
"""Of a sampler, by the names of its fields."""


class ModelInfo(Part):
    """What was evaluated. `identity`: all that decides what its output means, the hash of its weights among it."""

    weights: Literal["ema", "raw", "unknown"]
    weights_sha256: str
    step: Count | None  # training steps, where known
    parameters: Count
    predicts: str
    variance: str
    schedule: str
    T: Annotated[int, Field(ge=1, le=MOST_T)]
    identity: dict[str, Any]


class Setup(Part):
    """Everything that a row's numbers depend on, beside versions and hardware."""

    model: ModelInfo
    data: DataInfo
    extractor: ExtractorInfo
    samples: Count
    seed: Seed
    sampler: str = "ancestral"
    sampler_options: Options = Field(default_factory=dict)
    sampling_steps: Count  # that were made
    network_calls: Count  # for a sample
    spacing: str = EVEN  # of fewer steps than T
    clip_x0: bool
    neighborhood: Count  # k of precision and recall
    quality: tuple[Quality, ...] = ()
    density_neighborhood: Count = 5  # k of density and coverage
    test_reference: bool
    bootstrap: Count = 0  # replicates behind intervals; 0: none
    bound_images: Count  # of each split; 0: no bound
    evals: Count | None  # network calls an image; None: exact, with every t
    decoder: Literal["exact", "paper"]
    ode_images: Count = 0  # test images whose likelihood is measured by the ODE; 0: none
    ode_draws: Count = 2  # of each of them
    sampling_remarks: tuple[str, ...] = ()  # what the sampler does not use, or does otherwise than its source or grid

    @model_validator(mode="before")
    @classmethod
    def _one_call_a_step(cls, value: Any) -> Any:
        return with_network_calls(value)

    @property
    def spaced(self) -> str:
        """What stands after the number of steps where the spacing or the sampler is not the usual one."""
        said = [] if self.spacing == EVEN else [self.spacing]
        if self.sampler != "ancestral":
            options = (f"{name} = {value}" for name, value in self.sampler_options.items() if value is not None)
            said.append(" ".join([self.sampler, ", ".join(options)]).strip())
        if self.network_calls != self.sampling_steps:
            said.append(f"{self.network_calls:,} network calls")
        return f" ({'; '.join(said)})" if said else ""

    @property
    def conditions(self) -> dict[str, Any]:
        """What two rows must share to stand in one table."""
        shared = {"data", "extractor", "samples", "neighborhood", "density_neighborhood", "test_reference"}
        return self.model_dump(include=shared, exclude={"data": set(HASHED), "extractor": set(HASHED)})


class Row(Measurement):
    """A measurement of one checkpoint, with its name and how it was measured."""

    schema_version: int = SCHEMA
    name: Annotated[str, Field(pattern=ROW_NAME)]
    setup: Setup


def check_name(name: str) -> str:
    """A name that can be a file's; UserError for another."""
    if not re.fullmatch(ROW_NAME, name):
        raise UserError(f"--name '{name}' must be letters, digits and ._+- alone, since files are named after it.")
    return name


def row_path(folder: Path, name: str) -> Path:
    return folder / f"{name}.json"


def write_row(folder: Path, row: Row) -> None:
    write_json(row_path(folder, row.name), row.as_json())


def read_rows(folder: Path) -> list[Row]:
    """All rows of a folder, in order of name. UserError for a file that is none."""
    return list(ROWS.all(folder).values())


def held_row(folder: Path, name: str, setup: Setup, precision: str | None = None) -> Row | None:
    """The row that `folder` holds under `name`, if any; UserError with the differences if it was measured otherwise.

    precision: what networks are to compute in, where that was asked for.
    """
    path = row_path(folder, name)
    if not path.exists():
        return None
    row = ROWS.own(path)
    if row is None:
        raise UserError(f"'{path}' would be written over. Give this one another --name, or set it aside with --fresh.")
    was, now = _conditions(row.setup), _conditions(setup)
    if precision:
        was, now = was | {"networks": networks_in(row.hardware)}, now | {"networks": precision}
    if lines := differences(was, now):
        raise UserError(
            f"'{path}' was measured with another configuration:\n" + "\n".join(lines)
            + "\nGive this one another --name, or set the old row aside and measure again with --fresh."
        )  # fmt: skip
    return row


def _conditions(setup: Setup) -> dict[str, Any]:
    """The setup, its model's settings as this version would have written them."""
    values = setup.model_dump(mode="json", exclude={"sampling_remarks"})  # words for what is compared
    return values | {"model": values["model"] | {"identity": completed(setup.model.identity)}}


def set_aside(folder: Path, name: str) -> None:
    """Move aside what there is of a row: the row, its pictures, and what was kept on the way."""
    path = row_path(folder, name)
    move_aside(folder, (path, *(picture_path(path, which) for which in PICTURES), folder / "work" / name))


def read_row(path: Path) -> Row:
    """One row. UserError for a file that is none, or of a newer schema."""
    return read_part(path, Row, SCHEMA, "row", "Remove it, or choose another --results.")


ROWS = OwnFiles(pattern="*", names=ROW_NAME, pictures=ROW_NAME, read=read_row, name=lambda row: row.name)
"""The rows of a folder: `<name>.json`."""
