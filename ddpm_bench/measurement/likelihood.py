"""The likelihood of a split of a data set by the probability flow ODE, as records hold it."""

import math
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from ddpm_bench.config.metrics import SplitName
from ddpm_bench.data import ImageData
from ddpm_bench.data.labels import labels_sha256
from ddpm_bench.files import keyed_folder
from ddpm_bench.likelihood.ode import AS_PUBLISHED, Likelihood, Solving, ode_bits_per_dim
from ddpm_bench.likelihood.pieces import Pieces
from ddpm_bench.measurement.bounds import condition_of, spread_over
from ddpm_bench.metrics.uncertainty import mean_quantiles
from ddpm_bench.models.model import Model
from ddpm_bench.records.likelihoods import OdeLikelihood
from ddpm_bench.runtime.owner import owned
from ddpm_bench.runtime.runtime import Runtime


@dataclass(frozen=True)
class LikelihoodMethod:
    """How a likelihood is measured.

    images: so many of a split, spread evenly over it; all where there are fewer. bootstrap: replicates over the images,
    for the quantiles of the total; 0: none.
    """

    images: int
    seed: int
    solving: Solving = AS_PUBLISHED
    bootstrap: int = 0


def measure_likelihood(
    model: Model, data: ImageData, split: SplitName, method: LikelihoodMethod, runtime: Runtime, folder: Path
) -> OdeLikelihood:
    """Of the model's whole chain, whatever number of steps it is sampled in. What is finished is kept in `folder`."""
    found = likelihood_of(model, data, split, method, runtime, folder)
    by_image = found.total.mean(1)
    return OdeLikelihood(
        split=split,
        images=len(by_image),
        **asdict(method.solving),
        total=float(by_image.mean()),
        standard_error=found.standard_error,
        draw_error=found.draw_error,
        prior=float(found.prior.mean()),
        flow=float(found.flow.mean()),
        calls=found.calls,
        quantiles=mean_quantiles(by_image, method.bootstrap, method.seed) if method.bootstrap else (),
    )


def likelihood_of(
    model: Model, data: ImageData, split: SplitName, method: LikelihoodMethod, runtime: Runtime, folder: Path
) -> Likelihood:
    """The likelihood image by image, computed in float32: RK45 would take rounding to bfloat16 for stiffness.

    What is kept of fewer draws counts for more of them.
    """
    runtime = replace(runtime, precision="float32")
    images = spread_over(getattr(data, split).images, method.images)
    how = {name: value for name, value in asdict(method.solving).items() if name != "draws"}
    how |= {"images": len(images), "seed": method.seed}
    condition = condition_of(model, data, split, method.images)
    of = {**model.function, **how, "split": split, "data_sha256": data.sha256, **runtime.arithmetic}
    of |= labels_sha256(None if condition is None else condition.labels)
    chain = model.whole_chain(clip_x0=False)
    runtime.place(model.network)
    with owned(keyed_folder(folder, "ode", of), math.inf) as own:  # as of bounds
        return ode_bits_per_dim(
            chain, images, seed=method.seed, solving=method.solving, runtime=runtime, pieces=Pieces(own),
            condition=condition,
        )  # fmt: skip
