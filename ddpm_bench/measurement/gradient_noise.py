"""`ddpm-bench gradient-noise`: how noisy the gradient of an objective is at a checkpoint (Nichol, Dhariwal 2021, Figure 7).

    tr(cov of one image's gradient) / |mean gradient|^2

With g_1..g_N the gradients of N batches of B images, unbiased: tr(cov) = B s, s = sum |g_i - mean|^2 / (N - 1), and
|mean gradient|^2 = |mean|^2 - s / N (McCandlish et al. 2018, appendix A.1).
"""

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from itertools import count
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ddpm_bench.data.images import ImageData
from ddpm_bench.data.labels import labels_for, labels_sha256
from ddpm_bench.diffusion.denoiser import Denoiser
from ddpm_bench.diffusion.objective import OBJECTIVES, Objective
from ddpm_bench.diffusion.times import REMEMBERED, TimeSampler
from ddpm_bench.errors import UserError, near_miss
from ddpm_bench.files import keyed_folder
from ddpm_bench.measurement.kept import Kept
from ddpm_bench.measurement.measure import data_info
from ddpm_bench.measurement.spread import spread_of
from ddpm_bench.models.build import build_small
from ddpm_bench.models.model import Model
from ddpm_bench.records.gradient_noise import GradientNoise, Noise
from ddpm_bench.records.provenance import git_commit, hardware, versions
from ddpm_bench.runtime.batch import training_batch
from ddpm_bench.runtime.interrupt import check_stop
from ddpm_bench.runtime.observer import about, progress
from ddpm_bench.runtime.owner import owned
from ddpm_bench.runtime.runtime import Runtime
from ddpm_bench.sealed import read_arrays, write_arrays
from ddpm_bench.training.batches import Batch, Batches, Labels, borrowed_globals

SHOWN = ("L_simple", "L_hybrid", "L_vlb-uniform", "L_vlb")
"""What is compared unless something else is asked for: those of these that can train the checkpoint's diffusion."""


def measure_gradient_noise(
    model: Model, data: ImageData, objectives: Sequence[str], batches: int, batch: int, seed: int, runtime: Runtime
) -> GradientNoise:
    """Of each of the objectives, or of SHOWN where none are named, from so many batches of the training images.

    Dropout is on and x_0 is not clipped, as in training; images are not flipped. All objectives see the same images. What
    a time sampler learns it has learned before, of the model as it is. What is finished stays in the runtime's cache, where it has
    one, so that an interrupted call goes on and a repeated one answers at once. UserError for an objective that is not known, or cannot
    train the model's diffusion, and for fewer than 4 batches.
    """
    chosen = _chosen(objectives, model)
    if batches < 4:
        raise UserError(f"--batches {batches}: a spread of each half takes 4 batches or more.")
    whole, told = model.whole_chain(clip_x0=False), labels_for(model.network_settings.told_classes, data, "train")
    labels = told if told is None else Labels(told)  # none left out: the gradient is of p(x|y)
    small = build_small(model.network_settings, model.diffusion)
    network = runtime.place(model.network)
    noises = []
    with borrowed_globals(runtime.device), training_batch(batch, "--batch", "--batch N"):
        network.train()
        try:
            for objective in chosen:
                times = objective.times(model.T)
                drawn = Batches(data.train.images, batch, flips=False, seed=seed, times=times, codec=whole.codec,
                                device=runtime.device, labels=labels, small=small)  # fmt: skip
                of = {**model.function, "objective": objective.name, "batches": batches, "batch": batch, "seed": seed,
                      "data_sha256": data.sha256, **labels_sha256(told), **runtime.arithmetic}  # fmt: skip
                with about(objective.name), _folder(of, runtime) as folder:
                    noises.append(_kept_noise(objective, whole.denoiser, network, drawn, batches, folder))
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


@contextlib.contextmanager
def _folder(of: Mapping[str, Any], runtime: Runtime) -> Iterator[Path | None]:
    """Where the noise of one objective is kept; None without a cache."""
    if runtime.cache is None:
        yield None
        return
    with owned(keyed_folder(runtime.cache, "gradient-noise", of)) as folder:
        yield folder


def _kept_noise(
    objective: Objective, denoiser: Denoiser, network: nn.Module, drawn: Batches, batches: int, folder: Path | None
) -> Noise:
    if folder is None:
        return _noise(objective, denoiser, network, drawn, batches, None)
    kept = Kept(Noise, folder)
    if (found := kept.read()) is None:
        found = kept.write(_noise(objective, denoiser, network, drawn, batches, folder))
        for path in folder.glob("*.safetensors"):  # as large as the network, and not needed any more
            path.unlink()
    return found


def _noise(
    objective: Objective, denoiser: Denoiser, network: nn.Module, drawn: Batches, batches: int, folder: Path | None
) -> Noise:
    parameters = list(network.parameters())
    if drawn.times.state():  # else there is nothing to learn
        _learn(objective, denoiser, drawn, batches, folder)

    with progress("gradients", batches, "batches") as meter:

        def gradient(number: int) -> Sequence[Tensor]:
            meter.update(number)
            loss = _losses(objective, denoiser, batch := drawn.at(number))
            loss = loss if batch.weight is None else loss * batch.weight
            return torch.autograd.grad(loss.mean(), parameters, materialize_grads=True)

        halves = [
            spread_of(gradient, numbers, folder and folder / f"{which}-half.safetensors", drawn.device)
            for which, numbers in (("first", range(batches // 2)), ("second", range(batches // 2, batches)))
        ]
    trace, squared_norm = (halves[0] + halves[1]).noise(drawn.size)
    scales = tuple(_scale(*half.noise(drawn.size)) for half in halves)
    return Noise(
        objective=objective.name, trace=trace, squared_norm=squared_norm, scale=_scale(trace, squared_norm),
        halves=(scales[0], scales[1]),
    )  # fmt: skip


def _scale(trace: float, squared_norm: float) -> float | None:
    return trace / squared_norm if squared_norm > 0 else None


def _learn(objective: Objective, denoiser: Denoiser, drawn: Batches, first: int, folder: Path | None) -> None:
    """Have the time sampler learn, or know again what it learned before an interruption."""
    kept = folder and folder / "times.safetensors"
    if kept and (held := read_arrays(kept)):
        drawn.times.load_state({name: torch.from_numpy(array).to(drawn.device) for name, array in held.items()})
        return
    _fill(drawn.times, objective, denoiser, drawn, first)
    if kept:
        write_arrays(kept, {name: tensor.cpu().numpy() for name, tensor in drawn.times.state().items()})


@torch.no_grad()
def _fill(times: TimeSampler, objective: Objective, denoiser: Denoiser, drawn: Batches, first: int) -> None:
    """Let a time sampler that learns hear of as many losses of every t as it remembers; batches from number `first` on."""
    every_t = torch.arange(1, denoiser.T + 1, device=drawn.device).repeat(REMEMBERED)
    with progress("losses of every t", len(every_t), "images") as meter:
        for number, t in zip(count(first), every_t.split(drawn.size), strict=False):
            check_stop()
            x0, _, eps, _, told = drawn.at(number)
            rows = slice(len(t))
            batch = Batch(x0[rows], t, eps[rows], None, told and told[rows])
            times.learn(t, _losses(objective, denoiser, batch))
            meter.update((number - first) * drawn.size)


def _losses(objective: Objective, denoiser: Denoiser, batch: Batch) -> Tensor:
    return objective(denoiser.given(batch.condition), batch.x0, batch.t, batch.eps)
