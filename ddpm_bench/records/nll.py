"""What `ddpm-bench nll` finds: the bound of a checkpoint, and its likelihood by the ODE. Imports no torch."""

from typing import Literal

from ddpm_bench.config.values import Count, Seed
from ddpm_bench.records.fields import Hardware
from ddpm_bench.records.likelihoods import Bounds, BoundTerms, OdeLikelihood
from ddpm_bench.records.part import Part
from ddpm_bench.records.record import DataInfo


class Gap(Part):
    """Bound of the test images minus that of the training images, in bits/dim, with its standard error."""

    value: float
    standard_error: float


class Nll(Part):
    """The bound of one checkpoint, its likelihood, and what both depend on."""

    checkpoint: str
    weights: Literal["ema", "raw", "unknown"]
    weights_sha256: str
    step: Count | None
    parameters: Count
    predicts: str
    variance: str
    T: int
    data: DataInfo
    seed: Seed
    bounds: Bounds  # none where the model has no bound
    gap: Gap | None
    likelihoods: tuple[OdeLikelihood, ...] = ()  # by the ODE, where they were asked for
    versions: dict[str, str]
    git_commit: str | None
    hardware: Hardware


def gap(bounds: dict[str, BoundTerms]) -> Gap | None:
    """Test minus training, where both were measured; the two are of different images, so their errors add up."""
    if len(bounds) < 2:
        return None
    test, train = bounds["test"], bounds["train"]
    return Gap(value=test.total - train.total, standard_error=(test.standard_error**2 + train.standard_error**2) ** 0.5)
