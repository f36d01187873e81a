"""Where the jobs of a grid run; `--launcher` names one.

launcher.py   what a launcher is
local.py      in this process, or several at a time in processes of their own
worker.py     such a process, and what its parent holds of it
cluster.py    as tasks of a cluster, which begin again when they die
ray.py        of a Ray cluster
slurm.py      of a Slurm queue
wire.py       what a job tells, whatever carries it
news_file.py  a file that carries it
"""

import os
from dataclasses import fields

import torch

from ddpm_bench.errors import UserError, near_miss
from ddpm_bench.experiment.launchers.launcher import Asked, Launcher
from ddpm_bench.experiment.launchers.local import Inline, Processes, check_devices
from ddpm_bench.experiment.launchers.ray import Ray
from ddpm_bench.experiment.launchers.slurm import Slurm

__all__ = [
    "LAUNCHERS",
    "Asked",
    "Inline",
    "Launcher",
    "Processes",
    "Ray",
    "Slurm",
    "choose_launcher",
    "device_elsewhere",
]

LAUNCHERS: dict[str, type[Launcher]] = {"inline": Inline, "local": Processes, "ray": Ray, "slurm": Slurm}
RENAMED = {"processes": "local"}


def choose_launcher(asked: Asked, jobs: int, device: torch.device) -> Launcher:
    """The launcher that is asked for, for so many jobs; where none is, by how many run at a time.

    At a time, where nothing is said: on a cluster all; here as many as `--devices`, else as the cores hold on the CPU, and one on a GPU;
    never more than there are jobs. UserError for an unknown name, and for an option that the launcher has not.
    """
    kind = _named(asked.launcher) if asked.launcher else Processes
    given = {name: value for name, value in vars(asked).items() if value is not None and name != "launcher"}
    cores = (os.cpu_count() or 1) // (asked.cpus_per_cell or 1)
    usual = len(asked.devices) if asked.devices else cores if device.type == "cpu" else 1
    workers = max(1, min(asked.workers or (jobs if kind.elsewhere else usual), jobs))
    if not asked.launcher and workers == 1 and not given.keys() - {"workers"}:
        kind = Inline
    _check_options(asked, given, kind)
    if asked.devices:
        check_devices(asked.devices, asked.workers, device)
    return kind(**given | ({} if kind is Inline else {"workers": workers}))


def device_elsewhere(asked: Asked, device: str) -> torch.device | None:
    """The device of the tasks of a cluster, which this machine need not have; None where jobs run here.

    A GPU where `--gpus-per-cell` asks for one. UserError where `--device` says otherwise.
    """
    if not asked.launcher or not _named(asked.launcher).elsewhere:
        return None
    found = "cuda" if asked.gpus_per_cell else "cpu"
    if device not in ("auto", found):
        raise UserError(
            f"--device {device} does not go with --launcher {asked.launcher}: its cells run on a GPU with --gpus-per-cell, and on "
            "a CPU without."
        )
    return torch.device(found)


def _named(name: str) -> type[Launcher]:
    if name in RENAMED:
        raise UserError(f"--launcher {name} is called --launcher {RENAMED[name]} now.")
    if name not in LAUNCHERS:
        raise UserError(f"There is no launcher '{name}'{near_miss(name, LAUNCHERS)}")
    return LAUNCHERS[name]


def _check_options(asked: Asked, given: dict[str, object], kind: type[Launcher]) -> None:
    """UserError for the first option that the launcher has not; says which have it."""
    if kind is Inline and (asked.workers or 1) > 1:
        raise UserError(f"--workers {asked.workers} does not go with --launcher inline, which runs one job at a time.")
    for name in given:
        if name not in _options(kind):
            option = f"--{name.replace('_', '-')}"
            having = " or ".join(f"--launcher {each}" for each, other in LAUNCHERS.items() if name in _options(other))
            raise UserError(f"{option} goes with {having}, not with --launcher {asked.launcher or 'local'}.")


def _options(kind: type[Launcher]) -> set[str]:
    return {field.name for field in fields(kind)}  # type: ignore[arg-type]  # every launcher is a dataclass
