"""Files that are known and not taken, each with its reason."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ddpm_bench.errors import UserError
from ddpm_bench.models.interop.given import FILES, Given

OUTSIDE = "Draw samples with its own code, and score them by `evaluate --samples`."
OTHERS: Sequence[tuple[tuple[str, ...], str]] = (
    (
        (r"(^|\.)all_modules\.0\.",),
        "of yang-song/score_sde_pytorch: on the way up its networks attend once a level, ddpm-bench's after every block; its "
        "moving average is a list without names; and the file does not say which process it is of (VE, VP or sub-VP, "
        f"continuous or not). {OUTSIDE}",
    ),
    (
        (r"(^|\.)mid_block1\.", r"(^|\.)downs\.0\.0\."),
        "of lucidrains/denoising-diffusion-pytorch: its attention is linear outside the middle, its time embedding passes a "
        "GELU, and its convolutions are weight-standardised or its norms RMS, none of which ddpm-bench's network has. "
        + OUTSIDE,
    ),
    (
        (r"^(model\.diffusion_model|first_stage_model)\.",),
        "of latent diffusion: its U-Net works on the codes of an autoencoder, in a layout of its own; an LDM pipeline of diffusers with an "
        f"AutoencoderKL is imported. {OUTSIDE}",
    ),
    (
        (r"(^|\.)time_embedding\.linear_1\.",),
        "the weights of a diffusers model, whose config.json tells what they mean: give the folder in which both lie.",
    ),
)  # fmt: skip
"""Patterns that names of tensors, or of those one entry further in, all match; and what the file is."""


def check_known(source: Given) -> None:
    """UserError where the source is known as something that is not imported, saying what to do instead."""
    if source.path.is_dir():
        _check_folder(source)
        return
    names = [name for name in _names(source.content) if isinstance(name, str)]
    for patterns, told in OTHERS:
        if all(any(re.search(pattern, name) for name in names) for pattern in patterns):
            raise UserError(f"'{source.given}' is {told}")
    if {"state", "param_groups"} <= set(source.content):
        beside = _weights(source.path.parent)
        instead = f"give {_either(beside)} beside it" if beside else "give the file of the network's weights"
        raise UserError(f"'{source.given}' is the state of an optimizer, not a network: {instead}.")


def _names(content: dict[Any, Any]) -> list[Any]:
    return [*content, *(name for held in content.values() if isinstance(held, dict) for name in held)]


def _check_folder(source: Given) -> None:
    if beside := _weights(source.path):
        raise UserError(
            f"'{source.given}' is a folder of checkpoints, of which import takes one: give {_either(beside)}."
        )


def _weights(folder: Path) -> list[str]:
    """The newest moving averages and the newest raw weights that OpenAI's training script left in a folder."""
    names = [path.name for path in folder.iterdir() if path.suffix in FILES]
    kinds = (r"ema_[\d.]+_(\d+)\.\w+", r"model(\d+)\.\w+")
    steps = [{name: int(match[1]) for name in names if (match := re.fullmatch(kind, name))} for kind in kinds]
    return [name for found in steps for name in sorted(found) if found[name] == max(found.values())]


def _either(names: Sequence[str]) -> str:
    """Each with what it is."""
    return ", or ".join(f"'{name}'" + ("" if name.startswith("ema") else " (raw weights) with --raw") for name in names)
