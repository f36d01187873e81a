"""What `ddpm-bench gradient-noise` finds of a checkpoint. Imports no torch."""

from typing import Literal

from ddpm_bench.config.values import Count, Seed
from ddpm_bench.records.fields import Hardware
from ddpm_bench.records.part import Part
from ddpm_bench.records.record import DataInfo


class Noise(Part):
    """Of the gradient of one objective, estimated without bias from independent batches.

    trace: of the covariance of one image's gradient. squared_norm: |mean gradient|^2; below 0 where noise hides it. scale: their
    ratio, in images: the batch at which noise and mean are equally long (McCandlish et al. 2018); None where squared_norm is
    not above 0. halves: the scale by either half of the batches, which tells how far it can be trusted.
    """

    objective: str
    trace: float
    squared_norm: float
    scale: float | None
    halves: tuple[float | None, float | None]


class GradientNoise(Part):
    """Of one checkpoint, at the images that it trains on; what it depends on beside."""

    checkpoint: str
    weights: Literal["ema", "raw", "unknown"]
    weights_sha256: str
    step: Count | None
    data: DataInfo
    batches: Count
    batch: Count
    seed: Seed
    noises: tuple[Noise, ...]
    versions: dict[str, str]
    git_commit: str | None
    hardware: Hardware
