"""Autoencoders as files (`networks/kept.py`), and where a codec finds the one that its model was trained with.

A file has the weights and `scale`. Settings, checkpoints and records know it by its SHA-256.
"""

import functools
import json
from pathlib import Path
from typing import Literal

import torch
from pydantic import BaseModel, ConfigDict
from torch import Tensor

from ddpm_bench.config.autoencoders import AutoencoderSettings, AutoencoderTraining
from ddpm_bench.data.latents import Latents
from ddpm_bench.errors import UserError
from ddpm_bench.files import given_content, known_content
from ddpm_bench.networks.autoencoder import Autoencoder, with_weights
from ddpm_bench.networks.kept import FileKind, NetworkCard, kept_as
from ddpm_bench.networks.weights import mismatch

STORE = Path("~/.cache/ddpm-bench/autoencoders")
"""One folder a machine, whatever --cache says: checkpoints of latents name what lies in it."""
SCALE = "scale"
"""The tensor of the scale factor."""
REMEDY = "Make one with `ddpm-bench autoencoder train`, or give the folder of diffusers' AutoencoderKL."


class Reconstruction(BaseModel):
    """Of test images, by the mean of q(z|x): the mean absolute error and PSNR in levels 0..255, and the distance to those images.

    distance: what the distance is called, by its extractor, whose weights have the hash `extractor_sha256`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    images: int
    absolute_error: float
    psnr: float
    distance: str | None = None
    fd: float | None = None
    extractor_sha256: str | None = None


class AutoencoderCard(NetworkCard):
    """What is known of an autoencoder, for people."""

    format: Literal["ddpm-bench autoencoder 1"] = "ddpm-bench autoencoder 1"
    image_channels: Literal[1, 3]
    factor: int
    scale: float
    training: AutoencoderTraining
    size: int
    kl_nats: float
    reconstruction: Reconstruction


class Identified(BaseModel):
    """The metadata: what the weights are of."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    image_channels: Literal[1, 3]
    settings: AutoencoderSettings


def _fault(of: Identified, tensors: dict[str, Tensor]) -> str | None:
    scale, weights = float(tensors[SCALE]), {name: held for name, held in tensors.items() if name != SCALE}
    wrong = mismatch(Autoencoder(of.image_channels, of.settings), weights)
    return wrong or (None if 0 < scale < float("inf") else f"its scale is {scale:g}")


FILES = FileKind("autoencoder", "ddpm-bench autoencoder 1", Identified, _fault, REMEDY)


def packed(network: Autoencoder, scale: float) -> bytes:
    """The content of an autoencoder's file."""
    of = {"image_channels": network.image_channels, "settings": network.settings.model_dump(mode="json")}
    tensors = network.state_dict() | {SCALE: torch.tensor(scale, dtype=torch.float64)}
    return FILES.content(tensors, json.dumps(of, sort_keys=True))


def keep(content: bytes) -> str:
    """The SHA-256 under which the content of an autoencoder's file lies in the store from now on. UserError where it is none."""
    return FILES.keep(content, STORE)


def keep_file(path: Path) -> str:
    """The SHA-256 of the file of an autoencoder, which lies in the store from now on. UserError where it is none."""
    return FILES.keep(given_content(path, "the autoencoder", REMEDY)[0], STORE, path)


def store() -> Path:
    """The folder of autoencoders."""
    return STORE.expanduser()


def stored(sha256: str) -> Path:
    """Where the autoencoder with this hash lies, if it is on this machine."""
    return kept_as(STORE, sha256)


@functools.lru_cache(maxsize=4)
def latents_of(sha256: str, name: str) -> Latents:
    """The codec `name` of the autoencoder in the store. UserError where it is not there, which says what to give."""
    path = stored(sha256)
    if not path.exists():
        raise UserError(
            f"The codec '{name}' is of the autoencoder with the SHA-256 {sha256}, which is not on this machine. Give its file, or the "
            "folder that it was made of, to `ddpm-bench autoencoder add`."
        )
    remedy = f"Remove it, and give the file that it is of to `ddpm-bench autoencoder add`: SHA-256 {sha256}."
    content = known_content(path, sha256, "the autoencoder", "not what its name says", remedy)
    of, tensors = FILES.read(path, content)
    scale = float(tensors.pop(SCALE))
    network = with_weights(of.image_channels, of.settings, tensors)
    return Latents(name, of.settings.factor, of.settings.channels, network, scale, of.image_channels)
