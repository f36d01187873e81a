"""One measurement from start to finish: `ddpm-bench speed`."""

from collections.abc import Sequence
from datetime import UTC, datetime

import torch

from ddpm_bench.errors import UserError
from ddpm_bench.records.provenance import git_commit, hardware, package_version, versions
from ddpm_bench.speed.case import Case
from ddpm_bench.speed.machine import peak
from ddpm_bench.speed.measure import race_all
from ddpm_bench.speed.peers import OURS, PEERS, Peer, installed
from ddpm_bench.speed.result import Peak, Precision, Speed
from ddpm_bench.speed.shares import phases
from ddpm_bench.speed.work import Contender

INSTALL = "pip install ddpm-bench[peers]"


def contenders(
    device: torch.device, precision: Precision | None, compiled: bool, peers: Sequence[Peer] = PEERS
) -> list[Contender]:
    """Ours first, in the precision that it uses on this device; the others in each, since they leave it to the user."""
    every: Sequence[Precision] = ("bfloat16", "tf32", "float32") if device.type == "cuda" else ("float32",)
    ours, theirs = precision or every[0], (precision,) if precision else every
    found = [Contender(OURS, ours)] + [Contender(OURS, ours, compiled=True)] * compiled
    return found + [Contender(peer, each) for peer in peers if installed(peer) for each in theirs]


def measure(
    preset: str, *, device: torch.device, batch: int | None = None, repeats: int = 11,
    precision: Precision | None = None, compiled: bool = False,
) -> Speed:  # fmt: skip
    """Everything that `ddpm-bench speed` prints. UserError for a precision that the device has not."""
    if precision == "tf32" and device.type != "cuda":
        raise UserError(f"--dtype tf32 is a mode of NVIDIA GPUs; on {device.type} use float32 or bfloat16.")
    case = Case.of(preset, batch, device)
    racers = contenders(device, precision, compiled)
    before = machine_peaks(device, racers, repeats)
    rows = list(race_all(racers, case, repeats))
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
        phases=tuple(phases(case)),
        missing={peer.name: INSTALL for peer in PEERS if not installed(peer)},
        remarks=tuple(_remarks(case)),
        hardware=hardware(device),
        versions=versions() | {peer.name: package_version(peer.name) for peer in PEERS if installed(peer)},
        git_commit=git_commit(),
        created=datetime.now(UTC).isoformat(timespec="seconds"),
    )


def machine_peaks(device: torch.device, racers: Sequence[Contender], repeats: int) -> dict[Precision, Peak]:
    """Of each precision that is measured."""
    return {each: peak(device, each, repeats) for each in dict.fromkeys(racer.precision for racer in racers)}


def _remarks(case: Case) -> list[str]:
    remarks = ["Training images are random: what is in them does not change the speed."]
    if case.settings.scoring.extractor != "embedded":
        remarks.append(f"Scoring with the extractor '{case.settings.scoring.extractor}' was not timed.")
    if case.device.type != "cuda":
        remarks.append("GPU speed was not measured: this machine's result is its own.")
    return remarks
