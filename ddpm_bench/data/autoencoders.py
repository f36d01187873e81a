"""Autoencoders as files, and where a codec finds the one that its model was trained with.

One file is an autoencoder: safetensors with its weights and `scale`, its settings in the metadata. So its SHA-256, by which settings,
checkpoints and records know it, is of all that latents depend on. `ddpm-bench autoencoder train` writes it with a card beside it;
what a model uses is kept in STORE under its hash, since a path says nothing of what lies there.
"""

import functools
import hashlib
import json
from pathlib import Path
from typing import Any, Literal

import safetensors.torch
import torch
from pydantic import BaseModel, ConfigDict, ValidationError
from safetensors import SafetensorError, safe_open

from ddpm_bench.config.autoencoder import AutoencoderSettings, AutoencoderTraining
from ddpm_bench.config.values import first_fault
from ddpm_bench.data.latents import Latents
from ddpm_bench.errors import UserError
from ddpm_bench.files import given_content, known_content, replacing, write_text
from ddpm_bench.networks.autoencoder import Autoencoder, with_weights
from ddpm_bench.networks.weights import mismatch, not_finite, outline, read_tensors

STORE = Path("~/.cache/ddpm-bench/autoencoders")
"""One folder a machine, whatever --cache says: checkpoints of latents name what lies in it."""
SCALE, ABOUT = "scale", "ddpm-bench autoencoder 1"
"""The tensor of the scale factor, and the key of the settings in the metadata."""
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


class AutoencoderCard(BaseModel):
    """What is known of an autoencoder, for people: the .json beside the file of which `sha256` is the hash."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: Literal["ddpm-bench autoencoder 1"] = "ddpm-bench autoencoder 1"
    sha256: str
    image_channels: Literal[1, 3]
    factor: int
    scale: float
    parameters: int
    training: AutoencoderTraining
    data_name: str
    data_sha256: str
    size: int
    train_images: int
    loss: float
    kl_nats: float
    reconstruction: Reconstruction
    wall_time_s: float
    versions: dict[str, str]


class Identified(BaseModel):
    """The metadata: what the weights are of."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    image_channels: Literal[1, 3]
    settings: AutoencoderSettings


def packed(network: Autoencoder, scale: float) -> bytes:
    """The content of an autoencoder's file."""
    tensors = {name: held.detach().cpu().contiguous() for name, held in network.state_dict().items()}
    about = {"image_channels": network.image_channels, "settings": network.settings.model_dump(mode="json")}
    tensors[SCALE] = torch.tensor(scale, dtype=torch.float64)
    return safetensors.torch.save(tensors, {ABOUT: json.dumps(about, sort_keys=True)})


def write_autoencoder(path: Path, content: bytes, card: AutoencoderCard) -> None:
    with replacing(path) as temporary:
        temporary.write_bytes(content)
    write_text(path.with_suffix(".json"), card.model_dump_json(indent=2) + "\n")


def keep(content: bytes) -> str:
    """The SHA-256 under which the content of an autoencoder's file lies in the store from now on. UserError where it is none."""
    sha256 = hashlib.sha256(content).hexdigest()
    path = stored(sha256)
    if not path.exists():
        with replacing(path) as temporary:
            temporary.write_bytes(content)
            _read(temporary, content)
    return sha256


def keep_file(path: Path) -> str:
    """The SHA-256 of the file of an autoencoder, which lies in the store from now on. UserError where it is none."""
    return keep(given_content(path, "the autoencoder", REMEDY)[0])


def store() -> Path:
    """The folder of autoencoders."""
    return STORE.expanduser()


def stored(sha256: str) -> Path:
    """Where the autoencoder with this hash lies, if it is on this machine."""
    return store() / f"{sha256}.safetensors"


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
    network, scale = _read(path, content)
    return Latents(name, network.settings.factor, network.settings.channels, network, scale, network.image_channels)


def _read(path: Path, content: bytes) -> tuple[Autoencoder, float]:
    """The network in evaluation mode and its scale. UserError for what is no autoencoder, or no numbers."""
    try:
        about, tensors = Identified.model_validate_json(_metadata(path)[ABOUT]), read_tensors(content)
        scale = float(tensors.pop(SCALE))
        with outline():
            wrong = mismatch(Autoencoder(about.image_channels, about.settings), tensors)
        wrong = wrong or not_finite(tensors) or (None if 0 < scale < float("inf") else f"its scale is {scale:g}")
    except KeyError:
        wrong = "it does not say what it is of"
    except (ValueError, RuntimeError) as error:
        wrong = first_fault(error) if isinstance(error, ValidationError) else str(error)
    if wrong:
        raise UserError(f"'{path}' is no autoencoder of ddpm-bench: {wrong}. {REMEDY}")
    return with_weights(about.image_channels, about.settings, tensors), scale


def _metadata(path: Path) -> dict[str, Any]:
    try:
        with safe_open(path, "pt") as file:
            return file.metadata() or {}
    except SafetensorError as error:
        raise ValueError(str(error)) from error
