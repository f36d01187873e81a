"""Scores of uint8 images, all computed by torch-fidelity's `calculate_metrics`; the only module that imports it.

    IS        exp E_x KL(p(y|x) || p(y)), mean and standard deviation over 10 splits            Salimans et al. 2016, section 4
    FD        |mu_1 - mu_2|^2 + tr(S_1 + S_2 - 2 (S_1 S_2)^(1/2)) of features' Gaussians         Heusel et al. 2017, eq. 6
    KID       unbiased squared MMD, kernel (x.y / d + 1)^3, over 100 subsets                     Binkowski et al. 2018, section 4
    precision, recall   shares of samples within the k-nearest-neighbour balls of the other set  Kynkaanniemi et al. 2019, eq. 1, 2

What torch-fidelity 0.4 does otherwise and is set right here: precision and recall come from VGG16 unless an extractor is named, and
build N x N matrices; KID wants 1000 samples; caches are keyed by a name; "float64" for the inside of an extractor means float32, so it
is not asked for: networks run in float32 (TF32 off), and their outputs become float64 before any statistic is taken.
"""

import contextlib
import hashlib
import io
import pickle
import shutil
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import Dataset
from torch_fidelity import calculate_metrics, register_feature_extractor
from torch_fidelity.feature_extractor_base import FeatureExtractorBase
from torch_fidelity.feature_extractor_inceptionv3 import URL_INCEPTION_V3, FeatureExtractorInceptionV3

from ddpm_bench.console import progress
from ddpm_bench.errors import UserError
from ddpm_bench.files import make_folder
from ddpm_bench.interrupt import NEVER, Stop
from ddpm_bench.store import ExtractorInfo

IS_SPLITS = 10
KID_SUBSETS = 100
KID_SUBSET_SIZE = 1000
DISTANCES_AT_ONCE = 2**24  # float64: 128 MiB a block of the precision/recall distances, where N x N would be 20 GB at 50k
INCEPTION_URL = URL_INCEPTION_V3
INCEPTION_LAYERS = ["2048", "logits_unbiased"]
KEYS = {
    "inception_score_mean": "is_mean",
    "inception_score_std": "is_std",
    "frechet_inception_distance": "fd_train",
    "kernel_inception_distance_mean": "kid_mean",
    "kernel_inception_distance_std": "kid_std",
    "precision": "precision",
    "recall": "recall",
}
"""torch-fidelity's names -> ours (`registry.METRICS`)."""


@dataclass(frozen=True, eq=False)
class Extractor:
    """A network that measures images, and what it may be given.

    `network`: uint8 (B, channels, H, W) -> features (B, info.feature_dim) and logits without bias (B, classes).
    `sizes`: the sides in pixels that it was made for; None when it takes any. `batch`: images at once.
    """

    info: ExtractorInfo
    network: nn.Module
    channels: int
    sizes: tuple[int, ...] | None
    batch: int


def inception_network(state: dict[str, Tensor]) -> nn.Module:
    """torch-fidelity's inception-v3-compat with these weights: uint8 (B, 3, H, W) -> pool3 features (B, 2048), logits (B, 1008).

    torch-fidelity unpickles what it is given. So it is given a buffer that we have just written ourselves from tensors.
    RuntimeError when the tensors are not Inception's.
    """
    buffer = io.BytesIO()
    torch.save(state, buffer)
    buffer.seek(0)
    return FeatureExtractorInceptionV3("inception-v3-compat", INCEPTION_LAYERS, feature_extractor_weights_path=buffer)


class _Bridge(FeatureExtractorBase):
    """Shows an Extractor to torch-fidelity, which makes one a call and hands it calculate_metrics' own arguments.

    Its name carries the hash of the weights, since torch-fidelity names cache entries after it.
    """

    def __init__(self, name: str, features_list: list[str], *, extractor: Extractor, device: torch.device, **_: object) -> None:
        super().__init__(f"{name}-{extractor.info.sha256}", features_list)
        self.network, self.device = extractor.network.to(device), device

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        features, logits = self.network(images.to(self.device))
        of = {"features": features, "logits": logits}
        return tuple(of[layer].cpu().double() for layer in self.features_list)

    @staticmethod
    def get_provided_features_list() -> tuple[str, ...]:
        return "features", "logits"

    @staticmethod
    def get_default_feature_layer_for_metric(metric: str) -> str:
        return "logits" if metric == "isc" else "features"


register_feature_extractor("ddpm-bench", _Bridge)


class _Images(Dataset):
    """uint8 images (N, C, H, W) as torch-fidelity reads them: a row each, grey ones repeated where the extractor wants colour.

    Nothing is copied but the batch in hand, so `images` may be a memory map. `on_read` hears of every batch's size.
    """

    def __init__(self, images: np.ndarray, channels: int, on_read: Callable[[int], None]) -> None:
        self.images, self.channels, self.on_read = images, channels, on_read

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> Tensor:
        return self._read([index])[0]

    def __getitems__(self, indices: list[int]) -> list[Tensor]:
        self.on_read(len(indices))
        return list(self._read(indices))

    def _read(self, indices: list[int]) -> Tensor:
        batch = torch.from_numpy(self.images[indices])
        return batch[:, :1].expand(-1, self.channels, -1, -1)if batch.shape[1] != self.channels else batch

    def sha256(self) -> str:
        """Hash of shape and pixels, as the extractor gets them."""
        digest = hashlib.sha256(f"{self.channels} {self.images.shape}".encode())
        for start in range(0, len(self), 4096):
            digest.update(np.ascontiguousarray(self.images[start : start + 4096]).data)
        return digest.hexdigest()


def protocol(samples: int, reference: int, *, neighborhood: int = 3, seed: int = 0) -> dict[str, Any]:
    """How many images are scored, in torch-fidelity's own words: what a score depends on besides images and extractor.

    KID's subsets have the usual 1000 images where both sets hold twice that, else half of the smaller set, so that they differ.
    UserError when a set is too small: 10 splits and k + 1 neighbours need as many images.
    """
    fewest, needed = min(samples, reference), max(IS_SPLITS, neighborhood + 1)
    if fewest < needed:
        raise UserError(
            f"{samples:,} samples against {reference:,} reference images are too few: the score is over {IS_SPLITS} splits and "
            f"precision over {neighborhood} neighbours, which need {needed} images or more. Take more samples."
        )
    return {
        "isc_splits": IS_SPLITS,
        "samples_shuffle": True,
        "kid_subsets": KID_SUBSETS,
        "kid_subset_size": min(KID_SUBSET_SIZE, fewest // 2),
        "prc_neighborhood": neighborhood,
        "rng_seed": seed,
    }


def score(
    samples: Tensor | np.ndarray, reference: Tensor | np.ndarray, extractor: Extractor, *,
    test_reference: Tensor | np.ndarray | None = None, precision_recall: bool = True, neighborhood: int = 3, seed: int = 0,
    device: torch.device | str = "cpu", cache: Path | None = None, stop: Stop = NEVER,
) -> dict[str, float]:  # fmt: skip
    """Score `samples` against `reference` (the complete training set, not flipped), both uint8 (N, C, H, W), in [0, 255].

    Returns values by their key in `registry.METRICS`: is_mean, is_std, fd_train, kid_mean, kid_std; fd_test where a `test_reference`
    is given; precision and recall (with k = `neighborhood`) unless switched off. The same images, extractor, `seed` (order of the
    score's splits, KID's subsets) and device give the same numbers.

    `cache` keeps the references' features, under a hash of their pixels and of the extractor's weights; nothing of the samples stays.
    UserError for images that are not uint8, that differ in shape from the reference, that the extractor was not made for, or that are
    too few. Raises Interrupted on `stop`.
    """
    device = torch.device(device)
    arrays = {"samples": samples, "reference": reference} | ({} if test_reference is None else {"test reference": test_reference})
    arrays = {name: _checked(name, images, extractor) for name, images in arrays.items()}
    shapes = {name: images.shape[1:] for name, images in arrays.items()}
    if len(set(shapes.values())) > 1:
        told = ", ".join(f"{name} {tuple(shape)}" for name, shape in shapes.items())
        raise UserError(f"Images of different (C, H, W) cannot be compared: {told}. Choose the data.size of the samples.")
    settings = protocol(len(samples), len(reference), neighborhood=neighborhood, seed=seed)
    title, total = f"scoring {len(samples):,} images ({extractor.info.name})", sum(len(images) for images in arrays.values())
    with progress(title, total, "images") as meter, _exact_float32(device), _cache_folder(cache, test_reference is not None) as folder:
        read = 0

        def on_read(count: int) -> None:
            nonlocal read
            stop.check()
            read += count
            meter.update(read)

        sets = {name: _Images(images, extractor.channels, on_read) for name, images in arrays.items()}
        common = settings | {
            "input1": sets["samples"],
            "feature_extractor": "ddpm-bench",
            "extractor": extractor,
            "device": device,
            "batch_size": extractor.batch,
            "cuda": False,  # the bridge moves each batch to the device, whichever that is
            "save_cpu_ram": True,  # precision and recall by blocks, and no worker processes
            "prc_batch_size": max(1, DISTANCES_AT_ONCE // max(len(samples), len(reference))),
            "cache": folder is not None,
            "cache_root": str(folder),
            "verbose": False,
        }
        with contextlib.ExitStack() as stack:
            if test_reference is not None:
                common["input1_cache_name"] = stack.enter_context(_kept_meanwhile(folder, sets["samples"]))
            against = _reference(folder, sets["reference"], extractor)
            found = calculate_metrics(**common, **against, isc=True, fid=True, kid=True, prc=precision_recall)
            scores = {KEYS[name]: value for name, value in found.items() if name in KEYS}
            if test_reference is not None:
                against = _reference(folder, sets["test reference"], extractor)
                scores["fd_test"] = calculate_metrics(**common, **against, fid=True)["frechet_inception_distance"]
    return scores


def _checked(name: str, images: Tensor | np.ndarray, extractor: Extractor) -> np.ndarray:
    """`images` as an array that shares their memory, if the extractor can measure them."""
    if images.dtype not in (torch.uint8, np.uint8):
        raise UserError(f"The {name} are {images.dtype}; scores are defined on uint8 levels. Round them with ddpm_bench.data.to_uint8.")
    if images.ndim != 4 or images.shape[1] not in (1, 3) or not len(images):
        raise UserError(f"The {name} have shape {tuple(images.shape)}; expected (N, 1, H, W) or (N, 3, H, W) with N > 0.")
    channels, height, width = images.shape[1:]
    if extractor.sizes is not None and (height != width or height not in extractor.sizes):
        raise UserError(
            f"The extractor '{extractor.info.name}' was made for images of {' or '.join(map(str, extractor.sizes))} pixels, not for the "
            f"{width}x{height} of the {name}. Choose another data.size, or train one with `ddpm-bench extractor train --sizes {height}`."
        )
    array = images.cpu().numpy() if isinstance(images, Tensor) else images
    if channels == 3 and extractor.channels == 1 and not _is_grey(array):
        raise UserError(
            f"The extractor '{extractor.info.name}' measures grey images, and the {name} are in colour. Train one on colour images with "
            "`ddpm-bench extractor train`, or use --extractor inception."
        )
    return array


def _is_grey(images: np.ndarray) -> bool:
    """Have all pixels of (N, 3, H, W) equal channels?"""
    blocks = (images[start : start + 4096] for start in range(0, len(images), 4096))
    return all((block[:, :1] == block).all() for block in blocks)


@contextlib.contextmanager
def _exact_float32(device: torch.device) -> Iterator[None]:
    """Convolutions and products in full float32 on a GPU, whatever training has chosen."""
    if device.type != "cuda":
        yield
        return
    switches = (torch.backends.cudnn.conv, torch.backends.cuda.matmul)
    before = [switch.fp32_precision for switch in switches]
    try:
        for switch in switches:
            switch.fp32_precision = "ieee"
        yield
    finally:
        for switch, precision in zip(switches, before, strict=True):
            switch.fp32_precision = precision


@contextlib.contextmanager
def _cache_folder(cache: Path | None, needed: bool) -> Iterator[Path | None]:
    """Where torch-fidelity may keep features: `cache`, else a passing folder where two calls share them, else nowhere."""
    if cache is not None:
        yield make_folder(cache / "features")
    elif needed:
        with tempfile.TemporaryDirectory() as folder:
            yield Path(folder)
    else:
        yield None


@contextlib.contextmanager
def _kept_meanwhile(folder: Path, samples: _Images) -> Iterator[str]:
    """A name, made from their content, under which the samples' features lie for two calls; then they go."""
    name = f"samples-{samples.sha256()}"
    try:
        yield name
    finally:
        for path in folder.glob(f"{name}-*"):
            path.unlink(missing_ok=True)


def _reference(folder: Path | None, images: _Images, extractor: Extractor) -> dict[str, Any]:
    """The second input, with the name under which its features are kept where there is room for them.

    A damaged or foreign cache entry is thrown away: torch-fidelity would unpickle it unseen.
    """
    if folder is None:
        return {"input2": images}
    name = images.sha256()
    entries = list(folder.glob(f"{name}-ddpm-bench-{extractor.info.sha256}-*.pt"))
    for path in entries:
        if not _holds_arrays_only(path):
            path.unlink(missing_ok=True)
    return {"input2": images, "input2_cache_name": name}


def _holds_arrays_only(path: Path) -> bool:
    """Can the file be read without running anything that it holds?"""
    numpy_types = [np._core.multiarray._reconstruct, np.ndarray, np.dtype, np.dtypes.Float64DType]
    try:
        with torch.serialization.safe_globals(numpy_types):
            torch.load(path, weights_only=True, mmap=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError, OSError):
        return False
    return True
