"""How samples are scored beside the extractor, and which numbers so many images are too few for. Imports no torch."""

import math
from collections.abc import Collection
from dataclasses import dataclass

from ddpm_bench.config.metrics import METRICS
from ddpm_bench.errors import UserError
from ddpm_bench.records.record import ExtractorInfo

IS_PARTS = 10
KID_SUBSETS = 100
KID_SUBSET_SIZE = 1000
SEED = 0
"""Of the order in which samples come into the score's parts, and of KID's subsets."""

PUBLISHED_SAMPLES = 50_000
"""Behind published FIDs and Inception Scores."""
IMAGES_A_CLASS = 10
"""In each part of a score. The logarithm of the score of m images among c classes is low by (c - 1) / 2m (Miller 1955,
the bias of an entropy): with ten for each class, by less than 5%."""
CLASSES = 10
"""Of the embedded extractor, which older files do not say."""
SAMPLES_A_FEATURE = 4
"""Fewest samples for an extrapolated distance, times the number of features; below it a distance is mostly bias."""
SHARED = 1000
"""Images of the smaller set from which on the standard error of a share of it is at most 0.5 / sqrt(1000) = 0.016."""


@dataclass(frozen=True)
class ScoreProtocol:
    """What scores depend on besides images and extractor: parts of the IS, subsets of KID, neighbours k, and the seed.

    density_neighborhood: the k of density and coverage; None where these are not measured.
    """

    is_parts: int
    kid_subsets: int
    kid_subset_size: int
    neighborhood: int
    seed: int
    density_neighborhood: int | None = None


def protocol(samples: int, reference: int, neighborhood: int = 3, density_k: int | None = None) -> ScoreProtocol:
    """How so many samples are scored against so many reference images. `density_k`: None where density is not measured.

    KID's subsets have the usual 1000 images where both sets hold twice that, else half of the smaller set, so that they
    differ. UserError when a set is too small.
    """
    fewest, needed = min(samples, reference), images_needed(neighborhood, density_k)
    if fewest < needed:
        raise UserError(
            f"{samples:,} samples against {reference:,} reference images are too few: the score is over {IS_PARTS} "
            f"parts and precision over {neighborhood} neighbours{f', density over {density_k}' if density_k else ''}, which "
            f"need {needed} images or more. Give more."
        )
    return ScoreProtocol(IS_PARTS, KID_SUBSETS, min(KID_SUBSET_SIZE, fewest // 2), neighborhood, SEED, density_k)


def images_needed(neighborhood: int, density_k: int | None = None) -> int:
    """Fewest images of a set: one for each part of the score, and k + 1 for k neighbours."""
    return max(IS_PARTS, neighborhood + 1, (density_k or 0) + 1)


def in_words(how: ScoreProtocol, info: ExtractorInfo) -> str:
    """The protocol as it stands under a table."""
    score = f"{info.labels[1]} over {how.is_parts} shuffled parts; " if has_score(info) else ""
    return (
        f"{score}{_kernel(info)} over {how.kid_subsets} subsets of "
        f"{how.kid_subset_size:,} images; precision and recall: the same features, k = {how.neighborhood}."
    )


def expected_coverage(samples: int, reference: int, k: int) -> float:
    """Of samples that are as the reference images are: 1 - prod_{j=1..k} (N - j) / (M + N - j), as Naeem et al. 2020 say.

    A real image is not covered where the k points nearest to it, among M samples and N - 1 others, are all real.
    """
    return 1 - math.prod((reference - j) / (samples + reference - j) for j in range(1, k + 1))


def quality_in_words(
    keys: Collection[str], info: ExtractorInfo, density_k: int, samples: int, reference: int
) -> list[str]:
    """What those of `keys` mean that were asked for beside the usual, a sentence each."""
    coverage = expected_coverage(samples, reference, density_k)
    said = {
        "density": (
            f"Density and coverage (Naeem et al. 2020): the same features, k = {density_k}, balls without their surface. "
            f"{samples:,} samples no different from the {reference:,} real images have a density of 1 and a coverage of "
            f"{coverage:.3f}."
        ),
        "copies": (
            "Copies: the share of samples with a calibrated distance to the nearest training image below that of all but 1% of "
            "the test images; 0.010 is what as many new images have."
        ),
        "copy_distance": (
            "Calibrated distance (Carlini et al. 2023): of pixels to the nearest training image, over half the mean to the 50 "
            "nearest; the median over samples. 0: a copy; 2: no image is nearer than another."
        ),
        "class_agreement": (
            f"Class agreement: the share of samples that the extractor ({info.name}) takes for the class they were asked to be of; "
            "its own errors, which it makes on real images too, count as disagreement."
        ),
        "sfd_train": f"{_heading('sfd_train', info)}: the Fréchet distance of features that know where in the image they are.",
        "mmd_train": (
            f"{_heading('mmd_train', info)}: 1000 times the squared MMD of features of unit norm, Gaussian kernel of width 10."
        ),
    }
    return [text for key, text in said.items() if key in keys]


def has_score(info: ExtractorInfo) -> bool:
    """Whether the extractor tells classes apart, of which the Inception Score is taken."""
    return info.classes != 0


def few_images(how: ScoreProtocol, samples: int, reference: int, info: ExtractorInfo) -> list[str]:
    """What so many images are too few for, a sentence a number."""
    classes = info.classes or CLASSES
    fewest, said = min(samples, reference), few_for_distance(samples, reference, info)
    part, score = samples // how.is_parts, info.labels[1]
    if (published := info.name == "inception") and samples < PUBLISHED_SAMPLES:
        said.append(
            f"{score} comes out low: published ones are of {PUBLISHED_SAMPLES:,} samples, these are {samples:,}."
        )
    elif has_score(info) and not published and part < IMAGES_A_CLASS * classes:
        needed = how.is_parts * IMAGES_A_CLASS * classes
        said.append(
            f"{score} comes out low: each of its {how.is_parts} parts has {_images(part)}"
            + (f", so it cannot be above {part}" if part < classes else "")
            + f". From {needed:,} samples on ({IMAGES_A_CLASS} a class in each part) it is low by less than 5%."
        )
    if how.kid_subset_size < KID_SUBSET_SIZE:
        said.append(
            f"{_kernel(info)}: subsets of {how.kid_subset_size:,} instead of {KID_SUBSET_SIZE:,} images, since the smaller "
            f"set has {fewest:,}. It has no bias, but its ± is that of such subsets, which is larger."
        )
    if fewest < SHARED:
        said.append(
            f"Precision and recall: uncertain by ± {0.5 / fewest**0.5:.2f} where the smaller set has {_images(fewest)}; "
            "they change with the number, as balls of k neighbours shrink. Compare at equal numbers."
        )
    return said


def fewest_for_distance(info: ExtractorInfo) -> int:
    """Images of each set below which a Frechet distance is mostly bias."""
    return SAMPLES_A_FEATURE * info.feature_dim


def enough_for_distance(samples: int, reference: int, info: ExtractorInfo) -> bool:
    """Whether both sets are, so that no distance need be marked as too high."""
    return min(samples, reference) >= fewest_for_distance(info)


def few_for_distance(samples: int, reference: int | None, info: ExtractorInfo) -> list[str]:
    """What so many images are too few for in a Frechet distance. reference: None where only its statistics are known."""
    distance, features, said = info.labels[0], info.feature_dim, []
    if info.name == "inception" and info.verified and samples != PUBLISHED_SAMPLES:
        said.append(
            f"Not comparable with published FIDs, which are of {PUBLISHED_SAMPLES:,} samples: fewer bias it upwards, more "
            "bias it less."
        )
    fewest = samples if reference is None else min(samples, reference)
    if fewest <= features:
        said.append(
            f"{distance}: {_images(fewest)} determine no covariance of {features:,} features, so it comes out far too high. "
            f"Give more than {features:,}, better {SAMPLES_A_FEATURE} a feature."
        )
    elif fewest < fewest_for_distance(info):
        said.append(
            f"{distance} comes out high: {_images(fewest)} are fewer than {SAMPLES_A_FEATURE} for each of {features:,} features. "
            "Compare at equal numbers."
        )
    return said


def _kernel(info: ExtractorInfo) -> str:
    return _heading("kid_mean", info)


def _heading(key: str, info: ExtractorInfo) -> str:
    return METRICS[key].heading(info.labels)


def _images(count: int) -> str:
    return f"{count:,} image{'' if count == 1 else 's'}"
