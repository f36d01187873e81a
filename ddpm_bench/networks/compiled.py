"""torch.compile: minutes once, faster steps afterwards. Off unless asked for."""

from typing import Literal

import torch
from torch import nn

from ddpm_bench.errors import UserError
from ddpm_bench.networks.mixed import Mixed

Mode = Literal["default", "reduce-overhead"]
"""As torch names them; reduce-overhead replays a CUDA graph, which launches all kernels of a network at once."""


def compile_network(network: nn.Module, mode: Mode = "default") -> None:
    """Have the network compiled, in place, at its first call with each shape: sizes hardly ever change in a run."""
    parts = (network.ends, network.middle) if isinstance(network, Mixed) else ()  # each is called alone, too
    for each in (network, *parts):
        each.compile(dynamic=False, mode=mode)


def is_compiled(network: nn.Module) -> bool:
    return network._compiled_call_impl is not None


def check_compiler(device: torch.device) -> None:
    """UserError where torch.compile does not work on this machine: better said before hours than after them."""
    try:
        torch.compile(torch.nn.functional.silu)(torch.ones(8, device=device))
    except RuntimeError as error:
        told = " ".join(str(error).split())[:300]
        raise UserError(f"--compile: torch.compile does not work on this machine ({told}). Leave it out.") from error
