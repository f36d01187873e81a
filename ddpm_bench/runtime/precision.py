"""Which precision a network is faster in: both are timed just now, on the network and the device at hand.

A CPU with products in bfloat16 (avx512_bf16, amx_bf16) gains, another loses twofold and more; so it is measured and not guessed.
"""

from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Literal

import torch
from pydantic import BaseModel, ConfigDict
from torch import nn

from ddpm_bench.config.networks import NetworkSettings
from ddpm_bench.networks.condition import some_condition
from ddpm_bench.runtime.observer import say
from ddpm_bench.runtime.runtime import Lowers
from ddpm_bench.runtime.timing import seconds_of
from ddpm_bench.sealed import read_sealed, write_sealed

Precision = Literal["float32", "bfloat16"]
PRECISIONS: tuple[Precision, ...] = ("float32", "bfloat16")
"""What a network may compute in; weights, schedule, loss and predictions are float32 in both."""
CPU_PIXELS = 16 * 32 * 32
"""Pixels a batch that is timed on a CPU: 16 images of 32x32, 64 of 16x16."""
ROUNDS = 5
"""Interleaved, after one that is not counted."""

Clock = Callable[[Callable[[], object], torch.device], float]
"""Seconds that a piece of work takes on a device."""


class Choice(BaseModel):
    """The precision that was faster. seconds: of a call in each, the median over rounds; none where only one was possible."""

    model_config = ConfigDict(frozen=True)

    precision: Precision
    seconds: dict[Precision, float]


def faster(
    network: nn.Module, shape: tuple[int, int, int], batch: int, device: torch.device, training: bool,
    clock: Clock = seconds_of, settings: NetworkSettings | None = None,
) -> Choice:  # fmt: skip
    """float32, unless a step of `batch` images x_t of `shape` takes less time in bfloat16: forward, and backward in training.
    settings: of a network that may be told more than time.

    The network is moved to the device, and its gradients are gone afterwards; torch's generators are as they were.
    """
    if not isinstance(network, Lowers):
        return Choice(precision="float32", seconds={})
    network.to(device).train(training)
    if device.type == "cpu":
        batch = max(1, min(batch, CPU_PIXELS // (shape[1] * shape[2])))
    seconds: dict[Precision, list[float]] = {each: [] for each in PRECISIONS}
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []), torch.inference_mode(not training):
        x_t, step = torch.randn(batch, *shape, device=device), torch.zeros(batch, dtype=torch.int64, device=device)
        condition = settings and some_condition(settings, shape[0], batch, device)
        told = (x_t, step) if condition is None else (x_t, step, condition)

        def call() -> None:
            made = network(*told)
            if training:
                made.square().mean().backward()

        for _ in range(1 + ROUNDS):
            for each in PRECISIONS:
                network.in_bfloat16 = each == "bfloat16"
                seconds[each].append(clock(call, device))
    network.zero_grad(set_to_none=True)
    taken = {each: median(found[1:]) for each, found in seconds.items()}
    return Choice(precision=min(PRECISIONS, key=lambda each: taken[each]), seconds=taken)  # of equal ones the first


def settled(choose: Callable[[], Choice], kept: Path | None) -> Precision:
    """The choice that the file `kept` holds, or a new one, which is written there: a run that goes on never changes it."""
    if kept and (held := read_sealed(kept)):
        choice = Choice.model_validate(held)
        say(f"Networks compute in {choice.precision}, as when this was begun ('{kept}').")
        return choice.precision
    choice = choose()
    if kept:
        write_sealed(kept, choice.model_dump(mode="json"))
    say(f"Networks compute in {choice.precision}: {_why(choice)}.")
    return choice.precision


def _why(choice: Choice) -> str:
    if not choice.seconds:
        return "this one has no other precision"
    one, other = (f"{choice.seconds[each]:.3g} s in {each}" for each in PRECISIONS)
    return f"a call took {one} and {other}"
