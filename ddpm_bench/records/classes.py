"""Scores of samples by the class that they were asked to be of. Imports no torch."""

from ddpm_bench.config.values import Count
from ddpm_bench.records.fields import Numbers
from ddpm_bench.records.part import Part


class ClassScores(Part):
    """Of the samples of one class, and of the training images of that class.

    metrics: class_agreement where the extractor knows the classes; fd_train, to the training images of the class alone, where both
    are enough for a distance (`protocol.enough_for_distance`).
    """

    name: str
    samples: Count
    training_images: Count
    metrics: Numbers = {}
