"""One measurement from start to finish: `ddpm-bench speed`."""

from collections.abc import Sequence
from contextlib import ExitStack
from datetime import UTC, datetime

import torch

from ddpm_bench.errors import UserError
from ddpm_bench.records.provenance import git_commit, hardware, package_version, versions
from ddpm_bench.runtime.observer import noting, say
from ddpm_bench.speed.case import Case
from ddpm_bench.speed.entrant import enter
from ddpm_bench.speed.machine import peak
from ddpm_bench.speed.measure import race
from ddpm_bench.speed.peers import OURS, PEERS, Peer, installed
from ddpm_bench.speed.processes import race_together
from ddpm_bench.speed.result import WORKS, Peak, Precision, Speed, Timing, Together, Work
from ddpm_bench.speed.shares import phases
from ddpm_bench.speed.work import Contender, Way

INSTALL = "pip install ddpm-bench[peers]"
PRECISIONS: dict[str, tuple[Precision, ...]] = {
    "cuda": ("bfloat16", "tf32", "float32"), "cpu": ("float32", "bfloat16"),
}  # fmt: skip
"""What networks may compute in, by device; the first is the default there."""


def contenders(
    device: torch.device, precision: Precision | None, compiled: bool, peers: Sequence[Peer] = PEERS
) -> list[Contender]:
    """Ours first, in the precision that it uses on this device, and other ways in that; then ours and the others in each."""
    every = (precision,) if precision else PRECISIONS.get(device.type, ("float32",))
    ways: list[Way] = ["compiled"] if compiled else []
    ways += ["without CUDA graphs"] if device.type == "cuda" else []
    others = [Contender(peer, each) for peer in peers if installed(peer) for each in every]
    ours = [Contender(OURS, every[0]), *(Contender(OURS, every[0], way) for way in ways)]
    return [*ours, *(Contender(OURS, each) for each in every[1:]), *others]


def measure(
    preset: str, *, device: torch.device, batch: int | None = None, repeats: int = 11,
    precision: Precision | None = None, compiled: bool = False, works: Sequence[Work] = tuple(WORKS),
    processes: Sequence[int] = (),
) -> Speed:  # fmt: skip
    """Everything that `ddpm-bench speed` prints. UserError for a precision that the device has not.

    works: the shares of a cell's time are looked at where these are all. processes: so many at a time share the device.
    """
    if precision == "tf32" and device.type != "cuda":
        raise UserError(f"--dtype tf32 is a mode of NVIDIA GPUs; on {device.type} use float32 or bfloat16.")
    case = Case.of(preset, batch, device)
    peers = [peer for peer in PEERS if isinstance(case.settings.network, peer.kinds)]
    racers = contenders(device, precision, compiled, peers)
    before = machine_peaks(device, racers, repeats)
    with noting() as notes:
        rows = [row for work in works for row in _raced(work, racers, case, repeats)]
        together = [row for work in works if processes for row in _together(work, racers[0], case, processes)]
    after = machine_peaks(device, racers, repeats)  # a machine that is busy at times shows its peak at others
    peaks = {
        precision: max(before[precision], after[precision], key=lambda found: found.convolution) for precision in before
    }
    return Speed(
        preset=case.preset,
        parameters=sum(p.numel() for p in OURS.network(case).parameters()),
        shape=case.shape,
        repeats=repeats,
        rows=tuple(row.model_copy(update={"peak": peaks[row.precision].convolution}) for row in rows),
        peaks=tuple(peaks.values()),
        together=tuple(together),
        phases=tuple(phases(case)) if set(works) == set(WORKS) else (),
        missing={peer.name: INSTALL for peer in peers if not installed(peer)},
        remarks=(*notes, *_remarks(case, [peer.name for peer in PEERS if peer not in peers])),
        hardware=hardware(device),
        versions=versions() | {peer.name: package_version(peer.name) for peer in PEERS if installed(peer)},
        git_commit=git_commit(),
        created=datetime.now(UTC).isoformat(timespec="seconds"),
    )


def _raced(work: Work, racers: Sequence[Contender], case: Case, repeats: int) -> list[Timing]:
    with ExitStack() as stack:
        entrants = [enter(work, racer, case) for racer in racers]
        for each in entrants:
            stack.callback(each.end)
        return race(work, entrants, case, repeats)


def _together(work: Work, contender: Contender, case: Case, processes: Sequence[int]) -> list[Together]:
    """None where a device does not hold so many."""
    try:
        return race_together(work, contender, case, processes)
    except RuntimeError as error:
        say(f"{work} in several processes was not timed: {error}.")
        return []


def machine_peaks(device: torch.device, racers: Sequence[Contender], repeats: int) -> dict[Precision, Peak]:
    """Of each precision that is measured."""
    return {each: peak(device, each, repeats) for each in dict.fromkeys(racer.precision for racer in racers)}


def _remarks(case: Case, without: Sequence[str]) -> list[str]:
    """without: the peers that have no such network."""
    remarks = ["Training images are random: what is in them does not change the speed."]
    remarks += [
        f"{name} has no network of the kind '{case.settings.network.kind}' and was not measured." for name in without
    ]
    if case.settings.scoring.extractor != "embedded":
        remarks.append(f"Scoring with the extractor '{case.settings.scoring.extractor}' was not timed.")
    if case.device.type != "cuda":
        remarks.append("GPU speed was not measured: this machine's result is its own.")
    return remarks
