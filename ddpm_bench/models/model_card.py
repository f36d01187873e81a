"""What a converted checkpoint is, in words and values. Imports no torch."""

from typing import Literal

from pydantic import field_validator, model_validator

from ddpm_bench.config.limits import LEAST_SIDE, MOST_SIDE
from ddpm_bench.config.networks import AnyNetworkSettings, Settings
from ddpm_bench.config.sampling import SamplingSettings
from ddpm_bench.config.settings import ProcessSettings

Kind = Literal["ema", "raw", "unknown"]
KINDS: dict[Kind, str] = {"ema": "EMA", "raw": "raw, not EMA", "unknown": "not known whether EMA"}
"""What weights are, as every result says."""


class ModelCard(Settings):
    """All that is known of a converted checkpoint.

    sampling: how it is sampled unless something else is asked for. source: its format, its path or hub id, and the hash
    of its file. remarks: what was taken of several things, assumed or not used when it was converted. weights_sha256: of
    the weights beside the card, by which damage is found; older cards have none. below: of a cascade, the model that draws the
    small images, which this one enlarges; the names of its weights begin with `below.`.
    """

    format: Literal["ddpm-bench model 1"] = "ddpm-bench model 1"
    name: str
    weights: Kind
    step: int | None = None
    shape: tuple[int, int, int]  # (C, H, W)
    process: ProcessSettings
    network: AnyNetworkSettings
    sampling: SamplingSettings = SamplingSettings()
    source: dict[str, str]
    remarks: tuple[str, ...] = ()
    weights_sha256: str | None = None
    below: "ModelCard | None" = None

    @field_validator("shape")
    @classmethod
    def _of_images(cls, shape: tuple[int, int, int]) -> tuple[int, int, int]:
        channels, height, width = shape
        if channels not in (1, 3) or height != width or not LEAST_SIDE <= height <= MOST_SIDE:
            raise ValueError(
                f"images of (C, H, W) = {shape} are none: they are square, of {LEAST_SIDE} to {MOST_SIDE} pixels a side, and C is 1 or 3"
            )
        return shape

    @model_validator(mode="after")
    def _below_draws_what_is_enlarged(self) -> "ModelCard":
        channels, small = self.shape[0], self.network.told_small
        if self.below is not None and self.below.shape != (channels, small, small):
            raise ValueError(
                f"the model below draws images of {self.below.shape}, and small ones of side {small} are enlarged"
            )
        return self
