"""torch.compile: minutes once, faster steps afterwards. Off unless asked for."""

import torch
from torch import nn

from ddpm_bench.errors import UserError
from ddpm_bench.networks.mixed import Mixed


def compile_network(network: nn.Module) -> None:
    """Have the network compiled, in place, at its first call with each shape: sizes hardly ever change in a run."""
    parts = (network.ends, network.middle) if isinstance(network, Mixed) else ()  # each is called alone, too
    for each in (network, *parts):
        each.compile(dynamic=False)


def is_compiled(network: nn.Module) -> bool:
    return network._compiled_call_impl is not None


def check_compiler(device: torch.device) -> None:
    """UserError where torch.compile does not work on this machine: better said before hours than after them."""
    try:
        torch.compile(torch.nn.functional.silu)(torch.ones(8, device=device))
    except RuntimeError as error:
        told = " ".join(str(error).split())[:300]
        raise UserError(f"--compile: torch.compile does not work on this machine ({told}). Leave it out.") from error
