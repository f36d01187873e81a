"""Snapshots of training: a folder a step, safetensors for weights and JSON for the rest. Nothing here unpickles.

    step-000500/network.safetensors    the weights in training
    step-000500/ema.safetensors        their moving average
    step-000500/optimizer.safetensors  Adam's two moments of each parameter
    step-000500/times.safetensors      what the time sampler has learned, where it learns
    step-000500/state.json             step, seed, what was trained (`identity`), how it is sampled, the log, and the
                                       SHA-256 of the averaged weights of this and of earlier snapshots

A snapshot is written under a hidden name, flushed to the disk and renamed, so that whatever `snapshots` lists is whole. Older
ones are removed only after that. A run that diverged leaves `diverged.json` beside the last healthy snapshot.
"""

import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import safetensors.torch
from pydantic import ValidationError
from torch import Tensor

from ddpm_bench.config.settings import completed
from ddpm_bench.errors import UserError
from ddpm_bench.files import make_folder, read_json, sha256_file, write_json
from ddpm_bench.networks.weights import read_tensors
from ddpm_bench.runtime.observer import say

FORMAT = "ddpm-bench checkpoint 1"
STATE, DIVERGED = "state.json", "diverged.json"
REQUIRED = {"seed", "identity", "seconds", "log"}


def snapshots(folder: Path) -> list[Path]:
    """The snapshots in `folder`, oldest first."""
    found = [path for path in folder.glob("step-*") if path.name.removeprefix("step-").isdigit()]
    return sorted(found, key=lambda path: int(path.name.removeprefix("step-")))


def save(
    folder: Path, step: int, tensors: Mapping[str, Mapping[str, Tensor]], state: Mapping[str, Any], keep: int
) -> Path:
    """Write the snapshot of `step`, then remove all but the newest `keep`. Returns its path.

    `tensors` maps a file's stem to its named tensors; one without tensors is not written. `state` is JSON with at least
    REQUIRED; its `weights`, the hash of averaged weights by step, gains this step's. When anything fails, a full disk
    (OSError) included, the folder is as it was.
    """
    make_folder(folder)
    target = folder / f"step-{step:06d}"
    partial = _hidden(target)
    for left_by_a_crash in folder.glob(".step-*.partial"):
        shutil.rmtree(left_by_a_crash)
    try:
        partial.mkdir()
        for stem, named in tensors.items():
            if named:
                contiguous = {name: tensor.contiguous() for name, tensor in named.items()}
                _write(partial / f"{stem}.safetensors", safetensors.torch.save(contiguous))
        weights = {**state.get("weights", {}), str(step): sha256_file(partial / "ema.safetensors")}
        write_json(partial / STATE, {"format": FORMAT, "step": step, **state, "weights": weights})
        _flush(partial)
        partial.rename(target)
        _flush(folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    for old in snapshots(folder)[:-keep]:
        shutil.rmtree(old.rename(_hidden(old)))
    return target


def load_tensors(snapshot: Path, stem: str) -> dict[str, Tensor]:
    """Named tensors on the CPU. UserError when the file is missing, truncated or none of ours."""
    path = snapshot / f"{stem}.safetensors"
    try:
        return read_tensors(path)
    except (OSError, ValueError) as error:
        raise _damaged(path, str(error)) from error


def load_state(path: Path) -> dict[str, Any]:
    """The JSON of a snapshot (its folder), or of a file. UserError when it is missing, truncated or none of ours."""
    path = path / STATE if path.is_dir() else path
    try:
        state = read_json(path)
    except (OSError, ValueError) as error:
        raise _damaged(path, str(error)) from error
    if not isinstance(state, dict) or state.get("format") != FORMAT:
        raise _damaged(path, f"its format is not '{FORMAT}'")
    if missing := REQUIRED - state.keys():
        raise _damaged(path, f"it lacks {', '.join(sorted(missing))}")
    if path.name == STATE and not isinstance(state.get("step"), int):
        raise _damaged(path, "it does not say its step")
    return state


def load_weights(path: Path, which: Literal["ema", "raw"] = "ema") -> tuple[dict[str, Tensor], dict[str, Any]]:
    """A network's state dict, and what it is: step, seed, identity (the cell's settings), sampling, and the file's `sha256`.

    `path` is a snapshot, or a folder of them, of which the newest is taken. UserError when there is none, or it is damaged.
    """
    snapshot = path if (path / STATE).exists() else next(reversed(snapshots(path)), None)
    if snapshot is None:
        raise UserError(f"There is no checkpoint of ddpm-bench in '{path}'. Give a folder that "
                        "`ddpm-bench train` or `ddpm-bench import` made.")  # fmt: skip
    state = load_state(snapshot)
    if path != snapshot and (path / DIVERGED).exists():
        say(f"The run in '{path}' diverged; these are the weights of its last healthy snapshot, step {state['step']}.")
    described = {key: state[key] for key in ("step", "seed", "identity")} | {"sampling": state.get("sampling", {})}
    stem = {"ema": "ema", "raw": "network"}[which]
    weights = load_tensors(snapshot, stem)
    return weights, described | {"sha256": sha256_file(snapshot / f"{stem}.safetensors")}


def set_sampling(snapshot: Path, sampling: Mapping[str, Any]) -> None:
    """Note in a snapshot how its model is sampled from now on; training does not depend on it."""
    state = load_state(snapshot)
    if state.get("sampling") != sampling:
        write_json(snapshot / STATE, state | {"sampling": sampling})


def check_identity(path: Path, found: Mapping[str, Any], expected: Mapping[str, Any]) -> None:
    """UserError listing every 'key: was A, now B', when the checkpoint at `path` is of another configuration."""
    was, now = (_flat(_completed(path, json.loads(json.dumps(identity)))) for identity in (found, expected))
    keys = [key for key in now | was if was.get(key, "absent") != now.get(key, "absent")]
    if keys:
        lines = "\n".join(f"  {key}: was {was.get(key, 'absent')}, now {now.get(key, 'absent')}" for key in keys)
        raise UserError(f"'{path}' was trained with another configuration:\n{lines}\n"
                        "Use the same configuration, another folder, or start afresh (`ablate --fresh`).")  # fmt: skip


def _completed(path: Path, identity: Mapping[str, Any]) -> dict[str, Any]:
    """The identity as this version would have written it: what settings have gained since has its default."""
    try:
        return completed(identity)
    except ValidationError as error:
        raise _damaged(path, f"its settings are unknown here: {error.errors()[0]['msg']}") from error


def save_divergence(folder: Path, state: Mapping[str, Any]) -> None:
    """Record that the run in `folder` diverged, so that the same run again knows without training."""
    write_json(make_folder(folder) / DIVERGED, {"format": FORMAT, **state})


def _flat(value: Any, prefix: str = "") -> dict[str, Any]:
    """{'a': {'b': 1}} -> {'a.b': 1}"""
    if not isinstance(value, Mapping):
        return {prefix: value}
    return {k: v for key, inner in value.items() for k, v in _flat(inner, f"{prefix}.{key}" if prefix else key).items()}


def _hidden(snapshot: Path) -> Path:
    """The name of a snapshot that is not whole: being written, or being removed."""
    return snapshot.with_name(f".{snapshot.name}.partial")


def _write(path: Path, content: bytes) -> None:
    with path.open("wb") as stream:
        stream.write(content)
        stream.flush()
        os.fsync(stream.fileno())


def _flush(folder: Path) -> None:
    """Make names in `folder` durable."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _damaged(path: Path, why: str) -> UserError:
    remove = path if path.name == DIVERGED else path.parent
    return UserError(
        f"'{path}' is not a whole checkpoint of ddpm-bench ({why}). Remove '{remove}' to go on from an older one, or start "
        "afresh (`ablate --fresh`; for `train` another --out)."
    )
