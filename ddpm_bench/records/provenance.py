"""Where a number came from: versions, git commit, hardware."""

import importlib.metadata
import os
import platform
import subprocess
from pathlib import Path
from typing import Any

import torch

from ddpm_bench import __version__
from ddpm_bench.errors import UserError, near_miss
from ddpm_bench.networks.compiled import check_compiler


def versions() -> dict[str, str]:
    """Versions of what the numbers depend on."""
    packages = ("torch", "torchvision", "torch-fidelity", "numpy", "scipy")
    found = {name: package_version(name) for name in packages}
    return {"ddpm-bench": __version__, "python": platform.python_version()} | found


def package_version(name: str) -> str:
    """Of an installed distribution."""
    return importlib.metadata.version(name)


def git_commit() -> str | None:
    """The commit of the source tree, with '-dirty' when package code differs from it; None for an installed package."""
    top = Path(__file__).parent.parent.parent
    if not (top / ".git").exists():
        return None
    try:
        commit = _git(top, "rev-parse", "HEAD")
        changed = _git(top, "status", "--porcelain", "--", "ddpm_bench", "ablations")
    except (OSError, subprocess.CalledProcessError):
        return None
    return commit + ("-dirty" if changed else "")


def _git(top: Path, *arguments: str) -> str:
    run = subprocess.run(["git", "-C", str(top), *arguments], capture_output=True, text=True, check=True)
    return run.stdout.strip()


def hardware(device: torch.device, compiled: bool = False) -> dict[str, Any]:
    """The machine, as far as it matters for speed and for the last digits.

    Of a GPU also what networks compute in there, what float32 means ("ieee", or "tf32" with factors of 10 bits), and
    whether the fastest algorithms were searched for. `compiled`: the networks were.
    """
    facts: dict[str, Any] = {
        "device": device.type,
        "system": platform.system(),
        "machine": platform.machine(),
        "processor": _processor(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
    }
    if device.type == "cuda":
        facts |= {
            "gpu": torch.cuda.get_device_name(device),
            "cuda": torch.version.cuda,
            "networks": "bfloat16 autocast, float32 weights",
            "float32_convolutions": torch.backends.cudnn.conv.fp32_precision,
            "float32_products": torch.backends.cuda.matmul.fp32_precision,
            "cudnn_benchmark": torch.backends.cudnn.benchmark,
        }
    return facts | {"compiled": True} if compiled else facts


def _processor() -> str:
    """A readable processor name; the kernel's on Linux, where `platform` has none."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    return next(
        (line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.processor()
    )


def choose_device(name: str, compiled: bool = False) -> torch.device:
    """`auto` takes CUDA, then MPS, then the CPU. UserError when the named device is not there.

    A GPU is set up for the whole process: float32 means float32 there, since what may be rounded is in bfloat16
    already, and convolutions, whose sizes stay the same, are searched for their fastest algorithm. `compiled`: networks
    shall be; UserError where that does not work.
    """
    device = _present(name)
    if device.type == "cuda":
        torch.backends.cudnn.conv.fp32_precision = torch.backends.cuda.matmul.fp32_precision = "ieee"
        torch.backends.cudnn.benchmark = True
    if compiled:
        check_compiler(device)
    return device


def _present(name: str) -> torch.device:
    present = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if name == "auto":
        return torch.device(next(kind for kind in ("cuda", "mps", "cpu") if present[kind]))
    if name not in present:
        raise UserError(f"There is no device '{name}'{near_miss(name, ('auto', *present))}")
    if not present[name]:
        found = ", ".join(kind for kind, there in present.items() if there)
        raise UserError(f"--device {name}: torch {torch.__version__} finds none on this machine. Use --device {found}.")
    return torch.device(name)
