"""What `ddpm-bench nll` finds: the bound of a checkpoint. Imports no torch."""

from typing import Literal

from ddpm_bench.records.record import BoundTerms, DataInfo, Part


class Gap(Part):
    """Bound of the test images minus that of the training images, in bits/dim, with its standard error."""

    value: float
    standard_error: float


class Nll(Part):
    """The bound of one checkpoint, and what it depends on."""

    checkpoint: str
    weights: Literal["ema", "raw", "unknown"]
    weights_sha256: str
    step: int | None
    parameters: int
    predicts: str
    variance: str
    T: int
    data: DataInfo
    seed: int
    bounds: tuple[BoundTerms, ...]
    gap: Gap | None
    versions: dict[str, str]
    git_commit: str | None
    hardware: dict[str, str | int | float | bool | None]


def gap(bounds: dict[str, BoundTerms]) -> Gap | None:
    """Test minus training, where both were measured; the two are of different images, so their errors add up."""
    if len(bounds) < 2:
        return None
    test, train = bounds["test"], bounds["train"]
    return Gap(value=test.total - train.total, standard_error=(test.standard_error**2 + train.standard_error**2) ** 0.5)
