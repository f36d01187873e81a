"""What a grid will cost on this machine, from a few network calls timed just now: `ddpm-bench ablate --dry-run`."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from ddpm_bench.config.settings import CellSettings, ScoringSettings
from ddpm_bench.data import ImageData
from ddpm_bench.diffusion.denoiser import Denoiser
from ddpm_bench.experiment.cell import Job, scoring_steps
from ddpm_bench.models.build import build_codec, build_diffusion, build_network, build_objective
from ddpm_bench.runtime.runtime import Runtime
from ddpm_bench.runtime.timing import seconds_of

PROBE_IMAGES, PROBE_REPEATS = 16, 3
"""Images on a CPU; a GPU gets the cell's own batch, since a small one would leave it idle."""


@dataclass(frozen=True)
class Cost:
    """An estimate for one cell and seed; scoring is left out."""

    job: str
    parameters: int
    hours: float
    disk_bytes: int


@dataclass(frozen=True)
class Probe:
    """A cell's network: its size, and images a second of a training step and of a forward pass."""

    parameters: int
    training: float
    forward: float


def estimate(jobs: Sequence[Job], data: ImageData, runtime: Runtime) -> list[Cost]:
    """The cost of each job. The network's speed is measured once a cell, not once a seed."""
    costs: list[Cost] = []
    probes: dict[str, Probe] = {}
    for job in jobs:
        settings = job.settings
        if job.cell.name not in probes:
            probes[job.cell.name] = _probe(settings, data, runtime)
        probe = probes[job.cell.name]
        samples = len(scoring_steps(settings)) * settings.sampling.samples
        forwards = samples * (settings.sampling.steps or settings.diffusion.T)
        forwards += bound_calls(settings.scoring, settings.diffusion.T)
        seconds = settings.training.steps * settings.training.batch / probe.training + forwards / probe.forward
        # Weights, their average and Adam's two moments in float32; one more snapshot exists while a new one is written.
        disk = (runtime.keep + 1) * 4 * 4 * probe.parameters + samples * data.train.images[0].numel()
        costs.append(Cost(job.name, probe.parameters, seconds / 3600, disk))
    return costs


def bound_calls(scoring: ScoringSettings, T: int) -> int:
    """Network calls that the bounds of a cell take."""
    if scoring.bound_evals is None or scoring.bound_evals >= T:
        return 2 * scoring.bound_images * T
    return 2 * scoring.bound_images * scoring.bound_evals + scoring.terms_images * T


def _probe(settings: CellSettings, data: ImageData, runtime: Runtime) -> Probe:
    """Time a training step's forward and backward pass, and a forward pass alone."""
    diffusion, codec = build_diffusion(settings.diffusion), build_codec(settings.diffusion)
    shape, objective = codec.shape(data.shape), build_objective(settings.diffusion)
    network = runtime.place(build_network(settings.network, shape, diffusion))
    denoiser = Denoiser(diffusion, network, shape, clip_x0=False)
    batch = PROBE_IMAGES if runtime.device.type == "cpu" else settings.training.batch
    x0 = codec.encode(data.train.images[:batch].to(runtime.device))
    t = torch.randint(1, denoiser.T + 1, (len(x0),), device=x0.device)

    def train() -> None:
        objective(denoiser, x0, t, torch.randn_like(x0)).mean().backward()

    def forward() -> None:
        with torch.inference_mode():
            denoiser.head(x0, t)

    rates = []
    for work in (train, forward):
        work()
        rates.append(len(x0) / seconds_of(work, x0.device, PROBE_REPEATS))
    return Probe(sum(p.numel() for p in network.parameters()), *rates)
