"""Features of images, and those of reference images kept between commands.

A kept file is named after all that its numbers depend on: the pixels, the extractor's weights, and the kind of device,
since a CPU and a GPU round differently. So a new checkpoint can never get old features.
"""

import contextlib
import math
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from ddpm_bench.files import make_folder
from ddpm_bench.metrics.extractor import Extractor, MeasuredImages, SpatialLayer
from ddpm_bench.runtime import ranks
from ddpm_bench.runtime.batch import Halving
from ddpm_bench.runtime.device import float32_as
from ddpm_bench.runtime.interrupt import check_stop
from ddpm_bench.runtime.observer import progress, say
from ddpm_bench.runtime.owner import owned
from ddpm_bench.runtime.runtime import Runtime
from ddpm_bench.sealed import read_arrays, write_arrays

NAME = "features"
"""The tensor in a kept file, and the folder of these files in the cache."""


@dataclass(frozen=True, eq=False)
class Outputs:
    """What an extractor makes of N images: features (N, info.feature_dim), logits (N, classes); float64, on the CPU.

    spatial: those of its spatial layer, (N, ...), where it has one and they were asked for.
    """

    features: Tensor
    logits: Tensor
    spatial: Tensor | None = None


def outputs_of(images: MeasuredImages, extractor: Extractor, runtime: Runtime, spatial: bool = False) -> Outputs:
    """The extractor's outputs for all images in order. Raises Interrupted between batches.

    The network computes in float32, in full whatever training has chosen; what is taken of its outputs, in float64. Where
    memory runs out it goes on with fewer images a call. Of several ranks each takes every N-th batch.
    """
    batch = extractor.batch_on(runtime.device)
    alone = ranks.size() == 1 or len(images) <= batch  # in which there is nothing to share
    arguments = images, extractor, runtime, spatial, batch
    parts = [_part(*arguments)] if alone else ranks.together(_part, *arguments)
    in_order = [made for of_ranks in zip_longest(*parts) for made in of_ranks if made is not None]
    return Outputs(*(torch.cat(batches).double() for batches in zip(*in_order, strict=True)))


def _part(
    images: MeasuredImages, extractor: Extractor, runtime: Runtime, spatial: bool, size: int
) -> list[tuple[Tensor, ...]]:
    """What the extractor makes of this rank's batches of `size` images: features, logits and, if asked for, the spatial ones."""
    network, made, halving = extractor.network.to(runtime.device).eval(), [], Halving()
    title = f"measuring {len(images):,} {images.title} ({extractor.info.name})"
    with (
        progress(title, len(images), "images") as meter, float32_as("ieee"), torch.no_grad(),
        _watching(extractor.spatial if spatial else None) as seen,
    ):  # fmt: skip
        for number, batch in ranks.mine(enumerate(images.batches(size))):
            check_stop()
            calls = [
                [output.cpu() for output in (*outputs, *seen)]
                for outputs in halving.parts(network, batch.to(runtime.device))
            ]
            made.append(tuple(map(torch.cat, zip(*calls, strict=True))))
            meter.update(number * size + len(batch))
    return made


@contextlib.contextmanager
def _watching(spatial: SpatialLayer | None) -> Iterator[list[Tensor]]:
    """What the spatial layer gave in the last call of its network, alone in a list; empty where nobody asked for it."""
    seen: list[Tensor] = []
    if spatial is None:
        yield seen
        return

    def see(_: nn.Module, __: tuple[Tensor, ...], output: Tensor) -> None:
        seen[:] = [spatial.features(output)]

    handle = spatial.layer.register_forward_hook(see)
    try:
        yield seen
    finally:
        handle.remove()


def features_of(images: Tensor | np.ndarray, extractor: Extractor, runtime: Runtime) -> Tensor:
    """The features of `images`, uint8 (N, C, H, W): float64 (N, info.feature_dim), on the CPU.

    They are read from the runtime's cache, or made and kept there; without a cache they are made. UserError for images
    that are not uint8 or that the extractor was not made for. Raises Interrupted between batches.
    """
    return kept_features(MeasuredImages("images", images, extractor), extractor, runtime)


def kept_features(images: MeasuredImages, extractor: Extractor, runtime: Runtime, spatial: bool = False) -> Tensor:
    """`features_of` of images that have been checked; or those of the spatial layer, which are kept in a file of their own.

    Of two processes that want the same, one makes them.
    """

    def make() -> Tensor:
        made = outputs_of(images, extractor, runtime, spatial)
        return made.features if made.spatial is None else made.spatial

    path = _path(images, extractor, runtime, spatial)
    if path is None:
        return make()
    with owned(path.parent, math.inf, path.stem):
        if held := read_arrays(path):
            return torch.from_numpy(held[NAME])
        features = make()
        if _has_room(path.parent, features):
            write_arrays(path, {NAME: features.numpy()})
        return features


def _path(images: MeasuredImages, extractor: Extractor, runtime: Runtime, spatial: bool) -> Path | None:
    """Where the features are, or shall be, kept; None without a cache."""
    if runtime.cache is None:
        return None
    of = f"{images.sha256()}-{extractor.info.sha256}-{runtime.device.type}{'-spatial' if spatial else ''}"
    return make_folder(runtime.cache / NAME) / f"{of}.safetensors"


def _has_room(folder: Path, features: Tensor) -> bool:
    if shutil.disk_usage(folder).free >= 2 * features.nbytes:
        return True
    say(f"Too little room in '{folder}' to keep the features of {len(features):,} images; going on without.")
    return False
