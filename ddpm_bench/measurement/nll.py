"""`ddpm-bench nll`: the variational bound of a checkpoint on images."""

from collections.abc import Sequence
from pathlib import Path

from ddpm_bench.data.images import ImageData
from ddpm_bench.measurement.bounds import BoundMethod, SplitName, measure_bound
from ddpm_bench.measurement.measure import data_info
from ddpm_bench.models.model import Model
from ddpm_bench.records.nll import Nll, gap
from ddpm_bench.records.provenance import git_commit, hardware, versions
from ddpm_bench.runtime.observer import say
from ddpm_bench.runtime.runtime import Runtime


def measure_nll(
    model: Model, data: ImageData, splits: Sequence[SplitName], method: BoundMethod, runtime: Runtime, folder: Path
) -> Nll:
    """The bound of each of the splits. Finished pieces stay in `folder`, so an interrupted call goes on and a repeated one
    answers at once."""
    if method.evals is not None and method.exact_for(model):
        say(f"The chain has {model.T} steps, no more than --evals {method.evals}: every one is evaluated.")
    bounds = tuple(measure_bound(model, data, split, method, runtime, folder) for split in splits)
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
        versions=versions(),
        git_commit=git_commit(),
        hardware=hardware(runtime.device, runtime.compiled),
    )
