"""Scores of uint8 images, all computed by torch-fidelity's `calculate_metrics`; the only module that imports it.

    IS      exp E_x KL(p(y|x) || p(y)), mean and standard deviation over 10 splits    Salimans et al. 2016, section 4
    FD      |mu_1 - mu_2|^2 + tr(S_1 + S_2 - 2 (S_1 S_2)^(1/2)) of features           Heusel et al. 2017, eq. 6
    KID     unbiased squared MMD, kernel (x.y / d + 1)^3, over 100 subsets            Binkowski et al. 2018, section 4
    FD at infinity, and bootstrap intervals: `uncertainty.py`
    precision, recall: shares of images within k-nearest-neighbour balls of others    Kynkaanniemi et al. 2019, eq. 1, 2

What torch-fidelity 0.4 does otherwise and is set right here: precision and recall come from VGG16 unless an extractor
is named, and build N x N matrices; KID wants 1000 samples; caches are keyed by a name; "float64" for the inside of an
extractor means float32, so it is not asked for: networks run in float32 (TF32 off), and their outputs become float64
before any statistic is taken.
"""

import contextlib
import io
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch_fidelity import calculate_metrics, register_feature_extractor
from torch_fidelity.feature_extractor_base import FeatureExtractorBase
from torch_fidelity.feature_extractor_inceptionv3 import URL_INCEPTION_V3, FeatureExtractorInceptionV3
from torch_fidelity.metric_fid import fid_input_id_to_statistics_cached
from torch_fidelity.utils import create_feature_extractor, extract_featuresdict_from_input_id_cached

from ddpm_bench.errors import UserError
from ddpm_bench.metrics.extractor import Extractor, MeasuredImages
from ddpm_bench.metrics.feature_cache import cache_folder, kept_meanwhile, reference_name
from ddpm_bench.metrics.uncertainty import Distance, Quantiles, frechet, replicates_for, score_quantiles
from ddpm_bench.runtime.interrupt import NEVER, Stop
from ddpm_bench.runtime.observer import progress

IS_SPLITS = 10
KID_SUBSETS = 100
KID_SUBSET_SIZE = 1000
DISTANCES_AT_ONCE = (
    2**22
)  # float64: 32 MiB a block of the distances for precision and recall; N x N would be 20 GB at 50k
INCEPTION_URL = URL_INCEPTION_V3
INCEPTION_LAYERS = ["2048", "logits_unbiased"]
LAYERS = ["features", "logits"]
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


def inception_network(state: dict[str, Tensor]) -> nn.Module:
    """torch-fidelity's inception-v3-compat with these weights: uint8 (B, 3, H, W) -> pool3 (B, 2048), logits (B, 1008).

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

    def __init__(
        self, name: str, features_list: list[str], *, extractor: Extractor, device: torch.device, **_: object
    ) -> None:
        super().__init__(f"{name}-{extractor.info.sha256}", features_list)
        self.network, self.device = extractor.network.to(device), device

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        features, logits = self.network(images.to(self.device))
        of = {"features": features, "logits": logits}
        return tuple(of[layer].cpu().double() for layer in self.features_list)

    @staticmethod
    def get_provided_features_list() -> tuple[str, ...]:
        return tuple(LAYERS)

    @staticmethod
    def get_default_feature_layer_for_metric(metric: str) -> str:
        return "logits" if metric == "isc" else "features"


register_feature_extractor("ddpm-bench", _Bridge)


def protocol(samples: int, reference: int, *, neighborhood: int = 3, seed: int = 0) -> dict[str, Any]:
    """How many images are scored, in torch-fidelity's own words: what a score depends on besides images and extractor.

    KID's subsets have the usual 1000 images where both sets hold twice that, else half of the smaller set, so that they
    differ. UserError when a set is too small: 10 splits and k + 1 neighbours need as many images.
    """
    fewest, needed = min(samples, reference), max(IS_SPLITS, neighborhood + 1)
    if fewest < needed:
        raise UserError(
            f"{samples:,} samples against {reference:,} reference images are too few: the score is over {IS_SPLITS} "
            f"splits and precision over {neighborhood} neighbours, which need {needed} images or more. Give more."
        )
    return {
        "isc_splits": IS_SPLITS,
        "samples_shuffle": True,
        "kid_subsets": KID_SUBSETS,
        "kid_subset_size": min(KID_SUBSET_SIZE, fewest // 2),
        "prc_neighborhood": neighborhood,
        "rng_seed": seed,
    }


@dataclass(frozen=True)
class Scores:
    """Values by their key in `registry.METRICS`; of some, their interval at `store.QUANTILES`."""

    metrics: dict[str, float]
    quantiles: dict[str, Quantiles]


def score(
    samples: Tensor | np.ndarray, reference: Tensor | np.ndarray, extractor: Extractor, **how: Any
) -> dict[str, float]:
    """The metrics of `scores` alone, without intervals; arguments as there."""
    return scores(samples, reference, extractor, **how).metrics


def scores(
    samples: Tensor | np.ndarray, reference: Tensor | np.ndarray, extractor: Extractor, *,
    test_reference: Tensor | np.ndarray | None = None, precision_recall: bool = True, neighborhood: int = 3,
    seed: int = 0, bootstrap: int = 0, bootstrap_seed: int = 0, device: torch.device | str = "cpu",
    cache: Path | None = None, stop: Stop = NEVER,
) -> Scores:  # fmt: skip
    """Score `samples` against `reference` (the complete training set, not flipped), both uint8 (N, C, H, W).

    Metrics: is_mean, is_std, fd_train, kid_mean, kid_std; fd_infinity where there are samples enough for the number of
    features; fd_test where a `test_reference` is given; precision and recall (with k = `neighborhood`) unless switched
    off. The same images, extractor, `seed` (order of the score's splits, KID's subsets) and device give the same
    numbers. `bootstrap`: replicates for the intervals of is_mean and the distances, drawn by `bootstrap_seed`; 0: none.

    `cache` keeps the references' features, under a hash of their pixels and of the extractor's weights; nothing of the
    samples stays. UserError for images that are not uint8, that differ in shape from the reference, that the extractor
    was not made for, or that are too few. Raises Interrupted on `stop`.
    """
    settings = protocol(len(samples), len(reference), neighborhood=neighborhood, seed=seed)
    device = torch.device(device)
    given = {"samples": samples, "reference images": reference}
    if test_reference is not None:
        given["test images"] = test_reference
    _check_alike(given)
    title, total = f"scoring {len(samples):,} images ({extractor.info.name})", sum(map(len, given.values()))
    with contextlib.ExitStack() as stack:
        meter = stack.enter_context(progress(title, total, "images"))
        folder = stack.enter_context(cache_folder(cache))
        stack.enter_context(_exact_float32(device))
        read = 0

        def on_read(count: int) -> None:
            nonlocal read
            stop.check()
            read += count
            meter.update(read)

        sets = [MeasuredImages(name, images, extractor, on_read) for name, images in given.items()]
        common = settings | _reading(extractor, device, folder) | {
            "input1": sets[0],
            "input1_cache_name": stack.enter_context(kept_meanwhile(folder, sets[0], extractor)),
            "prc_batch_size": max(1, DISTANCES_AT_ONCE // max(len(samples), len(reference))),
        }  # fmt: skip
        against = {
            key: {"input2": images, "input2_cache_name": reference_name(folder, images, extractor)}
            for key, images in zip(("fd_train", "fd_test"), sets[1:], strict=False)
        }
        train = common | against["fd_train"]
        found = calculate_metrics(**train, isc=True, fid=True, kid=True, prc=precision_recall)
        metrics = {ours: found[theirs] for theirs, ours in KEYS.items() if theirs in found}
        if test_reference is not None:
            test = common | against["fd_test"]
            metrics["fd_test"] = calculate_metrics(**test, fid=True)["frechet_inception_distance"]
        bridge = create_feature_extractor("ddpm-bench", LAYERS, **common)
        layers = extract_featuresdict_from_input_id_cached(1, bridge, **common)
        statistics = {
            key: fid_input_id_to_statistics_cached(2, bridge, "features", **common, **other)
            for key, other in against.items()
        }
    quantiles: dict[str, Quantiles] = {}
    if bootstrap:
        order = np.random.RandomState(seed).permutation(len(samples))  # torch-fidelity's
        _, quantiles["is_mean"] = score_quantiles(layers["logits"][order], IS_SPLITS, bootstrap, bootstrap_seed, device)
    for key, of in statistics.items():
        distance = _distance(layers["features"], of, bootstrap, bootstrap_seed, device, stop)
        if bootstrap:
            quantiles[key] = distance.quantiles
        if key == "fd_train" and distance.infinity is not None:
            metrics["fd_infinity"] = distance.infinity
            if bootstrap:
                quantiles["fd_infinity"] = distance.infinity_quantiles
    return Scores(metrics, quantiles)


def features_of(
    images: Tensor | np.ndarray, extractor: Extractor, *, device: torch.device | str = "cpu",
    cache: Path | None = None, stop: Stop = NEVER,
) -> Tensor:  # fmt: skip
    """The features of `images`, uint8 (N, C, H, W): float64 (N, info.feature_dim), on the CPU.

    With `cache`, those that `scores` keeps for a reference: read from there, or made and kept there.
    """
    device = torch.device(device)
    measured = MeasuredImages("images", images, extractor, lambda _: stop.check())
    with _exact_float32(device), cache_folder(cache) as folder:
        common = _reading(extractor, device, folder) | {"input1": measured}
        if cache is not None:
            common["input1_cache_name"] = reference_name(folder, measured, extractor)
        bridge = create_feature_extractor("ddpm-bench", LAYERS, **common)
        return extract_featuresdict_from_input_id_cached(1, bridge, **common)["features"]


def _reading(extractor: Extractor, device: torch.device, folder: Path) -> dict[str, Any]:
    """torch-fidelity's arguments for how images are read and where features are kept."""
    return {
        "feature_extractor": "ddpm-bench",
        "extractor": extractor,
        "device": device,
        "batch_size": extractor.batch_on(device),
        "cuda": False,  # the bridge moves each batch to the device, whichever that is
        "save_cpu_ram": True,  # precision and recall by blocks, and no worker processes
        "cache": True,
        "cache_root": str(folder),
        "verbose": False,
    }


def _distance(
    features: Tensor, of: dict[str, np.ndarray], bootstrap: int, seed: int, device: torch.device, stop: Stop
) -> Distance:
    """The distance of `features` to a reference's statistics `of`, extrapolated and with its interval."""
    measured = partial(frechet, features, of["mu"], of["sigma"], seed=seed, device=device)
    if not bootstrap:
        return measured(replicates=0)
    replicates = replicates_for(bootstrap, features.shape[1])
    with progress("interval of the distance", replicates, "replicates") as meter:

        def on_replicate(done: int) -> None:
            stop.check()
            meter.update(done)

        return measured(replicates=replicates, on_replicate=on_replicate)


def _check_alike(given: dict[str, Tensor | np.ndarray]) -> None:
    """UserError when images differ in (C, H, W)."""
    shapes = {name: tuple(images.shape[1:]) for name, images in given.items()}
    if len(set(shapes.values())) > 1:
        told = ", ".join(f"{name} {shape}" for name, shape in shapes.items())
        raise UserError(
            f"Images of different (C, H, W) cannot be compared: {told}. Choose the data.size of the samples."
        )


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
