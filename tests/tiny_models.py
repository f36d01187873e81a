"""A checkpoint and a data set small enough to be sampled and scored in a test, neither of them trained or real."""

import json
from pathlib import Path
from typing import Any

import numpy as np

from ddpm_bench.config.networks import UNetSettings
from ddpm_bench.config.settings import DataSettings, ProcessSettings
from ddpm_bench.config.shipped import load_grid
from ddpm_bench.data import load_data
from ddpm_bench.experiment.ablate import plan
from ddpm_bench.experiment.job import Bench, Job
from ddpm_bench.metrics.extractors import load_extractor
from ddpm_bench.models.build import build_diffusion, build_network
from ddpm_bench.models.model import save_model
from ddpm_bench.models.model_card import Kind, ModelCard
from ddpm_bench.runtime.runtime import Runtime
from ddpm_bench.sealed import SEAL
from ddpm_bench.training.snapshots import UNSEALED

SHAPE = (1, 16, 16)
PRESET = """
[data]
source = "embedded"
size = 16
resize = "average"
[diffusion]
T = 6
beta_1 = 0.05
beta_T = 0.7
[network]
base = 4
multipliers = [1, 2]
blocks = 1
attention = [8]
groups = 2
[training]
steps = 10
batch = 4
checkpoint_every = 5
[sampling]
samples = 12
[scoring]
extractor = "embedded"
bound_images = 4
bound_evals = 5
"""


def tiny_checkpoint(
    folder: Path,
    *,
    parameterization: str = "eps",
    variance: str = "fixed",
    T: int = 6,
    weights: Kind = "ema",
    seed: int = 0,
    classes: int = 0,
    null_class: bool = False,
) -> Path:
    """A converted checkpoint in `folder`: random weights, 16x16 grey images, a chain of T steps."""
    process = ProcessSettings(parameterization=parameterization, variance=variance, T=T, beta_1=0.05, beta_T=0.7)
    settings = UNetSettings(
        base=4, multipliers=(1,), blocks=1, attention=(), groups=2, classes=classes, null_class=null_class
    )
    network = build_network(settings, SHAPE, build_diffusion(process), seed)
    card = ModelCard(
        name=folder.name, weights=weights, shape=SHAPE, process=process, network=settings, source={"path": "nowhere"}
    )
    save_model(folder, card, network.state_dict())
    return folder


def tiny_data(path: Path, train: int = 40, test: int = 24, channels: int = 1) -> str:
    """An npz of smooth random images; returns the --data for it."""
    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 256, (train + test, channels, 4, 4), dtype=np.uint8)
    images = coarse.repeat(4, axis=2).repeat(4, axis=3)
    np.savez(path, train=images[:train], test=images[train:])
    return f"npz:{path}"


def tiny_preset(folder: Path, source: str = "embedded") -> str:
    """A preset whose cells take next to no time; returns the --preset for it. source: its --data, of `tiny_data` in less."""
    path = folder / "tiny.toml"
    own = PRESET.replace('resize = "average"\n', 'name = "tiny"\n').replace(
        'source = "embedded"', f'source = "{source}"'
    )
    path.write_text(PRESET if source == "embedded" else own)
    return str(path)


def unsealed(snapshot: Path, *without: str) -> dict[str, Any]:
    """The state of a snapshot, rewritten as an older version wrote it: without hashes of its files, and `without` more."""
    path = snapshot / "state.json"
    state = {key: value for key, value in json.loads(path.read_text()).items() if key not in (SEAL, "files", *without)}
    state["format"] = UNSEALED
    path.write_text(json.dumps(state))
    return state


PLAIN = ("scoring.bootstrap=0", "scoring.neighbours=0", "scoring.bound_images=0")
"""A measurement in no time, where its numbers are not looked at."""


def tiny_bench(folder: Path, results: str = "results") -> Bench:
    """The bench of `tiny_data`, with results and cache in `folder`."""
    data = load_data(DataSettings(source=tiny_data(folder / "data.npz"), size=16))
    extractor = load_extractor("embedded", size=16, cache=folder / "cache")
    return Bench(folder / results, data, extractor, Runtime(cache=folder / "cache"))


def tiny_jobs(folder: Path, *more: str) -> list[Job]:
    """Two cells of `tiny_preset`, measured in no time, with more assignments."""
    return plan(load_grid("table2"), tiny_preset(folder), ["mu-L-fixed", "eps-L-fixed"], [0], [*PLAIN, *more])
