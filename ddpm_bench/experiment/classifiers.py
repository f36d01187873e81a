"""The classifiers that guide: settings say which, before anything is trained, sampled or looked up.

PATH            a file of `ddpm-bench classifier train`, which becomes its SHA-256
small, ...      trained on the images at hand when it is first needed, and kept (`config/classifiers.py`); it becomes NAME@HASH

The HASH is of what it is trained on and how, not of the file, since no weights of a model depend on a classifier: grids are planned and
looked up without it, and only a cell that samples waits for its training. Autoencoders are otherwise (`autoencoders.py`).
"""

import hashlib
import json
import math
import time
from collections.abc import Sequence
from pathlib import Path

from ddpm_bench.config.classifiers import CLASSIFIERS, ClassifierTraining
from ddpm_bench.config.sampling import SamplingSettings
from ddpm_bench.config.settings import CellSettings, NoiseSettings, ProcessSettings
from ddpm_bench.data.images import ImageData
from ddpm_bench.data.labels import labels_sha256, told_apart
from ddpm_bench.errors import UserError, near_miss
from ddpm_bench.experiment.job import Job
from ddpm_bench.models.build import build_codec, build_schedule
from ddpm_bench.models.classifiers import (
    RESOLVED,
    Classified,
    ClassifierCard,
    keep_file,
    packed,
    stored,
)
from ddpm_bench.networks.kept import write_network
from ddpm_bench.records.provenance import versions
from ddpm_bench.runtime.observer import about, say
from ddpm_bench.runtime.owner import owned
from ddpm_bench.runtime.runtime import Runtime
from ddpm_bench.training.classifier import LEARNER, train_classifier


def with_classifiers(jobs: Sequence[Job], data: ImageData) -> list[Job]:
    """The jobs, whose settings say which classifier guides their samples. UserError for none, and for data without labels."""

    def named(settings: CellSettings) -> CellSettings:
        sampling = named_classifier(settings.sampling, settings.diffusion, data)
        return settings.model_copy(update={"sampling": sampling})

    return [job.with_settings(named) for job in jobs]


def named_classifier(sampling: SamplingSettings, process: ProcessSettings, data: ImageData) -> SamplingSettings:
    """The settings, with what their classifier is called in the store."""
    given = sampling.classifier
    if given is None or RESOLVED.fullmatch(given):
        return sampling
    if given in CLASSIFIERS:
        told_apart(data, LEARNER)  # refused, if at all, before it is trained
        name = f"{given}@{_key(CLASSIFIERS[given], process.noise, data)}"
    elif given.endswith(".safetensors"):
        name = keep_file(Path(given).expanduser())
    else:
        raise UserError(
            f"there is no classifier '{given}'{near_miss(given, CLASSIFIERS)} Or the path of a .safetensors file made by `ddpm-bench "
            "classifier train`."
        )
    return sampling.model_copy(update={"classifier": name})


def _key(training: ClassifierTraining, noise: NoiseSettings, data: ImageData) -> str:
    """Of all that a classifier is trained on, and how."""
    labels = labels_sha256(data.train.labels)
    of = {
        "training": training.model_dump(mode="json"),
        "noise": noise.model_dump(mode="json"),
        "data": data.sha256,
        **labels,
    }
    return hashlib.sha256(json.dumps(of, sort_keys=True).encode()).hexdigest()[:16]


def train_if_missing(sampling: SamplingSettings, process: ProcessSettings, data: ImageData, runtime: Runtime) -> None:
    """The classifier that guides, where it is one that is trained on demand and not in the store yet, is trained on `data`.

    Raises Interrupted: nothing is kept.
    """
    name = sampling.classifier
    if name is None or not sampling.by_classifier or "@" not in name or (path := stored(name)).exists():
        return
    training, noise = CLASSIFIERS[name.partition("@")[0]], process.noise
    if name != f"{name.partition('@')[0]}@{_key(training, noise, data)}":
        raise UserError(
            f"The classifier '{name}' is of other data, noise or settings than these, and is not on this machine."
        )
    with owned(path.parent, math.inf, name), about(name):  # of two processes that want the same, one trains it
        if path.exists():
            return
        content, card = make_classifier(data, noise, training, runtime)
        write_network(path, content, card)
        say(f"trained {training.steps:,} steps on '{data.name}' in {card.wall_time_s:g} s; {accuracy_in_words(card)}")


def make_classifier(
    data: ImageData, noise: NoiseSettings, training: ClassifierTraining, runtime: Runtime
) -> tuple[bytes, ClassifierCard]:
    """The content of the file of a classifier, trained on `data`, and its card. See `train_classifier`."""
    began, codec = time.monotonic(), build_codec(noise)
    of = Classified(
        shape=codec.shape(data.shape), classes=told_apart(data, LEARNER), noise=noise, network=training.network
    )
    found = train_classifier(data, codec, build_schedule(noise), training, runtime)
    content = packed(of, found.network)
    return content, ClassifierCard(
        sha256=hashlib.sha256(content).hexdigest(),
        of=of,
        parameters=sum(parameter.numel() for parameter in found.network.parameters()),
        training=training,
        accuracy=found.accuracy,
        loss=found.loss,
        data_name=data.name,
        data_sha256=data.sha256,
        train_images=len(data.train),
        test_images=len(data.test),
        wall_time_s=round(time.monotonic() - began, 1),
        versions=versions(),
    )


def accuracy_in_words(card: ClassifierCard) -> str:
    told = ", ".join(f"{share:.1%} at t = {t}" for t, share in card.accuracy.items())
    return f"of the test images it tells apart: {told}"
