"""What so many images are too few for: each sentence at its threshold, and none where there are enough."""

import pytest
import torch

from ddpm_bench.config.metrics import METRICS
from ddpm_bench.metrics.uncertainty import score_quantiles
from ddpm_bench.records.protocol import IMAGES_A_CLASS, few_for_distance, few_images, in_words, protocol
from ddpm_bench.records.record import ExtractorInfo

OWN = ExtractorInfo(name="own", sha256="0" * 64, verified=True, labels=("FD (own)", "IS (own)"), feature_dim=64)
INCEPTION = ExtractorInfo(
    name="inception", sha256="1" * 64, verified=True, labels=("FID", "IS"), feature_dim=2048
)  # fmt: skip


def about(samples: int, reference: int, info: ExtractorInfo = OWN, classes: int | None = None) -> set[str]:
    """Which numbers so many images are too few for."""
    known = info.model_copy(update={"classes": classes})
    said = few_images(protocol(samples, reference), samples, reference, known)
    return {
        word for word in ("FD (own)", "FID", "IS", "KD", "KID", "Precision") for line in said if line.startswith(word)
    }


def test_the_published_protocol_is_enough_for_every_number():
    assert few_images(protocol(50_000, 50_000), 50_000, 50_000, INCEPTION) == []


def test_ten_images_are_too_few_for_every_number():
    assert about(10, 8000) == {"FD (own)", "IS", "KD", "Precision"}
    (score,) = (line for line in few_images(protocol(10, 8000), 10, 8000, OWN) if line.startswith("IS"))
    assert "10 parts has 1 image, so it cannot be above 1. From 1,000 samples on" in score


@pytest.mark.parametrize(
    ("samples", "reference", "found"),
    [
        (1999, 8000, {"KD"}),
        (2000, 8000, set()),
        (2000, 1999, {"KD"}),
        (1000, 8000, {"KD"}),
        (999, 8000, {"IS", "KD", "Precision"}),
        (256, 8000, {"IS", "KD", "Precision"}),
        (255, 8000, {"FD (own)", "IS", "KD", "Precision"}),
        (8000, 64, {"FD (own)", "KD", "Precision"}),
    ],
)
def test_each_number_has_its_threshold(samples, reference, found):
    assert about(samples, reference) == found


def test_more_classes_need_more_samples_for_a_score():
    assert "IS" not in about(2000, 8000, classes=20) and "IS" in about(1999, 8000, classes=20)


def test_published_scores_are_of_fifty_thousand_samples():
    (distance, score) = few_images(protocol(49_999, 50_000), 49_999, 50_000, INCEPTION)
    assert distance.startswith("Not comparable with published FIDs, which are of 50,000 samples")
    assert score.startswith("IS comes out low")
    assert few_for_distance(100_000, None, INCEPTION)  # less bias is no match either
    singular = few_for_distance(2048, None, INCEPTION)[-1]
    assert "2,048 images determine no covariance of 2,048 features" in singular
    assert "determine no" not in few_for_distance(2049, None, INCEPTION)[-1]


def test_with_ten_images_a_class_a_part_a_score_is_low_by_less_than_5_percent():
    """Images each of a class that is certain, all classes alike: the score of infinitely many is their number."""
    classes, parts = 10, 400
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(classes, (parts * IMAGES_A_CLASS * classes,), generator=generator)
    logits = 100 * torch.nn.functional.one_hot(labels, classes).double()
    enough, half = (score_quantiles(logits, times * parts, 40, 0)[0] for times in (1, 2))
    assert 0.9 * classes < half < 0.95 * classes < enough < 0.96 * classes


def test_the_protocol_in_words_names_parts_subsets_and_neighbours():
    said = in_words(protocol(512, 8000, 5), OWN)
    assert "IS (own) over 10 shuffled parts; KD (own) over 100 subsets of 256 images" in said and "k = 5" in said


def test_no_number_is_shown_as_minus_zero():
    assert METRICS["fd_train"].text(-1e-12) == "0.00" and METRICS["kid_mean"].text(-4e-5) == "0.0000"
    assert METRICS["fd_train"].text(-0.006) == "-0.01"
    assert METRICS["fd_train"].text(-1e-12, sign=True) == "+0.00"


def test_a_file_that_does_not_say_its_classes_is_judged_by_ten_and_another_by_its_own():
    assert "IS" not in about(6000, 8000) and "IS" in about(6000, 8000, classes=1000)
