"""The bound of a split, as records hold it."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from ddpm_bench.diffusion.reverse import Diffusion, Network
from ddpm_bench.likelihood.estimate import estimate_bits_per_dim
from ddpm_bench.likelihood.exact import bits_per_dim
from ddpm_bench.likelihood.ledger import Ledger
from ddpm_bench.metrics.uncertainty import mean_quantiles
from ddpm_bench.records.record import BoundTerms
from ddpm_bench.runtime.interrupt import NEVER, Stop


def measure(
    network: Network,
    diffusion: Diffusion,
    images: Tensor,
    *,
    split: Literal["train", "test"],
    evals: int | None,
    seed: int,
    batch: int,
    device: torch.device | str,
    clip_x0: bool,
    decoder: Literal["exact", "paper"],
    folder: Path | None,
    identity: Mapping[str, Any],
    bootstrap: int = 0,
    stop: Stop = NEVER,
    title: str = "bound",
) -> BoundTerms:
    """The bound of `images`, uint8 (N, C, H, W), by `evals` network calls an image, or with every t where that is None or no more.

    An interrupted measurement goes on from `folder`. `identity`: JSON values that say which model and data these are;
    what else the numbers depend on is added here. `bootstrap`: replicates over the images, for the quantiles of the
    total; 0 for none.
    """
    T = diffusion.schedule.T
    exact = evals is None or evals >= T
    how = {"evals": T if exact else evals, "clip_x0": clip_x0, "decoder": decoder}
    of = {
        **identity,
        **how,
        "split": split,
        "images": len(images),
        "seed": seed,
        "device": str(torch.device(device).type),
    }
    common = {
        "seed": seed, "batch": batch, "device": device, "clip_x0": clip_x0, "decoder": decoder, "stop": stop,
        "ledger": Ledger(folder, of), "title": f"{title} ({split})",
    }  # fmt: skip
    bound = (
        bits_per_dim(diffusion, network, images, **common)
        if exact
        else estimate_bits_per_dim(diffusion, network, images, evals=evals, **common)
    )
    return BoundTerms(
        split=split, images=len(images), method="exact" if exact else "estimate", **how,
        total=float(bound.total.mean()), standard_error=bound.standard_error, estimate_error=bound.estimate_error,
        prior=float(bound.prior.mean()), middle=float(bound.middle.mean()), first=float(bound.first.mean()),
        quantiles=mean_quantiles(bound.total, bootstrap, seed) if bootstrap else (),
        terms=() if bound.terms is None else tuple(bound.terms.tolist()), mse=() if bound.mse is None else tuple(bound.mse.tolist()),
    )  # fmt: skip


def spread(images: Tensor, count: int) -> Tensor:
    """`count` images evenly spread over `images` (N, ...), all of them when there are fewer: data sets are often sorted by class."""
    count = min(count, len(images))
    return images[torch.arange(count) * len(images) // count]
