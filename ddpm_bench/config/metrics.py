"""What a metric is: its name, unit, direction, digits and images, and how sources and records speak of it. Without torch.

One more metric: an entry here, and a number under its key in a record. Tables, figures, claims and comparisons ask it.
"""

import math
from dataclasses import dataclass
from typing import Literal

SplitName = Literal["test", "train"]
FID, FID_UNVERIFIED, FD_DINOV2, CLIP_DISTANCE = "FID", "FID (unverified)", "FD-DINOv2", "FD (clip)"
"""Distances of extractors with names of their own; the last one is of CLIP with the published weights."""
_OF_EXTRACTOR = {FID: "(inception)", FID_UNVERIFIED: "(inception, unverified)", FD_DINOV2: "(dinov2)"}
"""By a distance whose label is not "FD (extractor)": what stands after the name of another of its numbers."""


@dataclass(frozen=True)
class Metric:
    """`key` is the name in records; `label` is for prose. A table's `heading` depends on the extractor, too.

    kind: what is compared of the samples, except for a `bound` and a `likelihood`, which are the model's own, and an `error`,
        which is another metric's within one run.
    template: may hold {score}, {distance}, {kernel}, {spatial} and {mmd}: what the extractor calls its score and its distances.
    split: of the data set; a distance is measured against its images, a bound is that of its images.
    source_name: what sources call it. published: the field of `Published` with the number that a source printed.
    error: the metric that is this one's scatter within one run, and `error_over`: over what.
    infinite: the metric that is this one for infinitely many samples.
    scale: on which good and bad cells scatter alike over seeds: relative for sizes, arcsine for fractions.
    neighbours: the setting of the k that it depends on, if it does. minor: a narrow terminal goes without it. of_classes: only
        samples have it whose classes were asked for.
    """

    key: str
    label: str
    kind: Literal["score", "distance", "bound", "likelihood", "error"]
    direction: Literal["up", "down"]  # where better numbers lie
    digits: int
    template: str
    unit: str = ""
    split: SplitName | None = None
    source_name: str = ""
    published: str = ""
    error: str = ""
    error_over: str = ""
    infinite: str = ""
    scale: Literal["log", "arcsine"] | None = None
    neighbours: Literal["", "neighborhood", "density_neighborhood"] = ""
    minor: bool = False
    of_classes: bool = False

    def heading(self, labels: tuple[str, str]) -> str:
        """The heading under an extractor with these `labels` (ExtractorInfo.labels: distance, score).

        Only Inception's own may be called FID, sFID, IS and KID, and only CLIP's CMMD; another's are called, say, FD
        (embedded), sFD (embedded), IS (embedded), KD (embedded), MMD (embedded).
        """
        distance, score = labels
        kernel = distance.replace("FID", "KID", 1) if distance.startswith("FID") else distance.replace("FD", "KD", 1)
        of = _OF_EXTRACTOR.get(distance) or distance.removeprefix("FD ")
        spatial = "sFID" if distance == FID else f"sFD {of}"
        mmd = "CMMD" if distance == CLIP_DISTANCE else f"MMD {of}"
        return self.template.format(distance=distance, score=score, kernel=kernel, spatial=spatial, mmd=mmd)

    def column(self, labels: tuple[str, str]) -> str:
        """The heading of a column, with the arrow; an error has none, since a small one is no merit."""
        return self.heading(labels) + ("" if self.kind == "error" else f" {self.arrow}")

    @property
    def is_bound(self) -> bool:
        """Is it the model's own number on images of the data, whatever samples are drawn?"""
        return self.kind in ("bound", "likelihood")

    @property
    def bound_split(self) -> SplitName | None:
        """The split whose images the variational bound is of; None for what is none."""
        return self.split if self.kind == "bound" else None

    @property
    def arrow(self) -> str:
        """Points to where better numbers lie."""
        return {"up": "↑", "down": "↓"}[self.direction]

    @property
    def better(self) -> str:
        return {"up": "higher is better", "down": "lower is better"}[self.direction]

    @property
    def published_name(self) -> str:
        """What a source calls the number, told apart from that of the other split: NLL of training images."""
        if self.is_bound:
            return f"{self.source_name} of {'training' if self.split == 'train' else 'test'} images"
        return f"{self.source_name} to the test set" if self.split == "test" else self.source_name

    def text(self, value: float, sign: bool = False) -> str:
        """The value with the metric's digits, never -0.00; with `sign`, that of a difference."""
        return f"{value:{'+' if sign else ''}z.{self.digits}f}"

    def with_error(self, value: float, error: float) -> str:
        """`12.31 ± 0.71`: two significant digits of the error, and the value with as many decimals."""
        decimals = self._decimals(error)
        return f"{value:z.{decimals}f} ± {error:.{decimals}f}"

    def with_interval(self, value: float, low: float, high: float) -> str:
        """`12.31 [11.60, 13.02]`: as many decimals as show two significant digits of half the interval's width."""
        decimals = self._decimals((high - low) / 2)
        return f"{value:z.{decimals}f} [{low:z.{decimals}f}, {high:z.{decimals}f}]"

    def _decimals(self, error: float) -> int:
        """At most three more than the metric's own, which stand where there is no error."""
        if not 0 < error < math.inf:
            return self.digits
        exponent = int(f"{error:.1e}".partition("e")[2])  # after rounding: 0.0996 is 0.10
        return min(max(0, 1 - exponent), self.digits + 3)


AGREEMENT = "class_agreement"
"""The key of how often an extractor that knows the classes finds the one asked for."""


def _bound(split: SplitName, images: str, scale: Literal["log"] | None = None, minor: bool = False) -> Metric:
    return Metric(
        f"bound_{split}_bits_per_dim", f"variational bound, {images} images", "bound", "down", 3,
        f"bound, {split} (bits/dim)", unit="bits/dim", split=split, source_name="NLL", published=f"nll_{split}",
        scale=scale, minor=minor,
    )  # fmt: skip


METRICS = {
    metric.key: metric
    for metric in (
        Metric(
            "is_mean", "Inception Score", "score", "up", 2, "{score}", source_name="IS", published="is_mean",
            error="is_std", error_over="over splits of one sample set", scale="log",
        ),
        Metric(
            "is_std", "spread of the Inception Score over splits", "error", "down", 2, "{score}, std",
            published="is_std",
        ),
        Metric(
            "fd_train", "Frechet distance to the training set", "distance", "down", 2, "{distance}", split="train",
            source_name="FID", published="fid", infinite="fd_infinity", scale="log",
        ),
        Metric(
            "fd_test", "Frechet distance to the test set", "distance", "down", 2, "{distance}, test set", split="test",
            source_name="FID", published="fid_test",
        ),
        Metric(
            "fd_reference", "Frechet distance to a reference without splits", "distance", "down", 2, "{distance}",
        ),
        Metric(
            "fd_infinity", "Frechet distance for infinitely many samples", "distance", "down", 2,
            "{distance}, infinite samples", split="train", minor=True,
        ),
        Metric(
            "kid_mean", "kernel distance to the training set", "distance", "down", 4, "{kernel}", split="train",
            error="kid_std", error_over="over subsets of it", minor=True,
        ),
        Metric("kid_std", "spread of the kernel distance over subsets", "error", "down", 4, "{kernel}, std"),
        Metric(
            "precision", "precision", "score", "up", 3, "precision", split="train", source_name="precision",
            published="precision", scale="arcsine", neighbours="neighborhood", minor=True,
        ),
        Metric(
            "recall", "recall", "score", "up", 3, "recall", split="train", source_name="recall", published="recall",
            scale="arcsine", neighbours="neighborhood", minor=True,
        ),
        Metric(
            "density", "density", "score", "up", 3, "density", split="train", neighbours="density_neighborhood",
            minor=True,
        ),
        Metric(
            "coverage", "coverage", "score", "up", 3, "coverage", split="train", scale="arcsine",
            neighbours="density_neighborhood", minor=True,
        ),
        Metric(
            "copies", "share of samples nearer to a training image than all but 1% of test images", "score", "down", 3,
            "copies", split="train", scale="arcsine", minor=True,
        ),
        Metric(
            "copy_distance", "median calibrated distance to the nearest training image", "score", "up", 3,
            "calibrated distance", split="train", minor=True,
        ),
        Metric(
            "sfd_train", "Frechet distance of spatial features to the training set", "distance", "down", 2, "{spatial}",
            split="train", source_name="sFID", published="sfid", scale="log", minor=True,
        ),
        Metric(
            "mmd_train", "squared MMD with a Gaussian kernel to the training set, times 1000", "distance", "down", 3,
            "{mmd}", split="train", minor=True,
        ),
        Metric(
            AGREEMENT, "share of samples that the extractor takes for the class they were asked to be of", "score", "up", 3,
            "class agreement", scale="arcsine", minor=True, of_classes=True,
        ),
        _bound("test", "test", scale="log"),
        _bound("train", "training", minor=True),
        Metric(
            "ode_test_bits_per_dim", "likelihood by the probability flow ODE, test images", "likelihood", "down", 3,
            "bits/dim (ODE), test", unit="bits/dim", split="test", source_name="NLL by the ODE",
            published="nll_ode", minor=True,
        ),
    )
}  # fmt: skip

OF_DATA_SETS = tuple(
    sorted(
        key
        for key, metric in METRICS.items()
        if not metric.of_classes and metric.kind != "likelihood" and (metric.kind != "distance" or metric.split)
    )
)
"""The metrics that a run may have: kept scores and anchors are made again where there is one more of them."""
SCORE, DISTANCE = "is_mean", "fd_train"
"""What every run is scored by; the best checkpoint is the one with the lowest DISTANCE."""
BOUNDS = {split: key for key, metric in METRICS.items() if (split := metric.bound_split)}
"""The bound's key by split, the test images' first."""
LIKELIHOOD = "ode_test_bits_per_dim"
"""The key of the likelihood by the ODE, which is never mixed with a bound."""
PUBLISHED = tuple(key for key, metric in METRICS.items() if metric.published and metric.kind != "error")
"""The metrics that sources print."""
