"""`ddpm-bench nll`: the variational bound of a checkpoint on images, and its likelihood by the probability flow ODE."""

from collections.abc import Sequence
from pathlib import Path

from ddpm_bench.config.metrics import SplitName
from ddpm_bench.data.images import ImageData
from ddpm_bench.likelihood.bound import check_bounded
from ddpm_bench.likelihood.ode import check_likelihood
from ddpm_bench.measurement.bounds import BoundMethod, check_no_cascade, measure_bound
from ddpm_bench.measurement.likelihood import LikelihoodMethod, measure_likelihood
from ddpm_bench.measurement.measure import data_info
from ddpm_bench.models.build import build_codec
from ddpm_bench.models.model import Model
from ddpm_bench.records.nll import Nll, gap
from ddpm_bench.records.provenance import git_commit, hardware, versions
from ddpm_bench.runtime.observer import say
from ddpm_bench.runtime.runtime import Runtime


def has_bound(model: Model) -> bool:
    """Whether the variational bound of the model is defined (see `check_bounded`)."""
    return build_codec(model.process).lossless and not model.diffusion.schedule.exploding


def measure_nll(
    model: Model,
    data: ImageData,
    splits: Sequence[SplitName],
    method: BoundMethod,
    runtime: Runtime,
    folder: Path,
    ode: LikelihoodMethod | None = None,
) -> Nll:
    """The bound of each of the splits; with `ode` their likelihoods too, and of a model without a bound these alone.

    Finished pieces stay in `folder`, so an interrupted call goes on and a repeated one answers at once.
    """
    check_no_cascade(model)
    schedule, codec = model.diffusion.schedule, build_codec(model.process)
    if ode is None:
        check_bounded(schedule, codec)
    else:
        check_likelihood(model.diffusion, codec)
    if side := model.network_settings.told_small:
        say(f"Bits/dim are of p(x | small image): each image's own of {side}x{side} pixels is told, without noise.")
    bounded = splits if has_bound(model) else ()
    if not bounded:
        why = "schedule is geometric" if schedule.exploding else f"codec is '{codec.name}'"
        say(f"The model has no variational bound, since its {why}: its likelihood by the ODE is measured alone.")
    if bounded and method.evals is not None and method.evals_for(model) is None:
        say(f"The chain has {method.steps(model)} steps, no more than --evals {method.evals}: every one is evaluated.")
    if model.network_settings.told_classes:
        say("Bits/dim are of p(x|y): each image's own class is told.")
    bounds = tuple(measure_bound(model, data, split, method, runtime, folder) for split in bounded)
    likelihoods = tuple(measure_likelihood(model, data, split, ode, runtime, folder) for split in splits if ode)
    return Nll(
        checkpoint=model.name,
        weights=model.weights,
        weights_sha256=model.weights_sha256,
        step=model.step,
        parameters=model.parameters,
        predicts=model.diffusion.parameterization.name,
        variance=model.diffusion.variance.name,
        T=model.T,
        data=data_info(data),
        seed=method.seed,
        bounds=bounds,
        gap=gap({bound.split: bound for bound in bounds}),
        likelihoods=likelihoods,
        versions=versions(),
        git_commit=git_commit(),
        hardware=hardware(runtime.device, runtime.compiled, runtime.precision),
    )
