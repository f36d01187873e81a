"""Classifiers of noised images as files, and where a guided chain finds its own.

One file is a classifier: safetensors with its weights, what it is of in the metadata. So its SHA-256 is of all that its gradient depends
on. `ddpm-bench classifier train` writes it with a card beside it; what a chain is guided by is kept in STORE, since a path says nothing
of what lies there. Settings know a file that was given by its hash, and one that is trained on demand by the hash of what it is trained
on and how, which is known before it is there and the same on every machine.
"""

import functools
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import safetensors.torch
import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from safetensors import SafetensorError, safe_open

from ddpm_bench.config.classifiers import ClassifierSettings, ClassifierTraining, NoiseSettings
from ddpm_bench.config.values import first_fault
from ddpm_bench.diffusion.classifier_guidance import ClassifierGuidance, Place
from ddpm_bench.errors import UserError
from ddpm_bench.files import given_content, replacing, write_text
from ddpm_bench.networks.classifier import NoisyClassifier
from ddpm_bench.networks.weights import mismatch, not_finite, outline, read_tensors

STORE = Path("~/.cache/ddpm-bench/classifiers")
"""One folder a machine, whatever --cache says: checkpoints of guided chains name what lies in it."""
ABOUT = "ddpm-bench classifier 1"
"""The key in the metadata."""
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
    tensors = {name: held.cpu().contiguous() for name, held in network.state_dict().items()}
    return safetensors.torch.save(tensors, {ABOUT: of.model_dump_json()})


def write_classifier(path: Path, content: bytes, card: ClassifierCard) -> None:
    """The file and, beside it, its card; the file last, so that one that is there is whole."""
    write_text(path.with_suffix(".json"), card.model_dump_json(indent=2) + "\n")
    with replacing(path) as temporary:
        temporary.write_bytes(content)


def keep_file(path: Path) -> str:
    """The SHA-256 of the file of a classifier, which lies in the store from now on. UserError where it is none."""
    content, sha256 = given_content(path, "the classifier", REMEDY)
    if not (kept := stored(sha256)).exists():
        with replacing(kept) as temporary:
            temporary.write_bytes(content)
            _read(temporary, content, path)
    return sha256


def stored(name: str) -> Path:
    """Where the classifier of this name lies, if it is on this machine: the SHA-256 of a file that was given, or NAME@HASH."""
    return STORE.expanduser() / f"{name}.safetensors"


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
    return Classifier(*_read(path, content, path), sha256)


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
