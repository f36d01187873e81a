"""How samples are scored beside the extractor, and which numbers so many images are too few for. Imports no torch."""

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
    """What scores depend on besides images and extractor: parts of the IS, subsets of KID, neighbours k, and the seed."""

    is_parts: int
    kid_subsets: int
    kid_subset_size: int
    neighborhood: int
    seed: int


def protocol(samples: int, reference: int, neighborhood: int = 3) -> ScoreProtocol:
    """How so many samples are scored against so many reference images.

    KID's subsets have the usual 1000 images where both sets hold twice that, else half of the smaller set, so that they
    differ. UserError when a set is too small.
    """
    fewest, needed = min(samples, reference), images_needed(neighborhood)
    if fewest < needed:
        raise UserError(
            f"{samples:,} samples against {reference:,} reference images are too few: the score is over {IS_PARTS} "
            f"parts and precision over {neighborhood} neighbours, which need {needed} images or more. Give more."
        )
    return ScoreProtocol(IS_PARTS, KID_SUBSETS, min(KID_SUBSET_SIZE, fewest // 2), neighborhood, SEED)


def images_needed(neighborhood: int) -> int:
    """Fewest images of a set: one for each part of the score, and k + 1 for `neighborhood` = k neighbours."""
    return max(IS_PARTS, neighborhood + 1)


def in_words(how: ScoreProtocol, info: ExtractorInfo) -> str:
    """The protocol as it stands under a table."""
    return (
        f"{info.labels[1]} over {how.is_parts} shuffled parts; {_kernel(info)} over {how.kid_subsets} subsets of "
        f"{how.kid_subset_size:,} images; precision and recall: the same features, k = {how.neighborhood}."
    )


def few_images(how: ScoreProtocol, samples: int, reference: int, info: ExtractorInfo) -> list[str]:
    """What so many images are too few for, a sentence a number."""
    classes = info.classes or CLASSES
    fewest, said = min(samples, reference), few_for_distance(samples, reference, info)
    part, score = samples // how.is_parts, info.labels[1]
    if (published := info.name == "inception") and samples < PUBLISHED_SAMPLES:
        said.append(
            f"{score} comes out low: published ones are of {PUBLISHED_SAMPLES:,} samples, these are {samples:,}."
        )
    elif not published and part < IMAGES_A_CLASS * classes:
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
    elif fewest < SAMPLES_A_FEATURE * features:
        said.append(
            f"{distance} comes out high: {_images(fewest)} are fewer than {SAMPLES_A_FEATURE} for each of {features:,} features. "
            "Compare at equal numbers."
        )
    return said


def _kernel(info: ExtractorInfo) -> str:
    return METRICS["kid_mean"].heading(info.labels)


def _images(count: int) -> str:
    return f"{count:,} image{'' if count == 1 else 's'}"
