"""Classifiers of noised images as files, and where a guided chain finds its own.

One file is a classifier: safetensors with its weights, what it is of in the metadata. So its SHA-256, by which settings, checkpoints
and records know it, is of all that its gradient depends on. `ddpm-bench classifier train` writes it with a card beside it; what a chain
is guided by is kept in STORE under its hash, since a path says nothing of what lies there.
"""

import functools
import hashlib
import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import safetensors.torch
import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from safetensors import SafetensorError, safe_open

from ddpm_bench.config.classifiers import ClassifierSettings, ClassifierTraining, NoiseSettings
from ddpm_bench.config.values import first_fault
from ddpm_bench.data.images import ImageData
from ddpm_bench.errors import UserError
from ddpm_bench.files import given_content, known_content, make_folder, replacing, write_text
from ddpm_bench.models.build import build_codec, build_diffusion
from ddpm_bench.networks.classifier import NoisyClassifier
from ddpm_bench.networks.weights import mismatch, not_finite, outline, read_tensors
from ddpm_bench.records.provenance import versions
from ddpm_bench.runtime.runtime import Runtime
from ddpm_bench.training.classifier import class_names, train_classifier

STORE = Path("~/.cache/ddpm-bench/classifiers")
"""One folder a machine, whatever --cache says: checkpoints of guided chains name what lies in it."""
ABOUT = "ddpm-bench classifier 1"
"""The key in the metadata."""
REMEDY = "Make one with `ddpm-bench classifier train`."


class Classified(BaseModel):
    """What the weights are of: images of `shape` (C, H, W), their classes, and the noise that they are seen through."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    shape: tuple[int, int, int]
    classes: tuple[str, ...] = Field(min_length=2)
    noise: NoiseSettings
    network: ClassifierSettings

    def outline(self) -> NoisyClassifier:
        """The network, with the device and the draws of the caller."""
        channels, side, _ = build_codec(self.noise.process).shape(self.shape)
        return NoisyClassifier(channels, len(self.classes), side, self.network)


class ClassifierCard(BaseModel):
    """What is known of a classifier, for people: the .json beside the file of which `sha256` is the hash.

    accuracy: share of the test images that it tells apart at x_t, by t. loss: of the last step, in nats.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: Literal["ddpm-bench classifier 1"] = "ddpm-bench classifier 1"
    sha256: str
    of: Classified
    parameters: int
    training: ClassifierTraining
    accuracy: dict[int, Annotated[float, Field(ge=0, le=1)]]
    loss: float
    data_name: str
    data_sha256: str
    train_images: int
    test_images: int
    wall_time_s: float
    versions: dict[str, str]


@dataclass(frozen=True)
class Classifier:
    """A classifier that chains are guided by."""

    of: Classified
    network: NoisyClassifier
    sha256: str

    def check(self, noise: NoiseSettings, shape: tuple[int, int, int]) -> None:
        """UserError unless it is of the noise, and of the images, of a model."""
        theirs, ours = noise.model_dump(), self.of.noise.model_dump()
        if other := [name for name in ours if ours[name] != theirs[name]]:
            said = ", ".join(f"{name} = {ours[name]} where the model has {theirs[name]}" for name in other)
            raise UserError(
                f"The classifier was trained on other noise than the model: {said}. Train one on the model's: `ddpm-bench classifier "
                "train --like MODEL`."
            )
        if self.of.shape != shape:
            raise UserError(
                f"The classifier is of images of (C, H, W) = {self.of.shape}, and the model of {shape}. Train one at the model's size."
            )

    def check_label(self, label: int) -> None:
        """UserError for a label that it does not know."""
        if not 0 <= label < len(self.of.classes):
            raise UserError(
                f"Class {label}: the classifier knows {len(self.of.classes)}, numbered from 0. Choose one of these."
            )


def make_classifier(
    data: ImageData, noise: NoiseSettings, training: ClassifierTraining, runtime: Runtime
) -> tuple[bytes, ClassifierCard]:
    """The content of the file of a classifier, trained on `data`, and its card. See `train_classifier`."""
    began, process = time.monotonic(), noise.process
    of = Classified(shape=data.shape, classes=class_names(data), noise=noise, network=training.network)
    found = train_classifier(data, build_codec(process), build_diffusion(process).schedule, training, runtime)
    tensors = {name: held.contiguous() for name, held in found.network.state_dict().items()}
    content = safetensors.torch.save(tensors, {ABOUT: of.model_dump_json()})
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


def save_classifier(
    out: Path, data: ImageData, noise: NoiseSettings, training: ClassifierTraining, runtime: Runtime
) -> ClassifierCard:
    """Train one and write `out` (.safetensors) and its card (.json) beside it. UserError for an `out` that is no such file."""
    check_out(out)
    content, card = make_classifier(data, noise, training, runtime)
    with replacing(out) as temporary:
        temporary.write_bytes(content)
    write_text(out.with_suffix(".json"), card.model_dump_json(indent=2) + "\n")
    return card


def check_out(out: Path) -> None:
    """UserError for a file that is not called as a classifier is, or cannot be written."""
    if out.suffix != ".safetensors":
        raise UserError(
            f"A classifier is a .safetensors file, not '{out}'. Write --out {out.parent / (out.stem or 'mine')}.safetensors."
        )
    make_folder(out.parent)


def keep(content: bytes, where: Path | None = None) -> str:
    """The SHA-256 under which a classifier's content, of the file `where`, lies in the store from now on. UserError where it is none."""
    sha256 = hashlib.sha256(content).hexdigest()
    path = stored(sha256)
    if not path.exists():
        with replacing(path) as temporary:
            temporary.write_bytes(content)
            _read(temporary, content, where or path)
    return sha256


def keep_file(path: Path) -> str:
    """The SHA-256 of the file of a classifier, which lies in the store from now on. UserError where it is none."""
    return keep(given_content(path, "the classifier", REMEDY)[0], path)


def stored(sha256: str) -> Path:
    """Where the classifier with this hash lies, if it is on this machine."""
    return STORE.expanduser() / f"{sha256}.safetensors"


@functools.lru_cache(maxsize=4)
def classifier_of(sha256: str) -> Classifier:
    """The classifier in the store. UserError where it is not there, which says what to give."""
    path = stored(sha256)
    if not path.exists():
        raise UserError(
            f"The classifier with the SHA-256 {sha256} is not on this machine. Give its file: --classifier PATH, "
            "sampling.classifier=PATH; or leave guidance out: --classifier-scale 0."
        )
    remedy = "Remove it, and give the file that it is of: --classifier PATH."
    content = known_content(path, sha256, "the classifier", "not what its name says", remedy)
    of, network = _read(path, content, path)
    return Classifier(of, network, sha256)


def _read(path: Path, content: bytes, named: Path) -> tuple[Classified, NoisyClassifier]:
    """What it is of, and the network in evaluation mode. UserError for what is no classifier, or no numbers."""
    wrong: str | None
    try:
        with safe_open(path, "pt") as file:
            about = Classified.model_validate(json.loads((file.metadata() or {})[ABOUT]))
        tensors = read_tensors(content)
        with outline():
            wrong = mismatch(about.outline(), tensors)
        wrong = wrong or not_finite(tensors)
    except KeyError:
        wrong = "it does not say what it is of"
    except (ValueError, RuntimeError, SafetensorError, UserError) as error:
        wrong = first_fault(error) if isinstance(error, ValidationError) else str(error)
    if wrong:
        raise UserError(f"'{named}' is no classifier of ddpm-bench: {wrong.rstrip('.')}. {REMEDY}")
    with torch.random.fork_rng(devices=[]):
        network = about.outline()
    network.load_state_dict(tensors)
    return about, network.requires_grad_(False).eval()
