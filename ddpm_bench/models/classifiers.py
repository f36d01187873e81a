"""Classifiers of noised images as files (`networks/kept.py`), and where a guided chain finds its own.

Settings know a file that was given by its SHA-256, and one that is trained on demand by the hash of what it is trained on and how,
which is known before it is there and the same on every machine.
"""

import functools
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from ddpm_bench.config.classifiers import ClassifierSettings, ClassifierTraining
from ddpm_bench.config.settings import NoiseSettings
from ddpm_bench.diffusion.classifier_guidance import ClassifierGuidance, Place
from ddpm_bench.errors import UserError
from ddpm_bench.files import given_content
from ddpm_bench.networks.classifier import NoisyClassifier
from ddpm_bench.networks.kept import FileKind, NetworkCard, kept_as
from ddpm_bench.networks.weights import mismatch

STORE = Path("~/.cache/ddpm-bench/classifiers")
"""One folder a machine, whatever --cache says: checkpoints of guided chains name what lies in it."""
RESOLVED = re.compile(r"[0-9a-f]{64}|[a-z0-9-]+@[0-9a-f]{16}")
"""The name of a classifier in the store."""
REMEDY = "Make one with `ddpm-bench classifier train`."


class Classified(BaseModel):
    """What the weights are of: x_0 of `shape` (C, H, W), the classes, and the noise that they are seen through."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    shape: tuple[int, int, int]
    classes: tuple[str, ...] = Field(min_length=2)
    noise: NoiseSettings
    network: ClassifierSettings

    def outline(self) -> NoisyClassifier:
        """The network, with the device and the draws of the caller."""
        channels, side, _ = self.shape
        return NoisyClassifier(channels, len(self.classes), side, self.network)


class ClassifierCard(NetworkCard):
    """What is known of a classifier, for people.

    accuracy: share of the test images that it tells apart at x_t, by t. loss: in nats.
    """

    format: Literal["ddpm-bench classifier 1"] = "ddpm-bench classifier 1"
    of: Classified
    training: ClassifierTraining
    accuracy: dict[int, Annotated[float, Field(ge=0, le=1)]]
    test_images: int


def _fault(of: Classified, tensors: dict[str, Tensor]) -> str | None:
    return mismatch(of.outline(), tensors)


FILES = FileKind("classifier", "ddpm-bench classifier 1", Classified, _fault, REMEDY)


@dataclass(frozen=True)
class Classifier:
    """A classifier that chains are guided by."""

    of: Classified
    network: NoisyClassifier
    sha256: str

    @property
    def classes(self) -> int:
        return len(self.of.classes)

    def guidance(self, scale: float, at: Place) -> ClassifierGuidance:
        """By it, to classes that are still to be said."""
        return ClassifierGuidance(self.network, scale, at)

    def check(self, noise: NoiseSettings, shape: tuple[int, int, int]) -> None:
        """UserError unless it is of the noise of a model, and of its x_t, `shape` (C, H, W)."""
        theirs, ours = noise.model_dump(), self.of.noise.model_dump()
        if other := [name for name in ours if ours[name] != theirs[name]]:
            said = ", ".join(f"{name} = {ours[name]} where the model has {theirs[name]}" for name in other)
            raise UserError(
                f"The classifier was trained on other noise than the model: {said}. Train one on the model's: `ddpm-bench classifier "
                "train --like MODEL`."
            )
        if self.of.shape != shape:
            raise UserError(
                f"The classifier takes x_t of (C, H, W) = {self.of.shape}, and the model's is {shape}. Train one at the model's size."
            )


def packed(of: Classified, network: NoisyClassifier) -> bytes:
    """The content of a classifier's file."""
    return FILES.content(network.state_dict(), of.model_dump_json())


def keep_file(path: Path) -> str:
    """The SHA-256 of the file of a classifier, which lies in the store from now on. UserError where it is none."""
    return FILES.keep(given_content(path, "the classifier", REMEDY)[0], STORE, path)


def stored(name: str) -> Path:
    """Where the classifier of this name lies, if it is on this machine: the SHA-256 of a file that was given, or NAME@HASH."""
    return kept_as(STORE, name)


@functools.lru_cache(maxsize=4)
def classifier_of(name: str) -> Classifier:
    """The classifier in the store. UserError where it is not there, which says what to give."""
    if not RESOLVED.fullmatch(name) or not (path := stored(name)).exists():
        raise UserError(
            f"The classifier '{name}' is not on this machine. Give its file: --classifier PATH, sampling.classifier=PATH; or leave "
            "guidance out: --classifier-scale 0."
        )
    content, sha256 = given_content(path, "the classifier", REMEDY)
    if "@" not in name and sha256 != name:
        raise UserError(
            f"'{path}' is damaged: its SHA-256 is {sha256}. Remove it, and give the file that it is of: --classifier PATH."
        )
    of, tensors = FILES.read(path, content)
    with torch.random.fork_rng(devices=[]):
        network = of.outline()
    network.load_state_dict(tensors)
    return Classifier(of, network.requires_grad_(False).eval(), sha256)
