"""What a grid will cost on this machine, from a few calls timed just now: `ddpm-bench ablate --dry-run`.

Each network that the cells have is timed once: cells that share it are given the same pace, and differ by their counts alone.
A call is timed with as many threads as a worker has, until it gets no faster, and its fastest time counts: what else
runs on the machine, or is done once, is no part of the work.
"""

import heapq
import itertools
import math
import os
import tempfile
import time
from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch

from ddpm_bench.config.settings import CellSettings, ScoringSettings
from ddpm_bench.data import ImageData, Split
from ddpm_bench.diffusion.bound import bound_term
from ddpm_bench.diffusion.noise import BOUND, BlockNoise
from ddpm_bench.diffusion.samplers import Chain
from ddpm_bench.experiment.cell import make_trainer, scoring_steps
from ddpm_bench.experiment.job import Job
from ddpm_bench.measurement.measure import PROGRESSIVE
from ddpm_bench.models.build import build_codec, build_diffusion
from ddpm_bench.models.build_sampling import build_sampler, steps_made
from ddpm_bench.networks.condition import some_condition
from ddpm_bench.runtime.batch import training_batch
from ddpm_bench.runtime.device import cpu_threads
from ddpm_bench.runtime.interrupt import check_stop
from ddpm_bench.runtime.observer import progress
from ddpm_bench.runtime.runtime import Runtime
from ddpm_bench.runtime.timing import seconds_of
from ddpm_bench.training.trainer import Trainer

LONGEST_CALL_S = 1.0
"""Of a call that is timed on a CPU. Where the cell's own batch takes longer, fewer images are timed: a core that is busy
so long is as busy as with more. A GPU gets the cell's own batch, since a small one would leave it idle."""
ODE_CALLS = 300
"""Network calls that take about as long as one solution of the ODE, which has 100 to 200, each with a product with the Jacobian."""
FEWEST = 4
"""Images that are timed at least, and those by which it is seen how many are affordable."""
STEADY, GAIN, LONGEST_S = 4, 0.02, 10.0
"""A call is warm when so many in a row have not been faster by this share, or after so many seconds."""

NOT_COUNTED = (
    "Not counted: start, scoring, neighbours and the report. With the embedded extractor that is up to 10 s a cell and half a minute "
    "in all, which is most of preset smoke; Inception features of 50,000 samples take hours a cell on two cores."
)

BELOW_NOT_COUNTED = (
    " Nor are the models below of cascades: their training, once for all cells, and their part of sampling."
)


@dataclass(frozen=True)
class Cost:
    """An estimate for one cell and seed, in a worker of its own."""

    job: str
    parameters: int
    hours: float
    disk_bytes: int


@dataclass(frozen=True)
class GridCost:
    """An estimate for a grid: its cells in order, run by so many workers of so many threads."""

    cells: tuple[Cost, ...]
    workers: int
    threads: int
    not_counted: str = NOT_COUNTED

    @property
    def hours_in_a_row(self) -> float:
        return sum(cell.hours for cell in self.cells)

    @property
    def hours(self) -> float:
        """Wall time: each worker takes the next cell when it has ended one, the longest first. Workers beyond the cores bring nothing."""
        at_once = min(self.workers, max(1, (os.cpu_count() or 1) // self.threads))
        busy = [0.0] * at_once
        for hours in sorted((cell.hours for cell in self.cells), reverse=True):
            heapq.heapreplace(busy, busy[0] + hours)
        return max(busy)

    @property
    def disk_bytes(self) -> int:
        return sum(cell.disk_bytes for cell in self.cells)

    def as_json(self) -> dict[str, Any]:
        whole = {name: getattr(self, name) for name in ("hours", "hours_in_a_row", "disk_bytes")}
        return whole | asdict(self)


@dataclass(frozen=True)
class Pace:
    """A network's size, and the seconds an image of a training step, a step of the chain, and a term of the bound."""

    parameters: int
    training: float
    sampling: float
    bound: float


def estimate(jobs: Sequence[Job], data: ImageData, runtime: Runtime, workers: int = 1, threads: int = 1) -> GridCost:
    """The cost of the jobs, run by so many workers at a time with so many threads each.

    The workers of a GPU share it: there they are counted as one.
    """
    networks = {_network(job.settings, data): job for job in jobs}
    paces: dict[Hashable, Pace] = {}
    with cpu_threads(threads), progress("timing networks", len(networks), "networks") as meter:
        for network, job in networks.items():
            paces[network] = time_network(job, data, runtime, threads)
            meter.update(len(paces))
    trains = {job.trained_in: job.name for job in reversed(jobs)}  # of those that share a training the first
    cells = (
        _cost(job, paces[_network(job.settings, data)], data, runtime, trains[job.trained_in] == job.name)
        for job in jobs
    )
    not_counted = NOT_COUNTED + (BELOW_NOT_COUNTED if any(job.settings.cascade.below for job in jobs) else "")
    return GridCost(tuple(cells), workers if runtime.device.type == "cpu" else 1, threads, not_counted)


def _network(settings: CellSettings, data: ImageData) -> Hashable:
    """What the pace of a cell depends on. Its objective is no part of that: at the size of `quick` L and L_simple differ by 2%."""
    diffusion, shape = build_diffusion(settings.diffusion), build_codec(settings.diffusion).shape(data.shape)
    batches = settings.training.batch, settings.sampling.samples
    sampler = build_sampler(settings.sampling)
    return settings.network.model_dump_json(), shape, diffusion.variance.outputs, batches, sampler


def _cost(job: Job, pace: Pace, data: ImageData, runtime: Runtime, trains: bool) -> Cost:
    training, sampling, bounding = _calls(job, trains)
    seconds = training * pace.training + sampling * pace.sampling + bounding * pace.bound
    # Weights, their average and Adam's two moments in float32; one more snapshot exists while a new one is written.
    weights = trains * (runtime.keep + 1) * 4 * 4 * pace.parameters
    return Cost(job.name, pace.parameters, seconds / 3600, weights + _samples(job) * data.train.images[0].numel())


def _samples(job: Job) -> int:
    return len(scoring_steps(job.settings, shared=job.shares is not None)) * job.settings.sampling.samples


def _calls(job: Job, trains: bool) -> tuple[int, int, int]:
    """The images that the network is trained on, and its calls on one image that sampling and bounds take."""
    settings = job.settings
    steps = steps_made(settings.sampling, settings.diffusion.T)
    bounded = steps if settings.scoring.bound_of == "sampled chain" else settings.diffusion.T
    return (
        trains * settings.training.steps * settings.training.batch,
        (_samples(job) + PROGRESSIVE) * steps * (2 if settings.sampling.guided else 1),
        bound_calls(settings.scoring, bounded) + ode_calls(settings.scoring),
    )


def longest_first(jobs: Sequence[Job]) -> list[Job]:
    """The order in which jobs begin that run side by side, so that at the end none runs alone for long.

    One job of each training comes before the others that share it: so they seldom wait for one another. Long is what takes
    many network calls, of which a training image is three; networks are taken to be alike, as those of most grids are.
    """
    firsts = {job.trained_in: job for job in reversed(jobs)}

    def place(job: Job) -> tuple[bool, int]:
        trains = firsts[job.trained_in] is job
        training, sampling, bounding = _calls(job, trains)
        return not trains, -(3 * training + sampling + bounding)

    return sorted(jobs, key=place)


def bound_calls(scoring: ScoringSettings, T: int) -> int:
    """Network calls that the bounds of a cell take."""
    if scoring.bound_evals is None or scoring.bound_evals >= T:
        return 2 * scoring.bound_images * T
    return 2 * scoring.bound_images * scoring.bound_evals + scoring.terms_images * T


def ode_calls(scoring: ScoringSettings) -> int:
    """Network calls that take about as long as the likelihood by the ODE."""
    return scoring.ode_images * scoring.ode_draws * ODE_CALLS


# ---- timing ---------------------------------------------------------------------------------------------------------

ENCODED = 256
"""Images that a network is timed on: latents of all would take their time once, and no step's."""
Call = Callable[[], object]


def time_network(job: Job, data: ImageData, runtime: Runtime, threads: int) -> Pace:
    """The pace of the job's network in the steps that it is trained, sampled and bounded by."""
    settings, on_cpu = job.settings, runtime.device.type == "cpu"
    trainer = _trainer(job, data, runtime, settings.training.batch)
    evaluated = min(settings.sampling.samples, runtime.network_batch(trainer.training.denoiser.shape[1]))
    kinds: list[tuple[Callable[[int], Call], int]] = [
        (lambda images: _training(job, data, runtime, images), settings.training.batch),
        (lambda images: _sampling(trainer, settings, runtime, images), evaluated),
        (lambda images: _bound(trainer, data, settings, runtime, images), evaluated),
    ]
    # What a single thread does is known whatever else the machine does meanwhile.
    clock = time.process_time if on_cpu and threads == 1 else time.perf_counter
    seconds = []
    for call_of, batch in kinds:
        images = _affordable(call_of, batch) if on_cpu else batch
        seconds.append(_fastest(call_of(images), runtime.device, clock) / images)
    return Pace(sum(p.numel() for p in trainer.network.parameters()), *seconds)


def _trainer(job: Job, data: ImageData, runtime: Runtime, batch: int) -> Trainer:
    training = job.settings.training.model_copy(update={"batch": batch})
    labels = None if data.train.labels is None else data.train.labels[:ENCODED]
    data = replace(data, train=Split(data.train.images[:ENCODED], labels))
    with tempfile.TemporaryDirectory() as empty:  # a step writes nothing
        settings = job.settings.model_copy(update={"training": training})
        trainer = make_trainer(replace(job, settings=settings), data, runtime, Path(empty))
    trainer.network.train()
    return trainer


def _training(job: Job, data: ImageData, runtime: Runtime, images: int) -> Call:
    trainer = _trainer(job, data, runtime, images)

    def call() -> None:
        with training_batch(images):
            trainer.train_step()

    return call


def _sampling(trainer: Trainer, settings: CellSettings, runtime: Runtime, images: int) -> Call:
    """The next step of an endless row of chains."""
    told = some_condition(settings.network, trainer.training.denoiser.shape[0], images, runtime.device)
    chain = Chain(trainer.training.denoiser.given(told), build_sampler(settings.sampling), trainer.training.codec)

    def chains() -> Iterator[object]:
        for seed in itertools.count():
            noise = BlockNoise(seed, 0, images, chain.denoiser.shape, runtime.device)
            yield from chain.denoise(noise.draw(), chain.T, noise)

    steps = chains()
    return lambda: next(steps)


def _bound(trainer: Trainer, data: ImageData, settings: CellSettings, runtime: Runtime, images: int) -> Call:
    told = some_condition(settings.network, trainer.training.denoiser.shape[0], images, runtime.device)
    denoiser, train = trainer.training.denoiser.given(told), data.train.images
    x0 = trainer.training.codec.encode(train[torch.arange(images) % len(train)].to(runtime.device))
    t = torch.arange(images, device=runtime.device) % denoiser.T + 1
    noise = BlockNoise(0, 0, images, denoiser.shape, runtime.device, stream=BOUND)

    @torch.inference_mode()
    def call() -> None:
        with denoiser.evaluating():
            bound_term(denoiser, x0, t, noise.draw())

    return call


def _affordable(call_of: Callable[[int], Call], batch: int) -> int:
    """`batch`, or as many images as a call of LONGEST_CALL_S takes."""
    if batch <= FEWEST:
        return batch
    seconds = seconds_of(call_of(FEWEST), torch.device("cpu")) / FEWEST
    return max(FEWEST, min(batch, int(LONGEST_CALL_S / seconds)))


def _fastest(call: Call, device: torch.device, clock: Callable[[], float]) -> float:
    """Seconds of the fastest of the calls, of which there are as many as bring gains."""
    best, steady, until = math.inf, 0, time.monotonic() + LONGEST_S
    while steady < STEADY and (best == math.inf or time.monotonic() < until):
        check_stop()
        seconds = seconds_of(call, device, clock=clock)
        steady = 0 if seconds < best * (1 - GAIN) else steady + 1
        best = min(best, seconds)
    return best
