"""The bound of a split of a data set, as records hold it."""

import math
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from ddpm_bench.config.metrics import SplitName
from ddpm_bench.data import ImageData
from ddpm_bench.data.labels import labels_for, labels_sha256
from ddpm_bench.data.resize import averaged
from ddpm_bench.errors import UserError
from ddpm_bench.files import keyed_folder
from ddpm_bench.likelihood import Bound, bits_per_dim, estimate_bits_per_dim
from ddpm_bench.likelihood.pieces import Pieces
from ddpm_bench.metrics.uncertainty import mean_quantiles
from ddpm_bench.models.build import build_codec
from ddpm_bench.models.model import Model
from ddpm_bench.networks.condition import Condition
from ddpm_bench.records.likelihoods import BoundTerms
from ddpm_bench.runtime.owner import owned
from ddpm_bench.runtime.runtime import Runtime


@dataclass(frozen=True)
class BoundMethod:
    """How a bound is measured.

    images: so many of a split, spread evenly over it; all where there are fewer. evals: network calls an image; every t
    where that is None or no less than T. bootstrap: replicates over the images, for the quantiles of the total; 0: none.
    kept: the steps of a strided chain, whose bound it is; None for that of the whole chain.
    """

    images: int
    evals: int | None
    seed: int
    clip_x0: bool = True
    decoder: Literal["exact", "paper"] = "exact"
    bootstrap: int = 0
    kept: tuple[int, ...] | None = None

    def steps(self, model: Model) -> int:
        """Of the chain."""
        return len(self.kept) if self.kept else model.T

    def evals_for(self, model: Model) -> int | None:
        """Network calls an image of an estimate; None where every t is evaluated."""
        return None if self.evals is None or self.evals >= self.steps(model) else self.evals


def measure_bound(
    model: Model, data: ImageData, split: SplitName, method: BoundMethod, runtime: Runtime, folder: Path
) -> BoundTerms:
    """The bound of the model's whole chain on a split, or of the strided one that the method names."""
    evals, bound = method.evals_for(model), bound_of(model, data, split, method, runtime, folder)
    return BoundTerms(
        split=split,
        images=len(bound.prior),
        method="exact" if evals is None else "estimate",
        evals=method.steps(model) if evals is None else evals,
        steps=len(method.kept) if method.kept else None,
        clip_x0=method.clip_x0,
        decoder=method.decoder,
        total=float(bound.total.mean()),
        standard_error=bound.standard_error,
        estimate_error=bound.estimate_error,
        own_error=bound.own_error,
        prior=float(bound.prior.mean()),
        middle=float(bound.middle.mean()),
        first=float(bound.first.mean()),
        quantiles=mean_quantiles(bound.total, method.bootstrap, method.seed) if method.bootstrap else (),
        terms=() if bound.terms is None else tuple(bound.terms.tolist()),
        mse=() if bound.mse is None else tuple(bound.mse.tolist()),
    )


def bound_of(
    model: Model, data: ImageData, split: SplitName, method: BoundMethod, runtime: Runtime, folder: Path
) -> Bound:
    """The bound image by image. What is finished is kept in `folder`, so that an interrupted call goes on."""
    images = spread_over(getattr(data, split).images, method.images)
    condition = condition_of(model, data, split, method.images)
    evals = method.evals_for(model)
    how = {
        name: value for name, value in asdict(method).items() if name != "bootstrap" and (name, value) != ("kept", None)
    }
    how |= {"images": len(images), "evals": method.steps(model) if evals is None else evals}
    of = {**model.function, **how, "split": split, "data_sha256": data.sha256, **runtime.arithmetic}
    of |= labels_sha256(None if condition is None else condition.labels)
    chain = model.whole_chain(method.clip_x0, method.kept)
    runtime.place(model.network)
    seed, decoder = method.seed, method.decoder
    with owned(keyed_folder(folder, "bound", of), math.inf) as own:  # of two rows that want the same, one measures it
        kept = Pieces(own)
        if evals is None:
            return bits_per_dim(
                chain, images, seed=seed, decoder=decoder, runtime=runtime, pieces=kept, condition=condition
            )
        return estimate_bits_per_dim(
            chain, images, evals=evals, seed=seed, decoder=decoder, runtime=runtime, pieces=kept, condition=condition
        )


def condition_of(model: Model, data: ImageData, split: SplitName, count: int) -> Condition | None:
    """What the model is told of `count` images spread over a split, their own classes and their own small images, clean: the bound
    is of p(x|y), of p(x | small image). None where it is told nothing. UserError for a cascade, and for data of other classes, or
    without."""
    check_no_cascade(model)
    settings = model.network_settings
    labels, small, level = labels_for(settings.told_classes, data, split), None, None
    if settings.told_small:
        images = spread_over(getattr(data, split).images, count)
        small = build_codec(model.process).encode(averaged(images, settings.told_small))
        level = torch.zeros(len(images), dtype=torch.int64) if settings.told_levels else None
    if labels is None and small is None:
        return None
    return Condition(None if labels is None else spread_over(labels, count), small, level)


def check_no_cascade(model: Model) -> None:
    """UserError where a bound or a likelihood would be of several models one after the other, which is not defined here."""
    if model.below:
        raise UserError(
            f"'{model.name}' is a cascade, and has no bound in bits/dim here: p(x) is an integral over its small images. Leave it out "
            "(--bound-images 0), or measure that of one of its models: `ddpm-bench nll`, which of a super-resolution model gives "
            "p(x | small image)."
        )


def spread_over(images: Tensor, count: int) -> Tensor:
    """`count` images evenly spread over `images` (N, ...), all of them when there are fewer: data sets are often sorted by class."""
    count = min(count, len(images))
    return images[torch.arange(count) * len(images) // count]
