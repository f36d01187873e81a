"""ddpm-bench: Table 2 of "Denoising Diffusion Probabilistic Models" (Ho, Jain, Abbeel 2020), measured.

The names below are the public face (`docs/api.md`); each is imported when it is first used, so that importing the package
loads no torch and `ddpm-bench --help` stays instant. Messages go through the logger `ddpm_bench`, which is silent until
it is configured.
"""

import importlib
import logging
from typing import Any

__version__ = "0.1.0"

logging.getLogger(__name__).addHandler(logging.NullHandler())

PUBLIC = {
    # what a model is
    "Model": "models.model",
    "load_model": "models.model",
    "Diffusion": "diffusion.reverse",
    "Denoiser": "diffusion.denoiser",
    "Chain": "diffusion.samplers",
    "Ancestral": "diffusion.samplers",
    "DDIM": "diffusion.ddim",
    "SigmaHat": "diffusion.ddim",
    "AncestralSDE": "diffusion.score_samplers",
    "ReverseDiffusion": "diffusion.score_samplers",
    "ProbabilityFlow": "diffusion.score_samplers",
    "Langevin": "diffusion.score_samplers",
    "AnnealedLangevin": "diffusion.annealed_langevin",
    "Eps": "diffusion.parameterization",
    "Mu": "diffusion.parameterization",
    "X0": "diffusion.parameterization",
    "FixedBeta": "diffusion.variance",
    "FixedBetaTilde": "diffusion.variance",
    "LearnedDiagonal": "diffusion.variance",
    "LearnedRange": "diffusion.variance",
    "linear": "diffusion.schedule",
    "cosine": "diffusion.schedule",
    # what is done with one
    "sample": "diffusion.samplers",
    "bits_per_dim": "likelihood",
    "estimate_bits_per_dim": "likelihood",
    "scores": "metrics.fidelity",
    "measure": "measurement.measure",
    "Task": "measurement.measure",
    "Runtime": "runtime.runtime",
    "choose_device": "runtime.device",
    # what it is measured against and with
    "load_data": "data",
    "load_extractor": "metrics.extractors",
    "DataSettings": "config.settings",
    "SamplingSettings": "config.sampling",
    "ScoringSettings": "config.settings",
    "CellSettings": "config.settings",
    "load_grid": "config.shipped",
    # what comes out
    "Measurement": "records.record",
    "Record": "records.record",
    "read_record": "records.record",
    "read_records": "records.record",
    "Row": "records.row",
    "read_rows": "records.row",
    "render": "report",
    "UserError": "errors",
}
"""The public names, and the module of each."""

__all__ = ["__version__", *PUBLIC]


def __getattr__(name: str) -> Any:
    if name not in PUBLIC:
        raise AttributeError(f"module 'ddpm_bench' has no attribute '{name}'")
    return getattr(importlib.import_module(f"ddpm_bench.{PUBLIC[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *PUBLIC})
