"""Features of images, and those of reference images kept between commands.

A kept file is named after all that its numbers depend on: the pixels, the extractor's weights, and the kind of device,
since a CPU and a GPU round differently. So a new checkpoint can never get old features. The file is safetensors, which
holds numbers and nothing that could run, and carries the hash of its own content, which is checked when it is read.
"""

import contextlib
import hashlib
import math
import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from ddpm_bench.files import make_folder, replacing
from ddpm_bench.metrics.extractor import Extractor, MeasuredImages
from ddpm_bench.runtime.device import float32_as
from ddpm_bench.runtime.interrupt import check_stop
from ddpm_bench.runtime.observer import progress, say
from ddpm_bench.runtime.owner import owned
from ddpm_bench.runtime.runtime import Runtime

NAME = "features"
"""The tensor in a kept file, and the folder of these files in the cache."""


@dataclass(frozen=True, eq=False)
class Outputs:
    """What an extractor makes of N images: features (N, info.feature_dim), logits (N, classes); float64, on the CPU."""

    features: Tensor
    logits: Tensor


def outputs_of(images: MeasuredImages, extractor: Extractor, runtime: Runtime) -> Outputs:
    """The extractor's outputs for all images in order. Raises Interrupted between batches.

    The network computes in float32, in full whatever training has chosen; what is taken of its outputs, in float64.
    """
    network, made = extractor.network.to(runtime.device).eval(), []
    title = f"measuring {len(images):,} {images.title} ({extractor.info.name})"
    with progress(title, len(images), "images") as meter, float32_as("ieee"), torch.no_grad():
        done = 0
        for batch in images.batches(extractor.batch_on(runtime.device)):
            check_stop()
            made.append([output.cpu().double() for output in network(batch.to(runtime.device))])
            done += len(batch)
            meter.update(done)
    features, logits = (torch.cat(batches) for batches in zip(*made, strict=True))
    return Outputs(features, logits)


def features_of(images: Tensor | np.ndarray, extractor: Extractor, runtime: Runtime) -> Tensor:
    """The features of `images`, uint8 (N, C, H, W): float64 (N, info.feature_dim), on the CPU.

    They are read from the runtime's cache, or made and kept there; without a cache they are made. UserError for images
    that are not uint8 or that the extractor was not made for. Raises Interrupted between batches.
    """
    return kept_features(MeasuredImages("images", images, extractor), extractor, runtime)


def kept_features(images: MeasuredImages, extractor: Extractor, runtime: Runtime) -> Tensor:
    """`features_of` of images that have been checked. Of two processes that want the same, one makes them."""
    path = _path(images, extractor, runtime)
    with owned(path.parent, math.inf, path.stem) if path else contextlib.nullcontext():
        return _read_or_made(path, images, extractor, runtime)


def _read_or_made(path: Path | None, images: MeasuredImages, extractor: Extractor, runtime: Runtime) -> Tensor:
    features = _read(path) if path else None
    if features is None:
        features = outputs_of(images, extractor, runtime).features
        if path and _has_room(path.parent, features):
            _write(path, features)
    return features


def _path(images: MeasuredImages, extractor: Extractor, runtime: Runtime) -> Path | None:
    """Where the features are, or shall be, kept; None without a cache."""
    if runtime.cache is None:
        return None
    name = f"{images.sha256()}-{extractor.info.sha256}-{runtime.device.type}.safetensors"
    return make_folder(runtime.cache / NAME) / name


def _read(path: Path) -> Tensor | None:
    """The features in `path`; None where there are none or not those that were written."""
    if not path.exists():
        return None
    try:
        with safe_open(path, "pt") as file:
            features, written = file.get_tensor(NAME), (file.metadata() or {}).get("sha256")
    except (SafetensorError, OSError):
        features, written = None, None
    if features is not None and _sha256(features) == written:
        return features
    say(f"Making '{path}' again: it was damaged.")
    return None


def _write(path: Path, features: Tensor) -> None:
    with replacing(path) as temporary:
        save_file({NAME: features}, temporary, {"sha256": _sha256(features)})


def _sha256(features: Tensor) -> str:
    """Hash of type, shape and numbers."""
    digest = hashlib.sha256(f"{features.dtype} {tuple(features.shape)}".encode())
    digest.update(features.numpy().data)
    return digest.hexdigest()


def _has_room(folder: Path, features: Tensor) -> bool:
    if shutil.disk_usage(folder).free >= 2 * features.nbytes:
        return True
    say(f"Too little room in '{folder}' to keep the features of {len(features):,} images; going on without.")
    return False
