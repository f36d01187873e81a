"""A network's state dict inside what a training script saves around it: which entry is taken, and what that says of it.

A file is {"model": ..., "ema": ..., "step": 7}, {"state_dict": ...}, {"ema_model": ...} or the like, or the named tensors
themselves, or as ermongroup/ddim saves the list [model, optimizer, epoch, step, ema], the last where there is one.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ddpm_bench.errors import UserError
from ddpm_bench.models.interop.user_says import UserSays
from ddpm_bench.models.model_card import Kind

PREFIXES = ("module.", "_orig_mod.")
"""What DataParallel and torch.compile put before every name."""
AVERAGE = re.compile(r"(^|[_.])ema([_.]|$)")
RAW = {"net_model", "raw_model"}
"""Entries that are raw weights by the script that saves them: pytorch-ddpm's, and the first of ddim's list."""
PLACES = ("raw_model", "optimizer", "epoch", "step", "ema")


@dataclass(frozen=True)
class Wrapped:
    """state: what should be named tensors. where: the file, and the entry of it, for messages.

    kind, step: what the entries around it tell. remarks: what was taken of which.
    """

    state: Any
    where: str
    kind: Kind
    step: int | None
    remarks: tuple[str, ...]


def named(content: Any) -> Any:
    """The list that ermongroup/ddim saves as a dictionary; all else as it is."""
    if isinstance(content, list) and len(content) in (4, 5) and [type(each) for each in content[2:4]] == [int, int]:
        return dict(zip(PLACES, content, strict=False))
    return content


def networks(content: Mapping[Any, Any], telling: str) -> dict[str, dict[Any, Any]]:
    """The state dicts with a tensor named `telling`, by their entry; under "" where `content` is one itself."""
    if telling in without_prefix(content)[1]:
        return {"": dict(content)}
    entries = {name: held for name, held in content.items() if isinstance(name, str) and isinstance(held, dict)}
    return {name: held for name, held in entries.items() if telling in without_prefix(held)[1]}


def taken(
    content: Mapping[Any, Any], telling: str, asked: UserSays, where: str, also: Sequence[str] = ()
) -> Wrapped:  # fmt: skip
    """The state dict that is meant: the one there is, or the moving average, or with --raw the raw weights.

    also: other entries that the format reads. UserError where several networks could be meant. Where there is none it is
    `content`, for whoever names the tensors that are missing.
    """
    found = networks(content, telling)
    if asked.key is not None and (not asked.key or asked.key not in found):
        there = _quoted(name for name in found if name) or "no entry"
        raise UserError(f"--key {asked.key}: in {where} {there} holds such a network; give what does, or leave it out.")
    if "" in found or not found:
        prefix, state = without_prefix(content)
        return Wrapped(state, where, "unknown", None, _unprefixed(prefix))
    kinds: dict[str, Kind] = {name: _kind(name, content) for name in found}
    meant = [name for name in found if kinds[name] == ("raw" if asked.raw else "ema")] or list(found)
    name = asked.key or meant[0]
    if not asked.key and len(meant) > 1:
        raise UserError(f"{where} holds several networks, {_quoted(meant)}; give --key with the one that is meant.")
    step = content.get("step")
    known = step if type(step) is int and step >= 0 else None
    used = {name, *also, *(() if known is None else ("step",))}
    others = [str(each) for each in content if each not in used]
    passed_over = f"; passed over: {', '.join(others)}" if others else ""
    prefix, state = without_prefix(found[name])
    remarks = (f"the file's entry '{name}' is taken{passed_over}", *_unprefixed(prefix))
    return Wrapped(state, f"'{name}' of {where}", kinds[name], known, remarks)


def without_prefix(state: Mapping[Any, Any]) -> tuple[str, dict[Any, Any]]:
    """What every name begins with of PREFIXES, and the tensors without it."""
    taken_off, bare = "", dict(state)
    while bare and (prefix := next((each for each in PREFIXES if all(_begins(name, each) for name in bare)), None)):
        taken_off, bare = taken_off + prefix, {name.removeprefix(prefix): tensor for name, tensor in bare.items()}
    return taken_off, bare


def _begins(name: Any, prefix: str) -> bool:
    return isinstance(name, str) and name.startswith(prefix)


def _unprefixed(prefix: str) -> tuple[str, ...]:
    return (f"'{prefix}' is taken off every tensor's name",) if prefix else ()


def _kind(name: str, content: Mapping[Any, Any]) -> Kind:
    """What an entry's name tells, or that it lies beside an average and is none."""
    if AVERAGE.search(name):
        return "ema"
    beside = any(isinstance(each, str) and AVERAGE.search(each) for each in content)
    return "raw" if name in RAW or beside else "unknown"


def _quoted(names: Iterable[str]) -> str:
    return ", ".join(f"'{name}'" for name in names)
