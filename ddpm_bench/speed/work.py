"""One call of each kind of work, of any contender: what is timed.

training   x_0, t and noise drawn, forward, L_simple, backward, clipping, Adam, average of the weights. Ours is
           `Trainer`'s own step; the others get a plain loop of torch's fastest parts (fused Adam, foreach average).
sampling   one step of Algorithm 2 with its noise: ours as `sample` walks a chain, the others by their own samplers.
bound      one term of the bound: our own arithmetic around each contender's network, since no other package has it.
"""

import contextlib
import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import mse_loss
from torch.nn.utils import clip_grad_norm_
from torch.optim.swa_utils import get_ema_multi_avg_fn

from ddpm_bench.data.images import to_model
from ddpm_bench.diffusion.bound import bound_term
from ddpm_bench.diffusion.noise import BOUND, BlockNoise
from ddpm_bench.diffusion.samplers import Chain
from ddpm_bench.networks.compiled import compile_network
from ddpm_bench.runtime.recorded import launched_one_by_one
from ddpm_bench.runtime.runtime import Runtime
from ddpm_bench.speed.case import Case
from ddpm_bench.speed.machine import float32_of
from ddpm_bench.speed.peers import Ours, Peer
from ddpm_bench.speed.result import Precision, Work
from ddpm_bench.training.trainer import Trainer, Training

Call = Callable[[], object]
Way = Literal["compiled", "without CUDA graphs"]


@dataclass(frozen=True)
class Contender:
    """A peer at a precision. way: another than its users have it by; None: that."""

    peer: Ours | Peer
    precision: Precision
    way: Way | None = None

    @property
    def name(self) -> str:
        return f"{self.peer.name}, {self.way}" if self.way else self.peer.name

    @property
    def is_ours(self) -> bool:
        return isinstance(self.peer, Ours)

    def runtime(self, case: Case) -> Runtime:
        """Where the contender runs, and in which precision; the networks of others are told by `arithmetic`."""
        precision: Literal["float32", "bfloat16"] = "bfloat16" if self.precision == "bfloat16" else "float32"
        return replace(case.runtime, precision=precision if self.is_ours else None)

    @contextlib.contextmanager
    def arithmetic(self, case: Case) -> Iterator[None]:
        """As this contender computes: a GPU's float32, and autocast for a network that does not do it itself."""
        lowered = self.precision == "bfloat16" and not self.is_ours
        launched = launched_one_by_one() if self.way == "without CUDA graphs" else contextlib.nullcontext()
        with launched, float32_of(self.precision), torch.autocast(case.device.type, torch.bfloat16, enabled=lowered):
            yield

    def call(self, work: Work, case: Case, folder: Path) -> Call:
        """The work as a function to be called again and again. `folder`: for what a Trainer may write."""
        runtime, peer = self.runtime(case), self.peer
        torch.manual_seed(0)
        network = runtime.place(peer.network(case))
        if self.way == "compiled":
            compile_network(network)
        if work == "training":
            ours = self.is_ours
            call = trainer_of(case, network, folder, runtime).train_step if ours else plain_training(case, network)
        elif work == "sampling":
            call = our_sampling(case, network) if isinstance(peer, Ours) else their_sampling(case, network.eval(), peer)
        else:
            call = bound(case, network.eval())

        def run() -> None:
            with self.arithmetic(case):
                call()

        return run


def trainer_of(case: Case, network: nn.Module, folder: Path, runtime: Runtime) -> Trainer:
    """The trainer of a cell, with random images."""
    settings = case.settings.training.model_copy(update={"batch": case.batch})
    network.train()
    training = Training(case.denoiser(network, clip_x0=False), case.objective, case.images(), settings, 0, {})
    return Trainer(training, folder, runtime)


def plain_training(case: Case, network: nn.Module) -> Call:
    """What a user of a bare network writes: Algorithm 1 with the paper's optimizer and average."""
    settings, T = case.settings.training, case.diffusion.schedule.T
    signal, noise = (
        getattr(case.diffusion.schedule, name).float().to(case.device)
        for name in ("sqrt_alpha_bar", "sqrt_one_minus_alpha_bar")
    )
    images, parameters = case.images().to(case.device), list(network.train().parameters())
    fused = case.device.type in ("cpu", "cuda", "mps")
    optimizer = torch.optim.Adam(parameters, lr=settings.learning_rate, fused=fused)
    averages, update = [p.detach().clone() for p in parameters], get_ema_multi_avg_fn(settings.ema_decay)

    def step() -> None:
        x0 = to_model(images[torch.randint(len(images), (case.batch,), device=case.device)])
        if settings.flips:
            x0 = torch.where(torch.rand(case.batch, 1, 1, 1, device=case.device) < 0.5, x0.flip(3), x0)
        t, eps = torch.randint(T, (case.batch,), device=case.device), torch.randn_like(x0)
        x_t = signal[t, None, None, None] * x0 + noise[t, None, None, None] * eps
        loss = mse_loss(network(x_t, t).float(), eps)
        optimizer.zero_grad()
        loss.backward()
        clip_grad_norm_(parameters, settings.longest_gradient)
        optimizer.step()
        update(averages, [p.detach() for p in parameters], 0)

    return step


def our_sampling(case: Case, network: nn.Module) -> Call:
    """The next step of an endless row of chains."""

    chain = Chain(case.denoiser(network))

    def chains() -> Iterator[object]:
        for seed in itertools.count():
            noise = BlockNoise(seed, 0, case.eval_batch, case.shape, case.device)
            yield from chain.denoise(noise.draw(), chain.T, noise)

    steps = chains()
    return lambda: next(steps)


def their_sampling(case: Case, network: nn.Module, peer: Peer) -> Call:
    step, T = peer.sampling_step(network, case), case.diffusion.schedule.T
    x_T = torch.randn(case.eval_batch, *case.shape, device=case.device)
    state: tuple[Tensor, int] = (x_T, T - 1)

    def call() -> None:
        nonlocal state
        x_t, t = state
        x_t = step(x_t, t)
        state = (x_t, t - 1) if t else (x_T, T - 1)

    return call


def bound(case: Case, network: nn.Module) -> Call:
    denoiser = case.denoiser(network)
    T = denoiser.T
    x0 = to_model(case.images(case.eval_batch).to(case.device))
    t = torch.arange(case.eval_batch, device=case.device) * T // case.eval_batch + 1
    noise = BlockNoise(0, 0, case.eval_batch, case.shape, case.device, stream=BOUND)

    @torch.inference_mode()
    def call() -> None:
        bound_term(denoiser, x0, t, noise.draw())

    return call
