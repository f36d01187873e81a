"""Scores of uint8 images. Each number is one of torch-fidelity's functions of features, in float64.

    IS      exp E_x KL(p(y|x) || p(y)), mean and standard deviation over 10 parts     Salimans et al. 2016, section 4
    FD      |mu_1 - mu_2|^2 + tr(S_1 + S_2 - 2 (S_1 S_2)^(1/2)) of features           Heusel et al. 2017, eq. 6
    KID     unbiased squared MMD, kernel (x.y / d + 1)^3, over 100 subsets            Binkowski et al. 2018, section 4
    FD at infinity, and bootstrap intervals: `uncertainty.py`
    precision, recall: shares of images within k-nearest-neighbour balls of others    Kynkaanniemi et al. 2019, eq. 1, 2
    what may be asked for beside these: `quality.py`

torch-fidelity 0.4's own command does otherwise: it takes precision and recall from VGG16 unless an extractor is named,
builds N x N matrices for them, wants 1000 samples for KID, and keeps features under a name, not under their content.
"""

import threading

import numpy as np
from torch import Tensor
from torch_fidelity.metric_fid import fid_features_to_statistics, fid_statistics_to_metric
from torch_fidelity.metric_isc import isc_features_to_metric
from torch_fidelity.metric_kid import kid_features_to_metric
from torch_fidelity.metric_prc import prc_features_to_metric
from tqdm import tqdm

from ddpm_bench.config.metrics import DISTANCE
from ddpm_bench.config.settings import ScoringSettings
from ddpm_bench.errors import UserError
from ddpm_bench.metrics.class_wise import Classes
from ddpm_bench.metrics.extractor import Extractor, MeasuredImages
from ddpm_bench.metrics.features import Outputs, kept_features, outputs_of
from ddpm_bench.metrics.quality import Compared, Scores, check_quality, of_classes, quality
from ddpm_bench.metrics.uncertainty import Quantiles, frechet, replicates_for, score_quantiles
from ddpm_bench.records.protocol import ScoreProtocol, protocol
from ddpm_bench.runtime.runtime import Runtime

DISTANCES_AT_ONCE = 2**22
"""float64: 32 MiB a block of the distances for precision and recall; N x N would be 20 GB at 50k."""
KEYS = {
    "inception_score_mean": "is_mean",
    "inception_score_std": "is_std",
    "kernel_inception_distance_mean": "kid_mean",
    "kernel_inception_distance_std": "kid_std",
    "precision": "precision",
    "recall": "recall",
}
"""torch-fidelity's names -> ours (`config/metrics.py`)."""

Statistics = dict[str, np.ndarray]
"""Of features: their mean "mu" (d,) and covariance "sigma" (d, d)."""


def score(
    samples: Tensor | np.ndarray, reference: Tensor | np.ndarray, extractor: Extractor, scoring: ScoringSettings,
    runtime: Runtime, *, test_reference: Tensor | np.ndarray | None = None, held_out: Tensor | np.ndarray | None = None,
) -> dict[str, float]:  # fmt: skip
    """The metrics of `scores` alone, without intervals; arguments as there."""
    without = scoring.model_copy(update={"bootstrap": 0})
    return scores(
        samples, reference, extractor, without, runtime, test_reference=test_reference, held_out=held_out
    ).metrics


def scores(
    samples: Tensor | np.ndarray, reference: Tensor | np.ndarray, extractor: Extractor, scoring: ScoringSettings,
    runtime: Runtime, *, seed: int = 0, test_reference: Tensor | np.ndarray | None = None,
    held_out: Tensor | np.ndarray | None = None, distance: str = DISTANCE, classes: Classes | None = None,
) -> Scores:  # fmt: skip
    """Score `samples` against `reference` (the complete training set, not flipped), both uint8 (N, C, H, W).

    Metrics: is_mean and is_std, if the extractor tells classes apart; fd_train (called `distance` where the reference is no
    training set), kid_mean, kid_std; precision and recall (with k = `scoring.neighborhood`) if `scoring.precision_recall`;
    fd_infinity where there are samples enough for the number of features; fd_test where a `test_reference` is given; what
    `scoring.quality` names. The same images, extractor and device give the same numbers. `seed` is for the intervals of
    is_mean, means and distances, by `scoring.bootstrap` replicates. `held_out`: test images, by which copies are told.
    `classes`: those that the samples were asked to be of; with them scores by class, and class_agreement where the extractor can tell.

    The references' features are kept in the runtime's cache; nothing of the samples stays. UserError for images that
    are not uint8, that differ in shape, that the extractor was not made for, or that are too few. Raises Interrupted
    between batches and replicates.
    """
    how = protocol(len(samples), len(reference), scoring.neighborhood, scoring.density_k)
    check_quality(scoring, extractor)
    given = {"samples": samples, "reference images": reference}
    if test_reference is not None:
        given["test images"] = test_reference
    if held_out is not None and "copies" in scoring.quality:
        given["held-out images"] = held_out
    _check_alike(given)
    shown = {title: MeasuredImages(title, images, extractor) for title, images in given.items()}
    outputs = outputs_of(shown["samples"], extractor, runtime, spatial="spatial" in scoring.quality)
    training = kept_features(shown["reference images"], extractor, runtime)
    test = kept_features(shown["test images"], extractor, runtime) if test_reference is not None else None
    statistics = {distance: fid_features_to_statistics(training)}
    if test is not None:
        statistics["fd_test"] = fid_features_to_statistics(test)
    metrics = _compared(outputs, training, how, scoring.precision_recall) | _distances(outputs.features, statistics)
    on = runtime.float64_device
    features, quantiles = outputs.features.to(on), {}
    if scoring.bootstrap and outputs.logits.shape[1]:
        quantiles["is_mean"] = _score_interval(outputs.logits.to(on), how, scoring.bootstrap, seed)
    replicates = replicates_for(scoring.bootstrap, features.shape[1])
    for key, of in statistics.items():
        found = frechet(features, of["mu"], of["sigma"], replicates=replicates, seed=seed)
        quantiles[key] = found.quantiles
        if key == distance and found.infinity is not None:
            metrics["fd_infinity"], quantiles["fd_infinity"] = found.infinity, found.infinity_quantiles
    compared = Compared(
        shown["samples"], outputs, shown["reference images"], training, shown.get("held-out images"), extractor, runtime
    )
    known = Scores(metrics, {key: interval for key, interval in quantiles.items() if interval})
    if classes is not None:
        known |= of_classes(compared, classes, scoring, seed)
    return known | quality(compared, scoring, seed)


def distance_to_statistics(
    samples: Tensor | np.ndarray, statistics: Statistics, extractor: Extractor, runtime: Runtime
) -> dict[str, float]:
    """fd_reference: all that can be measured against the statistics of a reference, in float64, whose images nobody has.

    UserError for images that the extractor was not made for, or a single one. Raises Interrupted between batches.
    """
    if len(samples) < 2:
        raise UserError("One sample has no covariance, and so no distance. Give two samples or more.")
    outputs = outputs_of(MeasuredImages("samples", samples, extractor), extractor, runtime)
    return _distances(outputs.features, {"fd_reference": statistics})


def distance_between(
    images: Tensor | np.ndarray, reference: Tensor | np.ndarray, extractor: Extractor, runtime: Runtime
) -> float:
    """The Frechet distance of `images` to `reference`, both uint8 (N, C, H, W), whose features are kept in the runtime's cache."""
    features = outputs_of(MeasuredImages("images", images, extractor), extractor, runtime).features
    others = kept_features(MeasuredImages("reference images", reference, extractor), extractor, runtime)
    return _distances(features, {DISTANCE: fid_features_to_statistics(others)})[DISTANCE]


def _compared(outputs: Outputs, training: Tensor, how: ScoreProtocol, precision_recall: bool) -> dict[str, float]:
    """The score of the samples' outputs, and what compares them with the training features one by one."""
    of = outputs.features, training
    if not hasattr(tqdm, "_lock"):  # KID's hidden bar would make one in the system, which a killed process leaves there
        tqdm.set_lock(threading.RLock())
    found: dict[str, float] = {}
    if outputs.logits.shape[1]:
        found |= isc_features_to_metric(outputs.logits, how.is_parts, shuffle=True, rng_seed=how.seed)
    found |= kid_features_to_metric(
        *of, kid_subsets=how.kid_subsets, kid_subset_size=how.kid_subset_size, rng_seed=how.seed, verbose=False
    )
    if precision_recall:
        found |= prc_features_to_metric(
            *of, prc_neighborhood=how.neighborhood, prc_batch_size=max(1, DISTANCES_AT_ONCE // max(map(len, of))),
            save_cpu_ram=True, verbose=False,  # by blocks
        )  # fmt: skip
    return {ours: found[theirs] for theirs, ours in KEYS.items() if theirs in found}


def _distances(features: Tensor, statistics: dict[str, Statistics]) -> dict[str, float]:
    """The Frechet distance of `features` to each of the references."""
    of_samples = fid_features_to_statistics(features)
    return {
        key: fid_statistics_to_metric(of_samples, of, verbose=False)["frechet_inception_distance"]
        for key, of in statistics.items()
    }


def _score_interval(logits: Tensor, how: ScoreProtocol, replicates: int, seed: int) -> Quantiles:
    order = np.random.RandomState(how.seed).permutation(len(logits))  # torch-fidelity's
    return score_quantiles(logits[order], how.is_parts, replicates, seed)[1]


def _check_alike(given: dict[str, Tensor | np.ndarray]) -> None:
    """UserError when images differ in (C, H, W)."""
    shapes = {name: tuple(images.shape[1:]) for name, images in given.items()}
    if len(set(shapes.values())) > 1:
        told = ", ".join(f"{name} {shape}" for name, shape in shapes.items())
        raise UserError(f"Images of different (C, H, W) cannot be compared: {told}. Bring them to one size and mode.")
