"""Every number that a checkpoint can have: its name, unit, direction and digits, once. Imports no torch."""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Metric:
    """`key` is the name in records; `label` is for prose. A table's `heading` depends on the extractor, too.

    `template` may hold {score}, {distance} and {kernel}: what the extractor calls its score and its two distances.
    """

    key: str
    label: str
    unit: str
    direction: Literal["up", "down"]  # where better numbers lie
    digits: int
    template: str

    def heading(self, labels: tuple[str, str]) -> str:
        """The heading under an extractor with these `labels` (ExtractorInfo.labels: distance, score).

        Only Inception's own may be called FID, IS and KID; another's are called, say, FD (embedded), IS (embedded), KD
        (embedded).
        """
        distance, score = labels
        kernel = distance.replace("FID", "KID", 1) if distance.startswith("FID") else distance.replace("FD", "KD", 1)
        return self.template.format(distance=distance, score=score, kernel=kernel)


METRICS = {
    metric.key: metric
    for metric in (
        Metric("is_mean", "Inception Score", "", "up", 2, "{score}"),
        Metric("is_std", "spread of the Inception Score over splits", "", "down", 2, "{score}, std"),
        Metric("fd_train", "Frechet distance to the training set", "", "down", 2, "{distance}"),
        Metric("fd_test", "Frechet distance to the test set", "", "down", 2, "{distance}, test set"),
        Metric(
            "fd_infinity", "Frechet distance for infinitely many samples", "", "down", 2, "{distance}, infinite samples"
        ),
        Metric("kid_mean", "kernel distance to the training set", "", "down", 4, "{kernel}"),
        Metric("kid_std", "spread of the kernel distance over subsets", "", "down", 4, "{kernel}, std"),
        Metric("precision", "precision", "", "up", 3, "precision"),
        Metric("recall", "recall", "", "up", 3, "recall"),
        Metric(
            "bound_test_bits_per_dim", "variational bound, test images", "bits/dim", "down", 3, "bound, test (bits/dim)"
        ),
        Metric(
            "bound_train_bits_per_dim",
            "variational bound, training images",
            "bits/dim",
            "down",
            3,
            "bound, train (bits/dim)",
        ),
    )
}
