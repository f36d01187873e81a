"""The kinds of values in records, each with the rule that it keeps, wherever the file comes from."""

import os
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, FiniteFloat

from ddpm_bench.config.limits import MOST, MOST_THREADS
from ddpm_bench.config.metrics import METRICS
from ddpm_bench.errors import near_miss

QUANTILES = (0.025, 0.16, 0.5, 0.84, 0.975)
"""At which a bootstrap's interval is kept: the median, and both ends at one standard deviation and at 95%."""
Fact = str | int | float | bool | None


def _check_metric(key: str) -> None:
    if key not in METRICS:
        raise ValueError(f"there is no metric '{key}'{near_miss(key, METRICS)}")


def _metrics_known(numbers: dict[str, float]) -> dict[str, float]:
    for key, value in numbers.items():
        _check_metric(key)
        if METRICS[key].scale == "arcsine" and not 0 <= value <= 1:
            raise ValueError(f"{key} = {value} is not between 0 and 1")
    return numbers


def _quantiles_known(quantiles: dict[str, tuple[float, ...]]) -> dict[str, tuple[float, ...]]:
    for key, values in quantiles.items():
        _check_metric(key)
        if len(values) != len(QUANTILES):
            raise ValueError(f"{key} has {len(values)} quantiles, not {len(QUANTILES)}")
    return quantiles


def _all_or_none(values: tuple[float, ...]) -> tuple[float, ...]:
    if len(values) not in (0, len(QUANTILES)):
        raise ValueError(f"there are {len(values)} quantiles, not {len(QUANTILES)}")
    return values


def _file_name(name: str) -> str:
    """A record names what lies beside it, and nothing else."""
    if os.path.basename(name) != name or "\\" in name or name.startswith(".") or not name.endswith(".png"):
        raise ValueError("must be the plain name of a .png file beside the record")
    if len(os.fsencode(name)) > 255:
        raise ValueError("the name of a file has at most 255 bytes")
    return name


def _one_of(*known: str) -> AfterValidator:
    def check(named: dict[str, Any]) -> dict[str, Any]:
        for name in named:
            if name not in known:
                raise ValueError(f"there is no '{name}'{near_miss(name, known)}")
        return named

    return AfterValidator(check)


def _machine(hardware: dict[str, Fact]) -> dict[str, Fact]:
    device, threads = hardware.get("device", "cpu"), hardware.get("threads", 1)
    if not isinstance(device, str):
        raise ValueError(f"device = {device} is not the name of one")
    if not isinstance(threads, int) or not 1 <= threads <= MOST_THREADS:
        raise ValueError(f"threads = {threads} is not a number of threads; at most {MOST_THREADS:,}")
    return hardware


def networks_in(hardware: Mapping[str, Fact]) -> Literal["float32", "bfloat16"]:
    """What networks computed in, by what a record says of its machine; where that says nothing it was float32."""
    return "bfloat16" if str(hardware.get("networks", "")).startswith("bfloat16") else "float32"


def _not_negative(values: tuple[float, ...]) -> tuple[float, ...]:
    for number, value in enumerate(values):
        if value < 0:
            raise ValueError(f"a squared error is not negative, but number {number + 1} is {value}")
    return values


Side = Annotated[int, Field(ge=1, le=100_000)]
Shape = tuple[Literal[1, 3], Side, Side]
"""(C, H, W) of an image."""
Numbers = Annotated[dict[str, float], AfterValidator(_metrics_known)]
"""By metric. Of a run that diverged, or whose bound did, they may be infinite or NaN."""
Intervals = Annotated[dict[str, tuple[float, ...]], AfterValidator(_quantiles_known)]
"""By metric, its QUANTILES."""
Interval = Annotated[tuple[float, ...], AfterValidator(_all_or_none)]
"""At QUANTILES, or empty."""
SquaredErrors = Annotated[tuple[float, ...], AfterValidator(_not_negative)]
Scale = dict[str, Annotated[dict[str, FiniteFloat], AfterValidator(_metrics_known)]]
"""What known images score, by their name and by metric."""
Distances = tuple[Annotated[float, Field(ge=0, allow_inf_nan=False)], ...]
Seconds = dict[str, Annotated[float, Field(ge=0, allow_inf_nan=False)]]
"""By phase."""
PictureName = Annotated[str, AfterValidator(_file_name)]
PictureNames = Annotated[dict[str, PictureName], _one_of("progressive", "neighbours-pixel", "neighbours-feature")]
Spaces = _one_of("pixel", "feature")
Hardware = Annotated[dict[str, Fact], AfterValidator(_machine)]
Step = Annotated[int, Field(ge=1, le=MOST)]
