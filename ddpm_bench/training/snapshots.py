"""Snapshots of training: one folder for each step, safetensors for weights and JSON for the rest. Nothing here unpickles.

    step-000500/network.safetensors    the weights in training
    step-000500/ema.safetensors        their moving average
    step-000500/optimizer.safetensors  Adam's two moments of each parameter
    step-000500/times.safetensors      what the time sampler has learned, where it learns
    step-000500/state.json             step, seed, what was trained (`identity`), how it is sampled, the log, the SHA-256
                                       of the files beside it (`files`), and that of the averaged weights of this and of
                                       earlier snapshots (`weights`); sealed

A snapshot is written under a hidden name, flushed to the disk and renamed, so that whatever `snapshots` lists was whole
once. Older ones are removed only after that. Whoever reads one finds by its hashes whether it still is, and takes the
one before where it is not. A run that diverged leaves `diverged.json`, sealed, beside the last healthy snapshot.
"""

import hashlib
import itertools
import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import safetensors.torch
from annotated_types import Len
from pydantic import BaseModel, ConfigDict, ValidationError
from torch import Tensor

from ddpm_bench.config.settings import completed
from ddpm_bench.config.values import first_fault
from ddpm_bench.errors import UserError
from ddpm_bench.files import make_folder, read_json, sha256_file, write_json
from ddpm_bench.networks.weights import read_tensors
from ddpm_bench.records.differences import HASHED
from ddpm_bench.runtime.observer import say
from ddpm_bench.sealed import SEAL, is_whole, seal

FORMAT = "ddpm-bench checkpoint 2"
UNSEALED = "ddpm-bench checkpoint 1"
"""What snapshots had been before they had hashes: they are read, and nothing tells whether they are damaged."""
STATE, DIVERGED = "state.json", "diverged.json"
NOT_WHAT_WAS_WRITTEN = "its hash is not that of what was written"


class _Form(BaseModel):
    model_config = ConfigDict(strict=True)


class _Tick(_Form):
    """What the running means hold since the last tick."""

    means: Annotated[list[float], Len(2, 2)]
    seconds: float


class _Run(_Form):
    """What every state says of its run. Older versions wrote less."""

    seed: int
    identity: dict[str, Any]
    sampling: dict[str, Any] = {}
    weights: dict[str, str] = {}
    commits: list[str] = []
    seconds: float
    log: list[dict[str, float]]


class _Snapshot(_Run):
    step: int
    files: dict[str, str] | None = None
    tick: _Tick


class _Diverged(_Run):
    divergence: dict[str, Any]


class Damaged(UserError):
    """A snapshot that is not what was written."""

    def __init__(self, path: Path, why: str) -> None:
        super().__init__(path, why)  # what pickle gives back, where a worker tells its parent
        self.fault = f"'{path}' is not as ddpm-bench wrote it ({why})"

    def __str__(self) -> str:
        return (
            f"{self.fault}, and there is no older snapshot. Start afresh (`ablate --fresh`; for `train` another --out), or "
            "restore it from a copy."
        )


def snapshots(folder: Path) -> list[Path]:
    """The snapshots in `folder`, oldest first."""
    found = [path for path in folder.glob("step-*") if path.name.removeprefix("step-").isdigit()]
    return sorted(found, key=lambda path: int(path.name.removeprefix("step-")))


def save(
    folder: Path, step: int, tensors: Mapping[str, Mapping[str, Tensor]], state: Mapping[str, Any], keep: int
) -> Path:
    """Write the snapshot of `step`, then remove all but the newest `keep`. Returns its path.

    `tensors` maps a file's stem to its named tensors; one without tensors is not written. `state` is JSON, the
    fields of _Snapshot; its `weights`, the hash of averaged weights by step, gains this step's, and `files` is made. When
    anything fails, a full disk (OSError) included, the folder is as it was.
    """
    make_folder(folder)
    target = folder / f"step-{step:06d}"
    partial = _hidden(target)
    for left_by_a_crash in folder.glob(".step-*.partial"):
        shutil.rmtree(left_by_a_crash)
    try:
        partial.mkdir()
        files = {stem: _write(_file(partial, stem), named) for stem, named in tensors.items() if named}
        weights = {**state.get("weights", {}), str(step): files["ema"]}
        write_json(partial / STATE, seal({"format": FORMAT, "step": step, **state, "weights": weights, "files": files}))
        _flush(partial)
        partial.rename(target)
        _flush(folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    for old in snapshots(folder)[:-keep]:
        shutil.rmtree(old.rename(_hidden(old)))
    return target


def load_tensors(snapshot: Path, stem: str, state: Mapping[str, Any]) -> dict[str, Tensor]:
    """Named tensors on the CPU, none where none were written. Damaged when they are not what was written.

    state: the snapshot's. Those of older versions have no hashes, and the file alone says whether `times` were written.
    """
    path, files = _file(snapshot, stem), state.get("files")
    written = stem in files if files is not None else stem != "times" or path.exists()
    if not written:
        return {}
    try:
        if files is not None and sha256_file(path) != files[stem]:
            raise Damaged(path, NOT_WHAT_WAS_WRITTEN)
        return read_tensors(path)
    except PermissionError as error:
        raise _not_readable(path, error) from error
    except UserError:
        raise
    except (OSError, ValueError) as error:
        raise Damaged(path, str(error)) from error


def load_state(path: Path) -> dict[str, Any]:
    """The JSON of a snapshot (its folder), or of a file.

    Damaged when it is missing, truncated or not what was written; UserError when a newer version wrote it.
    """
    path = path / STATE if path.is_dir() else path
    try:
        state = read_json(path)
        told = state["format"]
        if (told != UNSEALED or SEAL in state) and not is_whole(state):
            raise Damaged(path, NOT_WHAT_WAS_WRITTEN)
        if told not in (FORMAT, UNSEALED):
            raise UserError(
                f"'{path}' has the format '{told}'; this ddpm-bench reads up to '{FORMAT}'. Install a newer one."
            )
        (_Diverged if path.name == DIVERGED else _Snapshot).model_validate(state)
    except ValidationError as error:
        raise Damaged(path, first_fault(error)) from error
    except UserError:
        raise
    except PermissionError as error:
        raise _not_readable(path, error) from error
    except (OSError, ValueError, RecursionError, TypeError, LookupError) as error:
        raise Damaged(path, f"{type(error).__name__}: {error}") from error
    return state


def load_weights(path: Path, which: Literal["ema", "raw"] = "ema") -> tuple[dict[str, Tensor], dict[str, Any]]:
    """A network's state dict, and what it is: step, seed, identity (the cell's settings), sampling, and the file's `sha256`.

    `path` is a snapshot, or a folder of them, of which the newest whole one is taken. UserError when there is none.
    """
    found = [path] if (path / STATE).exists() else snapshots(path)[::-1]
    if not found:
        raise UserError(f"There is no checkpoint of ddpm-bench in '{path}'. Give a folder that "
                        "`ddpm-bench train` or `ddpm-bench import` made.")  # fmt: skip
    for snapshot in found:
        try:
            weights, state, sha256 = _weights(snapshot, {"ema": "ema", "raw": "network"}[which])
            break
        except Damaged as error:
            if snapshot == found[-1]:
                raise
            say(f"{error.fault}; the snapshot before it is taken.")
    if path != snapshot and (path / DIVERGED).exists():
        say(f"The run in '{path}' diverged; these are the weights of its last healthy snapshot, step {state['step']}.")
    described = {key: state[key] for key in ("step", "seed", "identity")} | {"sampling": state.get("sampling", {})}
    return weights, described | {"sha256": sha256}


def _weights(snapshot: Path, stem: str) -> tuple[dict[str, Tensor], dict[str, Any], str]:
    """The tensors of a file, the snapshot's state, and the file's hash."""
    state = load_state(snapshot)
    if "files" not in state:
        say(f"'{snapshot}' is of an older ddpm-bench, without hashes: nothing tells whether it is as it was written.")
    weights = load_tensors(snapshot, stem, state)
    return weights, state, state.get("files", {}).get(stem) or sha256_file(_file(snapshot, stem))


def set_sampling(snapshot: Path, sampling: Mapping[str, Any]) -> None:
    """Note in a snapshot how its model is sampled from now on; training does not depend on it."""
    state = load_state(snapshot)
    if state.get("sampling") != sampling:
        changed = state | {"sampling": sampling}
        write_json(snapshot / STATE, seal(changed) if SEAL in state else changed)


def rename_damaged(path: Path) -> Path:
    """Give a damaged snapshot, or `diverged.json`, a name that does not count; returns it."""
    names = (path.with_name(f"{path.name}.damaged-{number}") for number in itertools.count(1))
    return path.rename(next(name for name in names if not name.exists()))


def check_identity(path: Path, found: Mapping[str, Any], expected: Mapping[str, Any]) -> None:
    """UserError listing every 'key: was A, now B', when the checkpoint at `path` is of another configuration."""
    was, now = (_flat(_completed(path, json.loads(json.dumps(identity)))) for identity in (found, expected))
    prepared = {f"data.{key}" for key in HASHED}
    differing = [key for key in now | was if was.get(key, "absent") != now.get(key, "absent")]
    keys = [key for key in differing if key not in prepared]
    keys = differing if "data_sha256" in keys else keys
    if keys:
        lines = "\n".join(f"  {key}: was {was.get(key, 'absent')}, now {now.get(key, 'absent')}" for key in keys)
        raise UserError(f"'{path}' was trained with another configuration:\n{lines}\n"
                        "Use the same configuration, another folder, or start afresh (`ablate --fresh`).")  # fmt: skip


def check_precision(path: Path, state: Mapping[str, Any], now: str) -> None:
    """UserError where the run was trained in another precision so far; older snapshots do not say in which."""
    was = state.get("precision", now)
    if was != now:
        raise UserError(
            f"'{path}' was trained in {was} so far, and a run goes on in the precision that it began in, not in {now}. Use "
            f"--precision {was}, another folder, or start afresh (`ablate --fresh`)."
        )


def _completed(path: Path, identity: Mapping[str, Any]) -> dict[str, Any]:
    """The identity as this version would have written it: what settings have gained since has its default."""
    try:
        return completed(identity)
    except ValidationError as error:
        raise unknown_settings(path, error) from error


def unknown_settings(path: Path, error: ValidationError) -> UserError:
    """What to say of a checkpoint whose settings this version does not have."""
    return UserError(
        f"'{path}' was trained or is sampled with settings unknown here ({first_fault(error)}). Use the ddpm-bench that made "
        "it, or a newer one."
    )


def save_divergence(folder: Path, state: Mapping[str, Any]) -> None:
    """Record that the run in `folder` diverged, so that the same run again knows without training."""
    write_json(make_folder(folder) / DIVERGED, seal({"format": FORMAT, **state}))


def _flat(value: Any, prefix: str = "") -> dict[str, Any]:
    """{'a': {'b': 1}} -> {'a.b': 1}"""
    if not isinstance(value, Mapping):
        return {prefix: value}
    return {k: v for key, inner in value.items() for k, v in _flat(inner, f"{prefix}.{key}" if prefix else key).items()}


def _hidden(snapshot: Path) -> Path:
    """The name of a snapshot that is not whole: being written, or being removed."""
    return snapshot.with_name(f".{snapshot.name}.partial")


def _not_readable(path: Path, error: OSError) -> UserError:
    return UserError(f"'{path}' cannot be read: {error.strerror}. Check its permissions.")


def _file(snapshot: Path, stem: str) -> Path:
    return snapshot / f"{stem}.safetensors"


def _write(path: Path, named: Mapping[str, Tensor]) -> str:
    """Write tensors, flushed to the disk; the SHA-256 of what was to be written."""
    content = safetensors.torch.save({name: tensor.contiguous() for name, tensor in named.items()})
    with path.open("wb") as stream:
        stream.write(content)
        stream.flush()
        os.fsync(stream.fileno())
    return hashlib.sha256(content).hexdigest()


def _flush(folder: Path) -> None:
    """Make names in `folder` durable."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
