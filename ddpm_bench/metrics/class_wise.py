"""Samples that were asked to be of a class, scored class by class from features and logits that are there already.

class_agreement   the share of a class's samples whose largest logit is that of the class
fd_train          the Frechet distance of a class's samples to the training images of that class: a model that draws one class
                  well and another badly, or the one for the other, shows here alone
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch_fidelity.metric_fid import fid_features_to_statistics, fid_statistics_to_metric

from ddpm_bench.config.metrics import AGREEMENT, DISTANCE
from ddpm_bench.metrics.features import Outputs
from ddpm_bench.records.classes import ClassScores
from ddpm_bench.records.protocol import enough_for_distance
from ddpm_bench.records.record import ExtractorInfo
from ddpm_bench.runtime.interrupt import check_stop


@dataclass(frozen=True, eq=False)
class Classes:
    """Of samples and training images. asked: int64 (N,), what samples were asked to be of; training: int64 (M,), what images are.

    names: by number. known: whether the extractor's logits are of these classes, in this order.
    """

    asked: Tensor
    training: Tensor
    names: tuple[str, ...]
    known: bool


def agreeing(logits: Tensor, asked: Tensor) -> Tensor:
    """Whether the largest of the logits (N, classes) is that of the class asked for, (N,): float64 (N,), 0 or 1.

    The extractor's own errors count as disagreement: of real images it would not be 1 everywhere either.
    """
    return (logits.argmax(1) == asked.to(logits.device)).double()


def class_wise(
    outputs: Outputs, training_features: Tensor, classes: Classes, info: ExtractorInfo
) -> tuple[ClassScores, ...]:
    """One for each class that was asked for, by number. Raises Interrupted between classes."""
    agreement = agreeing(outputs.logits, classes.asked) if classes.known else None
    count = len(classes.names)
    of_samples, of_training = (torch.bincount(of, minlength=count).tolist() for of in (classes.asked, classes.training))
    found = []
    for number in classes.asked.unique().tolist():
        check_stop()
        samples, metrics = classes.asked == number, dict[str, float]()
        if agreement is not None:
            metrics[AGREEMENT] = float(agreement[samples].mean())
        if enough_for_distance(of_samples[number], of_training[number], info):
            compared = outputs.features[samples], training_features[classes.training == number]
            statistics = map(fid_features_to_statistics, compared)
            metrics[DISTANCE] = fid_statistics_to_metric(*statistics, verbose=False)["frechet_inception_distance"]
        found.append(
            ClassScores(
                name=classes.names[number],
                samples=of_samples[number],
                training_images=of_training[number],
                metrics=metrics,
            )
        )
    return tuple(found)
