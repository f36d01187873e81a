"""`ddpm-bench gradient-noise`: how noisy the gradient of an objective is at a checkpoint (Nichol, Dhariwal 2021, Figure 7).

    tr(cov of one image's gradient) / |mean gradient|^2

With g_1..g_N the gradients of N batches of B images, unbiased: tr(cov) = B s, s = sum |g_i - mean|^2 / (N - 1), and
|mean gradient|^2 = |mean|^2 - s / N (McCandlish et al. 2018, appendix A.1).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import count

import torch
from torch import Tensor, nn

from ddpm_bench.data.images import ImageData
from ddpm_bench.diffusion.denoiser import Denoiser
from ddpm_bench.diffusion.objective import OBJECTIVES, Objective
from ddpm_bench.diffusion.process import precise
from ddpm_bench.diffusion.times import REMEMBERED, TimeSampler
from ddpm_bench.errors import UserError, near_miss
from ddpm_bench.measurement.measure import data_info
from ddpm_bench.models.model import Model
from ddpm_bench.records.gradient_noise import GradientNoise, Noise
from ddpm_bench.records.provenance import git_commit, hardware, versions
from ddpm_bench.runtime.batch import training_batch
from ddpm_bench.runtime.interrupt import check_stop
from ddpm_bench.runtime.observer import about, progress
from ddpm_bench.runtime.runtime import Runtime
from ddpm_bench.training.batches import Batch, Batches, borrowed_globals

SHOWN = ("L_simple", "L_hybrid", "L_vlb-uniform", "L_vlb")
"""What is compared unless something else is asked for: those of these that can train the checkpoint's diffusion."""


@dataclass
class Spread:
    """Of vectors that come one by one, each in parts; only their mean is held. scatter: sum |g_i - mean|^2, a 0-d tensor."""

    count: int
    mean: list[Tensor]
    scatter: Tensor

    @classmethod
    def of(cls, vector: Sequence[Tensor]) -> "Spread":
        """Of one vector."""
        return cls(1, list(vector), precise(torch.zeros((), device=vector[0].device)))

    def __add__(self, other: "Spread") -> "Spread":
        """Of the vectors of both (Chan, Golub, LeVeque 1983)."""
        total = self.count + other.count
        apart = [b - a for a, b in zip(self.mean, other.mean, strict=True)]
        mean = [a + d * (other.count / total) for a, d in zip(self.mean, apart, strict=True)]
        scatter = self.scatter + other.scatter + _squared(apart) * (self.count * other.count / total)
        return Spread(total, mean, scatter)

    def noise(self, batch: int) -> tuple[float, float]:
        """tr(cov) of one image's gradient and |mean gradient|^2, of two or more gradients of `batch` images each."""
        trace = float(self.scatter) / (self.count - 1)
        return batch * trace, float(_squared(self.mean)) - trace / self.count


def _squared(vector: Sequence[Tensor]) -> Tensor:
    """|v|^2, 0-d, in float64 where the device has it."""
    return torch.stack([precise(part.square().sum()) for part in vector]).sum()


def spread_of(gradient: Callable[[int], Sequence[Tensor]], numbers: range) -> Spread:
    """Of the gradients of those numbers, one of which is in memory at a time."""
    first, *more = numbers
    spread = Spread.of(gradient(first))
    for number in more:
        spread = spread + Spread.of(gradient(number))
    return spread


def measure_gradient_noise(
    model: Model, data: ImageData, objectives: Sequence[str], batches: int, batch: int, seed: int, runtime: Runtime
) -> GradientNoise:
    """Of each of the objectives, or of SHOWN where none are named, from so many batches of the training images.

    Dropout is on and x_0 is not clipped, as in training; images are not flipped. All objectives see the same images. What
    a time sampler learns it has learned before, of the model as it is. UserError for an objective that is not known, or cannot
    train the model's diffusion, and for fewer than 4 batches.
    """
    chosen = _chosen(objectives, model)
    if batches < 4:
        raise UserError(f"--batches {batches}: a spread of each half takes 4 batches or more.")
    whole = model.whole_chain(clip_x0=False)
    network = runtime.place(model.network)
    noises = []
    with borrowed_globals(runtime.device), training_batch(batch, "--batch", "--batch N"):
        network.train()
        try:
            for objective in chosen:
                times = objective.times(model.T)
                drawn = Batches(data.train.images, batch, flips=False, seed=seed, times=times, codec=whole.codec,
                                device=runtime.device)  # fmt: skip
                with about(objective.name):
                    noises.append(_noise(objective, whole.denoiser, network, drawn, batches))
        finally:
            network.eval()
    return GradientNoise(
        checkpoint=model.name,
        weights=model.weights,
        weights_sha256=model.weights_sha256,
        step=model.step,
        data=data_info(data),
        batches=batches,
        batch=batch,
        seed=seed,
        noises=tuple(noises),
        versions=versions(),
        git_commit=git_commit(),
        hardware=hardware(runtime.device, runtime.compiled, runtime.precision),
    )


def _chosen(names: Sequence[str], model: Model) -> list[Objective]:
    for name in names:
        if name not in OBJECTIVES:
            raise UserError(f"There is no objective '{name}'{near_miss(name, OBJECTIVES)}")
        OBJECTIVES[name].check(model.diffusion)
    return [OBJECTIVES[name] for name in names] or [OBJECTIVES[name] for name in SHOWN if _trains(name, model)]


def _trains(name: str, model: Model) -> bool:
    try:
        OBJECTIVES[name].check(model.diffusion)
    except UserError:
        return False
    return True


def _noise(objective: Objective, denoiser: Denoiser, network: nn.Module, drawn: Batches, batches: int) -> Noise:
    parameters = list(network.parameters())
    if drawn.times.state():  # else there is nothing to learn
        _fill(drawn.times, objective, denoiser, drawn, batches)

    with progress("gradients", batches, "batches") as meter:

        def gradient(number: int) -> Sequence[Tensor]:
            check_stop()
            meter.update(number)
            loss = _losses(objective, denoiser, batch := drawn.at(number))
            loss = loss if batch.weight is None else loss * batch.weight
            return torch.autograd.grad(loss.mean(), parameters, materialize_grads=True)

        halves = [spread_of(gradient, numbers) for numbers in (range(batches // 2), range(batches // 2, batches))]
    trace, squared_norm = (halves[0] + halves[1]).noise(drawn.size)
    scales = tuple(_scale(*half.noise(drawn.size)) for half in halves)
    return Noise(
        objective=objective.name, trace=trace, squared_norm=squared_norm, scale=_scale(trace, squared_norm),
        halves=(scales[0], scales[1]),
    )  # fmt: skip


def _scale(trace: float, squared_norm: float) -> float | None:
    return trace / squared_norm if squared_norm > 0 else None


@torch.no_grad()
def _fill(times: TimeSampler, objective: Objective, denoiser: Denoiser, drawn: Batches, first: int) -> None:
    """Let a time sampler that learns hear of as many losses of every t as it remembers; batches from number `first` on."""
    every_t = torch.arange(1, denoiser.T + 1, device=drawn.device).repeat(REMEMBERED)
    with progress("losses of every t", len(every_t), "images") as meter:
        for number, t in zip(count(first), every_t.split(drawn.size), strict=False):
            check_stop()
            x0, _, eps, _ = drawn.at(number)
            times.learn(t, _losses(objective, denoiser, Batch(x0[: len(t)], t, eps[: len(t)], None)))
            meter.update((number - first) * drawn.size)


def _losses(objective: Objective, denoiser: Denoiser, batch: Batch) -> Tensor:
    return objective(denoiser, batch.x0, batch.t, batch.eps)
