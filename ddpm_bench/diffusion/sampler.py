"""Ancestral sampling (Algorithm 2): x_T ~ N(0, 1), then x_{t-1} = mean + sigma_t z for t = T..1, with z = 0 at t = 1

The last step returns its mean, and the result is rounded to uint8. A strided chain is the same loop over a respaced
diffusion.
"""

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from ddpm_bench.data.images import to_uint8
from ddpm_bench.diffusion.noise import BlockNoise, batches
from ddpm_bench.diffusion.reverse import Diffusion, Network, all_at, evaluating
from ddpm_bench.interrupt import NEVER, Stop


def step(diffusion: Diffusion, network: Network, x_t: Tensor, t: Tensor, noise: Tensor, clip_x0: bool) -> Tensor:
    """x_{t-1}, like x_t (B, C, H, W): mean + sigma_t * noise, and the mean alone where t = 1. t: int64 (B,) in 1..T."""
    reverse = diffusion.reverse(network, x_t, t, clip_x0)
    noisy = reverse.mean + torch.exp(0.5 * reverse.log_variance) * noise
    last = (t == 1).reshape(-1, *(1,) * (x_t.ndim - 1))
    return torch.where(last, reverse.mean, noisy).to(x_t.dtype)


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
) -> Iterator[tuple[int, Tensor]]:
    """The samples with indices first..first+count-1, batch by batch: (index of its first one, uint8 (b, C, H, W), CPU).

    shape: (C, H, W). A sample's noise depends only on `seed` and its index, so another `batch` or `first` gives the
    same images up to float rounding. Modules sample in evaluation mode and are put back as they were after each batch.
    `on_progress` hears the number of samples done, those of a batch in equal parts over its steps.
    Raises Interrupted between two steps when `stop` is set: what was handed over before is complete.
    """
    for done, size in batches(count, batch):
        noise = BlockNoise(seed, first + done, size, shape, device)

        def on_step(steps: int, done: int = done, size: int = size) -> None:
            if on_progress is not None:
                on_progress(done + size * steps // diffusion.schedule.T)

        images = _sample_batch(diffusion, network, noise, clip_x0, stop, on_step)
        yield first + done, images.clone()  # outside of inference mode, so that the caller may write into it


@torch.inference_mode()
def _sample_batch(
    diffusion: Diffusion,
    network: Network,
    noise: BlockNoise,
    clip_x0: bool,
    stop: Stop,
    on_step: Callable[[int], None],
) -> Tensor:
    T = diffusion.schedule.T
    with evaluating(network):
        x = noise.draw()  # x_T
        for t in range(T, 0, -1):
            stop.check()
            x = step(diffusion, network, x, all_at(t, len(x), x.device), noise.draw(), clip_x0)
            on_step(T + 1 - t)
    return to_uint8(x).cpu()
