"""Ancestral sampling (Algorithm 2): x_T ~ N(0, 1), then x_{t-1} = mean + sigma_t z for t = T..1, with z = 0 at t = 1

The last step returns its mean, and the result is rounded to uint8. A strided chain is the same loop over a respaced
diffusion. The loop, `denoise`, may begin at any x_t; what else is drawn from chains is in `chains.py`.
"""

from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from ddpm_bench.data.images import to_uint8
from ddpm_bench.diffusion.noise import BlockNoise, batches
from ddpm_bench.diffusion.reverse import Diffusion, Network, ReverseStep, all_at, evaluating
from ddpm_bench.errors import NotFinite
from ddpm_bench.runtime.interrupt import NEVER, Stop


class Denoised(NamedTuple):
    """Step `t` of a chain, done: `x0` (B, C, H, W) is what x_t is predicted to become (eq. 15), `x` is x_{t-1}."""

    t: int
    x0: Tensor
    x: Tensor


Watch = Callable[[int, Denoised], None]
"""watch(first, done): a step of the samples first..first+B-1."""


def step(diffusion: Diffusion, network: Network, x_t: Tensor, t: Tensor, noise: Tensor, clip_x0: bool) -> Tensor:
    """x_{t-1}, like x_t (B, C, H, W): mean + sigma_t * noise, and the mean alone where t = 1. t: int64 (B,) in 1..T."""
    return _previous(diffusion.reverse(network, x_t, t, clip_x0), x_t, t, noise)


@torch.inference_mode()
def denoise(
    diffusion: Diffusion, network: Network, x_t: Tensor, t: int, noise: BlockNoise, *, clip_x0: bool, stop: Stop = NEVER
) -> Iterator[Denoised]:
    """The reverse process from x_t (B, C, H, W) down to x_0, steps t..1.

    Each step takes one draw of `noise`, of B images or of one that all share. Modules are in evaluation mode meanwhile.
    Raises Interrupted between two steps when `stop` is set, and NotFinite for an x_0 that is no image: rounding to
    uint8 would hide it.
    """
    with evaluating(network):
        for s in range(t, 0, -1):
            stop.check()
            steps = all_at(s, len(x_t), x_t.device)
            reverse = diffusion.reverse(network, x_t, steps, clip_x0)
            x_t = _previous(reverse, x_t, steps, noise.draw())
            if s == 1 and (bad := int((~x_t.isfinite()).flatten(1).any(1).sum())):
                raise NotFinite(f"{bad} of {len(x_t)} samples are not finite (NaN or infinity)")
            yield Denoised(s, reverse.x0, x_t)


def sample(
    diffusion: Diffusion,
    network: Network,
    *,
    shape: tuple[int, int, int],
    count: int,
    seed: int,
    batch: int,
    device: torch.device | str,
    first: int = 0,
    clip_x0: bool = True,
    stop: Stop = NEVER,
    on_progress: Callable[[int], None] | None = None,
    watch: Watch | None = None,
) -> Iterator[tuple[int, Tensor]]:
    """The samples with indices first..first+count-1, batch by batch: (index of its first one, uint8 (b, C, H, W), CPU).

    shape: (C, H, W). A sample's noise depends only on `seed` and its index, so another `batch` or `first` gives the
    same images up to float rounding. Modules sample in evaluation mode and are put back as they were after each batch.
    `on_progress` hears the number of samples done, those of a batch in equal parts over its steps.
    Raises Interrupted between two steps when `stop` is set: what was handed over before is complete.
    """
    T = diffusion.schedule.T
    for done, size in batches(count, batch):
        noise = BlockNoise(seed, first + done, size, shape, device)
        x_T = noise.draw()
        for now in denoise(diffusion, network, x_T, T, noise, clip_x0=clip_x0, stop=stop):
            if watch is not None:
                watch(first + done, now)
            if on_progress is not None:
                on_progress(done + size * (T + 1 - now.t) // T)
        yield first + done, to_uint8(now.x).cpu().clone()  # outside of inference mode: the caller may write into it


def _previous(reverse: ReverseStep, x_t: Tensor, t: Tensor, noise: Tensor) -> Tensor:
    """A draw of p(x_{t-1} | x_t), like x_t; its mean where t = 1."""
    noisy = reverse.mean + torch.exp(0.5 * reverse.log_variance) * noise
    last = (t == 1).reshape(-1, *(1,) * (x_t.ndim - 1))
    return torch.where(last, reverse.mean, noisy).to(x_t.dtype)
