"""What a converted checkpoint is, in words and values. Imports no torch."""

from typing import Literal

from ddpm_bench.config.networks import AnyNetworkSettings
from ddpm_bench.config.settings import ProcessSettings, SamplingSettings, Settings

Kind = Literal["ema", "raw", "unknown"]
KINDS: dict[Kind, str] = {"ema": "EMA", "raw": "raw, not EMA", "unknown": "not known whether EMA"}
"""What weights are, as every result says."""


class ModelCard(Settings):
    """All that is known of a converted checkpoint.

    sampling: how it is sampled unless something else is asked for. source: its format, its path or hub id, and the hash
    of its file.
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
