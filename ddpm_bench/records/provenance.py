"""Where a number came from: versions, git commit, hardware."""

import importlib.metadata
import os
import platform
import subprocess
from pathlib import Path
from typing import Any, Literal

import torch

from ddpm_bench import __version__
from ddpm_bench.runtime import ranks
from ddpm_bench.runtime.device import CONVOLUTIONS, computed_in


def versions(*more: str) -> dict[str, str]:
    """Versions of what the numbers depend on; of the packages `more` too."""
    packages = ("torch", "torchvision", "torch-fidelity", "numpy", "scipy", *more)
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


def hardware(
    device: torch.device, compiled: bool = False, precision: Literal["float32", "bfloat16"] | None = None
) -> dict[str, Any]:
    """The machine, as far as it matters for speed and for the last digits.

    Of a GPU also what networks compute in there, what float32 means ("ieee", or "tf32" with factors of 10 bits), and
    whether the fastest algorithms were searched for. `compiled`: the networks were. `precision`: what they computed in; None:
    as they do on the device. On a CPU float32 goes without saying. Ranks are told where there are several.
    """
    lowered = computed_in(device.type, precision)
    networks = "bfloat16 autocast, float32 weights" if lowered == "bfloat16" else "float32"
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
            "networks": networks,
            "float32_convolutions": CONVOLUTIONS.fp32_precision,
            "float32_products": torch.backends.cuda.matmul.fp32_precision,
            "cudnn_benchmark": torch.backends.cudnn.benchmark,
        }
    elif lowered == "bfloat16":
        facts["networks"] = networks
    facts |= {"ranks": ranks.size()} if ranks.size() > 1 else {}
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
