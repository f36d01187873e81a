"""A checkpoint as a model: a network together with everything that decides what its output means.

`--ckpt` takes two kinds of folder: what `train` and `ablate` leave (`training/checkpoint.py`), and what `import` makes of
other people's checkpoints:

    model.json            a ModelCard
    weights.safetensors   the state dict of our U-Net

What a model predicts, its schedule, its variance and how it is told the time come from there, so a model cannot be
sampled or scored as something else.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors.torch
from pydantic import ValidationError
from safetensors import SafetensorError
from torch import Tensor

from ddpm_bench.config.settings import DataSettings, DiffusionSettings, NetworkSettings, ProcessSettings
from ddpm_bench.diffusion.reverse import Diffusion
from ddpm_bench.errors import UserError
from ddpm_bench.files import make_folder, replacing, sha256_file, write_json
from ddpm_bench.models.build import build_diffusion, build_network
from ddpm_bench.models.card import KINDS, Kind, ModelCard
from ddpm_bench.networks.unet import UNet
from ddpm_bench.training.checkpoint import load_weights

CARD, WEIGHTS = "model.json", "weights.safetensors"


@dataclass(frozen=True)
class Model:
    """A network in evaluation mode on the CPU, and what it is.

    identity: JSON values, the hash of the weights among them, under which whatever is made from the model is filed.
    data: what it was trained on, where that is known. step: training steps, where known.
    """

    name: str
    network: UNet
    process: ProcessSettings
    diffusion: Diffusion
    shape: tuple[int, int, int]
    weights: Kind
    step: int | None
    identity: dict[str, Any]
    data: DataSettings | None = None


def load_model(ckpt: Path, raw: bool = False) -> Model:
    """The model in the folder `ckpt`; its raw weights only when asked for.

    UserError when there is none, when it is damaged, or when it does not hold the weights asked for.
    """
    return _imported(ckpt, raw) if (ckpt / CARD).exists() else _trained(ckpt, raw)


def save_model(out: Path, card: ModelCard, weights: dict[str, Tensor]) -> None:
    """Write a converted checkpoint; the card last, so that a folder with a card is whole. UserError when `out` is taken."""
    if out.exists() and (out.is_file() or any(out.iterdir())):
        raise UserError(f"'{out}' exists already and is left as it is; choose another --out.")
    make_folder(out)
    with replacing(out / WEIGHTS) as temporary:
        safetensors.torch.save_file({name: tensor.contiguous() for name, tensor in weights.items()}, temporary)
    write_json(out / CARD, card.model_dump(mode="json"))


def _trained(ckpt: Path, raw: bool) -> Model:
    kind: Kind = "raw" if raw else "ema"
    weights, metadata = load_weights(ckpt, kind)
    identity = metadata["identity"]
    data, process = DataSettings(**identity["data"]), DiffusionSettings(**identity["diffusion"])
    diffusion = build_diffusion(process)
    shape = (identity["channels"], data.size, data.size)
    network = build_network(NetworkSettings(**identity["network"]), shape, diffusion)
    network.load_state_dict(weights)
    return Model(
        name=ckpt.resolve().parent.name if ckpt.name.startswith("step-") else ckpt.resolve().name,
        network=network.eval(), process=process, diffusion=diffusion, shape=shape, weights=kind, step=metadata["step"],
        identity=identity | {"step": metadata["step"], "weights": kind, "weights_sha256": metadata["sha256"]}, data=data,
    )  # fmt: skip


def _imported(folder: Path, raw: bool) -> Model:
    try:
        card = ModelCard.model_validate(json.loads((folder / CARD).read_text(encoding="utf-8")))
    except (OSError, ValueError, ValidationError) as error:
        raise UserError(
            f"'{folder / CARD}' is not a model card of ddpm-bench ({error}). Import the checkpoint again."
        ) from error
    if raw and card.weights != "raw":
        raise UserError(f"'{folder}' holds weights that are {KINDS[card.weights]}; without --raw they are used.")
    if card.weights == "raw" and not raw:
        raise UserError(f"'{folder}' holds raw weights, not their moving average; give --raw if these are meant.")
    diffusion = build_diffusion(card.process)
    network = build_network(card.network, card.shape, diffusion)
    try:
        network.load_state_dict(safetensors.torch.load_file(folder / WEIGHTS))
    except (OSError, SafetensorError, RuntimeError) as error:
        raise UserError(
            f"'{folder / WEIGHTS}' does not fit its card ({error}). Import the checkpoint again."
        ) from error
    identity = card.model_dump(mode="json") | {"weights_sha256": sha256_file(folder / WEIGHTS)}
    return Model(card.name, network.eval(), card.process, diffusion, card.shape, card.weights, card.step, identity)
