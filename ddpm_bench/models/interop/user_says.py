"""What the person says of a checkpoint, with what the checkpoint says of itself: no contradiction passes."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from pydantic import ValidationError

from ddpm_bench.config.settings import ProcessSettings
from ddpm_bench.errors import UserError
from ddpm_bench.models.model_card import KINDS, Kind
from ddpm_bench.text import brief

OPTIONS = {
    "schedule": "--schedule", "T": "--T", "beta_1": "--beta-1", "beta_T": "--beta-T", "parameterization": "--predicts",
    "variance": "--variance", "codec": "--codec",
}  # fmt: skip
"""The option that says each field of ProcessSettings."""
REQUIRED = ("schedule", "T", "parameterization", "variance")


@dataclass(frozen=True)
class UserSays:
    """The options of `import` about the content.

    flags: those of the original's scripts, for formats that have them. weights: what they are, where the file does not
    tell. raw: use raw weights. key: the entry of the file that holds them. size: the images' side. process: fields of
    ProcessSettings, only those that were given.
    """

    flags: str | None = None
    weights: Kind | None = None
    raw: bool = False
    key: str | None = None
    size: int | None = None
    process: Mapping[str, Any] = field(default_factory=dict)

    def no_flags(self, format: str) -> None:
        """UserError where flags were given for a format that has none."""
        if self.flags is not None:
            raise UserError(f"--flags belongs to the format openai; for {format} give {', '.join(OPTIONS.values())}.")

    def no_key(self, format: str) -> None:
        """UserError where an entry of a file was chosen for a format whose files are the weights alone."""
        if self.key is not None:
            raise UserError(f"--key {self.key} chooses an entry of a file; {format} has none. Leave it out.")


def settle_process(said: Mapping[str, Any], asked: UserSays, assumed: Mapping[str, Any], where: str) -> ProcessSettings:
    """What the checkpoint said, then what was asked, then what is assumed. UserError for contradictions and gaps.

    where: what in the checkpoint said it, for messages.
    """
    for key, value in asked.process.items():
        if key in said and said[key] != value:
            raise UserError(f"{OPTIONS[key]} {value} contradicts {where}, which says {said[key]}; leave it out.")
    values = {**assumed, **asked.process, **said}
    missing = [OPTIONS[key] for key in REQUIRED if key not in values]
    if missing:
        raise UserError(f"{where} does not say what the network predicts in which process; give {', '.join(missing)}.")
    try:
        return ProcessSettings(**values)
    except ValidationError as error:
        raise UserError(f"{where} and the options make no process: {reasons(error)}.") from error


def settle_size(said: int, asked: UserSays, where: str) -> int:
    """The images' side that `where` says. UserError where another was asked for."""
    if asked.size not in (None, said):
        raise UserError(f"--size {asked.size} contradicts {where}, which says {said}; leave it out.")
    return said


def assumed(process: ProcessSettings, assumptions: Mapping[str, Any], asked: UserSays) -> tuple[str, ...]:
    """A remark on which of `assumptions` were neither asked for nor said, and the options that say otherwise."""
    without = {"beta_1", "beta_T"} if process.schedule == "cosine" else set()
    made = {key: value for key, value in assumptions.items() if key not in asked.process and key not in without}
    told = ", ".join(f"{OPTIONS[key]} {value}" for key, value in made.items())
    return (f"assumed, since the file does not say: {told}",) if made else ()


def average_by_name(name: str) -> Kind:
    """What a name tells, such as google/ddpm-ema-church-256, or unet_ema."""
    return "ema" if "ema" in re.split(r"[-_.]", name) else "unknown"


def settle_weights(known: Kind, asked: UserSays, where: str) -> Kind:
    """Whether weights are a moving average; `known` is what `where` says. Raw ones are used only when asked for."""
    kind = asked.weights or "unknown" if known == "unknown" else known
    if asked.weights not in (None, kind):
        raise UserError(f"--weights {asked.weights} contradicts {where}, which says {KINDS[kind]}; leave it out.")
    if kind == "raw" and not asked.raw:
        raise UserError(f"{where} says that the weights are {KINDS[kind]}; give --raw if these are meant.")
    if asked.raw and kind != "raw":
        remedy = "add --weights raw if you know that they are" if kind == "unknown" else "leave --raw out"
        raise UserError(f"--raw asks for raw weights, but {where} says {KINDS[kind]}; {remedy}.")
    return kind


def reasons(error: ValidationError) -> str:
    """A pydantic error in one line: each field, what was there, and the rule."""
    return "; ".join(f"{'.'.join(map(str, e['loc']))} = {brief(e['input'])}: {e['msg']}" for e in error.errors())
